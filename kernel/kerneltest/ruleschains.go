package kerneltest

import (
	"maps"
	"slices"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

// ruleForms are base chains with every form of rule.
func ruleForms() map[string]kernel.Chain {
	nodes4, nodes6 := kernel.InSet{Set: "nodes4"}, kernel.InSet{Set: "nodes6", IPv6: true}
	pools4, pools6 := kernel.InSet{Set: "pools4"}, kernel.InSet{Set: "pools6", IPv6: true}
	not := func(s kernel.InSet) kernel.InSet { s.Not = true; return s }
	return map[string]kernel.Chain{
		"empty":       {Hook: kernel.HookForward, Type: kernel.ChainFilter},
		"regular":     {Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Accept})},
		"regular-nil": {},
		"input": {Hook: kernel.HookInput, Type: kernel.ChainFilter, Priority: -5, Rules: kernel.RulesOf(
			kernel.Rule{Src: not(nodes4), Protocol: kernel.ProtoIPIP, Verdict: kernel.Drop, Comment: "no node's"},
			kernel.Rule{Dst: not(nodes4), Protocol: kernel.ProtoIPIP, Verdict: kernel.Drop},
			kernel.Rule{Src: not(nodes6), Protocol: kernel.ProtoUDP, DstPort: 4789, VNI: 4096, Verdict: kernel.Drop},
			kernel.Rule{Src: not(nodes6), Protocol: kernel.ProtoUDP, DstPort: 4789, Fragment: true, Verdict: kernel.Drop},
			kernel.Rule{Dst: nodes6, Protocol: kernel.ProtoUDP, DstPort: 4789, VNI: 4096, Translated: true, Verdict: kernel.Drop},
			kernel.Rule{Translated: true, Verdict: kernel.Accept},
			kernel.Rule{Src: nodes6, Dst: not(nodes6), Verdict: kernel.Drop},
			kernel.Rule{Protocol: kernel.ProtoUDP, VNI: 1<<24 - 1, Verdict: kernel.Drop},
			kernel.Rule{Protocol: kernel.ProtoTCP, DstPort: 65535, Verdict: kernel.Accept},
			kernel.Rule{Protocol: kernel.ProtoTCP, Verdict: kernel.Accept},
			kernel.Rule{Verdict: kernel.Accept, Comment: "the rest"},
		)},
		"forward": {Hook: kernel.HookForward, Type: kernel.ChainFilter, Priority: 10, Rules: kernel.RulesOf(
			kernel.Rule{InLink: "cairn*", Dst: nodes4, Protocol: kernel.ProtoIPIP, Verdict: kernel.Drop},
			kernel.Rule{InLink: "eth0", OutLink: "cairn*", Verdict: kernel.Accept},
			kernel.Rule{OutLink: "fifteen-letters", Verdict: kernel.Accept},
			kernel.Rule{InLink: "fourteen-chars*", Src: pools4, Verdict: kernel.Accept},
		)},
		"prerouting":  {Hook: kernel.HookPrerouting, Type: kernel.ChainFilter, Priority: kernel.PriorityRaw, Rules: kernel.RulesOf(kernel.Rule{Src: nodes4, Dst: nodes4, Protocol: kernel.ProtoUDP, DstPort: 4789, VNI: 1, Verdict: kernel.NoTrack})},
		"output":      {Hook: kernel.HookOutput, Type: kernel.ChainFilter, Priority: kernel.PriorityRaw, Rules: kernel.RulesOf(kernel.Rule{Src: nodes6, Dst: nodes6, Verdict: kernel.NoTrack})},
		"postrouting": {Hook: kernel.HookPostrouting, Type: kernel.ChainNAT, Priority: kernel.PriorityNAT, Rules: kernel.RulesOf(kernel.Rule{Src: pools4, Dst: not(pools4), Verdict: kernel.Masquerade}, kernel.Rule{Src: pools6, Dst: not(pools6), Verdict: kernel.Masquerade})},
	}
}

// EveryRule writes every form of rule and reads it back; it leaves them there.
func EveryRule(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), kinds())
	for range 2 {
		Put(t, w.Chains(), ruleForms())
		WantRules(t, w, kinds(), nil, ruleForms())
	}
	for range 2 {
		Put(t, w.Chains(), nil, slices.Collect(maps.Keys(ruleForms()))...)
		WantRules(t, w, kinds(), nil, nil)
	}
	Put(t, w.Chains(), ruleForms())
}

