package agent_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// mode is how packets of all pools are to travel.
type mode struct {
	ipip, vxlan v1.EncapMode // VXLAN of IPv6 too, and in place of IPIP there
	wireguard   bool
}

func (m mode) String() string {
	s := fmt.Sprintf("IPIP %s, VXLAN %s", m.ipip, m.vxlan)
	if m.wireguard {
		s += ", WireGuard"
	}
	return s
}

var (
	plain       = mode{ipip: v1.EncapNever, vxlan: v1.EncapNever}
	ipipAlways  = mode{ipip: v1.EncapAlways, vxlan: v1.EncapNever}
	ipipCross   = mode{ipip: v1.EncapCrossSubnet, vxlan: v1.EncapNever}
	vxlanAlways = mode{ipip: v1.EncapNever, vxlan: v1.EncapAlways}
	vxlanCross  = mode{ipip: v1.EncapNever, vxlan: v1.EncapCrossSubnet}
	wireguard   = mode{ipip: v1.EncapNever, vxlan: v1.EncapNever, wireguard: true}
)

// setMode changes the pools and the configuration.
func (c *cluster) setMode(m mode) {
	c.t.Helper()
	for _, name := range []string{"pods", "pods6"} {
		_, err := datastore.Update(c.t.Context(), c.store, datastore.Key{Kind: "IPPool", Name: name}, func(p *v1.IPPool) error {
			p.Spec.IPIPMode, p.Spec.VXLANMode = m.ipip, m.vxlan
			if name == "pods6" {
				p.Spec.IPIPMode, p.Spec.VXLANMode = v1.EncapNever, m.vxlan
			}
			return v1.Check(p)
		})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	key := datastore.Key{Kind: "AgentConfiguration", Name: v1.DefaultName}
	if _, err := c.store.Get(c.t.Context(), key); err != nil {
		c.create(&v1.AgentConfiguration{ObjectMeta: metav1.ObjectMeta{Name: v1.DefaultName}})
	}
	_, err := datastore.Update(c.t.Context(), c.store, key, func(a *v1.AgentConfiguration) error {
		a.Spec.WireGuardEnabled = &m.wireguard
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// checkTransport holds that packets between all pods travel as a mode says.
func (c *cluster) checkTransport(m mode) {
	c.t.Helper()
	pods := c.pods()
	for from, a := range pods {
		for to, b := range pods {
			for i := range a.addrs {
				if a.on == b.on {
					continue
				}
				via, err := c.travel(a.on, packet{src: a.addrs[i], dst: b.addrs[i]}, 12)
				if err != nil {
					c.t.Errorf("%s: %s to %s (%s): %v", m, from, to, b.addrs[i], err)
					continue
				}
				if want := m.link(a.on.rack == b.on.rack, i == 1); via != want {
					c.t.Errorf("%s: %s to %s (%s) goes by %q, want %q", m, from, to, b.addrs[i], via, want)
				}
			}
		}
	}
}

// link returns the tunnel that packets take; "": none.
func (m mode) link(sameSubnet, ipv6 bool) string {
	sent := func(e v1.EncapMode) bool { return e == v1.EncapAlways || e == v1.EncapCrossSubnet && !sameSubnet }
	switch {
	case m.wireguard:
		return kernel.LinkWireGuard
	case sent(m.ipip) && !ipv6:
		return kernel.LinkIPIP
	case sent(m.vxlan) && ipv6:
		return kernel.LinkVXLAN6
	case sent(m.vxlan):
		return kernel.LinkVXLAN4
	}
	return ""
}

// checkDevices holds that a node has just these tunnel devices.
func (c *cluster) checkDevices(want ...string) {
	c.t.Helper()
	for _, n := range c.nodes {
		have, err := n.kernel.Tunnels().Read(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		var names []string
		for _, link := range kernel.TunnelLinks() {
			if _, ok := have[link]; ok {
				names = append(names, link)
			}
		}
		if got, want := strings.Join(names, " "), strings.Join(want, " "); got != want {
			c.t.Errorf("%s has the devices %q, want %q", n.name, got, want)
		}
	}
}

// devices returns the tunnel devices that a mode needs.
func (m mode) devices() []string {
	var links []string
	if m.ipip != v1.EncapNever {
		links = append(links, kernel.LinkIPIP)
	}
	if m.vxlan != v1.EncapNever {
		links = append(links, kernel.LinkVXLAN4, kernel.LinkVXLAN6)
	}
	if m.wireguard {
		links = append(links, kernel.LinkWireGuard)
	}
	return links
}

// lagging makes what the store tells late by up to a bound, at random.
func (c *cluster) lagging(seed uint64, most time.Duration) {
	random := rand.New(rand.NewPCG(seed, 1))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lag = func() time.Duration {
		c.mu.Lock()
		defer c.mu.Unlock()
		return time.Duration(random.Int64N(int64(most)))
	}
}

// TestModes holds that every change of how packets travel, told to the nodes in
// whatever order, takes no way from any packet at any moment, and ends in
// just the devices that are needed.
func TestModes(t *testing.T) {
	steps := []mode{plain, vxlanCross, vxlanAlways, plain, ipipAlways, vxlanAlways, ipipCross, vxlanCross, wireguard, ipipAlways, wireguard, plain}
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				for _, n := range c.nodes {
					n.add("pod-" + n.name)
				}
				c.settle()
				c.lagging(seed, 3*time.Second)
				c.checkTransport(plain)
				for i, m := range steps[1:] {
					stop := c.watchFlows()
					c.setMode(m)
					time.Sleep(3 * time.Minute)
					synctest.Wait()
					if err := stop(); err != nil {
						t.Fatalf("from %s to %s: %v", steps[i], m, err)
					}
					c.checkTransport(m)
					c.checkDevices(m.devices()...)
				}
				c.checkMatrix()
				c.checkSessions()
				c.checkQuiet()
			}, "a1", "a2", "b1")
		})
	}
}
