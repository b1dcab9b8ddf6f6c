package immutable

import "math/bits"

const (
	bitsPerLevel = 5
	slotMask     = 1<<bitsPerLevel - 1
	// levels is how many levels a hash of 64 bits has something to say to. Below
	// them are the keys with one and the same hash.
	levels = 64 / bitsPerLevel
)

// node is a node of the trie. Bit i of entries and children says that there is
// something in slot i; the lists hold that without gaps. Below the last level
// there are entries only, in no slots. Once a Map holds it a node never changes.
type node[K, V comparable] struct {
	owner    *owner // the editor that may still change it
	entryMap uint32
	childMap uint32
	entries  []entry[K, V]
	children []*node[K, V]
}

type entry[K, V comparable] struct {
	key   K
	value V
}

// number returns the number of a hash's slot on a level, slot the bit for it.
func number(h uint64, level int) uint64     { return h >> (level * bitsPerLevel) & slotMask }
func slot(h uint64, level int) (bit uint32) { return 1 << number(h, level) }

// index returns the place in a list of what has this bit.
func index(bitmap, bit uint32) int { return bits.OnesCount32(bitmap & (bit - 1)) }

func (n *node[K, V]) get(k K, h uint64, level int) (v V, ok bool) {
	for ; n != nil && level < levels; level++ {
		bit := slot(h, level)
		if n.entryMap&bit != 0 {
			e := &n.entries[index(n.entryMap, bit)]
			if e.key == k {
				return e.value, true
			}
			return v, false
		}
		if n.childMap&bit == 0 {
			return v, false
		}
		n = n.children[index(n.childMap, bit)]
	}
	if n != nil {
		for i := range n.entries {
			if n.entries[i].key == k {
				return n.entries[i].value, true
			}
		}
	}
	return v, false
}

func (n *node[K, V]) all(yield func(K, V) bool) bool {
	if n == nil {
		return true
	}
	for i := range n.entries {
		if !yield(n.entries[i].key, n.entries[i].value) {
			return false
		}
	}
	for _, c := range n.children {
		if !c.all(yield) {
			return false
		}
	}
	return true
}

// mine returns the node if it is the owner's to change, else a copy that is, with
// room for so many more entries.
func (n *node[K, V]) mine(o *owner, room int) *node[K, V] {
	if n.owner == o {
		return n
	}
	c := *n
	c.owner = o
	c.entries = append(make([]entry[K, V], 0, len(n.entries)+room), n.entries...)
	c.children = append(make([]*node[K, V], 0, len(n.children)), n.children...)
	return &c
}

// set returns the node with the key set, and whether it had none. It is n itself
// if that changes nothing.
func (n *node[K, V]) set(o *owner, k K, v V, h uint64, level int) (_ *node[K, V], added bool) {
	if n == nil {
		n = &node[K, V]{owner: o}
	}
	if level == levels {
		return n.setHere(o, k, v)
	}
	bit := slot(h, level)
	switch {
	case n.childMap&bit != 0:
		i := index(n.childMap, bit)
		child, added := n.children[i].set(o, k, v, h, level+1)
		if child == n.children[i] {
			return n, added
		}
		n = n.mine(o, 0)
		n.children[i] = child
		return n, added
	case n.entryMap&bit == 0:
		n = n.mine(o, 1)
		n.entries = insert(n.entries, index(n.entryMap, bit), entry[K, V]{k, v})
		n.entryMap |= bit
		return n, true
	}
	i := index(n.entryMap, bit)
	if old := &n.entries[i]; old.key == k {
		if old.value == v {
			return n, false
		}
		n = n.mine(o, 0)
		n.entries[i].value = v
		return n, false
	}
	// Two keys in one slot: both go one level down.
	n = n.mine(o, 0)
	old := n.entries[i]
	child, _ := (*node[K, V])(nil).set(o, old.key, old.value, hash(old.key), level+1)
	child, _ = child.set(o, k, v, h, level+1)
	n.entries = remove(n.entries, i)
	n.entryMap &^= bit
	n.children = insert(n.children, index(n.childMap, bit), child)
	n.childMap |= bit
	return n, true
}

// setHere is set below the last level.
func (n *node[K, V]) setHere(o *owner, k K, v V) (_ *node[K, V], added bool) {
	for i := range n.entries {
		if n.entries[i].key != k {
			continue
		}
		if n.entries[i].value != v {
			n = n.mine(o, 0)
			n.entries[i].value = v
		}
		return n, false
	}
	n = n.mine(o, 1)
	n.entries = append(n.entries, entry[K, V]{k, v})
	return n, true
}

// remove returns the node without the key, and whether it had it. A node that is
// left with one entry and no child is for its parent to take in.
func (n *node[K, V]) remove(o *owner, k K, h uint64, level int) (_ *node[K, V], removed bool) {
	if n == nil {
		return nil, false
	}
	if level == levels {
		for i := range n.entries {
			if n.entries[i].key == k {
				n = n.mine(o, 0)
				n.entries = remove(n.entries, i)
				return n, true
			}
		}
		return n, false
	}
	bit := slot(h, level)
	if n.entryMap&bit != 0 {
		i := index(n.entryMap, bit)
		if n.entries[i].key != k {
			return n, false
		}
		n = n.mine(o, 0)
		n.entries = remove(n.entries, i)
		n.entryMap &^= bit
		return n, true
	}
	if n.childMap&bit == 0 {
		return n, false
	}
	i := index(n.childMap, bit)
	child, removed := n.children[i].remove(o, k, h, level+1)
	if !removed {
		return n, false
	}
	n = n.mine(o, 1) // it may take in the child's last entry
	if len(child.entries) == 1 && len(child.children) == 0 {
		n.children = remove(n.children, i)
		n.childMap &^= bit
		n.entries = insert(n.entries, index(n.entryMap, bit), child.entries[0])
		n.entryMap |= bit
	} else {
		n.children[i] = child
	}
	return n, true
}

// insert grows a list by little, since most nodes stay as they are for long.
func insert[T any](list []T, i int, v T) []T {
	if n := len(list); n == cap(list) {
		list = append(make([]T, 0, n+1+n/3), list...)
	}
	list = list[:len(list)+1]
	copy(list[i+1:], list[i:])
	list[i] = v
	return list
}

func remove[T any](list []T, i int) []T {
	copy(list[i:], list[i+1:])
	clear(list[len(list)-1:])
	return list[:len(list)-1]
}
