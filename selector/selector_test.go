package selector

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type labels = map[string]string

func TestMatch(t *testing.T) {
	for name, row := range map[string]struct {
		text  string
		yes   []labels
		never []labels
	}{
		"empty":                 {"", []labels{nil, {}, {"a": "b"}}, nil},
		"blank":                 {" \t ", []labels{nil, {"a": "b"}}, nil},
		"all":                   {" all( ) ", []labels{nil, {"a": "b"}}, nil},
		"global":                {"global()", []labels{nil, {"a": "b"}}, nil},
		"none":                  {"!all()", nil, []labels{nil, {"a": "b"}}},
		"has":                   {"has( a )", []labels{{"a": ""}, {"a": "b"}}, []labels{nil, {"b": "a"}}},
		"has not":               {"!has(a)", []labels{nil, {"b": "a"}}, []labels{{"a": ""}}},
		"equal":                 {`a == "b"`, []labels{{"a": "b"}, {"a": "b", "c": "d"}}, []labels{nil, {"a": "c"}, {"a": ""}, {"c": "b"}}},
		"equal, no space":       {`a=='b'`, []labels{{"a": "b"}}, []labels{nil}},
		"equal to nothing":      {`a == ''`, []labels{{"a": ""}}, []labels{nil, {"a": "b"}}},
		"unequal":               {`a != 'b'`, []labels{nil, {"a": "c"}}, []labels{{"a": "b"}}},
		"in":                    {`a in {"b", 'c'}`, []labels{{"a": "b"}, {"a": "c"}}, []labels{nil, {"a": "d"}, {"a": ""}}},
		"in one":                {`a in{'b'}`, []labels{{"a": "b"}}, []labels{nil}},
		"in none":               {`a in {}`, nil, []labels{nil, {"a": ""}, {"a": "b"}}},
		"in, trailing comma":    {`a in {'b',}`, []labels{{"a": "b"}}, []labels{nil, {"a": ""}}},
		"in, both quotes":       {`a in {"'", '"', "c"}`, []labels{{"a": "'"}, {"a": `"`}, {"a": "c"}}, []labels{nil, {"a": ""}}},
		"not in":                {`a not in {"b", "c"}`, []labels{nil, {"a": "d"}}, []labels{{"a": "b"}, {"a": "c"}}},
		"notin":                 {`a notin {"b"}`, []labels{nil, {"a": "d"}}, []labels{{"a": "b"}}},
		"not in none":           {`a not in {}`, []labels{nil, {"a": "d"}}, nil},
		"contains":              {`a contains 'b'`, []labels{{"a": "b"}, {"a": "abc"}}, []labels{nil, {"a": "ac"}}},
		"contains nothing":      {`a contains ''`, []labels{{"a": ""}, {"a": "b"}}, []labels{nil}},
		"starts with":           {`a starts with 'b'`, []labels{{"a": "b"}, {"a": "bc"}}, []labels{nil, {"a": "ab"}}},
		"startswith":            {`a startswith 'b'`, []labels{{"a": "bc"}}, []labels{nil, {"a": "ab"}}},
		"ends with":             {"a ends \t with 'b'", []labels{{"a": "b"}, {"a": "ab"}}, []labels{nil, {"a": "ba"}}},
		"endswith":              {`a endswith'b'`, []labels{{"a": "ab"}}, []labels{nil}},
		"! binds to the test":   {`!a == 'b' && c == 'd'`, []labels{{"c": "d"}}, []labels{nil, {"a": "b", "c": "d"}}},
		"! in":                  {`!a in {'b'}`, []labels{nil, {"a": "c"}}, []labels{{"a": "b"}}},
		"!!":                    {`!! has(a)`, []labels{{"a": ""}}, []labels{nil}},
		"!!!":                   {`!! !has(a)`, []labels{nil}, []labels{{"a": ""}}},
		"and":                   {`has(a)&&has(b)`, []labels{{"a": "", "b": ""}}, []labels{nil, {"a": ""}, {"b": ""}}},
		"or":                    {`has(a) || has(b)`, []labels{{"a": ""}, {"b": ""}}, []labels{nil, {"c": ""}}},
		"and binds tighter":     {`has(a) || has(b) && has(c)`, []labels{{"a": ""}, {"b": "", "c": ""}}, []labels{{"c": ""}, {"b": ""}}},
		"parentheses":           {`(has(a) || has(b)) && has(c)`, []labels{{"a": "", "c": ""}}, []labels{{"a": ""}, {"c": ""}}},
		"negated parentheses":   {`!(!has(a) || has(b))`, []labels{{"a": ""}}, []labels{nil, {"a": "", "b": ""}}},
		"real label":            {`projectcalico.org/name_1-x == 'kube-system'`, []labels{{"projectcalico.org/name_1-x": "kube-system"}}, []labels{nil}},
		"words as labels":       {`in in {'x'} && not not in {'y'} && all == 'z' && has != ''`, []labels{{"in": "x", "all": "z"}}, []labels{nil, {"in": "x", "all": "z", "not": "y"}}},
		"words begin labels":    {`hash == 'x' || ally == 'x' || contains contains 'x'`, []labels{{"hash": "x"}, {"ally": "x"}, {"contains": "yxy"}}, []labels{nil}},
		"value with operators":  {`a == "b && !(c)"`, []labels{{"a": "b && !(c)"}}, []labels{nil}},
		"value of other script": {`a == 'größe'`, []labels{{"a": "größe"}}, []labels{nil}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse(row.text)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(s.String())
			if err != nil {
				t.Fatalf("canonical text %s: %v", s, err)
			}
			for _, sel := range []*Selector{s, again} {
				for _, l := range row.yes {
					if !sel.Match(l) {
						t.Errorf("%s does not match %v", sel, l)
					}
				}
				for _, l := range row.never {
					if sel.Match(l) {
						t.Errorf("%s matches %v", sel, l)
					}
				}
			}
		})
	}
}

