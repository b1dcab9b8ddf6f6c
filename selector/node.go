package selector

import (
	"slices"
	"strings"
)

// node is a part of an expression.
type node interface {
	match(labels Labels) bool
	write(b *strings.Builder)
}

// constant is all() or global(). Both match everything; global() means more
// only to those who choose namespaces.
type constant string

func (n constant) match(Labels) bool        { return true }
func (n constant) write(b *strings.Builder) { b.WriteString(string(n)) }

// has asks for a label, whatever its value.
type has string

func (n has) match(labels Labels) bool {
	_, ok := labels.Get(string(n))
	return ok
}

func (n has) write(b *strings.Builder) {
	b.WriteString("has(")
	b.WriteString(string(n))
	b.WriteString(")")
}

// compare tests a label's value against one value.
type compare struct{ label, op, value string }

func (n compare) match(labels Labels) bool {
	v, ok := labels.Get(n.label)
	switch n.op {
	case opEqual:
		return ok && v == n.value
	case opUnequal:
		return !ok || v != n.value
	case opContains:
		return ok && strings.Contains(v, n.value)
	case opStarts:
		return ok && strings.HasPrefix(v, n.value)
	case opEnds:
		return ok && strings.HasSuffix(v, n.value)
	}
	panic("selector: unknown operator " + n.op)
}

func (n compare) write(b *strings.Builder) {
	b.WriteString(n.label)
	b.WriteString(" " + n.op + " ")
	writeValue(b, n.value)
}

// within tests whether a label's value is one of several, or none of them.
type within struct {
	label  string
	not    bool
	values []string // sorted, each once
}

func (n within) match(labels Labels) bool {
	v, ok := labels.Get(n.label)
	if ok {
		_, ok = slices.BinarySearch(n.values, v)
	}
	return ok != n.not
}

func (n within) write(b *strings.Builder) {
	b.WriteString(n.label)
	if n.not {
		b.WriteString(" not in {")
	} else {
		b.WriteString(" in {")
	}
	for i, v := range n.values {
		if i > 0 {
			b.WriteString(", ")
		}
		writeValue(b, v)
	}
	b.WriteString("}")
}

// not is true where its part is false. Its part is never itself a not.
type not struct{ part node }

func (n not) match(labels Labels) bool { return !n.part.match(labels) }

func (n not) write(b *strings.Builder) {
	b.WriteString("!")
	writePart(b, n.part)
}

// junction joins two or more parts, none of them a junction of its own kind.
type junction struct {
	and   bool // else or
	parts []node
}

func (n junction) match(labels Labels) bool {
	for _, part := range n.parts {
		if part.match(labels) != n.and {
			return !n.and
		}
	}
	return n.and
}

func (n junction) write(b *strings.Builder) {
	for i, part := range n.parts {
		switch {
		case i > 0 && n.and:
			b.WriteString(" && ")
		case i > 0:
			b.WriteString(" || ")
		}
		if n.and {
			writePart(b, part)
		} else {
			part.write(b) // && binds tighter
		}
	}
}

// join returns the junction of parts, or the only part. Parts that are
// junctions of the same kind are taken apart: grouping means nothing there.
func join(and bool, parts []node) node {
	var flat []node
	for _, part := range parts {
		if j, ok := part.(junction); ok && j.and == and {
			flat = append(flat, j.parts...)
		} else {
			flat = append(flat, part)
		}
	}
	if len(flat) == 1 {
		return flat[0]
	}
	return junction{and: and, parts: flat}
}

// negate returns the opposite of a node.
func negate(n node) node {
	if inner, ok := n.(not); ok {
		return inner.part
	}
	return not{part: n}
}

// writePart writes a part of something that binds tighter than a junction.
func writePart(b *strings.Builder, part node) {
	if _, ok := part.(junction); ok {
		b.WriteString("(")
		defer b.WriteString(")")
	}
	part.write(b)
}

// writeValue quotes a value. There are no escapes, so it can't contain both
// sorts of quotes.
func writeValue(b *strings.Builder, v string) {
	quote := `"`
	if strings.Contains(v, quote) {
		quote = `'`
	}
	b.WriteString(quote + v + quote)
}
