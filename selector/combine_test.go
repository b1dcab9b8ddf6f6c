package selector

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// mustParse returns the selector that the text stands for.
func mustParse(t interface{ Fatalf(string, ...any) }, text string) *Selector {
	s, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

func TestCombine(t *testing.T) {
	p := func(text string) *Selector { return mustParse(t, text) }
	long := strings.Repeat("a", maxLabel-1)
	for name, row := range map[string]struct {
		s    *Selector
		want string
	}{
		"all":                        {All(), `all()`},
		"has":                        {Has("a"), `has(a)`},
		"has, no such label":         {Has("a b"), `!all()`},
		"has, no label":              {Has(""), `!all()`},
		"has, other script":          {Has("größe"), `!all()`},
		"longest label":              {Has(long + "a"), `has(` + long + `a)`},
		"label too long":             {Has(long + "ab"), `!all()`},
		"equal":                      {Equal("a", "b"), `a == "b"`},
		"equal to nothing":           {Equal("a", ""), `a == ""`},
		"equal, one kind of quotes":  {Equal("a", `"`), `a == '"'`},
		"equal, both kinds":          {Equal("a", `"'`), `!all()`},
		"equal, no such label":       {Equal("!", "b"), `!all()`},
		"in":                         {In("a", "c", "b", "c"), `a in {"b", "c"}`},
		"in one":                     {In("a", "b", "b"), `a == "b"`},
		"in none":                    {In("a"), `!all()`},
		"in, both kinds of quotes":   {In("a", `"'`, "b", "c"), `a in {"b", "c"}`},
		"in nothing that is written": {In("a", `"'`), `!all()`},
		"in, no such label":          {In("", "b", "c"), `!all()`},
		"not":                        {Not(p(`has(a)`)), `!has(a)`},
		"not not":                    {Not(p(`!has(a)`)), `has(a)`},
		"not of several":             {Not(p(`has(a) && has(b)`)), `!(has(a) && has(b))`},
		"not all":                    {Not(All()), `!all()`},
		"and of none":                {And(), `all()`},
		"and of one":                 {And(p(`has(a)`)), `has(a)`},
		"and":                        {And(p(`has(a) && has(b)`), p(`has(c) || has(d)`)), `has(a) && has(b) && (has(c) || has(d))`},
		"and all":                    {And(All(), p(`has(a)`), All()), `has(a)`},
		"and nothing":                {And(p(`has(a)`), p(`!all()`)), `!all()`},
		"and of all":                 {And(All(), All()), `all()`},
		"and, the same again":        {And(p(`has(a)`), p(`has(b) && has(a)`)), `has(a) && has(b)`},
		"and keeps global":           {And(p(`global()`), p(`has(a)`)), `global() && has(a)`},
		"or of none":                 {Or(), `!all()`},
		"or of one":                  {Or(p(`has(a) && has(b)`)), `has(a) && has(b)`},
		"or":                         {Or(p(`has(a) || has(b)`), p(`has(c) && has(d)`)), `has(a) || has(b) || has(c) && has(d)`},
		"or all":                     {Or(p(`has(a)`), All()), `all()`},
		"or nothing":                 {Or(p(`!all()`), p(`has(a)`)), `has(a)`},
		"or of nothing":              {Or(p(`!all()`), p(`!all()`)), `!all()`},
		"or, the same again":         {Or(p(`has(a)`), p(`has(a)`)), `has(a)`},
		"prefixed":                   {p(`!has(a) && (b == 'c' || d not in {'e'} || all() || global())`).Prefixed("x."), `!has(x.a) && (x.b == "c" || x.d not in {"e"} || all() || global())`},
		"prefixed, still a label":    {Has(long).Prefixed("x"), `has(x` + long + `)`},
		"prefixed, too long for has": {Has(long).Prefixed("x."), `!all()`},
		"prefixed, too long for !=":  {p(long + ` != 'a'`).Prefixed("x."), `all()`},
		"prefixed, too long, in":     {p(long + ` not in {'a'} && ` + long + ` in {'a'}`).Prefixed("x."), `all() && !all()`},
		"replace global":             {p(`global() && has(a)`).ReplaceGlobal(p(`has(b) && has(c)`)), `has(b) && has(c) && has(a)`},
		"replace in parentheses":     {p(`has(a) || !(global() || has(b))`).ReplaceGlobal(p(`has(c) || has(d)`)), `has(a) || !(has(c) || has(d) || has(b))`},
		"replace negated":            {p(`!global()`).ReplaceGlobal(p(`!has(a)`)), `has(a)`},
		"replace negated in and":     {p(`has(a) && !global()`).ReplaceGlobal(p(`!(has(b) && has(c))`)), `has(a) && has(b) && has(c)`},
		"replace by global":          {p(`global()`).ReplaceGlobal(p(`global()`)), `global()`},
		"replace where none is":      {p(`has(a) && b in {'c'}`).ReplaceGlobal(p(`has(b)`)), `has(a) && b in {"c"}`},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, row.s.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			roundTrip(t, row.s)
		})
	}
}

