package selector

import (
	"fmt"
	"slices"
	"strings"
)

// Operators that compare with one value, as the canonical text has them.
const (
	opEqual    = "=="
	opUnequal  = "!="
	opContains = "contains"
	opStarts   = "starts with"
	opEnds     = "ends with"
)

// maxLabel is the length of the longest label, in bytes.
const maxLabel = 512

// maxDepth is how deep parentheses may nest. Nobody needs more, and the parser
// recurses.
const maxDepth = 200

// parser walks through the text once. Each method begins at a part of the
// grammar and ends behind it.
type parser struct {
	text  string
	pos   int
	depth int
}

func (p *parser) selector() (node, error) {
	if p.space(); p.end() {
		return everything, nil
	}
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.space(); !p.end() {
		return nil, p.expected(`"&&", "||" or the end`)
	}
	return root, nil
}

func (p *parser) or() (node, error) { return p.junction(false, "||", p.and) }

func (p *parser) and() (node, error) { return p.junction(true, "&&", p.term) }

func (p *parser) junction(and bool, op string, part func() (node, error)) (node, error) {
	var parts []node
	for {
		n, err := part()
		if err != nil {
			return nil, err
		}
		parts = append(parts, n)
		if p.space(); !p.take(op) {
			return join(and, parts), nil
		}
	}
}

func (p *parser) term() (node, error) {
	negated := false
	for p.space(); p.take("!"); p.space() {
		negated = !negated
	}
	n, err := p.plainTerm()
	if err == nil && negated {
		n = negate(n)
	}
	return n, err
}

func (p *parser) plainTerm() (node, error) {
	switch {
	case p.take("("):
		return p.group()
	case p.take("all("):
		return everything, p.closing()
	case p.take("global("):
		return global, p.closing()
	case p.take("has("):
		p.space()
		label, err := p.label("a label")
		if err != nil {
			return nil, err
		}
		return has(label), p.closing()
	}
	label, err := p.label(`a label, "has(", "all()", "!" or "("`)
	if err != nil {
		return nil, err
	}
	return p.test(label)
}

// group parses what stands between parentheses.
func (p *parser) group() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, &SyntaxError{Position: p.pos, Reason: fmt.Sprintf("more than %d parentheses in one another", maxDepth)}
	}
	defer func() { p.depth-- }()
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	return n, p.closing()
}

func (p *parser) closing() error {
	if p.space(); !p.take(")") {
		return p.expected(`")"`)
	}
	return nil
}

// test parses what is asked of a label's value. No space is needed behind an
// operator that is a word: a in{'b'}.
func (p *parser) test(label string) (node, error) {
	p.space()
	op := ""
	switch {
	case p.take("=="):
		op = opEqual
	case p.take("!="):
		op = opUnequal
	case p.take("contains"):
		op = opContains
	case p.takeTwo("starts", "with"):
		op = opStarts
	case p.takeTwo("ends", "with"):
		op = opEnds
	case p.takeTwo("not", "in"):
		values, err := p.values()
		return within{label: label, not: true, values: values}, err
	case p.take("in"):
		values, err := p.values()
		return within{label: label, values: values}, err
	default:
		return nil, p.expected(fmt.Sprintf(`an operator behind label %q (==, !=, in, not in, contains, starts with, ends with)`, label))
	}
	p.space()
	value, ok, err := p.value()
	if err == nil && !ok {
		err = p.expected("a value in quotes")
	}
	return compare{label: label, op: op, value: value}, err
}

// values parses a set of values and returns it sorted, each once.
func (p *parser) values() ([]string, error) {
	if p.space(); !p.take("{") {
		return nil, p.expected(`"{"`)
	}
	var values []string
	for {
		p.space()
		v, ok, err := p.value()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		values = append(values, v)
		if p.space(); !p.take(",") {
			break
		}
	}
	if p.space(); !p.take("}") {
		return nil, p.expected(`"}" or a value in quotes`)
	}
	slices.Sort(values)
	return slices.Compact(values), nil
}

// value parses a value in quotes, if there is one.
func (p *parser) value() (v string, ok bool, err error) {
	if p.end() || p.text[p.pos] != '\'' && p.text[p.pos] != '"' {
		return "", false, nil
	}
	v, _, ok = strings.Cut(p.text[p.pos+1:], p.text[p.pos:p.pos+1])
	if !ok {
		return "", false, &SyntaxError{Position: p.pos + 1, Reason: "value without a closing quote"}
	}
	p.pos += len(v) + 2
	return v, true, nil
}

// label parses a label; where there is none, the error says what was expected.
func (p *parser) label(expected string) (string, error) {
	rest := p.text[p.pos:]
	n := strings.IndexFunc(rest, notOfLabel)
	if n < 0 {
		n = len(rest)
	}
	if n > maxLabel {
		return "", &SyntaxError{Position: p.pos + 1, Reason: fmt.Sprintf("label longer than %d characters", maxLabel)}
	}
	if n == 0 {
		return "", p.expected(expected)
	}
	p.pos += n
	return rest[:n], nil
}

// notOfLabel says whether no label has this character.
func notOfLabel(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_./-", r))
}

func (p *parser) end() bool { return p.pos == len(p.text) }

// space skips spaces and tabs.
func (p *parser) space() {
	for !p.end() && (p.text[p.pos] == ' ' || p.text[p.pos] == '\t') {
		p.pos++
	}
}

// take skips the word if it is there.
func (p *parser) take(word string) bool {
	if !strings.HasPrefix(p.text[p.pos:], word) {
		return false
	}
	p.pos += len(word)
	return true
}

// takeTwo skips two words, with or without space between, if they are there.
func (p *parser) takeTwo(first, second string) bool {
	start := p.pos
	if p.take(first) {
		if p.space(); p.take(second) {
			return true
		}
	}
	p.pos = start
	return false
}

// expected returns an error for the place where the parser is.
func (p *parser) expected(what string) error {
	found := "the end"
	if !p.end() {
		found = fmt.Sprintf("%.20q", p.text[p.pos:])
	}
	return &SyntaxError{Position: p.pos + 1, Reason: fmt.Sprintf("expected %s, found %s", what, found)}
}
