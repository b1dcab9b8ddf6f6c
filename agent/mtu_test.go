package agent_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/kernel"
)

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
