package agent_test

import (
	"context"
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
