package selector

import "slices"

// numbers are sorted, each once: 4 bytes for each class.
type numbers []uint32

func (ns numbers) with(n uint32) numbers {
	i, found := slices.BinarySearch(ns, n)
	if found {
		return ns
	}
	return slices.Insert(ns, i, n)
}

func (ns numbers) without(n uint32) numbers {
	if i, found := slices.BinarySearch(ns, n); found {
		return slices.Delete(ns, i, i+1)
	}
	return ns
}

// postings tell which classes have a label.
type postings map[string]*posting

type posting struct {
	values map[string]numbers // none is empty
	count  int                // of classes, whatever the value
}

func (p postings) add(label, value string, class uint32) {
	l := p[label]
	if l == nil {
		l = &posting{values: map[string]numbers{}}
		p[label] = l
	}
	l.values[value] = l.values[value].with(class)
	l.count++
}

func (p postings) remove(label, value string, class uint32) {
	l := p[label]
	left := l.values[value].without(class)
	if l.count--; l.count == 0 {
		delete(p, label)
	}
	if len(left) == 0 {
		delete(l.values, value)
	} else {
		l.values[value] = left
	}
}

// count returns how many classes fulfil a test.
func (p postings) count(t test) int {
	l := p[t.label]
	switch {
	case l == nil:
		return 0
	case t.any:
		return l.count
	}
	return len(l.values[t.value])
}

// fulfil returns the classes that fulfil any of the tests.
func (p postings) fulfil(tests []test) numbers {
	var found numbers
	for _, t := range tests {
		l := p[t.label]
		switch {
		case l == nil:
		case t.any:
			for _, classes := range l.values {
				found = append(found, classes...)
			}
		default:
			found = append(found, l.values[t.value]...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
