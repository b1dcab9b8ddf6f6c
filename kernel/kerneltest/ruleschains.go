package kerneltest

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

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
		"leads":           {kernel.Chain{To: "stays"}, syscall.EINVAL},
	} {
		all[name], bad[name] = c.Chain, c.err
	}
	for name, r := range badRules() {
		all[name], bad[name] = filter(r), syscall.EINVAL
	}
	wantFailures(t, w.Chains().Write(t.Context(), all, nil), "set", bad)
	good["stays"] = stays
	WantRules(t, w, kinds(), nil, good)
}

// badRules are rules that no chain can have.
func badRules() map[string]kernel.Rule {
	const src, dst = kernel.Source, kernel.Destination
	prefix4, prefix6 := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")
	rules := map[string]kernel.Rule{
		"two-links":      {InLink: "a", NoInLink: true},
		"family":         {Family: 5},
		"other-family":   {Family: 6, Src: kernel.InSet{Set: "nodes4"}},
		"family-of-icmp": {Protocol: kernel.ProtoICMP, ICMP: &kernel.ICMP{Type: 8}, Src: kernel.InSet{Set: "nodes6", IPv6: true}},
		"two-protocols":  {Protocol: 6, NotProtocol: 17},
		"icmp":           {Protocol: 6, ICMP: &kernel.ICMP{Type: 8}},
		"not-icmp":       {NotICMP: &kernel.ICMP{Type: 8}},
		"fragment4":      {Fragment: true, Family: 4},
		"states":         {States: 1 << 5},
		"limit-rate":     {Limit: &kernel.Limit{Burst: 1}},
		"limit-burst":    {Limit: &kernel.Limit{Rate: 1}},
		"log-prefix":     {Log: &kernel.Log{Prefix: `"`}},
		"log-long":       {Log: &kernel.Log{Prefix: strings.Repeat("a", 128)}},
		"target":         {Target: "good"},
		"no-chain":       {Verdict: kernel.Jump},
		"odd-chain":      {Verdict: kernel.Goto, Target: "a b"},
		"no-map":         {Verdict: kernel.InVerdicts},
		"continue":       {Verdict: kernel.Continue},
		"continue-limit": {Verdict: kernel.Continue, Limit: &kernel.Limit{Rate: 1, Burst: 1}},
		"map-as-set":     {Src: kernel.InSet{Set: "from/pod"}},
		"set-as-map":     {Verdict: kernel.OutVerdicts, Target: "ports"},
		"other-set":      {Dst: kernel.InSet{Set: "nodes6"}},
		"ports-set":      {Dst: kernel.InSet{Set: "ports"}},
	}
	for name, a := range map[string]kernel.AddrMatch{
		"place":            {Place: "middle", Prefix: prefix4},
		"no-place":         {Set: "nodes4"},
		"nothing":          {Place: src},
		"both":             {Place: src, Set: "nodes4", Prefix: prefix4},
		"prefix-family":    {Place: src, Prefix: prefix6},
		"prefix-unmasked":  {Place: src, Prefix: netip.MustParsePrefix("10.0.0.1/8")},
		"prefix-keys":      {Place: src, Prefix: prefix4, Keys: kernel.KeysSources},
		"sources-dest":     {Place: dst, Set: "sources4", Keys: kernel.KeysSources},
		"keys":             {Place: src, Set: "ports", Keys: kernel.KeysPorts},
		"services-family":  {Place: dst, Set: "services6", Keys: kernel.KeysServices},
		"services-as-set":  {Place: dst, Set: "services4"},
		"set-as-services":  {Place: dst, Set: "nodes4", Keys: kernel.KeysServices},
		"sources-services": {Place: src, Set: "services4", Keys: kernel.KeysSources},
	} {
		rules["address-"+name] = kernel.Rule{Addrs: []kernel.AddrMatch{a}}
	}
	for name, p := range map[string]kernel.PortMatch{
		"place":    {Place: "middle", First: 1, Last: 1},
		"both":     {Place: dst, Set: "ports", First: 1, Last: 1},
		"backward": {Place: dst, First: 2, Last: 1},
		"kind":     {Place: dst, Set: "nodes4"},
	} {
		rules["port-"+name] = kernel.Rule{Protocol: kernel.ProtoTCP, Ports: []kernel.PortMatch{p}}
	}
	rules["port-protocol"] = kernel.Rule{Protocol: 47, Ports: []kernel.PortMatch{{Place: dst, First: 1, Last: 1}}}
	rules["services-protocol"] = kernel.Rule{Protocol: 47, Addrs: []kernel.AddrMatch{{Place: dst, Set: "services4", Keys: kernel.KeysServices}}}
	for name, r := range rules {
		if r.Verdict == "" {
			r.Verdict = kernel.Drop
		}
		rules[name] = r
	}
	return rules
}
