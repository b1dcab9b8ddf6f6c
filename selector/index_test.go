package selector

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pair says that a selector matches an item.
type pair struct{ selector, item string }

// indexed is an index, and what it told.
type indexed struct {
	*Index[string]
	told map[pair]bool
}

func newIndexed(t interface{ Errorf(string, ...any) }) indexed {
	told := map[pair]bool{}
	return indexed{told: told, Index: NewIndex(func(s *Selector, id string, in bool) {
		p := pair{s.String(), id}
		if told[p] == in {
			t.Errorf("told twice that %v: %v", p, in)
		}
		if in {
			told[p] = true
		} else {
			delete(told, p)
		}
	})}
}

// asked returns what the index says when it is asked.
func (ix indexed) asked() (ofItems, ofSelectors map[pair]bool) {
	ofItems, ofSelectors = map[pair]bool{}, map[pair]bool{}
	for id := range ix.items {
		for s := range ix.Matches(id) {
			ofItems[pair{s.String(), id}] = true
		}
	}
	for text, e := range ix.entries {
		for id := range ix.Items(e.selector) {
			ofSelectors[pair{text, id}] = true
		}
	}
	return ofItems, ofSelectors
}

// item is an item as the tests know it.
type item struct {
	own     Map
	parents []string
}

// model is what an index should know, in the plainest form.
type model struct {
	items     map[string]item
	parents   map[string]Map
	selectors map[string]int // by text: how often it was added
}

// labels returns what selectors see of an item.
func (m model) labels(i item) Map {
	all := Map{}
	for _, p := range slices.Backward(i.parents) {
		maps.Copy(all, m.parents[p])
	}
	maps.Copy(all, i.own)
	return all
}

// pairs asks every selector about every item.
func (m model) pairs(t interface{ Fatalf(string, ...any) }) map[pair]bool {
	all := map[pair]bool{}
	for text := range m.selectors {
		s := mustParse(t, text)
		for id, i := range m.items {
			if s.Matches(m.labels(i)) {
				all[pair{text, id}] = true
			}
		}
	}
	return all
}

// steps are what may happen to an index, each done to the model as well.
func (m model) steps(ix indexed) map[string]func(*rapid.T) {
	ids := rapid.SampledFrom([]string{"1", "2", "3", "4", "5"})
	names := rapid.SampledFrom([]string{"p", "q", "r"})
	some := rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "in"}), rapid.SampledFrom([]string{"", "a", "b", "ab"}))
	return map[string]func(*rapid.T){
		"set": func(t *rapid.T) {
			id, i := ids.Draw(t, "id"), item{some.Draw(t, "own"), rapid.SliceOfN(names, 0, 2).Draw(t, "parents")}
			m.items[id] = i
			ix.Set(id, i.own, i.parents...)
		},
		"delete": func(t *rapid.T) {
			id := ids.Draw(t, "id")
			delete(m.items, id)
			ix.Delete(id)
		},
		"parent": func(t *rapid.T) {
			name, l := names.Draw(t, "name"), Map(some.Draw(t, "labels"))
			m.parents[name] = l
			ix.SetParent(name, l)
		},
		"parent gone": func(t *rapid.T) {
			name := names.Draw(t, "name")
			delete(m.parents, name)
			ix.SetParent(name, nil)
		},
		"add": func(t *rapid.T) {
			s := mustParse(t, expression(2).Draw(t, "selector"))
			m.selectors[s.String()]++
			ix.Add(s)
		},
		"add again": func(t *rapid.T) {
			if len(m.selectors) == 0 {
				return
			}
			text := rapid.SampledFrom(slices.Sorted(maps.Keys(m.selectors))).Draw(t, "selector")
			m.selectors[text]++
			ix.Add(mustParse(t, text))
		},
		"remove": func(t *rapid.T) {
			if len(m.selectors) == 0 {
				ix.Remove(All())
				return
			}
			text := rapid.SampledFrom(slices.Sorted(maps.Keys(m.selectors))).Draw(t, "selector")
			if m.selectors[text]--; m.selectors[text] == 0 {
				delete(m.selectors, text)
			}
			ix.Remove(mustParse(t, text))
		},
	}
}