func TestString(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "all()",
		" (all( ) )":                         "all()",
		"global()":                           "global()",
		"! (has( b)||! has(a ))":             "!(has(b) || !has(a))",
		`! (a == 'b'&&! c != "d")`:           `!(a == "b" && !c != "d")`,
		`!(!has(a))`:                         `has(a)`,
		`!!(has(a) && has(b))`:               `has(a) && has(b)`,
		`!(!(has(a) && has(b))) && has(c)`:   `has(a) && has(b) && has(c)`,
		`((has(a)) && (has(b) && has(c)))`:   `has(a) && has(b) && has(c)`,
		`has(a) || (has(b) || (has(c)))`:     `has(a) || has(b) || has(c)`,
		`has(a) || (has(b) && has(c))`:       `has(a) || has(b) && has(c)`,
		`has(a) && (has(b) || has(c))`:       `has(a) && (has(b) || has(c))`,
		`a == "'"`:                           `a == "'"`,
		`a == '"'`:                           `a == '"'`,
		`a startswith 'b'`:                   `a starts with "b"`,
		`a endswith 'b'`:                     `a ends with "b"`,
		`a notin {'b'}`:                      `a not in {"b"}`,
		`a in {}`:                            `a in {}`,
		`a in {"z", "x", 'z', "y", "x", ''}`: `a in {"", "x", "y", "z"}`,
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if s.String() != want {
			t.Errorf("%s: canonical text %s, want %s", text, s, want)
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		"b == b":         `expected a value in quotes, found "b" at position 6`,
		"b contains b":   `expected a value in quotes, found "b" at position 12`,
		"'b1' == b":      `expected a label, "has(", "all()", "!" or "(", found "'b1' == b" at position 1`,
		"b":              `expected an operator behind label "b" (==, !=, in, not in, contains, starts with, ends with), found the end at position 2`,
		"a b":            `expected an operator behind label "a" (==, !=, in, not in, contains, starts with, ends with), found "b" at position 3`,
		"a starts 'b'":   `expected an operator behind label "a" (==, !=, in, not in, contains, starts with, ends with), found "starts 'b'" at position 3`,
		"a = 'b'":        `expected an operator behind label "a" (==, !=, in, not in, contains, starts with, ends with), found "= 'b'" at position 3`,
		"!":              `expected a label, "has(", "all()", "!" or "(", found the end at position 2`,
		"a == 'b' &":     `expected "&&", "||" or the end, found "&" at position 10`,
		"a == 'b' &&":    `expected a label, "has(", "all()", "!" or "(", found the end at position 12`,
		"a == 'b' c":     `expected "&&", "||" or the end, found "c" at position 10`,
		"a != ||":        `expected a value in quotes, found "||" at position 6`,
		"a in 'b'":       `expected "{", found "'b'" at position 6`,
		"a in {'', ||":   `expected "}" or a value in quotes, found "||" at position 11`,
		"a in {'b' 'c'}": `expected "}" or a value in quotes, found "'c'}" at position 11`,
		"a in {,}":       `expected "}" or a value in quotes, found ",}" at position 7`,
		"a in {'b":       `value without a closing quote at position 7`,
		"a == 'b":        `value without a closing quote at position 6`,
		"(":              `expected a label, "has(", "all()", "!" or "(", found the end at position 2`,
		"()":             `expected a label, "has(", "all()", "!" or "(", found ")" at position 2`,
		"(a == 'b'":      `expected ")", found the end at position 10`,
		")":              `expected a label, "has(", "all()", "!" or "(", found ")" at position 1`,
		"has()":          `expected a label, found ")" at position 5`,
		"has(a":          `expected ")", found the end at position 6`,
		"has (a)":        `expected an operator behind label "has" (==, !=, in, not in, contains, starts with, ends with), found "(a)" at position 5`,
		"all(a)":         `expected ")", found "a)" at position 5`,
		"global(":        `expected ")", found the end at position 8`,
		"a == 'b'\n":     `expected "&&", "||" or the end, found "\n" at position 9`,
		"%":              `expected a label, "has(", "all()", "!" or "(", found "%" at position 1`,
		"größe == 'x'":   `expected an operator behind label "gr" (==, !=, in, not in, contains, starts with, ends with), found "öße == 'x'" at position 3`,
	} {
		_, err := Parse(text)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%s: error %v, want a SyntaxError", text, err)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", text, diff)
		}
	}
}

