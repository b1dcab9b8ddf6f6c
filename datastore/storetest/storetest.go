// Package storetest holds the one suite that every datastore.Store passes, and
// what tests of watches have in common.
//
// What a store does while its server is away is not in it, since only the
// driver's own tests can take the server away.
package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// Run runs the suite. open is called once for each part of it and returns an
// empty store.
func Run(t *testing.T, open func(t *testing.T) datastore.Store) {
	for _, part := range []struct {
		name string
		test func(t *testing.T, s datastore.Store)
	}{
		{"create", testCreate},
		{"get", testGet},
		{"update", testUpdate},
		{"update refused", testUpdateRefused},
		{"delete", testDelete},
		{"refused keys", testRefusedKeys},
		{"list", testList},
		{"cancelled", testCancelled},
		{"one creator wins", testOneCreator},
		{"one deleter wins", testOneDeleter},
		{"no increment lost", testIncrements},
		{"large object", testLargeObject},
		{"watch starts with all", testWatchAll},
		{"watch tells changes in order", testWatchOrder},
		{"watch tells its kind only", testWatchKind},
		{"watches see the final state", testWatchFinal},
		{"watch ends", testWatchEnds},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, open(t)) })
	}
}

// Pool returns an IPPool as a test may create it.
func Pool(name, cidr string) *v1.IPPool {
	return &v1.IPPool{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "IPPool"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1.IPPoolSpec{CIDR: cidr},
	}
}

// Endpoint returns a WorkloadEndpoint as a test may create it.
func Endpoint(namespace, name string) *v1.WorkloadEndpoint {
	return &v1.WorkloadEndpoint{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "WorkloadEndpoint"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1.WorkloadEndpointSpec{
			Node: "n1", Pod: name, ContainerID: "c", Endpoint: "eth0", InterfaceName: "cairn0",
			IPNetworks: []string{"10.244.0.1/32", "fd00::1/128"},
		},
	}
}

func node(name string) *v1.Node {
	return &v1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
}

func nodeStatus(name string) *v1.NodeStatus {
	return &v1.NodeStatus{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "NodeStatus"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
}

func poolKey(name string) datastore.Key { return datastore.Key{Kind: "IPPool", Name: name} }

// Create creates the object and returns it as the store does.
func Create[T v1.Object](t testing.TB, s datastore.Store, o T) T {
	t.Helper()
	got, err := s.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return got.(T)
}

func testCreate(t *testing.T, s datastore.Store) {
	given := Pool("blue", "10.244.0.0/16")
	given.UID, given.ResourceVersion, given.Generation = "mine", "7", 9
	given.Labels = map[string]string{"rack": "a"}
	before := given.DeepCopy()
	made := Create(t, s, given)
	if diff := cmp.Diff(before, given); diff != "" {
		t.Errorf("the object handed in was changed (-before +after):\n%s", diff)
	}

	want := Pool("blue", "10.244.0.0/16")
	want.Labels = map[string]string{"rack": "a"}
	want.Default()
	want.UID, want.CreationTimestamp, want.ResourceVersion = made.UID, made.CreationTimestamp, made.ResourceVersion
	want.Generation = 1
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	if made.UID == "" || made.UID == "mine" {
		t.Errorf("uid is %q", made.UID)
	}
	if age := time.Since(made.CreationTimestamp.Time); age < -time.Second || age > time.Minute {
		t.Errorf("creationTimestamp is %s ago", age)
	}
	if made.ResourceVersion == "" || made.ResourceVersion == "7" {
		t.Errorf("revision is %q", made.ResourceVersion)
	}

	given.Labels["rack"] = "changed after it was handed in"
	stored, err := s.Get(t.Context(), poolKey("blue"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v1.Object(made), stored); diff != "" {
		t.Errorf("stored (-created +got):\n%s", diff)
	}
	if _, err := s.Create(t.Context(), Pool("blue", "10.245.0.0/16")); !errors.Is(err, datastore.ErrExists) {
		t.Errorf("creating it again: %v, want ErrExists", err)
	}
}

func testGet(t *testing.T, s datastore.Store) {
	if _, err := s.Get(t.Context(), poolKey("none")); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("no such object: %v, want ErrNotFound", err)
	} else if want := "IPPool none"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not name %s", err, want)
	}
	made := Create(t, s, Endpoint("red", "web"))
	key := datastore.Key{Kind: "WorkloadEndpoint", Namespace: "red", Name: "web"}
	first, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	first.(*v1.WorkloadEndpoint).Spec.IPNetworks[0] = "changed by the caller"
	second, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v1.Object(made), second); diff != "" {
		t.Errorf("(-created +got):\n%s", diff)
	}
	if _, err := s.Get(t.Context(), datastore.Key{Kind: "WorkloadEndpoint", Namespace: "blue", Name: "web"}); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("other namespace: %v, want ErrNotFound", err)
	}
}