// TestIndexIsBruteForce checks that the index knows, and has told, after any changes
// what asking every selector about every item gives.
func TestIndexIsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ix := newIndexed(t)
		m := model{map[string]item{}, map[string]Map{}, map[string]int{}}
		steps := m.steps(ix)
		steps[""] = func(t *rapid.T) {
			want := m.pairs(t)
			ofItems, ofSelectors := ix.asked()
			for name, got := range map[string]map[pair]bool{"told": ix.told, "asked about items": ofItems, "asked about selectors": ofSelectors} {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%s (-want +got)\n%s", name, diff)
				}
			}
		}
		t.Repeat(steps)

		for id := range m.items {
			ix.Delete(id)
		}
		for name := range m.parents {
			ix.SetParent(name, nil)
		}
		for text, n := range m.selectors {
			for range n {
				ix.Remove(mustParse(t, text))
			}
		}
		left := map[string]int{
			"told": len(ix.told), "items": ix.Len(), "parents": len(ix.Index.parents), "entries": len(ix.entries), "classes": len(ix.classes) - len(ix.free),
			"byHash": len(ix.byHash), "having": len(ix.having), "filed": len(ix.filed), "unfiled": len(ix.unfiled), "mentioned": len(ix.mentioned),
		}
		maps.DeleteFunc(left, func(_ string, n int) bool { return n == 0 })
		if len(left) > 0 {
			t.Fatalf("an empty index still has %v", left)
		}
	})
}

func TestRequired(t *testing.T) {
	// What there is much of costs more.
	cost := func(t test) int {
		if t.any || t.value == "many" {
			return 10
		}
		return 1
	}
	a, b, anyA := test{label: "a", value: "x"}, test{label: "b", value: "x"}, test{label: "a", any: true}
	for text, want := range map[string]struct {
		tests []test
		ok    bool
	}{
		"all()":                            {nil, false},
		"global()":                         {nil, false},
		"!all()":                           {nil, true},
		"has(a)":                           {[]test{anyA}, true},
		"!has(a)":                          {nil, false},
		"a == 'x'":                         {[]test{a}, true},
		"!a == 'x'":                        {nil, false},
		"a != 'x'":                         {nil, false},
		"!a != 'x'":                        {[]test{a}, true},
		"a in {}":                          {nil, true},
		"a in {'x'}":                       {[]test{a}, true},
		"a in {'x', 'y'}":                  {[]test{a, {label: "a", value: "y"}}, true},
		"!a in {'x'}":                      {nil, false},
		"a not in {'x'}":                   {nil, false},
		"!a not in {'x'}":                  {[]test{a}, true},
		"a contains 'x'":                   {[]test{anyA}, true},
		"a starts with 'x'":                {[]test{anyA}, true},
		"!a ends with 'x'":                 {nil, false},
		"a == 'x' && b == 'x'":             {[]test{a}, true},
		"a == 'many' && b == 'x'":          {[]test{b}, true},
		"has(a) && b == 'x'":               {[]test{b}, true},
		"!has(a) && b == 'x'":              {[]test{b}, true},
		"a == 'x' || b == 'x'":             {[]test{a, b}, true},
		"a == 'x' || has(a) || a == 'x'":   {[]test{anyA, a}, true},
		"a == 'x' || !has(b)":              {nil, false},
		"!(a != 'x' && b != 'x')":          {[]test{a, b}, true},
		"!(a != 'x' || !has(b))":           {[]test{a}, true},
		"(a == 'x' || has(b)) && a == 'x'": {[]test{a}, true},
		"(a == 'x' || !all()) && !has(a)":  {[]test{a}, true},
		"!(a == 'x' || b == 'x')":          {nil, false},
		"a in {'x', 'many'} && b in {'x'}": {[]test{b}, true},
		"has(a) && (b == 'x' || a != 'x')": {[]test{anyA}, true},
		"a == 'x' && !all() && b == 'x'":   {nil, true},
	} {
		tests, ok := mustParse(t, text).required(cost)
		if diff := cmp.Diff(want.tests, tests, cmp.AllowUnexported(test{})); diff != "" || ok != want.ok {
			t.Errorf("%s: %v, want %v (-want +got)\n%s", text, ok, want.ok, diff)
		}
	}
}

// filled returns an index with items and selectors that have nothing to do with each
// other, but for few: an app has a selector, ten items and a namespace, and there are a
// hundred items of a namespace.
func filled(selectors, items int) *Index[int] {
	ix := NewIndex[int](nil)
	for i := range selectors {
		ix.Add(And(Equal("orchestrator", "k8s"), Equal("app", app(i)), Not(Has("legacy"))))
	}
	for i := range items {
		own, ns := podLabels(i)
		ix.Set(i, own, ns)
	}
	for i := range items/100 + 1 {
		ix.SetParent(namespace(i), namespaceLabels(i))
	}
	return ix
}

func app(i int) string       { return fmt.Sprintf("app-%d", i) }
func namespace(i int) string { return fmt.Sprintf("ns-%d", i) }

func namespaceLabels(i int) Map {
	return Map{"ns.name": namespace(i), "ns.team": fmt.Sprintf("team-%d", i%7)}
}