func TestBounds(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("(", n) + "all()" + strings.Repeat(")", n) }
	for name, row := range map[string]struct {
		text string
		ok   bool
	}{
		"longest label":         {"has(" + strings.Repeat("a", maxLabel) + ")", true},
		"label too long":        {"has(" + strings.Repeat("a", maxLabel+1) + ")", false},
		"label too long at end": {strings.Repeat("a", maxLabel+1), false},
		"deepest":               {nested(maxDepth), true},
		"too deep":              {nested(maxDepth + 1), false},
		"side by side":          {strings.TrimSuffix(strings.Repeat("(all()) && ", maxDepth+1), " && "), true},
	} {
		if _, err := Parse(row.text); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// expression makes well-formed selectors of every shape.
func expression(depth int) *rapid.Generator[string] {
	label := rapid.StringMatching(`[a-c]|in|not|has|all|a\.b/c_d-e`)
	value := rapid.SampledFrom([]string{`''`, `"a"`, `'b'`, `"'"`, `'"'`, `"ab"`})
	leaf := rapid.Custom(func(t *rapid.T) string {
		l := label.Draw(t, "label")
		switch op := rapid.SampledFrom([]string{"all()", "global()", "has", "==", "!=", "contains", "starts with", "ends with", "in", "not in"}).Draw(t, "op"); op {
		case "all()", "global()":
			return op
		case "has":
			return "has(" + l + ")"
		case "in", "not in":
			return l + " " + op + " {" + strings.Join(rapid.SliceOfN(value, 0, 3).Draw(t, "values"), ",") + "}"
		default:
			return l + " " + op + " " + value.Draw(t, "value")
		}
	})
	if depth == 0 {
		return leaf
	}
	part := expression(depth - 1)
	return rapid.OneOf(
		leaf,
		rapid.Custom(func(t *rapid.T) string { return "!" + part.Draw(t, "not") }),
		rapid.Custom(func(t *rapid.T) string { return "(" + part.Draw(t, "group") + ")" }),
		rapid.Custom(func(t *rapid.T) string { return part.Draw(t, "left") + " && " + part.Draw(t, "right") }),
		rapid.Custom(func(t *rapid.T) string { return part.Draw(t, "left") + " || " + part.Draw(t, "right") }),
	)
}

// TestAlgebra checks what must hold of every expression and all labels.
func TestAlgebra(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left, right := expression(4).Draw(t, "a"), expression(4).Draw(t, "b")
		l := rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "in", "a.b/c_d-e"}), rapid.SampledFrom([]string{"", "a", "b", "ab", "'", `"`})).Draw(t, "labels")
		match := func(text string) bool {
			s, err := Parse(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			roundTrip(t, s)
			return s.Match(l)
		}
		a, b := match(left), match(right)
		for text, want := range map[string]bool{
			"!(" + left + ")":                      !a,
			"(" + left + ")&&(" + right + ")":      a && b,
			"(" + left + ")||(" + right + ")":      a || b,
			"!(!(" + left + ")&&!(" + right + "))": a || b,
		} {
			if got := match(text); got != want {
				t.Errorf("%s with %v: %v, want %v", text, l, got, want)
			}
		}
	})
}

// roundTrip checks that the canonical text stands for the same selector.
func roundTrip(t interface{ Fatalf(string, ...any) }, s *Selector) {
	again, err := Parse(s.String())
	if err != nil {
		t.Fatalf("canonical text %s: %v", s, err)
	}
	nodes := cmp.AllowUnexported(Selector{}, compare{}, within{}, not{}, junction{})
	if diff := cmp.Diff(s, again, nodes); diff != "" {
		t.Fatalf("%s: parsing the canonical text gives another selector:\n%s", s, diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "all()", "global()", "has(a)", `!(a == 'b' && c != "d") || e in {'f', "g",}`, "!!a notin {}",
		"a starts with 'b' && a ends  with 'c' || a contains ''", "((has(a)))", "a == '", "(", "a in {", "größe",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Position < 1 || syntax.Position > len(text)+1 {
				t.Fatalf("%q: bad error %#v", text, err)
			}
			return
		}
		roundTrip(t, s)
		s.Match(map[string]string{"a": "b"})
	})
}

func BenchmarkMatch(b *testing.B) {
	s, err := Parse(`role == 'web' && env in {'prod', 'test'} && !has(legacy)`)
	if err != nil {
		b.Fatal(err)
	}
	l := labels{"role": "web", "env": "prod", "app": "x"}
	for b.Loop() {
		s.Match(l)
	}
}