func chainMoves(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), kinds())
	accept := kernel.RulesOf(kernel.Rule{Verdict: kernel.Accept})
	two := kernel.RulesOf(kernel.Rule{InLink: "a", Verdict: kernel.Drop}, kernel.Rule{InLink: "b", Verdict: kernel.Drop})
	ways := []kernel.Chain{
		{},
		{Rules: accept},
		{Hook: kernel.HookInput, Type: kernel.ChainFilter},
		{Hook: kernel.HookInput, Type: kernel.ChainFilter, Rules: two},
		{Hook: kernel.HookInput, Type: kernel.ChainFilter, Rules: accept},
		{Hook: kernel.HookInput, Type: kernel.ChainFilter, Priority: 1, Rules: accept},
		{Hook: kernel.HookPostrouting, Type: kernel.ChainFilter, Rules: accept},
		{Hook: kernel.HookPostrouting, Type: kernel.ChainNAT, Priority: kernel.PriorityNAT, Rules: accept},
		{Hook: kernel.HookPostrouting, Type: kernel.ChainNAT, Priority: kernel.PriorityNAT, Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Masquerade})},
		{Hook: kernel.HookPostrouting, Type: kernel.ChainNAT, Priority: kernel.PriorityNAT + 1, Rules: accept},
		ruleForms()["input"],
	}
	for step := 1; step < len(ways); step++ { // every way is left for most others
		for i := range ways {
			c := ways[i*step%len(ways)]
			Put(t, w.Chains(), map[string]kernel.Chain{"it": c})
			WantRules(t, w, kinds(), nil, map[string]kernel.Chain{"it": c})
		}
	}
}

func badChains(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), kinds())
	filter := func(rules ...kernel.Rule) kernel.Chain {
		return kernel.Chain{Hook: kernel.HookInput, Type: kernel.ChainFilter, Rules: kernel.RulesOf(rules...)}
	}
	drop := kernel.Rule{Verdict: kernel.Drop}
	good := map[string]kernel.Chain{"good": filter(drop), "better": filter(kernel.Rule{Src: kernel.InSet{Set: "nodes4"}, Verdict: kernel.Drop})}
	stays := filter(kernel.Rule{InLink: "a", Verdict: kernel.Drop})
	Put(t, w.Chains(), map[string]kernel.Chain{"stays": stays})
	all := maps.Clone(good)
	bad := make(map[string]error)
	for name, c := range map[string]struct {
		kernel.Chain
		err error
	}{
		"missing-set":     {filter(kernel.Rule{Src: kernel.InSet{Set: "gone"}, Verdict: kernel.Drop}), syscall.ENOENT},
		"stays":           {filter(drop, kernel.Rule{Dst: kernel.InSet{Set: "gone"}, Verdict: kernel.Drop}), syscall.ENOENT},
		"no-verdict":      {filter(kernel.Rule{InLink: "a"}), syscall.EINVAL},
		"other-verdict":   {filter(kernel.Rule{Verdict: "reject"}), syscall.EINVAL},
		"unknown":         {filter(kernel.Rule{Other: "counter"}), syscall.EINVAL},
		"masquerade":      {filter(kernel.Rule{Verdict: kernel.Masquerade}), syscall.EINVAL},
		"notrack":         {filter(kernel.Rule{Verdict: kernel.NoTrack}), syscall.EINVAL},
		"port":            {filter(kernel.Rule{DstPort: 1, Verdict: kernel.Drop}), syscall.EINVAL},
		"vni":             {filter(kernel.Rule{Protocol: kernel.ProtoUDP, VNI: 1 << 24, Verdict: kernel.Drop}), syscall.EINVAL},
		"fragment":        {filter(kernel.Rule{Fragment: true, Verdict: kernel.Drop}), syscall.EINVAL},
		"families":        {filter(kernel.Rule{Src: kernel.InSet{Set: "nodes4"}, Dst: kernel.InSet{Set: "nodes6", IPv6: true}, Verdict: kernel.Drop}), syscall.EINVAL},
		"comment":         {filter(kernel.Rule{Verdict: kernel.Drop, Comment: `"`}), syscall.EINVAL},
		"link":            {filter(kernel.Rule{InLink: "sixteen-letters-", Verdict: kernel.Drop}), syscall.EINVAL},
		"any-link":        {filter(kernel.Rule{InLink: "*", Verdict: kernel.Drop}), syscall.EINVAL},
		"some-links":      {filter(kernel.Rule{OutLink: "fifteen-letters*", Verdict: kernel.Drop}), syscall.EINVAL},
		"other":           {kernel.Chain{Other: "policy drop"}, syscall.EINVAL},
		"hook":            {kernel.Chain{Hook: "ingress", Type: kernel.ChainFilter}, syscall.EINVAL},
		"type":            {kernel.Chain{Hook: kernel.HookInput, Type: "route"}, syscall.EINVAL},
		"typeless":        {kernel.Chain{Hook: kernel.HookInput}, syscall.EINVAL},
		"no-base":         {kernel.Chain{Type: kernel.ChainFilter}, syscall.EINVAL},
		"nat-forward":     {kernel.Chain{Hook: kernel.HookForward, Type: kernel.ChainNAT}, syscall.EINVAL},
		"nat-early":       {kernel.Chain{Hook: kernel.HookPrerouting, Type: kernel.ChainNAT, Priority: -200}, syscall.EINVAL},
		"bad name for it": {filter(drop), syscall.EINVAL},
	} {
		all[name], bad[name] = c.Chain, c.err
	}
	wantFailures(t, w.Chains().Write(t.Context(), all, nil), "set", bad)
	good["stays"] = stays
	WantRules(t, w, kinds(), nil, good)
}
