package calc

import (
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// memo keeps the last value that was made from a key. Keys hold pointers to
// immutable things, so an equal key means an equal value.
type memo[K comparable, V any] struct {
	key   K
	value V
	made  bool
}

func (m *memo[K, V]) get(key K, build func() V) V {
	if !m.made || m.key != key {
		m.value = build()
		m.key, m.made = key, true
	}
	return m.value
}

// check returns the object with its defaults filled in, and the reasons to
// refuse it, each followed by what comes of it.
func check[O v1.Object](o O, outcome string) (O, []v1.Issue) {
	full := o.DeepCopyObject().(O)
	full.Default()
	var issues []v1.Issue
	for _, e := range full.Validate() {
		issues = append(issues, v1.Issue{
			Object: objectName(o), Field: e.Field, Reason: e.ErrorBody() + ": " + outcome,
		})
	}
	return full, issues
}

// objectName returns the kind and name of an object as issues show it.
func objectName(o v1.Object) string { return datastore.KeyOf(o).String() }
