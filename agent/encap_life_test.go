package agent_test

import (
	"context"
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
	"cairn.network/cairn/cni/protocol"
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

// TestTunnelAddressStays holds that a device has the same address after a restart
// and after a reboot, and that no collector takes it away.
func TestTunnelAddressStays(t *testing.T) {
	withPods(t, vxlanAlways, func(t *testing.T, c *cluster) {
		n := c.nodes["a1"]
		was := c.node("a1").Spec
		for _, link := range []string{kernel.LinkVXLAN4, kernel.LinkVXLAN6} {
			if got := n.kernel.Host().Links[link].Alias; got != kernel.TunnelAlias {
				t.Errorf("alias of %s is %q", link, got)
			}
		}
		n.halt()
		for _, link := range kernel.TunnelLinks() { // the kernel starts without
			n.kernel.DelLink(link)
		}
		for k := range n.kernel.OurRoutes() {
			n.kernel.DropRoute(k)
		}
		n.start()
		c.settle()
		gc := n.agent.CNI(t.Context(), request(protocol.VerbGC, "")) // of a network without a name, which has no valid container
		if gc.Error != nil {
			t.Error(gc.Error)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if diff := cmp.Diff(was, c.node("a1").Spec); diff != "" {
			t.Errorf("the Node (-before the reboot +after):\n%s", diff)
		}
		c.checkTransport(vxlanAlways)
		status, err := n.agent.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status.Status.Pods != 1 {
			t.Errorf("%d pods, want 1: tunnels are none", status.Status.Pods)
		}
		endpoints, err := c.store.List(t.Context(), "WorkloadEndpoint")
		if err != nil || len(endpoints) != len(c.nodes) {
			t.Errorf("%d WorkloadEndpoints, %v, for %d pods", len(endpoints), err, len(c.nodes))
		}
	}, "a1", "b1")
}

// TestTunnelAddressMoves holds that a device's address is of a pool that it serves:
// when that is disabled or changes its mode, another takes its place.
func TestTunnelAddressMoves(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		c.create(&v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: v1.IPPoolSpec{CIDR: "10.245.0.0/16", VXLANMode: v1.EncapAlways}})
		for _, n := range c.nodes {
			n.add("pod-" + n.name)
		}
		c.setMode(vxlanAlways)
		c.settle()
		held := func(cidr string, not bool) {
			t.Helper()
			for name, n := range c.nodes {
				a, err := netip.ParseAddr(c.node(name).Spec.IPv4VXLANTunnelAddr)
				if err != nil || netip.MustParsePrefix(cidr).Contains(a) == not {
					t.Errorf("%s publishes %v, %v; want one of %s: %v", name, a, err, cidr, !not)
				}
				if _, ok := n.kernel.Host().Addrs[kernel.Addr{Link: kernel.LinkVXLAN4, Prefix: netip.PrefixFrom(a, 32)}]; !ok {
					t.Errorf("%s has not got %v on its device", name, a)
				}
			}
		}
		change := func(f func(*v1.IPPool)) {
			t.Helper()
			stop := c.watchFlows()
			key := datastore.Key{Kind: "IPPool", Name: "more"}
			if _, err := datastore.Update(t.Context(), c.store, key, func(p *v1.IPPool) error { f(p); return nil }); err != nil {
				t.Fatal(err)
			}
			c.settle()
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
		held("10.244.0.0/15", false)
		first := "more" // any will do
		for name := range c.nodes {
			if netip.MustParsePrefix("10.244.0.0/16").Contains(netip.MustParseAddr(c.node(name).Spec.IPv4VXLANTunnelAddr)) {
				first = "pods"
			}
		}
		if first == "more" {
			change(func(p *v1.IPPool) { p.Spec.Disabled = true })
			held("10.244.0.0/16", false)
			c.checkMatrix()
			return
		}
		// All addresses are of "pods": make that one plain, then disable it.
		key := datastore.Key{Kind: "IPPool", Name: "pods"}
		stop := c.watchFlows()
		if _, err := datastore.Update(t.Context(), c.store, key, func(p *v1.IPPool) error { p.Spec.VXLANMode = v1.EncapNever; return nil }); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if err := stop(); err != nil {
			t.Error(err)
		}
		held("10.245.0.0/16", false)
		change(func(p *v1.IPPool) { p.Spec.Disabled = true })
		held("10.245.0.0/16", true)
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2")
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

// TestMTU holds that pods, devices and routes follow the MTU of the node's link and
// what tunnels add, live.
func TestMTU(t *testing.T) {
	withPods(t, plain, func(t *testing.T, c *cluster) {
		n := c.nodes["a1"]
		link := kernel.PodLink("default", "pod-a1", "eth0")
		check := func(what string, pod int, devices map[string]int) {
			t.Helper()
			host := n.kernel.Host()
			if got := host.Links[link].MTU; got != pod {
				t.Errorf("%s: the pod's MTU is %d, want %d", what, got, pod)
			}
			for name, want := range devices {
				if got := host.Links[name].MTU; got != want {
					t.Errorf("%s: MTU of %s is %d, want %d", what, name, got, want)
				}
			}
			for k, r := range n.kernel.OurRoutes() {
				for _, h := range r.Hops.List() {
					// What pods elsewhere can't take must not be sent to them.
					if h.Gateway.IsValid() && host.Links[h.Link].MTU > pod && r.MTU != uint32(pod) {
						t.Errorf("%s: route %s %s, want MTU %d", what, k, r, pod)
					}
				}
			}
			if resp := n.agent.CNI(t.Context(), request(protocol.VerbCheck, "pod-a1")); resp.MTU != pod {
				t.Errorf("%s: the plug-in is told %d, want %d", what, resp.MTU, pod)
			}
		}
		check("plain", 1500, nil)
		n.kernel.SetLink(kernel.Link{Name: "eth0", MTU: 9000, Up: true})
		c.settle()
		check("jumbo", 9000, nil)
		c.setMode(vxlanAlways)
		c.settle()
		check("jumbo, VXLAN", 8930, map[string]int{kernel.LinkVXLAN4: 8950, kernel.LinkVXLAN6: 8930})
		n.kernel.SetLink(kernel.Link{Name: "eth0", MTU: 1400, Up: true})
		c.settle()
		check("small, VXLAN", 1330, map[string]int{kernel.LinkVXLAN4: 1350, kernel.LinkVXLAN6: 1330})

		// A pod that can't be entered is told, and the others get theirs.
		n.kernel.Fail("mtu", "container-pod-a1", kernel.ErrPermission)
		n.add("other")
		c.setMode(plain)
		c.settle()
		if got := programmed(t, n); got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, "MTU of pod default/pod-a1") {
			t.Errorf("condition: %+v", got)
		}
		if got := n.kernel.Host().Links[kernel.PodLink("default", "other", "eth0")].MTU; got != 1400 {
			t.Errorf("the other pod's MTU is %d", got)
		}
		n.kernel.Fail("mtu", "container-pod-a1", nil)
		c.settle()
		check("small, plain", 1400, nil)

		// While the node's addresses are gone, nothing is known of the MTU.
		for _, p := range []netip.Prefix{n.v4, n.v6} {
			n.kernel.DelAddr(kernel.Addr{Link: "eth0", Prefix: p})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := n.kernel.Host().Links[link].MTU; got != 1400 {
			t.Errorf("without addresses the pod's MTU became %d", got)
		}
	}, "a1", "b1")
}

// TestToldMTU holds that an MTU which the agent is told goes before what links have.
func TestToldMTU(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.add("one")
		link := kernel.PodLink("default", "one", "eth0")
		if got := s.kernel.Host().Links[link].MTU; got != 1500 {
			t.Errorf("the pod's MTU is %d", got)
		}
		s.halt()
		s.cfg.MTU = 1300
		s.start()
		s.settle(time.Minute)
		if got := s.kernel.Host().Links[link].MTU; got != 1300 {
			t.Errorf("the pod's MTU is %d, told 1300", got)
		}
	})
}

// TestWireGuardStatus holds what is told of peers, and that it is not written to
// the datastore with every packet.
func TestWireGuardStatus(t *testing.T) {
	withPods(t, wireguard, func(t *testing.T, c *cluster) {
		n, peer := c.nodes["a1"], c.nodes["b1"]
		key, err := peer.kernel.Encryption().Key(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n.kernel.SetTraffic(kernel.PeerTraffic{Key: key, LastHandshake: time.Now(), Received: 7, Sent: 9})
		status, err := n.agent.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w := status.Status.WireGuard
		if w == nil || len(w.Peers) != 1 {
			t.Fatalf("status: %+v", w)
		}
		p := w.Peers[0]
		if p.Node != "b1" || p.PublicKey != key.String() || p.ReceivedBytes != 7 || p.SentBytes != 9 || p.LastHandshake.IsZero() ||
			p.Endpoint != netip.AddrPortFrom(peer.v4.Addr(), 51820).String() {
			t.Errorf("peer: %+v", p)
		}
		want := v1.TunnelStatus{
			Device: kernel.LinkWireGuard, MTU: 1440, RemoteNodes: 1, State: v1.TunnelUp,
			Addresses: []string{c.node("a1").Spec.WireGuard.InterfaceIPv4Address, c.node("a1").Spec.WireGuard.InterfaceIPv6Address},
		}
		if diff := cmp.Diff([]v1.TunnelStatus{want}, status.Status.Tunnels); diff != "" {
			t.Errorf("tunnels (-want +got):\n%s", diff)
		}
	}, "a1", "b1")
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

// TestNoTunnelAddress holds that a device without an address is told of.
func TestNoTunnelAddress(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.create(&v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "tiny"}, Spec: v1.IPPoolSpec{CIDR: "10.9.0.0/32", BlockSize: 32, VXLANMode: v1.EncapAlways}})
		s.create(&v1.IPAMBlock{
			ObjectMeta: metav1.ObjectMeta{Name: v1.BlockName(netip.MustParsePrefix("10.9.0.0/32"))},
			Spec:       v1.IPAMBlockSpec{CIDR: "10.9.0.0/32", Pool: "tiny", Node: "n2", State: v1.BlockConfirmed},
		})
		s.start()
		s.settle(time.Minute)
		status, err := s.agent.Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(status.Status.Issues, func(i v1.Issue) bool {
			return i.Object == "tunnel vxlan.cairn" && strings.Contains(i.Reason, "no free address") && strings.Contains(i.Reason, "tiny")
		}) {
			t.Errorf("issues: %v", status.Status.Issues)
		}
		if len(status.Status.Tunnels) != 1 || status.Status.Tunnels[0].State != v1.TunnelFailing {
			t.Errorf("tunnels: %+v", status.Status.Tunnels)
		}
	})
}
