package datastore_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// part returns the part that holds these objects.
func part(pools ...*v1.IPPool) *datastore.Part {
	var objects []v1.Object
	for _, p := range pools {
		objects = append(objects, p)
	}
	return datastore.NewSnapshot(objects...).Part("IPPool")
}

// change is an object before and after.
type change struct{ was, is *v1.IPPool }

// changes returns what differs, by name.
func changes(t *testing.T, old, new *datastore.Part) map[string]change {
	got := map[string]change{}
	for was, is := range datastore.Changed[*v1.IPPool](old, new) {
		name := ""
		switch {
		case was != nil:
			name = was.Name
		case is != nil:
			name = is.Name
		}
		if _, twice := got[name]; twice {
			t.Errorf("%s was told twice", name)
		}
		got[name] = change{was, is}
	}
	return got
}

func TestChanged(t *testing.T) {
	a, again, b := pool("a"), pool("a"), pool("b")
	for _, row := range []struct {
		name     string
		old, new *datastore.Part
		want     map[string]change
	}{
		{"nothing", nil, nil, map[string]change{}},
		{"the same objects", part(a, b), part(a, b), map[string]change{}},
		{"the first", nil, part(a), map[string]change{"a": {nil, a}}},
		{"the last is gone", part(a), nil, map[string]change{"a": {a, nil}}},
		{"one more", part(a), part(a, b), map[string]change{"b": {nil, b}}},
		{"one less", part(a, b), part(b), map[string]change{"a": {a, nil}}},
		{"equal but another", part(a, b), part(again, b), map[string]change{"a": {a, again}}},
		{"another one", part(a), part(b), map[string]change{"a": {a, nil}, "b": {nil, b}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := changes(t, row.old, row.new)
			if !maps.Equal(row.want, got) {
				t.Errorf("(-want +got):\n%s", cmp.Diff(row.want, got, cmp.AllowUnexported(change{})))
			}
		})
	}
	t.Run("a consumer that has seen enough", func(t *testing.T) {
		n := 0
		for range datastore.Changed[*v1.IPPool](nil, part(a, b)) {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%d steps, want 1", n)
		}
	})
}
