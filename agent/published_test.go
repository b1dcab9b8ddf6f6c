package agent

import (
	gocmp "cmp"
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
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

// told is what the runtime told of two containers.
func told(h ipam.Handle) (ipam.Assignment, bool) {
	as, ok := map[string]ipam.Assignment{
		"c1": {Labels: map[string]string{"app": "web"}, ServiceAccount: "web", Ports: []ipam.NamedPort{{Name: "http", Protocol: "TCP", Port: 8080}}},
		"c2": {ServiceAccount: "two"},
	}[h.ContainerID]
	return as, ok
}

// mirrored returns what a mirror knows of the endpoints in a store.
func mirrored(t *testing.T, store datastore.Store) func() *datastore.Snapshot {
	return func() *datastore.Snapshot {
		all, err := store.List(t.Context(), "WorkloadEndpoint")
		if err != nil {
			t.Fatal(err)
		}
		return datastore.NewSnapshot(all...)
	}
}

func TestEndpointTable(t *testing.T) {
	store := datastore.NewMemory()
	table := endpointTable{store, "n1", mirrored(t, store), told}
	key := datastore.Key{Kind: "WorkloadEndpoint", Namespace: "web", Name: "a-eth0"}
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
	one := endpoint{"a", "c1", "eth0", "cairn0123456789", "10.244.0.1/32 fd00::1/128"}
	set(one)
	set(one)
	two := one
	two.containerID = "c2"
	set(two)

	other := endpointTable{store, "n2", mirrored(t, store), told}
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

// TestEndpointTold holds that what selects a pod is as the runtime told it when its
// container is new, and the user's from then on.
func TestEndpointTold(t *testing.T) {
	key := datastore.Key{Kind: "WorkloadEndpoint", Namespace: "web", Name: "a-eth0"}
	first := endpoint{"a", "c1", "eth0", "cairn0123456789", "10.244.0.1/32"}
	moved, second := first, first
	moved.networks, second.containerID = "10.244.0.2/32", "c2"
	toldOne := v1.WorkloadEndpointSpec{ServiceAccountName: "web", Ports: []v1.NamedPort{{Name: "http", Protocol: "TCP", Port: 8080}}}
	users := v1.WorkloadEndpointSpec{ServiceAccountName: "users", Ports: []v1.NamedPort{{Name: "users", Protocol: "UDP", Port: 53}}}
	for _, test := range []struct {
		name   string
		have   *endpoint // written before the user changes it
		node   string    // that the endpoint is on by then; "": n1
		write  endpoint
		labels map[string]string
		want   v1.WorkloadEndpointSpec
		kept   bool // the user's annotation
	}{
		{name: "a new container", write: first, labels: map[string]string{"app": "web"}, want: toldOne},
		{name: "the same container", have: &first, write: first, labels: map[string]string{"users": "own"}, want: users, kept: true},
		{name: "the same container with another address", have: &first, write: moved, labels: map[string]string{"users": "own"}, want: users, kept: true},
		{name: "another container", have: &first, write: second, want: v1.WorkloadEndpointSpec{ServiceAccountName: "two"}},
		{name: "another node's", have: &first, node: "n2", write: first, labels: map[string]string{"app": "web"}, want: toldOne},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := datastore.NewMemory()
			table := endpointTable{store, "n1", mirrored(t, store), told}
			write := func(e endpoint) {
				t.Helper()
				if err := table.Write(t.Context(), map[datastore.Key]endpoint{key: e}, nil); err != nil {
					t.Fatal(err)
				}
			}
			if test.have != nil {
				write(*test.have)
				_, err := datastore.Update(t.Context(), store, key, func(w *v1.WorkloadEndpoint) error {
					w.Labels, w.Annotations = map[string]string{"users": "own"}, map[string]string{"users": "own"}
					w.Spec.ServiceAccountName, w.Spec.Ports = users.ServiceAccountName, users.Ports
					w.Spec.Node = gocmp.Or(test.node, "n1")
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			write(test.write)
			o, err := store.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			w := o.(*v1.WorkloadEndpoint)
			if err := v1.Check(w); err != nil {
				t.Error(err)
			}
			if endpointOf(w) != test.write || w.Spec.Node != "n1" {
				t.Errorf("wrote %+v, and it reads %+v on %s", test.write, endpointOf(w), w.Spec.Node)
			}
			got := v1.WorkloadEndpointSpec{ServiceAccountName: w.Spec.ServiceAccountName, Ports: w.Spec.Ports}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if d := cmp.Diff(test.labels, w.Labels); d != "" {
				t.Errorf("labels (-want +got):\n%s", d)
			}
			if _, kept := w.Annotations["users"]; kept != test.kept {
				t.Errorf("annotations %v", w.Annotations)
			}
		})
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
