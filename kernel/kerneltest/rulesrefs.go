package kerneltest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

// to is a rule that leads to a chain.
func to(verdict kernel.Verdict, target string) kernel.Rule {
	return kernel.Rule{Verdict: verdict, Target: target}
}

func chainOf(rules ...kernel.Rule) kernel.Chain { return kernel.Chain{Rules: kernel.RulesOf(rules...)} }

func baseOf(rules ...kernel.Rule) kernel.Chain {
	return kernel.Chain{Hook: kernel.HookForward, Type: kernel.ChainFilter, Rules: kernel.RulesOf(rules...)}
}

// verdictMaps are those of the tests of references.
func verdictMaps() map[string]kernel.Set {
	return map[string]kernel.Set{"from": {Keys: kernel.KeysLinks}, "to": {Keys: kernel.KeysLinks}}
}

func setInUse(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), kinds())
	chains := map[string]kernel.Chain{"it": {Hook: kernel.HookInput, Type: kernel.ChainFilter, Rules: kernel.RulesOf(
		kernel.Rule{Src: kernel.InSet{Set: "nodes4", Not: true}, Verdict: kernel.Drop})}}
	Put(t, w.Chains(), chains)
	Put(t, w.Elements(), members(Member("nodes4", "192.0.2.1")))
	err := w.Sets().Write(t.Context(), nil, slices.Collect(maps.Keys(kinds())))
	wantFailures(t, err, "delete", map[string]error{"nodes4": syscall.EBUSY})
	wantFailures(t, err, "delete", map[string]error{"nodes4": kernel.ErrBusy})
	err = w.Sets().Write(t.Context(), map[string]kernel.Set{"nodes4": {Ranges: true}, "new": {}}, nil)
	wantFailures(t, err, "set", map[string]error{"nodes4": syscall.EBUSY})
	WantRules(t, w, map[string]kernel.Set{"nodes4": {}, "new": {}}, []kernel.Element{Member("nodes4", "192.0.2.1")}, chains)
	Put(t, w.Sets(), map[string]kernel.Set{"nodes4": {}}) // as it is
	Put(t, w.Chains(), nil, "it")
	Put(t, w.Sets(), nil, "nodes4")
	WantRules(t, w, map[string]kernel.Set{"new": {}}, nil, nil)
}

func setOfAnotherKind(t *testing.T, w RulesWorld) {
	all := slices.Collect(maps.Values(kinds()))
	for _, from := range all {
		for _, to := range all {
			Put(t, w.Sets(), map[string]kernel.Set{"it": from})
			var left []kernel.Element
			if from.Keys != kernel.KeysLinks {
				left = append(left, memberOf("it", from))
			}
			Put(t, w.Elements(), members(left...))
			Put(t, w.Sets(), map[string]kernel.Set{"it": to})
			if from != to {
				left = nil
			}
			WantRules(t, w, map[string]kernel.Set{"it": to}, left, nil)
			Put(t, w.Sets(), nil, "it")
		}
	}
}

func missing(t *testing.T, w RulesWorld) {
	sets := verdictMaps()
	sets["ports"] = kernel.Set{Keys: kernel.KeysPorts}
	Put(t, w.Sets(), sets)
	good := map[string]kernel.Chain{"a": chainOf(), "base": baseOf(to(kernel.Jump, "a")), kernel.EntryKey("from", "x"): {To: "a"}}
	Put(t, w.Chains(), good)
	bad := make(map[string]error)
	set := make(map[string]kernel.Chain)
	for key, c := range map[string]struct {
		kernel.Chain
		err error
	}{
		"jumps":                            {chainOf(to(kernel.Jump, "gone")), syscall.ENOENT},
		"goes":                             {chainOf(to(kernel.Goto, "gone")), syscall.ENOENT},
		"looks-up":                         {chainOf(to(kernel.InVerdicts, "gone")), syscall.ENOENT},
		"jumps-to-base":                    {chainOf(to(kernel.Jump, "base")), syscall.EOPNOTSUPP},
		kernel.EntryKey("gone", "x"):       {kernel.Chain{To: "a"}, syscall.ENOENT},
		kernel.EntryKey("from", "x"):       {kernel.Chain{To: "gone"}, syscall.ENOENT},
		kernel.EntryKey("from", "y"):       {kernel.Chain{To: "gone"}, syscall.ENOENT},
		kernel.EntryKey("to", "y"):         {kernel.Chain{To: "base"}, syscall.EOPNOTSUPP},
		kernel.EntryKey("ports", "x"):      {kernel.Chain{To: "a"}, syscall.EINVAL},
		kernel.EntryKey("to", "x*"):        {kernel.Chain{To: "a"}, syscall.EINVAL},
		kernel.EntryKey("to", ""):          {kernel.Chain{To: "a"}, syscall.EINVAL},
		kernel.EntryKey("to", "nowhere"):   {kernel.Chain{}, syscall.EINVAL},
		kernel.EntryKey("to", "odd"):       {kernel.Chain{To: "a b"}, syscall.EINVAL},
		kernel.EntryKey("to", "with-rule"): {kernel.Chain{To: "a", Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Drop})}, syscall.EINVAL},
		kernel.EntryKey("to", "other"):     {kernel.Chain{Other: "drop"}, syscall.EINVAL},
	} {
		set[key], bad[key] = c.Chain, c.err
	}
	wantFailures(t, w.Chains().Write(t.Context(), set, nil), "set", bad)
	WantRules(t, w, sets, nil, good)
}

