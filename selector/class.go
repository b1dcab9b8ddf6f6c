package selector

import (
	"hash/maphash"
	"iter"
	"maps"
	"slices"
)

// class is the items that no selector can tell apart: they have the same labels of
// their own, and the same parents.
type class[ID comparable] struct {
	number  uint32 // its place in Index.classes
	hash    uint64
	next    *class[ID] // another of this hash
	own     Map
	parents []*parent
	items   []ID
	matches entries // the selectors that match
}

// Get returns a label's value, and whether there is such a label.
func (c *class[ID]) Get(label string) (string, bool) {
	if v, ok := c.own[label]; ok {
		return v, true
	}
	for _, p := range c.parents {
		if v, ok := p.labels[label]; ok {
			return v, true
		}
	}
	return "", false
}

// labels are those that selectors see, each once.
func (c *class[ID]) labels() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for l, v := range c.own {
			if !yield(l, v) {
				return
			}
		}
		for i, p := range c.parents {
			for l, v := range p.labels {
				if !c.hidden(l, i) && !yield(l, v) {
					return
				}
			}
		}
	}
}

// hidden says whether the class has a label before its parent i is asked for it.
func (c *class[ID]) hidden(label string, i int) bool {
	_, ok := c.own[label]
	return ok || slices.ContainsFunc(c.parents[:i], func(p *parent) bool {
		_, ok := p.labels[label]
		return ok
	})
}

// parent is what classes inherit labels of.
type parent struct {
	name    string
	labels  Map     // nil: not told
	classes numbers // those that inherit
}

// differing returns the labels that don't have the same value in both, sorted.
func differing(a, b Map) []string {
	labels := map[string]bool{}
	for l, v := range a {
		if w, ok := b[l]; !ok || v != w {
			labels[l] = true
		}
	}
	for l := range b {
		if _, ok := a[l]; !ok {
			labels[l] = true
		}
	}
	return slices.Sorted(maps.Keys(labels))
}

// classOf returns the class with these labels and parents; one that isn't there yet
// is made, of the class like if that is not nil.
func (ix *Index[ID]) classOf(own Map, names []string, like *class[ID]) *class[ID] {
	hash := ix.hash(own, names)
	for c := ix.byHash[hash]; c != nil; c = c.next {
		if maps.Equal(c.own, own) && slices.EqualFunc(c.parents, names, func(p *parent, name string) bool { return p.name == name }) {
			return c
		}
	}
	c := &class[ID]{hash: hash, next: ix.byHash[hash], own: own}
	ix.byHash[hash] = c
	if n := len(ix.free) - 1; n >= 0 {
		c.number, ix.free = ix.free[n], ix.free[:n]
		ix.classes[c.number] = c
	} else {
		c.number = uint32(len(ix.classes))
		ix.classes = append(ix.classes, c)
	}
	for _, name := range names {
		p := ix.parent(name)
		p.classes = p.classes.with(c.number)
		c.parents = append(c.parents, p)
	}
	for l, v := range c.labels() {
		ix.having.add(l, v, c.number)
	}
	c.matches = ix.first(c, like)
	return c
}

// leave takes the item at a place out of its class.
func (ix *Index[ID]) leave(at place[ID]) {
	items := at.class.items
	last := len(items) - 1
	if at.i < last {
		items[at.i] = items[last]
		ix.items[items[last]] = at
	}
	var none ID
	items[last] = none
	at.class.items = items[:last]
}

// hash is of what classes are told apart by.
func (ix *Index[ID]) hash(own Map, parents []string) uint64 {
	var sum uint64
	for l, v := range own {
		sum += maphash.Comparable(ix.seed, [2]string{l, v})
	}
	for _, name := range parents {
		sum = sum*31 + maphash.String(ix.seed, name)
	}
	return sum
}

// drop forgets a class without items.
func (ix *Index[ID]) drop(c *class[ID]) {
	if len(c.items) > 0 {
		return
	}
	at := ix.byHash[c.hash]
	switch {
	case at != c:
		for at.next != c {
			at = at.next
		}
		at.next = c.next
	case c.next != nil:
		ix.byHash[c.hash] = c.next
	default:
		delete(ix.byHash, c.hash)
	}
	for l, v := range c.labels() {
		ix.having.remove(l, v, c.number)
	}
	for _, p := range c.parents {
		p.classes = p.classes.without(c.number)
		ix.dropParent(p)
	}
	ix.classes[c.number] = nil
	ix.free = append(ix.free, c.number)
}

// parent returns the parent of a name, and makes it if need be.
func (ix *Index[ID]) parent(name string) *parent {
	p := ix.parents[name]
	if p == nil {
		p = &parent{name: name}
		ix.parents[name] = p
	}
	return p
}

// dropParent forgets a parent of which there is nothing to know.
func (ix *Index[ID]) dropParent(p *parent) {
	if p.labels == nil && len(p.classes) == 0 {
		delete(ix.parents, p.name)
	}
}
