package selector

import (
	"cmp"
	"slices"
)

// test asks for a label with a value, or with any.
type test struct {
	label, value string
	any          bool
}

func (t test) compare(o test) int {
	switch {
	case t.any == o.any:
		return cmp.Or(cmp.Compare(t.label, o.label), cmp.Compare(t.value, o.value))
	case t.any:
		return -1
	}
	return 1
}

// required returns tests of which at least one holds wherever the selector matches,
// each once; false if there are no such, as for !has(a). Among several choices, as
// a conjunction gives them, it takes the one for which the sum of cost is least.
func (s *Selector) required(cost func(test) int) ([]test, bool) {
	tests, ok := required(s.root, false, cost)
	slices.SortFunc(tests, test.compare)
	return slices.Compact(tests), ok
}

// required is of an expression, or of its opposite.
func required(n node, negated bool, cost func(test) int) ([]test, bool) {
	switch n := n.(type) {
	case not:
		return required(n.part, !negated, cost)
	case junction:
		if n.and != negated {
			return requiredOfAll(n.parts, negated, cost)
		}
		return requiredOfAny(n.parts, negated, cost)
	case constant:
		return nil, negated // its opposite never matches
	case has:
		if !negated {
			return []test{{label: string(n), any: true}}, true
		}
	case within:
		if n.not != negated {
			return nil, false
		}
		var tests []test
		for _, v := range n.values {
			tests = append(tests, test{label: n.label, value: v})
		}
		return tests, true
	case compare:
		switch {
		case n.op == opEqual && !negated, n.op == opUnequal && negated:
			return []test{{label: n.label, value: n.value}}, true
		case n.op != opEqual && n.op != opUnequal && !negated:
			return []test{{label: n.label, any: true}}, true
		}
	}
	return nil, false
}

// requiredOfAll is of a conjunction: the tests of any part will do.
func requiredOfAll(parts []node, negated bool, cost func(test) int) (best []test, found bool) {
	least := 0
	for _, part := range parts {
		tests, ok := required(part, negated, cost)
		sum := 0
		for _, t := range tests {
			sum += cost(t)
		}
		if ok && (!found || sum < least) {
			best, least, found = tests, sum, true
		}
	}
	return best, found
}

// requiredOfAny is of a disjunction: it takes the tests of every part.
func requiredOfAny(parts []node, negated bool, cost func(test) int) (all []test, ok bool) {
	for _, part := range parts {
		tests, ok := required(part, negated, cost)
		if !ok {
			return nil, false
		}
		all = append(all, tests...)
	}
	return all, true
}
