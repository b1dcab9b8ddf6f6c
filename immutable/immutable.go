// Package immutable holds maps that never change: an edit makes another map that
// shares all but the path to what was edited.
//
// It guarantees that a change costs about the same whatever the size of the map,
// that two maps are compared at the cost of their difference if the one was made
// from the other, and that an edit which changes nothing returns a map that is
// == the one it began with. It leaves order to the caller: there is none.
//
// The structure is a hash trie of 32-way nodes that hold entries and children
// apart (Steindorfer and Vinju, "Optimizing Hash-Array Mapped Tries for Fast and
// Lean Immutable JVM Collections", OOPSLA 2015).
package immutable

import (
	"hash/maphash"
	"iter"
)

// Map is a map that never changes. The zero Map is empty. Maps are comparable:
// == says that they are the same map, not that they hold the same.
type Map[K, V comparable] struct {
	root *node[K, V]
	size int
}

// Of returns the map that holds what m holds.
func Of[K, V comparable](m map[K]V) Map[K, V] {
	var e Editor[K, V]
	for k, v := range m {
		e.Set(k, v)
	}
	return e.Map()
}

// Len returns the number of keys.
func (m Map[K, V]) Len() int { return m.size }

// Get returns the value of a key, and whether there is one.
func (m Map[K, V]) Get(k K) (v V, ok bool) {
	if m.root == nil {
		return v, false
	}
	return m.root.get(k, hash(k), 0)
}

// Has says whether there is such a key.
func (m Map[K, V]) Has(k K) bool {
	_, ok := m.Get(k)
	return ok
}

// At returns the value of a key, the zero value if there is none.
func (m Map[K, V]) At(k K) V {
	v, _ := m.Get(k)
	return v
}

// All returns the keys and values, in no order.
func (m Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { m.root.all(yield) }
}

// With returns the map with a key set.
func (m Map[K, V]) With(k K, v V) Map[K, V] {
	e := m.Edit()
	e.Set(k, v)
	return e.Map()
}

// Without returns the map without a key.
func (m Map[K, V]) Without(k K) Map[K, V] {
	e := m.Edit()
	e.Delete(k)
	return e.Map()
}

// Plain returns a new map of Go that holds the same.
func (m Map[K, V]) Plain() map[K]V {
	plain := make(map[K]V, m.size)
	for k, v := range m.All() {
		plain[k] = v
	}
	return plain
}

// Equal says whether both maps hold the same.
func Equal[K, V comparable](a, b Map[K, V]) bool {
	if a.size != b.size {
		return false
	}
	for range Diff(a, b) {
		return false
	}
	return true
}

// Diff returns the keys whose values are not the same in both maps, those that
// only one of them has included, each once, in no order. What the maps share is
// not looked at.
func Diff[K, V comparable](a, b Map[K, V]) iter.Seq[K] {
	return func(yield func(K) bool) { diff(a.root, b.root, 0, yield) }
}

// Share returns the map that holds what m holds and has in common with other all
// that is the same in both: other itself if everything is. It costs no more than
// Diff, and makes every later Diff of the two cost what they differ by. It keeps
// two maps lean that come to hold the same by different ways.
func Share[K, V comparable](m, other Map[K, V]) Map[K, V] {
	return Map[K, V]{root: share(m.root, other.root), size: m.size}
}

// Edit returns an editor that begins with this map, which stays as it is.
func (m Map[K, V]) Edit() *Editor[K, V] {
	return &Editor[K, V]{now: m}
}

// Editor makes a map out of another by many changes, at less cost than one by
// one. The zero Editor begins with an empty map. It is for one goroutine.
type Editor[K, V comparable] struct {
	now   Map[K, V]
	first []pair[K, V] // what was set so far, while now is empty
	owner *owner       // of the nodes that no Map has seen yet; nil: there are none
}

// owner marks the nodes that an editor has made for itself.
type owner struct{ _ byte }

// Set sets a key.
func (e *Editor[K, V]) Set(k K, v V) {
	if e.owner == nil {
		e.owner = new(owner)
	}
	if e.now.root == nil {
		e.first = append(e.first, pair[K, V]{hash(k), entry[K, V]{k, v}})
		return
	}
	root, added := e.now.root.set(e.owner, k, v, hash(k), 0)
	e.now.root = root
	if added {
		e.now.size++
	}
}

// Delete removes a key; there may be none.
func (e *Editor[K, V]) Delete(k K) {
	if e.owner == nil {
		e.owner = new(owner)
	}
	e.build()
	root, removed := e.now.root.remove(e.owner, k, hash(k), 0)
	if !removed {
		return
	}
	e.now.root = root
	if e.now.size--; e.now.size == 0 {
		e.now.root = nil
	}
}

// Get returns the value of a key as edited so far, and whether there is one.
func (e *Editor[K, V]) Get(k K) (V, bool) {
	e.build()
	return e.now.Get(k)
}

// Len returns the number of keys as edited so far.
func (e *Editor[K, V]) Len() int {
	e.build()
	return e.now.size
}

// Map returns the map as edited so far. The editor may go on: what it does then
// concerns later maps only.
func (e *Editor[K, V]) Map() Map[K, V] {
	e.build()
	e.owner = nil
	return e.now
}

// seed differs from process to process, so that nobody relies on an order and
// nobody can choose keys that collide.
var seed = maphash.MakeSeed()

func hash[K comparable](k K) uint64 { return maphash.Comparable(seed, k) }
