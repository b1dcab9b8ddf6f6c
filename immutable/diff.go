package immutable

import "slices"

// diff yields the keys that differ, and says whether to go on.
func diff[K, V comparable](a, b *node[K, V], level int, yield func(K) bool) bool {
	switch {
	case a == b:
		return true
	case a == nil:
		return b.keys(yield)
	case b == nil:
		return a.keys(yield)
	case level == levels:
		return diffHere(a, b, yield)
	case a.entryMap == b.entryMap && a.childMap == b.childMap:
		return diffAlike(a, b, level, yield)
	}
	for bitmap := a.entryMap | a.childMap | b.entryMap | b.childMap; bitmap != 0; bitmap &= bitmap - 1 {
		if !diffSlot(a, b, bitmap&-bitmap, level, yield) {
			return false
		}
	}
	return true
}

// diffAlike is diff of nodes that have entries and children in the same slots, as
// most have that come of one change.
func diffAlike[K, V comparable](a, b *node[K, V], level int, yield func(K) bool) bool {
	for i := range a.entries {
		if x, y := &a.entries[i], &b.entries[i]; *x != *y && !diffEntries(x, y, yield) {
			return false
		}
	}
	for i, child := range a.children {
		if child != b.children[i] && !diff(child, b.children[i], level+1, yield) {
			return false
		}
	}
	return true
}

// diffEntries is diff of two entries.
func diffEntries[K, V comparable](x, y *entry[K, V], yield func(K) bool) bool {
	if x.key == y.key {
		return x.value == y.value || yield(x.key)
	}
	return yield(x.key) && yield(y.key)
}

// diffSlot is diff of one slot.
func diffSlot[K, V comparable](a, b *node[K, V], bit uint32, level int, yield func(K) bool) bool {
	x, childA := a.at(bit)
	y, childB := b.at(bit)
	switch {
	case x == nil && y == nil:
		return diff(childA, childB, level+1, yield)
	case x == nil:
		return diffEntry(y, childA, yield)
	case y == nil:
		return diffEntry(x, childB, yield)
	}
	return diffEntries(x, y, yield)
}

// diffEntry is diff of a single entry and a node, which may be nil.
func diffEntry[K, V comparable](e *entry[K, V], n *node[K, V], yield func(K) bool) bool {
	found := false
	more := n.all(func(k K, v V) bool {
		if k == e.key {
			found = true
			return v == e.value || yield(k)
		}
		return yield(k)
	})
	return more && (found || yield(e.key))
}

// diffHere is diff below the last level.
func diffHere[K, V comparable](a, b *node[K, V], yield func(K) bool) bool {
	for _, e := range a.entries {
		if i := b.find(e.key); (i < 0 || b.entries[i].value != e.value) && !yield(e.key) {
			return false
		}
	}
	for _, e := range b.entries {
		if a.find(e.key) < 0 && !yield(e.key) {
			return false
		}
	}
	return true
}

// at returns what is in a slot: an entry, a child, or neither.
func (n *node[K, V]) at(bit uint32) (*entry[K, V], *node[K, V]) {
	switch {
	case n.entryMap&bit != 0:
		return &n.entries[index(n.entryMap, bit)], nil
	case n.childMap&bit != 0:
		return nil, n.children[index(n.childMap, bit)]
	}
	return nil, nil
}

// find returns the place of a key in a node below the last level; -1: it isn't
// there.
func (n *node[K, V]) find(k K) int {
	return slices.IndexFunc(n.entries, func(e entry[K, V]) bool { return e.key == k })
}

// keys yields all keys, and says whether to go on.
func (n *node[K, V]) keys(yield func(K) bool) bool {
	for i := range n.entries {
		if !yield(n.entries[i].key) {
			return false
		}
	}
	for _, c := range n.children {
		if !c.keys(yield) {
			return false
		}
	}
	return true
}

// share returns a node that holds what n holds: other if that does, else one that
// has as much of other in it as can be, n itself if that is nothing new.
func share[K, V comparable](n, other *node[K, V]) *node[K, V] {
	if n == other || n == nil || other == nil {
		return n
	}
	shared := n
	for bitmap := n.childMap & other.childMap; bitmap != 0; bitmap &= bitmap - 1 {
		bit := bitmap & -bitmap
		i := index(n.childMap, bit)
		child := share(n.children[i], other.children[index(other.childMap, bit)])
		if child == n.children[i] {
			continue
		}
		if shared == n {
			c := *n
			c.owner, c.children = nil, slices.Clone(n.children)
			shared = &c
		}
		shared.children[i] = child
	}
	// What holds the same has the same shape; but for the order of keys with one
	// hash, which costs the sharing of those and no more.
	if shared.entryMap == other.entryMap && shared.childMap == other.childMap &&
		slices.Equal(shared.children, other.children) && slices.Equal(shared.entries, other.entries) {
		return other
	}
	return shared
}