func TestLabels(t *testing.T) {
	for text, want := range map[string]struct {
		labels []string
		global bool
	}{
		"":                              {nil, false},
		"!global()":                     {nil, true},
		"has(b) && a == 'x' || !has(b)": {[]string{"a", "b"}, false},
		"c in {} && (a notin {'x'} || b contains 'x') && !(has(d) || global())": {[]string{"a", "b", "c", "d"}, true},
	} {
		s := mustParse(t, text)
		if diff := cmp.Diff(want.labels, s.Labels()); diff != "" {
			t.Errorf("%s: labels (-want +got)\n%s", text, diff)
		}
		if s.HasGlobal() != want.global {
			t.Errorf("%s: has global() %v, want %v", text, s.HasGlobal(), want.global)
		}
	}
}

// TestCombined checks that what is combined of any selectors matches as it says, has
// a canonical text, and changes none of its parts.
func TestCombined(t *testing.T) {
	label := rapid.SampledFrom([]string{"a", "b", "c", "", "a b", strings.Repeat("a", maxLabel)})
	value := rapid.SampledFrom([]string{"", "a", "b", "ab", "'", `"`, `'"`})
	rapid.Check(t, func(t *rapid.T) {
		a, b := mustParse(t, expression(3).Draw(t, "a")), mustParse(t, expression(3).Draw(t, "b"))
		texts := [2]string{a.String(), b.String()}
		l := rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "in"}), rapid.SampledFrom([]string{"", "a", "b", "ab", "'", `"`})).Draw(t, "labels")
		prefixed := labels{}
		for k, v := range l {
			prefixed["x."+k] = v
		}
		tested, v, w := label.Draw(t, "label"), value.Draw(t, "value"), value.Draw(t, "other value")
		got, has := l[tested]
		for name, row := range map[string]struct {
			s    *Selector
			l    labels
			want bool
		}{
			"not":            {Not(a), l, !a.Match(l)},
			"and":            {And(a, b), l, a.Match(l) && b.Match(l)},
			"or":             {Or(a, b, a), l, a.Match(l) || b.Match(l)},
			"prefixed":       {a.Prefixed("x."), prefixed, a.Match(l)},
			"replace global": {And(a, All()).ReplaceGlobal(All()), l, a.Match(l)},
			"and global":     {And(a, mustParse(t, "global()")).ReplaceGlobal(b), l, a.ReplaceGlobal(b).Match(l) && b.Match(l)},
			"has":            {Has(tested), l, has},
			"equal":          {Equal(tested, v), l, has && got == v},
			"in":             {In(tested, v, w), l, has && (got == v || got == w)},
		} {
			roundTrip(t, row.s)
			if m := row.s.Match(row.l); m != row.want {
				t.Errorf("%s: %s with %v: %v, want %v", name, row.s, row.l, m, row.want)
			}
		}
		if a.ReplaceGlobal(All()).HasGlobal() {
			t.Errorf("%s: global() is left", a)
		}
		if now := [2]string{of(a.root).text, of(b.root).text}; now != texts {
			t.Errorf("changed from %v to %v", texts, now)
		}
	})
}