func dependents(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), verdictMaps())
	before := map[string]kernel.Chain{"old": chainOf(to(kernel.Return, "")), kernel.EntryKey("from", "x"): {To: "old"}, "stays": chainOf(to(kernel.Jump, "old"))}
	Put(t, w.Chains(), before)
	err := w.Chains().Write(t.Context(), map[string]kernel.Chain{
		"refused":                    chainOf(to(kernel.InVerdicts, "gone")),
		"user":                       chainOf(to(kernel.Jump, "refused")),
		"stays":                      chainOf(to(kernel.Goto, "user")), // replaced, if it could be
		"base":                       baseOf(to(kernel.Jump, "stays"), to(kernel.Jump, "refused")),
		"fine":                       chainOf(to(kernel.Jump, "stays")),
		kernel.EntryKey("from", "x"): {To: "user"},
		kernel.EntryKey("from", "y"): {To: "fine"},
	}, nil)
	wantFailures(t, err, "set", map[string]error{
		"refused": syscall.ENOENT, "user": syscall.ENOENT, "stays": syscall.ENOENT, "base": syscall.ENOENT, kernel.EntryKey("from", "x"): syscall.ENOENT,
	})
	before["fine"], before[kernel.EntryKey("from", "y")] = chainOf(to(kernel.Jump, "stays")), kernel.Chain{To: "fine"}
	WantRules(t, w, verdictMaps(), nil, before)
}

func chainInUse(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), verdictMaps())
	entry := kernel.EntryKey("from", "x")
	chains := map[string]kernel.Chain{
		"a": chainOf(to(kernel.Jump, "b")), "b": chainOf(to(kernel.Goto, "c")), "c": chainOf(), "d": chainOf(),
		"base": baseOf(to(kernel.InVerdicts, "from"), to(kernel.Jump, "a")), entry: {To: "d"},
	}
	Put(t, w.Chains(), chains)
	for name, del := range map[string][]string{
		"by a rule":                     {"a"},
		"by a rule to go to":            {"c"},
		"by an entry":                   {"d"},
		"by what stays for its own":     {"a", "b", "c"},
		"by both, those before as well": {"c", "d", "b", "a"},
	} {
		want := make(map[string]error)
		for _, key := range del {
			want[key] = syscall.EBUSY
		}
		err := w.Chains().Write(t.Context(), nil, del)
		wantFailures(t, err, "delete", want)
		for key := range want {
			want[key] = kernel.ErrBusy
		}
		wantFailures(t, err, "delete", want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	// What becomes a base chain can't be led to.
	moved := map[string]kernel.Chain{"a": baseOf()}
	wantFailures(t, w.Chains().Write(t.Context(), moved, nil), "set", map[string]error{"a": syscall.EBUSY})
	wantFailures(t, w.Sets().Write(t.Context(), nil, []string{"from", "to"}), "delete", map[string]error{"from": syscall.EBUSY})
	WantRules(t, w, map[string]kernel.Set{"from": {Keys: kernel.KeysLinks}}, nil, chains)
	// Some of them can go, and those that they led to.
	wantFailures(t, w.Chains().Write(t.Context(), nil, []string{"d", "base", "a"}), "delete", map[string]error{"d": syscall.EBUSY})
	Put(t, w.Sets(), nil, "from") // with the entry, which alone led to d
	Put(t, w.Chains(), nil, "d", "c", "b")
	WantRules(t, w, nil, nil, nil)
}

func circles(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), verdictMaps())
	chains := map[string]kernel.Chain{
		"base": baseOf(to(kernel.Jump, "a"), to(kernel.InVerdicts, "from")),
		"a":    chainOf(to(kernel.Jump, "b")), "b": chainOf(to(kernel.OutVerdicts, "to")), kernel.EntryKey("from", "x"): {To: "b"},
	}
	Put(t, w.Chains(), chains)
	for name, set := range map[string]map[string]kernel.Chain{
		"itself":             {"new": chainOf(to(kernel.Jump, "new"))},
		"two new ones":       {"new": chainOf(to(kernel.Jump, "newer")), "newer": chainOf(to(kernel.Goto, "new"))},
		"itself, from base":  {"a": chainOf(to(kernel.Goto, "a"))},
		"back to what is":    {"b": chainOf(to(kernel.Jump, "a"))},
		"by way of an entry": {kernel.EntryKey("to", "y"): {To: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := make(map[string]error)
			for key := range set {
				want[key] = syscall.ELOOP
			}
			wantFailures(t, w.Chains().Write(t.Context(), set, nil), "set", want)
		})
	}
	WantRules(t, w, verdictMaps(), nil, chains)
	// Sixteen deep there may be, the base chain included.
	deep := map[string]kernel.Chain{"deep1": chainOf()}
	for i := 2; i <= 16; i++ {
		deep[fmt.Sprintf("deep%d", i)] = chainOf(to(kernel.Jump, fmt.Sprintf("deep%d", i-1)))
	}
	Put(t, w.Chains(), deep)
	deepest := map[string]kernel.Chain{"deepest": baseOf(to(kernel.Jump, "deep15"))}
	Put(t, w.Chains(), deepest)
	err := w.Chains().Write(t.Context(), map[string]kernel.Chain{"deepest": baseOf(to(kernel.Jump, "deep16"))}, nil)
	wantFailures(t, err, "set", map[string]error{"deepest": syscall.ELOOP})
	// To turn round what leads to each other is no circle.
	Put(t, w.Chains(), map[string]kernel.Chain{"a": chainOf(), "b": chainOf(to(kernel.Jump, "a")), "base": baseOf(to(kernel.Jump, "b"))})
}

