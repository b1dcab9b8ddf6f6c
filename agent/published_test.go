package agent

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

func TestNodeTable(t *testing.T) {
	labelled := &v1.Node{TypeMeta: typeMeta("Node"), ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"rack": "r1"}}}
	as := uint32(64600)
	withAS := labelled.DeepCopy()
	withAS.Spec.BGP = &v1.NodeBGP{IPv4Address: "192.0.2.99/24", ASNumber: &as}
	for _, test := range []struct {
		name string
		have *v1.Node
	}{
		{name: "no Node"},
		{name: "Node without addresses", have: labelled},
		{name: "Node with an AS number and another address", have: withAS},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := datastore.NewMemory()
			if test.have != nil {
				if _, err := store.Create(t.Context(), test.have); err != nil {
					t.Fatal(err)
				}
			}
			want := nodeFields{nodeAddrs{"192.0.2.11/24", "2001:db8::11/64"}, details{
				ipip: "10.244.0.1", vxlan4: vtep{"10.244.0.2", "66:00:00:00:00:01"}, vxlan6: vtep{"fd00::2", "66:00:00:00:00:02"},
				wireguard: v1.NodeWireGuard{PublicKey: kernel.WireGuardKey{1}.String(), ListeningPort: 51820, InterfaceIPv4Address: "10.244.0.3"},
			}}
			told := func(nodeFields) nodeFields { return want }
			table := nodeTable{store: store, name: "n1", wanted: told}
			for range 2 { // the second changes nothing
				if err := table.Write(t.Context(), map[struct{}]nodeFields{{}: want}, nil); err != nil {
					t.Fatal(err)
				}
			}
			got, err := store.Get(t.Context(), datastore.Key{Kind: "Node", Name: "n1"})
			if err != nil {
				t.Fatal(err)
			}
			n := got.(*v1.Node)
			if fieldsOf(n) != want {
				t.Errorf("fields = %+v", fieldsOf(n))
			}
			if err := v1.Check(n); err != nil {
				t.Error(err)
			}
			if test.have != nil && n.Labels["rack"] != "r1" {
				t.Error("the administrator's labels are gone")
			}
			if test.have == withAS && (n.Spec.BGP.ASNumber == nil || *n.Spec.BGP.ASNumber != as) {
				t.Error("the administrator's AS number is gone")
			}
		})
	}
}

// TestNodeTableKeeps holds that a Node which came back meanwhile keeps its
// addresses if the agent was told none.
func TestNodeTableKeeps(t *testing.T) {
	store := datastore.NewMemory()
	had, has := nodeAddrs{ipv4: "192.0.2.11/24"}, nodeAddrs{ipv4: "192.0.2.99/24"}
	table := nodeTable{store: store, name: "n1", wanted: func(have nodeFields) nodeFields { return have }}
	back := &v1.Node{TypeMeta: typeMeta("Node"), ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: v1.NodeSpec{BGP: &v1.NodeBGP{IPv4Address: has.ipv4}}}
	if _, err := store.Create(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(t.Context(), map[struct{}]nodeFields{{}: {nodeAddrs: had}}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := store.Get(t.Context(), datastore.Key{Kind: "Node", Name: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := addrsOf(got.(*v1.Node)); got != has {
		t.Errorf("addresses = %v", got)
	}
}

func TestEndpointTable(t *testing.T) {
	store := datastore.NewMemory()
	table := endpointTable{store, "n1"}
	key := datastore.Key{Kind: "WorkloadEndpoint", Namespace: "web", Name: "a-eth0"}
	one := endpoint{"a", "c1", "eth0", "cairn0123456789", "10.244.0.1/32 fd00::1/128", `{"app":"web"}`}
	set := func(e endpoint) {
		t.Helper()
		if err := table.Write(t.Context(), map[datastore.Key]endpoint{key: e}, nil); err != nil {
			t.Fatal(err)
		}
		got, err := table.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[datastore.Key]endpoint{key: e}, got, cmp.AllowUnexported(endpoint{})); d != "" {
			t.Errorf("what was written reads otherwise (-want +got):\n%s", d)
		}
	}
	set(one)
	set(one)
	two := one
	two.containerID, two.labels = "c2", "null"
	set(two)

	other := endpointTable{store, "n2"}
	if got, err := other.Read(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("another node reads %v, %v", got, err)
	}
	if err := other.Write(t.Context(), nil, []datastore.Key{key}); err != nil {
		t.Fatal(err)
	}
	if got, _ := table.Read(t.Context()); len(got) != 1 {
		t.Error("another node deleted our endpoint")
	}
	for range 2 {
		if err := table.Write(t.Context(), nil, []datastore.Key{key}); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := table.Read(t.Context()); len(got) != 0 {
		t.Errorf("after deleting: %v", got)
	}
	store.SetDown(errors.New("pulled the plug"))
	if err := table.Write(t.Context(), map[datastore.Key]endpoint{key: one}, nil); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("while the store is away: %v", err)
	}
}

func TestStatusTable(t *testing.T) {
	store := datastore.NewMemory()
	table := statusTable{store, "n1"}
	for _, pods := range []string{`{"pods":1}`, `{"pods":2}`} {
		if err := table.Write(context.Background(), map[struct{}]statusText{{}: {text: pods}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	got, err := store.Get(t.Context(), datastore.Key{Kind: "NodeStatus", Name: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if s := got.(*v1.NodeStatus); s.Status.Pods != 2 || s.Status.UpdatedAt.IsZero() {
		t.Errorf("status = %+v", s.Status)
	}
}
