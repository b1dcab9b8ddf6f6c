package agent_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// withPods is a cluster with a pod on each node, whose packets travel as m says.
func withPods(t *testing.T, m mode, test func(*testing.T, *cluster), names ...string) {
	inCluster(t, func(t *testing.T, c *cluster) {
		for _, n := range c.nodes {
			n.add("pod-" + n.name)
		}
		c.setMode(m)
		c.settle()
		c.checkTransport(m)
		test(t, c)
	}, names...)
}

// TestKilledWhileChanging holds that an agent which ends at any moment of a change
// and starts anew loses no packet, and that the change comes to its end.
func TestKilledWhileChanging(t *testing.T) {
	for _, change := range []struct{ from, to mode }{
		{plain, vxlanAlways}, {vxlanAlways, plain}, {ipipAlways, vxlanCross}, {vxlanCross, wireguard}, {wireguard, ipipCross},
	} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s to %s, seed %d", change.from, change.to, seed), func(t *testing.T) {
				withPods(t, change.from, func(t *testing.T, c *cluster) {
					c.lagging(seed, 3*time.Second)
					stop := c.watchFlows()
					c.setMode(change.to)
					for i, name := range []string{"a1", "b1", "a2", "a1"} {
						time.Sleep(time.Duration(300+700*seed+400*uint64(i)) * time.Millisecond)
						n := c.nodes[name]
						n.halt()
						time.Sleep(time.Second)
						n.start()
					}
					time.Sleep(10 * time.Minute) // peers keep a restarting node's routes for two
					synctest.Wait()
					if err := stop(); err != nil {
						t.Error(err)
					}
					c.checkTransport(change.to)
					c.checkDevices(change.to.devices()...)
					c.checkQuiet()
				}, "a1", "a2", "b1")
			})
		}
	}
}

// TestRestartWithTunnels holds that an agent which finds everything in place
// writes nothing, neither to the kernel nor to the datastore.
func TestRestartWithTunnels(t *testing.T) {
	for _, m := range []mode{plain, ipipAlways, vxlanCross, vxlanAlways, wireguard} {
		t.Run(m.String(), func(t *testing.T) {
			withPods(t, m, func(t *testing.T, c *cluster) {
				n := c.nodes["b1"]
				n.halt()
				before, flushed := n.kernel.Writes(), len(n.kernel.Flushed())
				c.mu.Lock()
				c.writes = nil
				c.mu.Unlock()
				n.start()
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				flushed = len(n.kernel.Flushed()) - flushed // connections of addresses that nobody uses
				if wrote := n.kernel.Writes() - before - flushed; wrote > 0 {
					t.Errorf("%d writes to the kernel", wrote)
				}
				c.mu.Lock()
				if len(c.writes) > 0 {
					t.Errorf("writes to the store: %v", c.writes)
				}
				c.mu.Unlock()
				c.checkTransport(m)
			}, "a1", "b1")
		})
	}
}

// node returns a node's own Node.
func (c *cluster) node(name string) *v1.Node {
	c.t.Helper()
	o, err := c.store.Get(c.t.Context(), datastore.Key{Kind: "Node", Name: name})
	if err != nil {
		c.t.Fatal(err)
	}
	return o.(*v1.Node)
}

