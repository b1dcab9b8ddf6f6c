package selector

import (
	"slices"
	"strings"
)

// What is made here has a canonical text as what is parsed has, and the two are the
// same selector where the texts are. A text that Parse would refuse comes about in one
// way only: by putting selectors into one another until there are more than 200
// parentheses in one another.
//
// A test of a label that can't be written in the language (Labels of Kubernetes can)
// is what it is of a label that is absent. A value that can't be written, for it has
// both kinds of quotes, is no label's value: nothing equals it.

// All returns all(), which matches everything.
func All() *Selector { return of(everything) }

// Has returns the test for a label, whatever its value.
func Has(label string) *Selector { return of(writable(has(label))) }

// Equal returns the test for a label's value.
func Equal(label, value string) *Selector {
	return of(writable(compare{label: label, op: opEqual, value: value}))
}

// In returns the test for a label with any of these values; without any, it matches
// nothing.
func In(label string, values ...string) *Selector {
	values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !quotable(v) })
	slices.Sort(values)
	switch values = slices.Compact(values); len(values) {
	case 0:
		return of(nothing)
	case 1:
		return Equal(label, values[0])
	}
	return of(writable(within{label: label, values: values}))
}

// Not returns the selector that matches where s does not.
func Not(s *Selector) *Selector { return of(negate(s.root)) }

// And returns the selector that matches where all of them do; without any, all().
// What can be left out, such as all() and repetitions, is.
func And(ss ...*Selector) *Selector { return combine(true, ss) }

// Or returns the selector that matches where any of them does; without any, one that
// matches nothing. What can be left out is, as with And.
func Or(ss ...*Selector) *Selector { return combine(false, ss) }

// Prefixed returns the selector with prefix before every label that it asks for.
func (s *Selector) Prefixed(prefix string) *Selector {
	return of(replace(s.root, func(leaf node) node {
		switch n := leaf.(type) {
		case has:
			return writable(has(prefix) + n)
		case compare:
			n.label = prefix + n.label
			return writable(n)
		case within:
			n.label = prefix + n.label
			return writable(n)
		}
		return leaf
	}))
}

// ReplaceGlobal returns the selector with by in place of each global().
func (s *Selector) ReplaceGlobal(by *Selector) *Selector {
	return of(replace(s.root, func(leaf node) node {
		if leaf == node(global) {
			return by.root
		}
		return leaf
	}))
}

// HasGlobal says whether global() is anywhere in the selector.
func (s *Selector) HasGlobal() bool {
	found := false
	leaves(s.root, func(leaf node) {
		c, ok := leaf.(constant)
		found = found || ok && c == global
	})
	return found
}

// Labels returns the labels that the selector asks for, sorted, each once. What
// it matches depends on these only.
func (s *Selector) Labels() []string {
	var labels []string
	leaves(s.root, func(leaf node) {
		if label, ok := labelOf(leaf); ok {
			labels = append(labels, label)
		}
	})
	slices.Sort(labels)
	return slices.Compact(labels)
}

// everything and nothing match all labels and none.
const everything, global = constant("all()"), constant("global()")

var nothing = not{part: everything}

// of returns the selector of an expression.
func of(root node) *Selector {
	var b strings.Builder
	root.write(&b)
	return &Selector{root: root, text: b.String()}
}

// combine joins selectors, and leaves out what makes no difference.
func combine(and bool, ss []*Selector) *Selector {
	idle, decisive := node(nothing), node(everything)
	if and {
		idle, decisive = decisive, idle
	}
	var parts []node
	seen := map[string]bool{of(idle).text: true}
	for _, s := range ss {
		// A part that is a junction of the same kind is taken apart first: a && b && a.
		flat := []node{s.root}
		if j, ok := s.root.(junction); ok && j.and == and {
			flat = j.parts
		}
		for _, part := range flat {
			text := of(part).text
			if text == of(decisive).text {
				return of(decisive)
			}
			if !seen[text] {
				seen[text] = true
				parts = append(parts, part)
			}
		}
	}
	if len(parts) == 0 {
		return of(idle)
	}
	return of(join(and, parts))
}

// replace returns the expression with f of each leaf in its place.
func replace(n node, f func(leaf node) node) node {
	switch n := n.(type) {
	case not:
		return negate(replace(n.part, f))
	case junction:
		parts := make([]node, len(n.parts))
		for i, part := range n.parts {
			parts[i] = replace(part, f)
		}
		return join(n.and, parts)
	}
	return f(n)
}

// leaves calls f for every test and constant of the expression.
func leaves(n node, f func(leaf node)) {
	switch n := n.(type) {
	case not:
		leaves(n.part, f)
	case junction:
		for _, part := range n.parts {
			leaves(part, f)
		}
	default:
		f(n)
	}
}

// labelOf returns the label that a leaf asks for; a constant asks for none.
func labelOf(leaf node) (string, bool) {
	switch n := leaf.(type) {
	case has:
		return string(n), true
	case compare:
		return n.label, true
	case within:
		return n.label, true
	}
	return "", false
}

// writable returns a test if it can be written, else what it is of an absent label.
func writable(leaf node) node {
	label, _ := labelOf(leaf)
	c, _ := leaf.(compare)
	switch {
	case label != "" && len(label) <= maxLabel && !strings.ContainsFunc(label, notOfLabel) && quotable(c.value):
		return leaf
	case leaf.match(Map(nil)):
		return everything
	}
	return nothing
}

// quotable says whether a value can be written between quotes.
func quotable(v string) bool { return !strings.Contains(v, `"`) || !strings.Contains(v, `'`) }
