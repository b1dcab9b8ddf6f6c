package datastore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/storetest"
)

func TestKeyCheck(t *testing.T) {
	for _, row := range []struct {
		name string
		key  datastore.Key
		fine bool
	}{
		{"cluster-scoped", datastore.Key{Kind: "Node", Name: "n1"}, true},
		{"namespaced", datastore.Key{Kind: "WorkloadEndpoint", Namespace: "red", Name: "web"}, true},
		{"empty", datastore.Key{}, false},
		{"no name", datastore.Key{Kind: "Node"}, false},
		{"unknown kind", datastore.Key{Kind: "Dragon", Name: "n1"}, false},
		{"plural", datastore.Key{Kind: "nodes", Name: "n1"}, false},
		{"slash in name", datastore.Key{Kind: "Node", Name: "a/b"}, false},
		{"slash in namespace", datastore.Key{Kind: "WorkloadEndpoint", Namespace: "a/b", Name: "c"}, false},
		{"namespace missing", datastore.Key{Kind: "WorkloadEndpoint", Name: "web"}, false},
		{"namespace too much", datastore.Key{Kind: "Node", Namespace: "red", Name: "n1"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := row.key.Check(); (err == nil) != row.fine {
				t.Errorf("%v, want it fine: %v", err, row.fine)
			}
		})
	}
}

// TestKinds: an object of every kind has a key by which it is found, and survives
// being kept; what another API's objects carry tells them from ours.
func TestKinds(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "api", "v1", "testdata", "examples.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := v1.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		key := datastore.KeyOf(o)
		if err := key.Check(); err != nil {
			t.Error(err)
		}
		data, err := datastore.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := datastore.Decode(key, "", data)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if diff := cmp.Diff(o, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	ours := datastore.Key{Kind: "NetworkPolicy", Namespace: "red", Name: "web"}
	theirs := datastore.Key{Kind: "KubernetesNetworkPolicy", Namespace: "red", Name: "web"}
	for key, version := range map[datastore.Key]string{ours: "networking.k8s.io/v1", theirs: "cairn.network/v1"} {
		data := `{"apiVersion":"` + version + `","kind":"NetworkPolicy","metadata":{"namespace":"red","name":"web"}}`
		if _, err := datastore.Decode(key, "", []byte(data)); !errors.Is(err, datastore.ErrBroken) {
			t.Errorf("%s is kept as %s: %v", version, key, err)
		}
	}
}

// TestSnapshotOfKinds: the kinds of a snapshot are the names of their Go types.
func TestSnapshotOfKinds(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "red", Name: "web"}
	ours, theirs := &v1.NetworkPolicy{ObjectMeta: meta}, &v1.KubernetesNetworkPolicy{ObjectMeta: meta}
	ours.Default()
	theirs.Default()
	s := datastore.NewSnapshot(ours, theirs)
	if got, ok := datastore.Get[*v1.NetworkPolicy](s, "red", "web"); !ok || got != ours {
		t.Errorf("ours: %v", got)
	}
	if got, ok := datastore.Get[*v1.KubernetesNetworkPolicy](s, "red", "web"); !ok || got != theirs {
		t.Errorf("theirs: %v", got)
	}
}

// FuzzDecode looks for stored bytes that stop the reader, or that come back
// changed from being read and written.
func FuzzDecode(f *testing.F) {
	good, err := datastore.Encode(storetest.Endpoint("red", "web"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", "{", "null", "[]", `{"apiVersion":"cairn.network/v1","kind":"WorkloadEndpoint"}`, string(good)} {
		f.Add([]byte(seed))
	}
	key := datastore.KeyOf(storetest.Endpoint("red", "web"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := datastore.Decode(key, "7", data)
		if err != nil {
			return
		}
		first, err := datastore.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		again, err := datastore.Decode(key, "7", first)
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		second, err := datastore.Encode(again)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("written %s\nthen %s", first, second)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	o := storetest.Endpoint("red", "web")
	data, err := datastore.Encode(o)
	if err != nil {
		b.Fatal(err)
	}
	var got v1.Object
	for b.Loop() {
		if got, err = datastore.Decode(datastore.KeyOf(o), "7", data); err != nil {
			b.Fatal(err)
		}
	}
	_ = got
}
