package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// TestStatusPace holds how often the status is written: at once when the agent is
// ready, at most once a second however much happens, and once a minute when
// nothing does.
func TestStatusPace(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.settle(500 * time.Millisecond)
		if s.status() == nil {
			t.Fatal("an agent that is ready has no status")
		}
		s.settle(10 * time.Second)
		s.written("")
		for i := range 100 {
			s.kernel.SetLink(kernel.Link{Name: "eth1", MTU: 1500 + i, Up: true})
			s.settle(100 * time.Millisecond)
		}
		if n := s.written("NodeStatus"); n > 11 {
			t.Errorf("%d writes of the status in 10 s of events", n)
		}
		s.settle(time.Second)
		s.written("")
		s.settle(10*time.Minute - time.Second)
		if n := s.written("NodeStatus"); n < 9 || n > 11 {
			t.Errorf("%d writes of the status in 10 quiet minutes", n)
		}
		before := s.status().Status.UpdatedAt
		s.settle(time.Minute + time.Second)
		if after := s.status().Status.UpdatedAt; !after.After(before.Time) {
			t.Errorf("status of %s is still of %s", after, before)
		}
	})
}

// TestStatusBeforeReady holds that an agent which can't get ready says so.
func TestStatusBeforeReady(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.kernel.Fail("read", "routes", kernel.ErrBusy)
		s.start()
		s.settle(4 * time.Second)
		if s.status() != nil {
			t.Error("the status came before the agent had time to get ready")
		}
		s.settle(2 * time.Second)
		if got := s.status(); got == nil || !slices.ContainsFunc(got.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == v1.ConditionReady && c.Status == metav1.ConditionFalse && c.Message != ""
		}) {
			t.Errorf("status = %+v", got)
		}
	})
}

// mute is a speaker that can't tell its sessions.
type mute struct{ bgp.Speaker }

func (mute) Sessions(context.Context) (map[netip.Addr]bgp.Session, error) {
	return nil, errors.New("no word")
}

func TestStatusThatCannotBeTaken(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.speaker = mute{s.fabric.Speaker("n1", s.cfg.IPv4.Addr(), s.cfg.IPv6.Addr())}
		s.start()
		s.add("one") // all else works
		s.settle(time.Minute)
		if s.status() != nil {
			t.Error("there is a status")
		}
	})
}

// TestNodeIsKept holds that the own Node is made when there is none, corrected,
// and made again when it is deleted, and that no route goes meanwhile.
func TestNodeIsKept(t *testing.T) {
	for _, test := range []struct {
		name string
		told bool // the agent is told the addresses; else the Node is
	}{{"the agent is told the addresses", true}, {"the Node has the addresses", false}} {
		t.Run(test.name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *solo) {
				want := v1.NodeBGP{IPv4Address: s.cfg.IPv4.String(), IPv6Address: s.cfg.IPv6.String()}
				if !test.told {
					s.cfg.IPv4, s.cfg.IPv6 = netip.Prefix{}, netip.Prefix{}
					s.create(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: v1.NodeSpec{BGP: &want}})
				}
				s.create(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Spec: v1.NodeSpec{BGP: &v1.NodeBGP{IPv4Address: "192.0.2.12/24"}}})
				s.create(&v1.IPAMBlock{
					ObjectMeta: metav1.ObjectMeta{Name: v1.BlockName(netip.MustParsePrefix("10.244.9.0/26"))},
					Spec:       v1.IPAMBlockSpec{CIDR: "10.244.9.0/26", Pool: "pods", Node: "n2", State: v1.BlockConfirmed},
				})
				s.start()
				s.settle(time.Minute)
				before := s.kernel.OurRoutes()
				if len(before) == 0 {
					t.Fatal("no routes")
				}
				if err := s.store.Delete(t.Context(), datastore.Key{Kind: "Node", Name: "n1"}, ""); err != nil {
					t.Fatal(err)
				}
				writes := s.kernel.Writes()
				s.settle(time.Minute)
				if d := cmp.Diff(&want, s.node().Spec.BGP); d != "" {
					t.Errorf("the Node made anew (-want +got):\n%s", d)
				}
				if n := s.kernel.Writes() - writes; n > 0 {
					t.Errorf("%d writes to the kernel after the Node was deleted", n)
				}
				s.add("one")
			})
		})
	}
}

// TestNodeCannotBeCorrected holds that an agent goes on with what it knew of its
// Node while the datastore does not take the right one.
func TestNodeCannotBeCorrected(t *testing.T) {
	key := datastore.Key{Kind: "Node", Name: "n1"}
	for name, spoil := range map[string]func(*solo) error{
		"deleted": func(s *solo) error { return s.store.Delete(s.t.Context(), key, "") },
		"changed": func(s *solo) error {
			_, err := datastore.Update(s.t.Context(), s.store, key, func(n *v1.Node) error {
				n.Spec.BGP.IPv4Address = "192.0.2.99/24"
				return nil
			})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *solo) {
				s.start()
				s.settle(time.Minute)
				before := s.kernel.OurRoutes()
				var spoiled atomic.Bool
				s.fail(func(c datastore.Call) error {
					if spoiled.Load() && c.Key == key && c.Verb != datastore.VerbGet {
						return datastore.ErrUnavailable
					}
					return nil
				})
				if err := spoil(s); err != nil {
					t.Fatal(err)
				}
				spoiled.Store(true)
				s.settle(time.Minute)
				s.add("one")
				for k := range before {
					s.kernel.DropRoute(k)
				}
				s.settle(time.Second)
				if got := len(s.kernel.OurRoutes()); got != len(before)+2 {
					t.Errorf("%d routes, want those %d and a pod's", got, len(before))
				}
				s.fail(nil)
				s.settle(time.Minute)
				if got := s.node().Spec.BGP.IPv4Address; got != s.cfg.IPv4.String() {
					t.Errorf("the Node has %s", got)
				}
			})
		})
	}
}