func testUpdate(t *testing.T, s datastore.Store) {
	for _, row := range []struct {
		name       string
		object     v1.Object
		change     func(v1.Object)
		generation int64
		same       bool // nothing is written
	}{
		{name: "spec", object: Pool("spec", "10.1.0.0/16"), generation: 2,
			change: func(o v1.Object) { o.(*v1.IPPool).Spec.Disabled = true }},
		{name: "labels", object: Pool("labels", "10.2.0.0/16"), generation: 1,
			change: func(o v1.Object) { o.SetLabels(map[string]string{"a": "b"}) }},
		{name: "status", object: nodeStatus("n1"), generation: 1,
			change: func(o v1.Object) { o.(*v1.NodeStatus).Status.Pods = 3 }},
		{name: "nothing", object: Pool("nothing", "10.3.0.0/16"), generation: 1, same: true,
			change: func(v1.Object) {}},
		{name: "what the store keeps", object: Pool("kept", "10.4.0.0/16"), generation: 1, same: true,
			change: func(o v1.Object) {
				o.SetUID("")
				o.SetGeneration(99)
				o.SetCreationTimestamp(metav1.NewTime(time.Unix(1, 0)))
			}},
		{name: "empty for absent", object: Pool("empty", "10.5.0.0/16"), generation: 1, same: true,
			change: func(o v1.Object) { o.SetLabels(map[string]string{}) }},
		{name: "namespaced", object: Endpoint("red", "web"), generation: 2,
			change: func(o v1.Object) { o.(*v1.WorkloadEndpoint).Spec.IPNetworks = []string{"10.9.0.1/32"} }},
	} {
		t.Run(row.name, func(t *testing.T) {
			made := Create(t, s, row.object)
			o := made.DeepCopyObject().(v1.Object)
			row.change(o)
			given := o.DeepCopyObject()
			put, err := s.Update(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(given, o.DeepCopyObject()); diff != "" {
				t.Errorf("the object handed in was changed:\n%s", diff)
			}
			if same := put.GetResourceVersion() == made.GetResourceVersion(); same != row.same {
				t.Errorf("same revision %v, want %v", same, row.same)
			}
			if put.GetGeneration() != row.generation {
				t.Errorf("generation %d, want %d", put.GetGeneration(), row.generation)
			}
			want := made
			if !row.same {
				want = o
				want.SetGeneration(row.generation)
				want.SetResourceVersion(put.GetResourceVersion())
			}
			if diff := cmp.Diff(want, put); diff != "" {
				t.Errorf("updated (-want +got):\n%s", diff)
			}
			got, err := s.Get(t.Context(), datastore.KeyOf(o))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(put, got); diff != "" {
				t.Errorf("stored (-updated +got):\n%s", diff)
			}
		})
	}
}

func testUpdateRefused(t *testing.T, s datastore.Store) {
	first := Create(t, s, Pool("blue", "10.244.0.0/16"))
	second := first.DeepCopy()
	second.Spec.Disabled = true
	if _, err := s.Update(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), first); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("stale revision, nothing else changed: %v, want ErrConflict", err)
	}
	current, err := s.Get(t.Context(), poolKey("blue"))
	if err != nil {
		t.Fatal(err)
	}
	other := current.DeepCopyObject().(v1.Object)
	other.SetUID("another")
	if _, err := s.Update(t.Context(), other); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("another uid: %v, want ErrConflict", err)
	}
	blind := current.DeepCopyObject().(v1.Object)
	blind.SetResourceVersion("")
	if _, err := s.Update(t.Context(), blind); err == nil || errors.Is(err, datastore.ErrConflict) || errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("no revision: %v, want another error", err)
	}
	if err := s.Delete(t.Context(), poolKey("blue"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), current); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("deleted: %v, want ErrNotFound", err)
	}
	Create(t, s, Pool("blue", "10.244.0.0/16"))
	if _, err := s.Update(t.Context(), current); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("deleted and created anew: %v, want ErrConflict", err)
	}
}

