package datastore_test

import (
	"bytes"
	"testing"

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
