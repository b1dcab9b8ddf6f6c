package selector

import (
	"hash/maphash"
	"iter"
	"slices"
)

// Index knows which of its items each registered selector matches, and tells what
// changes of that. An item has labels of its own, and inherits those of its parents:
// selectors see its own, then its first parent's, then its second's.
//
// Items with equal labels and parents are one class, and selectors are asked about
// classes. Each selector is filed under tests that any class it matches must fulfil,
// such as app == 'web'. So what changes costs as much as there are selectors filed
// under labels of the class that changed, and mentioning a label that changed; and a
// new selector costs as much as there are classes that fulfil its tests. Selectors
// without such tests, such as !has(app), are asked about every class: most of these
// match.
//
// It is for one goroutine. The maps that are given to it must not change any more.
type Index[ID comparable] struct {
	changed func(s *Selector, id ID, in bool)
	items   map[ID]place[ID]
	parents map[string]*parent
	entries map[string]*entry // by canonical text
	serial  uint64            // of the youngest entry

	classes []*class[ID]          // by number; nil: free
	free    []uint32              // free numbers
	byHash  map[uint64]*class[ID] // of its own labels and parents
	seed    maphash.Seed

	having    postings // classes by the labels that selectors see of them
	filed     map[test]entries
	unfiled   entries
	mentioned map[string]int // how many selectors ask for a label

	round       uint64
	evaluations int // how often a selector was asked about a class
}

// place is where an item is.
type place[ID comparable] struct {
	class *class[ID]
	i     int // among its items
}

// NewIndex returns an index without items and selectors. It calls changed for each
// item that a registered selector begins or ceases to match, that which goes or whose
// selector goes included. All that belongs to a change has happened to the item by
// then; changed may ask the index, and must not change it. If it is nil, nobody is
// told.
func NewIndex[ID comparable](changed func(s *Selector, id ID, in bool)) *Index[ID] {
	if changed == nil {
		changed = func(*Selector, ID, bool) {}
	}
	return &Index[ID]{
		changed:   changed,
		items:     map[ID]place[ID]{},
		parents:   map[string]*parent{},
		entries:   map[string]*entry{},
		byHash:    map[uint64]*class[ID]{},
		seed:      maphash.MakeSeed(),
		having:    postings{},
		filed:     map[test]entries{},
		mentioned: map[string]int{},
	}
}

// Set puts an item into the index, or gives it other labels or parents. A parent need
// not have been told of: it has no labels then.
func (ix *Index[ID]) Set(id ID, own Map, parents ...string) {
	old, had := ix.items[id]
	c := ix.classOf(own, parents, old.class)
	if had && c == old.class {
		return
	}
	if had {
		ix.leave(old)
	}
	ix.items[id] = place[ID]{c, len(c.items)}
	c.items = append(c.items, id)
	var before entries
	if had {
		before = old.class.matches
	}
	ix.report(before, c.matches, id)
	if had {
		ix.drop(old.class)
	}
}

// Delete takes an item out of the index, if it is in.
func (ix *Index[ID]) Delete(id ID) {
	old, had := ix.items[id]
	if !had {
		return
	}
	ix.leave(old)
	delete(ix.items, id)
	ix.report(old.class.matches, nil, id)
	ix.drop(old.class)
}

// SetParent says what labels a parent has, named as selectors ask for them; nil of
// one that is gone.
func (ix *Index[ID]) SetParent(name string, labels Map) {
	p := ix.parent(name)
	changed := differing(p.labels, labels)
	for _, n := range p.classes {
		for _, l := range changed {
			if v, ok := ix.classes[n].Get(l); ok {
				ix.having.remove(l, v, n)
			}
		}
	}
	p.labels = labels
	for _, n := range p.classes {
		for _, l := range changed {
			if v, ok := ix.classes[n].Get(l); ok {
				ix.having.add(l, v, n)
			}
		}
	}
	if changed = ix.asked(changed); len(changed) > 0 {
		for _, n := range p.classes {
			c := ix.classes[n]
			before := c.matches
			c.matches = ix.refreshed(c, before, changed)
			ix.report(before, c.matches, c.items...)
		}
	}
	ix.dropParent(p)
}

// Add registers a selector. One that is registered with the same text already is
// only counted.
func (ix *Index[ID]) Add(s *Selector) {
	if e := ix.entries[s.text]; e != nil {
		e.count++
		return
	}
	ix.serial++
	e := &entry{selector: s, serial: ix.serial, count: 1, labels: s.Labels()}
	e.tests, e.filed = s.required(ix.cost)
	ix.entries[s.text] = e
	for _, t := range e.tests {
		ix.filed[t] = append(ix.filed[t], e)
	}
	if !e.filed {
		ix.unfiled = append(ix.unfiled, e)
	}
	for _, l := range e.labels {
		ix.mentioned[l]++
	}
	for c := range ix.candidates(e) {
		if ix.match(e, c) {
			c.matches = append(c.matches, e)
			ix.report(nil, entries{e}, c.items...)
		}
	}
}

// Remove takes a selector away that was added; the last time, for good.
func (ix *Index[ID]) Remove(s *Selector) {
	e := ix.entries[s.text]
	if e == nil {
		return
	}
	if e.count--; e.count > 0 {
		return
	}
	delete(ix.entries, s.text)
	for _, t := range e.tests {
		if left := ix.filed[t].without(e); len(left) > 0 {
			ix.filed[t] = left
		} else {
			delete(ix.filed, t)
		}
	}
	ix.unfiled = ix.unfiled.without(e)
	for _, l := range e.labels {
		if ix.mentioned[l]--; ix.mentioned[l] == 0 {
			delete(ix.mentioned, l)
		}
	}
	for c := range ix.candidates(e) {
		if _, in := c.matches.find(e); in {
			c.matches = c.matches.without(e)
			ix.report(entries{e}, nil, c.items...)
		}
	}
}

// Matches yields the registered selectors that match an item, in the order in which
// they were registered.
func (ix *Index[ID]) Matches(id ID) iter.Seq[*Selector] {
	return func(yield func(*Selector) bool) {
		at, ok := ix.items[id]
		if !ok {
			return
		}
		for _, e := range at.class.matches {
			if !yield(e.selector) {
				return
			}
		}
	}
}

// Items yields the items that a registered selector matches.
func (ix *Index[ID]) Items(s *Selector) iter.Seq[ID] {
	return func(yield func(ID) bool) {
		e := ix.entries[s.text]
		if e == nil {
			return
		}
		for c := range ix.candidates(e) {
			if _, in := c.matches.find(e); !in {
				continue
			}
			for _, id := range c.items {
				if !yield(id) {
					return
				}
			}
		}
	}
}

// Len returns how many items there are.
func (ix *Index[ID]) Len() int { return len(ix.items) }

// report tells what changes for items.
func (ix *Index[ID]) report(before, after entries, ids ...ID) {
	for e, in := range changes(before, after) {
		for _, id := range ids {
			ix.changed(e.selector, id, in)
		}
	}
}

// asked returns those of the labels that any selector asks for.
func (ix *Index[ID]) asked(labels []string) []string {
	return slices.DeleteFunc(labels, func(l string) bool { return ix.mentioned[l] == 0 })
}