// TestSpoiltNode holds that the agent mends what others write into its fields, and
// that nothing is lost meanwhile.
func TestSpoiltNode(t *testing.T) {
	withPods(t, vxlanAlways, func(t *testing.T, c *cluster) {
		want := c.node("a1").Spec
		for name, spoil := range map[string]func(*v1.Node){
			"an old copy": func(n *v1.Node) {
				n.Spec = v1.NodeSpec{BGP: &v1.NodeBGP{IPv4Address: n.Spec.BGP.IPv4Address, IPv6Address: n.Spec.BGP.IPv6Address}}
			},
			"another address": func(n *v1.Node) { n.Spec.IPv4VXLANTunnelAddr = "10.244.255.1" },
			"a tunnel there is none of": func(n *v1.Node) {
				n.Spec.WireGuard = &v1.NodeWireGuard{PublicKey: kernel.WireGuardKey{1}.String(), ListeningPort: 1, InterfaceIPv4Address: "10.244.255.2"}
				n.Spec.BGP.IPv4IPIPTunnelAddr = "10.244.255.3"
			},
		} {
			stop := c.watchFlows()
			if _, err := datastore.Update(t.Context(), c.store, datastore.Key{Kind: "Node", Name: "a1"}, func(n *v1.Node) error {
				spoil(n)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			c.settle()
			if diff := cmp.Diff(want, c.node("a1").Spec); diff != "" {
				t.Errorf("%s was not mended (-want +got):\n%s", name, diff)
			}
			if err := stop(); err != nil && name != "another address" {
				t.Errorf("%s: %v", name, err)
			}
		}
		c.checkTransport(vxlanAlways)
		c.checkQuiet()
	}, "a1", "a2", "b1")
}

// TestLateVTEP holds that a node whose tunnel comes late gets its route when it
// does, and that its lateness is told.
func TestLateVTEP(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1, a2 := c.nodes["a1"], c.nodes["a2"]
		a1.add("one")
		resp := a2.add("two")
		c.settle()
		a2.kernel.Fail("set", kernel.LinkVXLAN4, kernel.ErrBusy)
		stop := c.watchFlows()
		c.setMode(vxlanAlways)
		c.settle()
		routes, err := a1.agent.Routes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const reason = "the way before; stays while the new one waits for node a2 to publish its VXLAN address"
		told := false
		for _, r := range routes {
			p := netip.MustParsePrefix(r.Dst)
			if p.Contains(resp.IPv4) && !p.IsSingleIP() {
				told = r.InKernel && r.Reason == reason
				if !told {
					t.Errorf("route: %+v, want the reason %q", r, reason)
				}
			}
		}
		if !told {
			t.Errorf("no route of %s in %v", resp.IPv4, routes)
		}
		if got := programmed(t, a2); got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, "tunnel vxlan.cairn") {
			t.Errorf("condition of a node whose device fails: %+v", got)
		}
		a2.kernel.Fail("set", kernel.LinkVXLAN4, nil)
		c.settle()
		if err := stop(); err != nil {
			t.Error(err)
		}
		c.checkTransport(vxlanAlways)
		c.checkQuiet()
	}, "a1", "a2")
}

// TestPromptTunnel holds how soon packets are in the tunnel after a pool's mode
// has changed: nothing on the way waits for anything.
func TestPromptTunnel(t *testing.T) {
	for _, m := range []mode{ipipAlways, vxlanAlways, wireguard} {
		t.Run(m.String(), func(t *testing.T) {
			withPods(t, plain, func(t *testing.T, c *cluster) {
				c.setMode(m)
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				c.checkTransport(m)
			}, "a1", "a2", "b1")
		})
	}
}

// TestLackingIPIP holds that a kernel without IPIP is told, that what needs it has
// no route, that everything else works, and that it is used once it is there.
func TestLackingIPIP(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1, b1 := c.nodes["a1"], c.nodes["b1"]
		a1.kernel.Lack(kernel.IPIP, true)
		a1.add("one")
		far := b1.add("two")
		c.setMode(ipipAlways)
		c.settle()
		if got := programmed(t, a1); got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, "tunnel tunl0") || !strings.Contains(got.Message, "ipip") {
			t.Errorf("condition: %+v", got)
		}
		status, err := a1.agent.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(status.Status.Issues, func(i v1.Issue) bool {
			return i.Object == "IPPool pods" && i.Field == "spec.ipipMode" && strings.Contains(i.Reason, "this kernel has no ipip")
		}) {
			t.Errorf("issues: %v", status.Status.Issues)
		}
		if len(status.Status.Tunnels) != 1 || status.Status.Tunnels[0].State != v1.TunnelFailing {
			t.Errorf("tunnels: %+v", status.Status.Tunnels)
		}
		if c.node("a1").Spec.BGP.IPv4IPIPTunnelAddr != "" {
			t.Error("it publishes a tunnel that it has not got")
		}
		if k, _, _ := lookup(a1.kernel, far.IPv4); k.Dst.Bits() > 0 {
			t.Errorf("%s is routed by %s", far.IPv4, k)
		}
		if err := c.send(a1, far.IPv6, "two", 8); err != nil {
			t.Errorf("IPv6 does not work: %v", err)
		}
		a1.add("three") // so do pods
		c.settle()
		c.checkQuietBut(func(n *node) bool { return n == a1 })
		a1.kernel.Lack(kernel.IPIP, false)
		time.Sleep(time.Minute)
		c.settle()
		c.checkTransport(ipipAlways)
		if got := programmed(t, a1); got.Status != metav1.ConditionTrue {
			t.Errorf("condition with IPIP: %+v", got)
		}
	}, "a1", "b1")
}

