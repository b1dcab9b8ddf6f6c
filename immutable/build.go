package immutable

// pair is a key to be set in an editor's map, while that is empty.
type pair[K, V comparable] struct {
	hash uint64
	entry[K, V]
}

// build makes the trie of all that was set in an empty map: at once, so that no list is
// made longer again and again.
func (e *Editor[K, V]) build() {
	if len(e.first) == 0 {
		return
	}
	b := builder[K, V]{owner: e.owner}
	e.now.root = b.node(e.first, make([]pair[K, V], len(e.first)), 0)
	e.now.size = b.size
	e.first = nil
}

// builder builds the nodes of a trie.
type builder[K, V comparable] struct {
	owner *owner
	size  int // keys so far
}

// node returns the node of pairs whose hashes have the same to say above level; of those
// with one key the last counts. It spoils both lists, which are as long as each other.
func (b *builder[K, V]) node(pairs, spare []pair[K, V], level int) *node[K, V] {
	n := &node[K, V]{owner: b.owner}
	if level == levels {
		for i := range pairs {
			var added bool
			if n, added = n.setHere(b.owner, pairs[i].key, pairs[i].value); added {
				b.size++
			}
		}
		return n
	}
	var ends [slotMask + 1]int // of each slot's pairs, once they are sorted
	for i := range pairs {
		ends[number(pairs[i].hash, level)]++
	}
	at := 0
	for i, count := range ends {
		ends[i] = at
		at += count
	}
	for i := range pairs {
		end := &ends[number(pairs[i].hash, level)]
		spare[*end] = pairs[i]
		*end++
	}
	b.fill(n, spare, pairs, ends[:], level)
	return n
}

// fill makes a node of sorted pairs.
func (b *builder[K, V]) fill(n *node[K, V], sorted, spare []pair[K, V], ends []int, level int) {
	entries, children := 0, 0
	begin := 0
	for i, end := range ends {
		switch some := sorted[begin:end]; {
		case len(some) == 0:
		case alike(some):
			n.entryMap |= 1 << i
			entries++
		default:
			n.childMap |= 1 << i
			children++
		}
		begin = end
	}
	n.entries, n.children = make([]entry[K, V], 0, entries), make([]*node[K, V], 0, children)
	b.size += entries
	begin = 0
	for i, end := range ends {
		switch {
		case n.entryMap&(1<<i) != 0:
			n.entries = append(n.entries, sorted[end-1].entry)
		case n.childMap&(1<<i) != 0:
			n.children = append(n.children, b.node(sorted[begin:end], spare[begin:end], level+1))
		}
		begin = end
	}
}

// alike says whether all pairs are of one key.
func alike[K, V comparable](pairs []pair[K, V]) bool {
	for i := 1; i < len(pairs); i++ {
		if pairs[i].hash != pairs[0].hash || pairs[i].key != pairs[0].key {
			return false
		}
	}
	return true
}