func podLabels(i int) (own Map, ns string) {
	return Map{
		"orchestrator": "k8s", "app": app(i / 10), "version": "v1", "pod-template-hash": fmt.Sprintf("hash-%d", i/10),
		"part-of": fmt.Sprintf("shop-%d", i%3), "managed-by": "helm", "ns": namespace(i / 100),
	}, namespace(i / 100)
}

// TestFewEvaluations checks that what is unrelated to a change isn't looked at.
func TestFewEvaluations(t *testing.T) {
	ix := filled(1000, 10_000)
	ours := mustParse(t, `app == "ours" && !has(legacy)`)
	ix.Add(ours)
	ix.Add(mustParse(t, `ns == "ns-5" && role in {"web", "db"}`))
	ix.Add(mustParse(t, `ns.name == "ns-5" && ns.team == "team-x"`))
	ix.Add(mustParse(t, `!has(role)`))
	set := func(edit func(own Map)) func() {
		return func() {
			own, ns := podLabels(555)
			edit(own)
			ix.Set(555, own, ns)
		}
	}
	team := func(team string) func() {
		return func() { ix.SetParent("ns-5", Map{"ns.name": "ns-5", "ns.team": team}) }
	}
	for _, row := range []struct {
		name string
		do   func()
		most int
	}{
		{"nothing changes", set(func(Map) {}), 0},
		{"a label nobody asks for", set(func(own Map) { own["version"] = "v2" }), 0},
		{"a label that one selector asks for", set(func(own Map) { own["app"] = "ours" }), 2},
		{"a label back", set(func(Map) {}), 2},
		{"a label of a selector that is filed under another", set(func(own Map) { own["role"] = "db" }), 2},
		{"a label that is new", set(func(own Map) { own["legacy"] = "" }), 3},
		{"an item whose labels others have", func() { own, ns := podLabels(557); ix.Set(100_000, own, ns) }, 0},
		{"a new item", func() { ix.Set(100_001, Map{"orchestrator": "k8s", "app": "app-7"}, "ns-5") }, 4},
		{"an item goes", func() { ix.Delete(100_001) }, 0},
		{"a parent's label nobody asks for", func() { ix.SetParent("ns-6", Map{"ns.name": "ns-6", "ns.team": "team-6", "x": "y"}) }, 0},
		{"a parent's label", team("team-x"), 40},
		{"a parent's label back", team("team-5"), 40},
		{"a new selector", func() { ix.Add(mustParse(t, `app == "app-70" && has(version)`)) }, 3},
		{"a new selector of a parent's label", func() { ix.Add(mustParse(t, `ns.name == "ns-7"`)) }, 40},
		{"the same selector again", func() { ix.Add(ours) }, 0},
		{"a selector goes", func() { ix.Remove(mustParse(t, `!has(role)`)) }, 0},
	} {
		before := ix.evaluations
		row.do()
		if n := ix.evaluations - before; n > row.most {
			t.Errorf("%s: %d evaluations, want %d at most", row.name, n, row.most)
		} else {
			t.Logf("%s: %d evaluations", row.name, n)
		}
	}
}

// BenchmarkIndex shows that a change costs the same however much else there is.
func BenchmarkIndex(b *testing.B) {
	for _, size := range []struct{ selectors, items int }{{1000, 10_000}, {1000, 50_000}, {10_000, 10_000}, {10_000, 50_000}} {
		ix := filled(size.selectors, size.items)
		run := func(name string, change func(i int)) {
			b.Run(fmt.Sprintf("%s/%d_selectors/%d_items", name, size.selectors, size.items), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					change(i)
				}
			})
		}
		run("item_of_known_labels", func(int) {
			own, ns := podLabels(77)
			ix.Set(-1, own, ns)
			ix.Delete(-1)
		})
		run("item_of_new_labels", func(int) {
			ix.Set(-1, Map{"orchestrator": "k8s", "app": "app-7", "version": "v3"}, "ns-0")
			ix.Delete(-1)
		})
		run("label_change", func(i int) {
			own, ns := podLabels(77)
			own["app"] = app(i % 2)
			ix.Set(77, own, ns)
		})
		run("selector", func(int) {
			s := Equal("part-of", "shop-1")
			s = And(s, Equal("app", "app-7"), Has("version"))
			ix.Add(s)
			ix.Remove(s)
		})
		asks := Equal("ns.team", "team-x")
		ix.Add(asks)
		run("parent_label_change", func(i int) {
			ix.SetParent("ns-5", Map{"ns.name": "ns-5", "ns.team": []string{"team-5", "team-x"}[i%2]})
		})
	}
}
