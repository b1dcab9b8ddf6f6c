// Package selector parses and matches the expressions by which resources choose
// others by their labels: Calico's selector language, exactly.
//
//	selector  = "" | or                    the empty one means all()
//	or        = and { "||" and }
//	and       = term { "&&" term }
//	term      = { "!" } ( "(" or ")" | "all()" | "global()" | "has(" label ")" | label test )
//	test      = ( "==" | "!=" | "contains" | "starts with" | "ends with" ) value
//	          | ( "in" | "not in" ) "{" [ value { "," value } [ "," ] ] "}"
//	label     = 1 to 512 of [A-Za-z0-9_./-]
//	value     = "'" … "'" | '"' … '"'      without escapes
//
// Spaces and tabs may stand between the parts; "starts with", "ends with" and
// "not in" may also be written as one word. A label that is absent makes !=
// and not in true, and every other test false.
//
// It guarantees one canonical text for each parsed expression, so the text can
// serve as its identity; and with Index, that a change of what has labels is as cheap
// as few selectors are concerned by it. It leaves to others what the labels are.
package selector

import "fmt"

// Selector is a parsed expression. It is immutable; make it with Parse, or of others
// with All, Has, Equal, In, Not, And and Or.
type Selector struct {
	root node
	text string
}

// Parse returns the selector that the text stands for, or a *SyntaxError.
func Parse(text string) (*Selector, error) {
	p := parser{text: text}
	root, err := p.selector()
	if err != nil {
		return nil, err
	}
	return of(root), nil
}

// Labels are what a selector asks about.
type Labels interface {
	// Get returns a label's value, and whether there is such a label.
	Get(label string) (value string, ok bool)
}

// Map is labels in a map.
type Map map[string]string

// Get returns a label's value, and whether there is such a label.
func (m Map) Get(label string) (string, bool) {
	v, ok := m[label]
	return v, ok
}

// Match says whether the selector chooses something with these labels.
func (s *Selector) Match(labels map[string]string) bool { return s.root.match(Map(labels)) }

// Matches says whether the selector chooses something with these labels.
func (s *Selector) Matches(labels Labels) bool { return s.root.match(labels) }

// String returns the canonical text: Parse of it gives the same selector. Two
// selectors with the same text match the same labels.
func (s *Selector) String() string { return s.text }

// SyntaxError says why and where a text is no selector.
type SyntaxError struct {
	Position int // in bytes from the start of the text, which is 1
	Reason   string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s at position %d", e.Reason, e.Position)
}
