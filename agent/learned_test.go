package agent_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// withRouter gives the node a router that tells one route, and returns its key.
func (s *solo) withRouter() kernel.RouteKey {
	s.t.Helper()
	ip, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParsePrefix("203.0.113.0/24")
	router := s.fabric.Speaker("router", ip)
	for _, err := range []error{
		router.Config().Write(s.t.Context(), map[struct{}]bgp.Config{{}: {AS: 65000, RouterID: ip, Listen: bgp.Addrs(ip), Port: 179}}, nil),
		router.Paths().Write(s.t.Context(), map[netip.Prefix]bgp.Path{dst: {}}, nil),
		router.Peers().Write(s.t.Context(), map[netip.Addr]bgp.Peer{s.cfg.IPv4.Addr(): {
			AS: v1.DefaultAS, Port: 179, Local: ip, IPv4: true, Graceful: true, Passive: true, Import: bgp.Prefixes(netip.MustParsePrefix("0.0.0.0/0")),
		}}, nil),
	} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.create(&v1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "router"}, Spec: v1.BGPPeerSpec{
		PeerIP: ip.String(), ASNumber: 65000, AcceptCIDRs: []string{dst.String()},
	}})
	return kernel.RouteKey{Table: kernel.MainTable, Dst: dst, Priority: kernel.RoutePriority}
}

// TestLearnedRouteStays holds that a route which only BGP knows stays while BGP
// starts anew, for whatever reason, and goes when the peer had its time.
func TestLearnedRouteStays(t *testing.T) {
	configure := func(s *solo, spec v1.BGPConfigurationSpec) {
		s.create(&v1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: v1.DefaultName}, Spec: spec})
	}
	for _, test := range []struct {
		name   string
		known  bool // to the router, afterwards
		happen func(*solo)
	}{
		{"the agent starts anew", true, func(s *solo) {
			s.halt()
			s.start()
		}},
		{"the agent starts anew, and its datastore is slow", true, func(s *solo) {
			s.halt()
			s.store.SetDown(datastore.ErrUnavailable)
			time.AfterFunc(10*time.Second, func() { s.store.SetDown(nil) })
			s.start()
		}},
		{"the speaker gets another AS", false, func(s *solo) { configure(s, v1.BGPConfigurationSpec{ASNumber: new(uint32(64999))}) }},
		{"the speaker gets a port that is taken", true, func(s *solo) {
			free := s.fabric.Occupy(netip.AddrPortFrom(s.cfg.IPv4.Addr(), 1790))
			time.AfterFunc(15*time.Second, free)
			configure(s, v1.BGPConfigurationSpec{ListenPort: 1790})
		}},
		{"the node gets another address", false, func(s *solo) {
			s.kernel.AddAddr(kernel.Addr{Link: "eth0", Prefix: netip.MustParsePrefix("192.0.2.99/24")})
			_, err := datastore.Update(s.t.Context(), s.store, datastore.Key{Kind: "Node", Name: "n1"}, func(n *v1.Node) error {
				n.Spec.BGP.IPv4Address = "192.0.2.99/24"
				return nil
			})
			if err != nil {
				s.t.Fatal(err)
			}
		}},
	} {
		for _, back := range []bool{true, false} {
			name := test.name
			if !back {
				name += ", and the router is gone"
			}
			t.Run(name, func(t *testing.T) {
				alone(t, func(t *testing.T, s *solo) {
					route := s.withRouter()
					s.create(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: v1.NodeSpec{BGP: &v1.NodeBGP{IPv4Address: "192.0.2.11/24"}}})
					s.speaker = s.fabric.Speaker("n1", s.cfg.IPv4.Addr(), netip.MustParseAddr("192.0.2.99"))
					s.cfg.IPv4, s.cfg.IPv6 = netip.Prefix{}, netip.Prefix{}
					s.start()
					s.settle(time.Minute)
					if _, ok := s.kernel.OurRoutes()[route]; !ok {
						t.Fatal("the route was not learned")
					}
					s.cfg.IPv4 = netip.MustParsePrefix("192.0.2.11/24")
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					var gone time.Time
					go s.kernel.Watch(ctx, func(e kernel.Event) {
						if r, told := e.Routes[route]; told && r == nil {
							gone = time.Now()
						}
					})
					s.fabric.Cut("n1", "router")
					start := time.Now()
					test.happen(s)
					s.settle(20 * time.Second)
					if back {
						s.fabric.Heal("n1", "router")
					}
					s.settle(10 * time.Minute)
					switch stays := back && test.known; {
					case stays && !gone.IsZero() || !gone.IsZero() && gone.Sub(start) < 20*time.Second:
						t.Errorf("the route went after %s", gone.Sub(start))
					case !stays && gone.IsZero():
						t.Error("the route stays for ever")
					}
				})
			})
		}
	}
}