func testDelete(t *testing.T, s datastore.Store) {
	key := poolKey("blue")
	if err := s.Delete(t.Context(), key, ""); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("none, any revision: %v, want ErrNotFound", err)
	}
	if err := s.Delete(t.Context(), key, "1"); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("none, some revision: %v, want ErrNotFound", err)
	}
	first := Create(t, s, Pool("blue", "10.244.0.0/16"))
	if err := s.Delete(t.Context(), key, first.ResourceVersion); err != nil {
		t.Errorf("its revision: %v", err)
	}
	second := Create(t, s, Pool("blue", "10.244.0.0/16"))
	if second.UID == first.UID {
		t.Errorf("created anew, it has the same uid %s", second.UID)
	}
	if err := s.Delete(t.Context(), key, first.ResourceVersion); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("stale revision: %v, want ErrConflict", err)
	}
	if err := s.Delete(t.Context(), key, ""); err != nil {
		t.Errorf("any revision: %v", err)
	}
	if _, err := s.Get(t.Context(), key); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("get of a deleted object: %v, want ErrNotFound", err)
	}
}

func testRefusedKeys(t *testing.T, s datastore.Store) {
	nameless, slashed, kindless := Pool("", "10.0.0.0/16"), Pool("a/b", "10.0.0.0/16"), Pool("a", "10.0.0.0/16")
	kindless.TypeMeta = metav1.TypeMeta{}
	unknown := Pool("a", "10.0.0.0/16")
	unknown.Kind = "Dragon"
	scoped := Pool("a", "10.0.0.0/16")
	scoped.Namespace = "red"
	for name, o := range map[string]v1.Object{
		"no name": nameless, "slash": slashed, "no kind": kindless, "unknown kind": unknown,
		"namespace without need": scoped, "no namespace": Endpoint("", "a"),
	} {
		t.Run(name, func(t *testing.T) {
			o.SetResourceVersion("1")
			_, create := s.Create(t.Context(), o)
			_, update := s.Update(t.Context(), o)
			_, get := s.Get(t.Context(), datastore.KeyOf(o))
			remove := s.Delete(t.Context(), datastore.KeyOf(o), "")
			for verb, err := range map[string]error{"create": create, "update": update, "get": get, "delete": remove} {
				if err == nil || errors.Is(err, datastore.ErrNotFound) || errors.Is(err, datastore.ErrUnavailable) {
					t.Errorf("%s: %v, want it refused", verb, err)
				}
			}
		})
	}
	if _, err := s.List(t.Context(), "Dragon"); err == nil {
		t.Error("list of an unknown kind is not refused")
	}
}

func testList(t *testing.T, s datastore.Store) {
	list := func(kind string) []string {
		t.Helper()
		objects, err := s.List(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, o := range objects {
			names = append(names, datastore.KeyOf(o).String())
		}
		return names
	}
	if diff := cmp.Diff([]string{}, list("Node")); diff != "" {
		t.Errorf("empty (-want +got):\n%s", diff)
	}
	Create(t, s, nodeStatus("n1"))
	for _, name := range []string{"n2", "n10", "n1"} {
		Create(t, s, node(name))
	}
	// Separators sort unlike names: a-b/z lies before a/a where keys are texts.
	for _, at := range [][2]string{{"a-b", "z"}, {"a", "b"}, {"a", "a-1"}, {"a", "a"}, {"a.c", "y"}} {
		Create(t, s, Endpoint(at[0], at[1]))
	}
	if diff := cmp.Diff([]string{"Node n1", "Node n10", "Node n2"}, list("Node")); diff != "" {
		t.Errorf("cluster-scoped (-want +got):\n%s", diff)
	}
	want := []string{"a/a", "a/a-1", "a/b", "a-b/z", "a.c/y"}
	for i, w := range want {
		want[i] = "WorkloadEndpoint " + w
	}
	if diff := cmp.Diff(want, list("WorkloadEndpoint")); diff != "" {
		t.Errorf("namespaced (-want +got):\n%s", diff)
	}
	first, err := s.List(t.Context(), "Node")
	if err != nil {
		t.Fatal(err)
	}
	first[0].SetLabels(map[string]string{"changed": "by the caller"})
	second, err := s.List(t.Context(), "Node")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), datastore.KeyOf(second[0])); err != nil || !cmp.Equal(got, second[0]) || len(got.GetLabels()) > 0 {
		t.Errorf("listed %v, got %v, %v", second[0], got, err)
	}
}

func testCancelled(t *testing.T, s datastore.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, poolKey("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v, want context.Canceled", err)
	}
	if _, err := s.Create(ctx, Pool("a", "10.0.0.0/16")); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v, want context.Canceled", err)
	}
}
