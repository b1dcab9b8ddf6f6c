package selector

import (
	"cmp"
	"iter"
	"maps"
	"slices"
)

// entry is a registered selector.
type entry struct {
	selector *Selector
	serial   uint64   // selectors that came later have greater ones
	count    int      // how often it was registered
	labels   []string // that it asks for
	tests    []test   // that it is filed under
	filed    bool     // false: it has no required tests
	round    uint64   // of the last look at it, see Index.concerned
}

// mentions says whether the selector asks for any of these labels.
func (e *entry) mentions(labels []string) bool {
	return slices.ContainsFunc(labels, func(l string) bool {
		_, ok := slices.BinarySearch(e.labels, l)
		return ok
	})
}

// entries are in the order of their serials, each once.
type entries []*entry

func (es entries) find(e *entry) (int, bool) {
	return slices.BinarySearchFunc(es, e, bySerial)
}

func bySerial(a, b *entry) int { return cmp.Compare(a.serial, b.serial) }

// without returns es less e, in place.
func (es entries) without(e *entry) entries {
	if i, ok := es.find(e); ok {
		return slices.Delete(es, i, i+1)
	}
	return es
}

// changes yields what is in one of the two only, and whether in the second.
func changes(before, after entries) iter.Seq2[*entry, bool] {
	return func(yield func(*entry, bool) bool) {
		for len(before) > 0 || len(after) > 0 {
			switch {
			case len(after) == 0 || len(before) > 0 && before[0].serial < after[0].serial:
				if !yield(before[0], false) {
					return
				}
				before = before[1:]
			case len(before) == 0 || after[0].serial < before[0].serial:
				if !yield(after[0], true) {
					return
				}
				after = after[1:]
			default:
				before, after = before[1:], after[1:]
			}
		}
	}
}

// match asks a selector about a class.
func (ix *Index[ID]) match(e *entry, c *class[ID]) bool {
	ix.evaluations++
	return e.selector.root.match(c)
}

// cost is an estimate of what it costs to file one more selector under a test: it is
// asked about the classes that there are, and those that come are asked about it and
// its like.
func (ix *Index[ID]) cost(t test) int {
	n := 1 + ix.having.count(t) + len(ix.filed[t])
	if t.any {
		n += 4 // many more may come
	}
	return n
}

// candidates yields the classes that a selector may match.
func (ix *Index[ID]) candidates(e *entry) iter.Seq[*class[ID]] {
	return func(yield func(*class[ID]) bool) {
		if !e.filed {
			for _, c := range ix.classes {
				if c != nil && !yield(c) {
					return
				}
			}
			return
		}
		for _, n := range ix.having.fulfil(e.tests) {
			if !yield(ix.classes[n]) {
				return
			}
		}
	}
}

// concerned yields the selectors that may match a class, each once.
func (ix *Index[ID]) concerned(c *class[ID]) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		ix.round++
		each := func(es entries) bool {
			for _, e := range es {
				if e.round == ix.round {
					continue
				}
				if e.round = ix.round; !yield(e) {
					return false
				}
			}
			return true
		}
		for l, v := range c.labels() {
			if ix.mentioned[l] > 0 && (!each(ix.filed[test{label: l, value: v}]) || !each(ix.filed[test{label: l, any: true}])) {
				return
			}
		}
		each(ix.unfiled)
	}
}

// refreshed returns what matches a class, when before did until these labels changed.
func (ix *Index[ID]) refreshed(c *class[ID], before entries, changed []string) entries {
	var now entries
	for _, e := range before {
		if !e.mentions(changed) {
			now = append(now, e)
		}
	}
	for e := range ix.concerned(c) {
		if e.mentions(changed) && ix.match(e, c) {
			now = append(now, e)
		}
	}
	slices.SortFunc(now, bySerial)
	return now
}

// first returns what matches a new class.
func (ix *Index[ID]) first(c, like *class[ID]) entries {
	if like != nil {
		changed := ix.asked(differing(maps.Collect(like.labels()), maps.Collect(c.labels())))
		if len(changed) == 0 {
			return slices.Clone(like.matches)
		}
		return ix.refreshed(c, like.matches, changed)
	}
	var found entries
	for e := range ix.concerned(c) {
		if ix.match(e, c) {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, bySerial)
	return found
}