func anyOrder(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), verdictMaps())
	chains := map[string]kernel.Chain{
		"a": chainOf(to(kernel.Jump, "b"), to(kernel.Jump, "c")), "b": chainOf(to(kernel.Goto, "c")), "c": chainOf(to(kernel.InVerdicts, "to")), "d": chainOf(),
		"base": baseOf(to(kernel.InVerdicts, "from"), to(kernel.Jump, "a")), "other": baseOf(to(kernel.OutVerdicts, "to")),
		kernel.EntryKey("from", "x"): {To: "a"}, kernel.EntryKey("from", "y"): {To: "d"}, kernel.EntryKey("to", "x"): {To: "d"},
	}
	keys := make([]string, 0, len(chains))
	for key := range chains {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		Put(t, w.Chains(), chains)
		WantRules(t, w, verdictMaps(), nil, chains)
		random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		Put(t, w.Chains(), nil, append(slices.Clone(keys), "gone", kernel.EntryKey("gone", "x"), kernel.EntryKey("to", "gone"), kernel.EntryKey("to", "longer-than-it-can-be"))...)
		WantRules(t, w, verdictMaps(), nil, nil)
	}
}

func entriesMove(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), verdictMaps())
	x, y := kernel.EntryKey("from", "x"), kernel.EntryKey("from", "fifteen-letters")
	chains := map[string]kernel.Chain{"base": baseOf(to(kernel.InVerdicts, "from"))}
	for i := range 5 {
		name := fmt.Sprintf("pods/%d", i)
		chains[name] = chainOf(kernel.Rule{Counter: true, Verdict: kernel.Drop, Comment: name})
		chains[x], chains[y] = kernel.Chain{To: name}, kernel.Chain{To: name}
		set := map[string]kernel.Chain{name: chains[name], x: chains[x], y: chains[y], "base": chains["base"]}
		var del []string
		if i > 0 { // what they led to goes at once
			del = []string{fmt.Sprintf("pods/%d", i-1)}
			delete(chains, del[0])
		}
		Put(t, w.Chains(), set, del...)
		WantRules(t, w, verdictMaps(), nil, chains)
		Put(t, w.Chains(), set) // as it is
		WantRules(t, w, verdictMaps(), nil, chains)
	}
	for range 2 {
		Put(t, w.Chains(), nil, x)
		delete(chains, x)
		WantRules(t, w, verdictMaps(), nil, chains)
	}
	Put(t, w.Chains(), map[string]kernel.Chain{x: {To: "pods/4"}})
	chains[x] = kernel.Chain{To: "pods/4"}
	WantRules(t, w, verdictMaps(), nil, chains)
}

// manyChains writes more than goes into one transaction, with some that are refused.
func manyChains(t *testing.T, w RulesWorld) {
	const many = 3000
	sets := verdictMaps()
	chains := map[string]kernel.Chain{"base": baseOf(to(kernel.InVerdicts, "from"))}
	bad := make(map[string]error)
	set := make(map[string]kernel.Chain)
	for i := range many {
		policy, pod, link := fmt.Sprintf("policies/%d", i), fmt.Sprintf("pods/%d/in", i), fmt.Sprintf("cairn%d", i)
		group := map[string]kernel.Chain{
			policy: chainOf(kernel.Rule{Protocol: kernel.ProtoTCP, DstPort: uint16(i + 1), Verdict: kernel.Accept}, to(kernel.Return, "")),
			pod:    chainOf(to(kernel.Jump, policy), kernel.Rule{Counter: true, Verdict: kernel.Drop}), kernel.EntryKey("from", link): {To: pod},
		}
		if i%500 == 7 {
			group[policy] = chainOf(to(kernel.InVerdicts, "gone"))
		}
		for key, c := range group {
			set[key] = c
			if i%500 == 7 {
				bad[key] = syscall.ENOENT
			} else {
				chains[key] = c
			}
		}
	}
	set["base"] = chains["base"]
	Put(t, w.Sets(), sets)
	wantFailures(t, w.Chains().Write(t.Context(), set, nil), "set", bad)
	WantRules(t, w, sets, nil, chains)
	var del []string
	for key := range set {
		del = append(del, key)
	}
	Put(t, w.Chains(), nil, del...)
	WantRules(t, w, sets, nil, nil)
}