// TestNodeIsRefused holds that the rest is published though the Node can't be.
func TestNodeIsRefused(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.add("one")
		s.halt()
		s.fail(func(c datastore.Call) error {
			if c.Key.Kind == "Node" && c.Verb != datastore.VerbGet && c.Verb != datastore.VerbList {
				return datastore.ErrDenied
			}
			return nil
		})
		s.cfg.IPv4 = netip.MustParsePrefix("192.0.2.99/24")
		s.written("")
		s.start()
		s.settle(time.Minute)
		if n := s.written("NodeStatus"); n == 0 {
			t.Error("no status was written")
		}
	})
}

// TestEndpointsAtStart holds that the endpoints of pods stay while the agent
// takes over from its predecessor, even without the journal.
func TestEndpointsAtStart(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.add("one")
		s.settle(10 * time.Second)
		s.halt()
		s.cfg.Journal += ".lost"
		s.kernel.Fail("read", "routes", kernel.ErrBusy) // taking over has to wait
		s.written("")
		s.start()
		s.settle(20 * time.Second)
		s.kernel.Fail("read", "routes", nil)
		s.settle(20 * time.Second)
		if n := s.written("WorkloadEndpoint"); n > 0 {
			t.Errorf("%d writes of a pod's endpoint", n)
		}
		s.add("two")
		s.settle(time.Second)
		list, err := s.store.List(t.Context(), "WorkloadEndpoint")
		if err != nil || len(list) != 2 {
			t.Errorf("endpoints %v, %v", list, err)
		}
	})
}

// TestEndpointIsTheUsers holds that a pod's endpoint says what the runtime told of
// the pod, and that what a user makes of its labels, service account and ports
// stays: over resyncs, and when an agent that starts corrects the rest.
func TestEndpointIsTheUsers(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		key := datastore.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "one-eth0"}
		holds := func(when string, labels map[string]string, account string, ports ...v1.NamedPort) {
			t.Helper()
			o, err := s.store.Get(t.Context(), key)
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			w := o.(*v1.WorkloadEndpoint)
			if d := cmp.Diff(labels, w.Labels) + cmp.Diff(ports, w.Spec.Ports) + cmp.Diff(account, w.Spec.ServiceAccountName); d != "" {
				t.Errorf("%s (-want +got):\n%s", when, d)
			}
		}
		s.start()
		add := request(protocol.VerbAdd, "one")
		add.Labels, add.ServiceAccount = map[string]string{"app": "web"}, "web"
		add.Ports = []protocol.Port{{Name: "http", Protocol: "TCP", Port: 8080}}
		s.attach(add)
		s.settle(time.Second)
		holds("added", add.Labels, "web", v1.NamedPort{Name: "http", Protocol: "TCP", Port: 8080})

		users, dns := map[string]string{"app": "db"}, v1.NamedPort{Name: "dns", Protocol: "UDP", Port: 53}
		_, err := datastore.Update(t.Context(), s.store, key, func(w *v1.WorkloadEndpoint) error {
			w.Labels, w.Spec.ServiceAccountName, w.Spec.Ports = users, "", []v1.NamedPort{dns}
			w.Spec.IPNetworks, w.Spec.InterfaceName = []string{"10.9.9.9/32"}, "eth9" // which are the agent's
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.settle(5 * time.Minute)
		holds("after resyncs", users, "", dns)
		s.halt()
		s.start()
		s.settle(time.Minute)
		holds("after a restart", users, "", dns)
		if o, err := s.store.Get(t.Context(), key); err != nil || len(o.(*v1.WorkloadEndpoint).Spec.IPNetworks) != 2 {
			t.Errorf("the addresses are not corrected: %+v, %v", o, err)
		}
		s.halt()
		s.cfg.Journal += ".lost"
		s.start()
		s.settle(time.Minute)
		holds("after the journal was lost", users, "", dns)
	})
}

// TestLeftovers holds that what an earlier run learned and nobody tells any more
// goes, even where nobody is left to tell anything.
func TestLeftovers(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		old := kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("10.244.9.0/26"), Priority: kernel.RoutePriority}
		hop := kernel.NextHop{Gateway: netip.MustParseAddr("192.0.2.12"), Link: "eth0"}
		s.kernel.PutRoute(old, kernel.Route{Hops: kernel.Hops(hop)}, kernel.RouteProtocol)
		s.start()
		s.settle(5 * time.Minute)
		if _, ok := s.kernel.OurRoutes()[old]; ok {
			t.Error("a route of an earlier run stays for ever")
		}
	})
}

// TestStatusIsWhole holds that what is published is what the agent says of itself.
func TestStatusIsWhole(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.add("one")
		s.settle(10 * time.Second)
		own, err := s.agent.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stored := s.status()
		own.Status.UpdatedAt, stored.Status.UpdatedAt = metav1.Time{}, metav1.Time{}
		a, _ := json.Marshal(own.Status)
		b, _ := json.Marshal(stored.Status)
		if d := cmp.Diff(string(a), string(b)); d != "" {
			t.Errorf("(-own +stored):\n%s", d)
		}
		if own.Status.Pods != 1 || own.Status.Routes.Applied != own.Status.Routes.Wanted || own.Status.Routes.Wanted < 4 {
			t.Errorf("status = %s", a)
		}
		synctest.Wait()
	})
}