// TestNodeMoves holds that a node which changes its address is reached by all
// others in every tunnel.
func TestNodeMoves(t *testing.T) {
	for _, m := range []mode{ipipCross, vxlanAlways, wireguard} {
		t.Run(m.String(), func(t *testing.T) {
			withPods(t, m, func(t *testing.T, c *cluster) {
				n := c.nodes["a2"]
				n.halt()
				for _, p := range []netip.Prefix{n.v4, n.v6} {
					n.kernel.DelAddr(kernel.Addr{Link: "eth0", Prefix: p})
				}
				n.v4, n.v6 = netip.MustParsePrefix("192.0.2.77/24"), netip.MustParsePrefix("2001:db8:a::77/64")
				for _, p := range []netip.Prefix{n.v4, n.v6} {
					n.kernel.AddAddr(kernel.Addr{Link: "eth0", Prefix: p})
				}
				n.addDefaults()
				n.start()
				c.peerWithRouters()
				time.Sleep(5 * time.Minute)
				c.settle()
				c.checkTransport(m)
				c.checkMatrix()
				c.checkQuiet()
			}, "a1", "a2", "b1")
		})
	}
}

// checkQuietBut is checkQuiet for the kernels of some nodes only.
func (c *cluster) checkQuietBut(noisy func(*node) bool) {
	c.t.Helper()
	swap := func(nodes map[string]*node) (old map[string]*node) {
		c.world.Lock()
		defer c.world.Unlock()
		old, c.nodes = c.nodes, nodes
		return old
	}
	quiet := maps.Clone(c.nodes)
	maps.DeleteFunc(quiet, func(_ string, n *node) bool { return noisy(n) })
	defer swap(swap(quiet))
	c.checkQuiet()
}

// TestKernelBecomesLacking holds that a node which can't have WireGuard any more
// takes back that it has, and is reached otherwise.
func TestKernelBecomesLacking(t *testing.T) {
	withPods(t, wireguard, func(t *testing.T, c *cluster) {
		n := c.nodes["a1"]
		n.halt()
		n.kernel.DelLink(kernel.LinkWireGuard)
		n.kernel.Lack(kernel.WireGuard, true)
		n.start()
		c.settle()
		if got := c.node("a1").Spec.WireGuard; got != nil {
			t.Errorf("it publishes %+v", got)
		}
		for _, to := range []string{"a2", "b1"} {
			for _, ends := range [][2]*node{{n, c.nodes[to]}, {c.nodes[to], n}} {
				src, dst := ends[0].pods["pod-"+ends[0].name].IPv4, ends[1].pods["pod-"+ends[1].name].IPv4
				if via, err := c.travel(ends[0], packet{src: src, dst: dst}, 12); err != nil || via != "" {
					t.Errorf("%s to %s by %q, %v", ends[0].name, ends[1].name, via, err)
				}
			}
		}
		src, dst := c.nodes["a2"].pods["pod-a2"].IPv4, c.nodes["b1"].pods["pod-b1"].IPv4
		if via, err := c.travel(c.nodes["a2"], packet{src: src, dst: dst}, 12); err != nil || via != kernel.LinkWireGuard {
			t.Errorf("between the others by %q, %v", via, err)
		}
	}, "a1", "a2", "b1")
}
