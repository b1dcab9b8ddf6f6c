package kerneltest

import (
	"net/netip"

	"cairn.network/cairn/kernel"
)

// ruleForms are chains with every form of rule, and entries.
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
			kernel.Rule{Verdict: kernel.InVerdicts, Target: "from/pod"},
			kernel.Rule{InLink: "eth0", Verdict: kernel.OutVerdicts, Target: "to/pod", Comment: "to pods"},
			kernel.Rule{Protocol: kernel.ProtoTCP, DstPort: 22, NoInLink: true, OutLink: "cairn*", Verdict: kernel.InVerdicts, Target: "to/pod"},
		)},
		"prerouting":  {Hook: kernel.HookPrerouting, Type: kernel.ChainFilter, Priority: kernel.PriorityRaw, Rules: kernel.RulesOf(kernel.Rule{Src: nodes4, Dst: nodes4, Protocol: kernel.ProtoUDP, DstPort: 4789, VNI: 1, Verdict: kernel.NoTrack})},
		"mangle":      {Hook: kernel.HookPrerouting, Type: kernel.ChainFilter, Priority: kernel.PriorityMangle, Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Jump, Target: "pods/a/in"})},
		"output":      {Hook: kernel.HookOutput, Type: kernel.ChainFilter, Priority: kernel.PriorityRaw, Rules: kernel.RulesOf(kernel.Rule{Src: nodes6, Dst: nodes6, Verdict: kernel.NoTrack})},
		"postrouting": {Hook: kernel.HookPostrouting, Type: kernel.ChainNAT, Priority: kernel.PriorityNAT, Rules: kernel.RulesOf(kernel.Rule{Src: pools4, Dst: not(pools4), Verdict: kernel.Masquerade}, kernel.Rule{Src: pools6, Dst: not(pools6), Verdict: kernel.Masquerade})},

		"pods/a/in": {Rules: kernel.RulesOf(
			kernel.Rule{Verdict: kernel.Jump, Target: "policies/ports"},
			kernel.Rule{States: kernel.StateNew, Counter: true, Verdict: kernel.Jump, Target: "policies/addresses", Comment: "counted"},
			kernel.Rule{Verdict: kernel.Goto, Target: "pods/b"},
		)},
		"pods/b":             {Rules: kernel.RulesOf(kernel.Rule{Counter: true, Verdict: kernel.Drop})},
		"policies/ports":     {Rules: kernel.RulesOf(portForms()...)},
		"policies/icmp":      {Rules: kernel.RulesOf(icmpForms()...)},
		"policies/addresses": {Rules: kernel.RulesOf(addressForms()...)},
		"policies/doing":     {Rules: kernel.RulesOf(doingForms()...)},

		kernel.EntryKey("from/pod", "cairn0"):        {To: "pods/a/in"},
		kernel.EntryKey("to/pod", "cairn0"):          {To: "pods/a/in"},
		kernel.EntryKey("to/pod", "fifteen-letters"): {To: "pods/b"},
	}
}

// portForms are rules about protocols and ports.
func portForms() []kernel.Rule {
	port := func(place kernel.Place, first, last uint16) kernel.PortMatch {
		return kernel.PortMatch{Place: place, First: first, Last: last}
	}
	not := func(p kernel.PortMatch) kernel.PortMatch { p.Not = true; return p }
	src, dst := kernel.Source, kernel.Destination
	rules := []kernel.Rule{
		{NotProtocol: kernel.ProtoTCP, Verdict: kernel.Drop},
		{NotProtocol: kernel.ProtoUDP, Family: 6, Verdict: kernel.Drop},
		{Protocol: 47, Family: 4, Verdict: kernel.Drop},
		{Protocol: kernel.ProtoTCP, DstPort: 443, Family: 6, Verdict: kernel.Accept},
		{Protocol: kernel.ProtoUDP, DstPort: 53, Ports: []kernel.PortMatch{not(port(src, 53, 53))}, Verdict: kernel.Accept},
		{Protocol: kernel.ProtoTCP, Ports: []kernel.PortMatch{port(dst, 80, 90), {Place: src, Set: "ports"}}, Verdict: kernel.Accept},
		{Protocol: kernel.ProtoTCP, Ports: []kernel.PortMatch{{Place: dst, Set: "port-ranges", Not: true}, port(src, 1024, 65535)}, Verdict: kernel.Accept},
		{Protocol: kernel.ProtoUDP, Ports: []kernel.PortMatch{not(port(dst, 53, 53)), not(port(src, 0, 1023))}, Verdict: kernel.Accept},
		{Protocol: kernel.ProtoUDP, Ports: []kernel.PortMatch{port(dst, 0, 0), not(port(src, 0, 0))}, Verdict: kernel.Accept},
	}
	for _, protocol := range []uint8{kernel.ProtoSCTP, kernel.ProtoDCCP, kernel.ProtoUDPLite} {
		rules = append(rules,
			kernel.Rule{Protocol: protocol, Ports: []kernel.PortMatch{port(dst, 80, 80)}, Verdict: kernel.Accept},
			kernel.Rule{Protocol: protocol, Ports: []kernel.PortMatch{{Place: dst, Set: "ports"}}, Verdict: kernel.Accept})
	}
	return rules
}

// icmpForms are rules about ICMP.
func icmpForms() []kernel.Rule {
	var rules []kernel.Rule
	for _, protocol := range []uint8{kernel.ProtoICMP, kernel.ProtoICMPv6} {
		for kind := 0; kind < 256; kind++ {
			if kind < 20 || kind > 126 && kind < 146 || kind == 255 {
				rules = append(rules, kernel.Rule{Protocol: protocol, ICMP: &kernel.ICMP{Type: uint8(kind), AnyCode: true}, Verdict: kernel.Accept})
			}
		}
		for code := range uint8(16) {
			rules = append(rules, kernel.Rule{Protocol: protocol, ICMP: &kernel.ICMP{Type: 3, Code: code}, Verdict: kernel.Accept})
		}
		set := kernel.InSet{Set: "nodes4"}
		if protocol == kernel.ProtoICMPv6 {
			set = kernel.InSet{Set: "nodes6", IPv6: true}
		}
		rules = append(rules,
			kernel.Rule{Protocol: protocol, ICMP: &kernel.ICMP{Type: 8}, Src: set, Verdict: kernel.Accept},
			kernel.Rule{Protocol: protocol, NotICMP: &kernel.ICMP{Type: 8, AnyCode: true}, Dst: set, Verdict: kernel.Accept},
			kernel.Rule{Protocol: protocol, NotICMP: &kernel.ICMP{Type: 3, Code: 1}, Verdict: kernel.Accept},
			kernel.Rule{Protocol: protocol, ICMP: &kernel.ICMP{Type: 8, AnyCode: true}, NotICMP: &kernel.ICMP{Type: 8, Code: 1}, Verdict: kernel.Accept},
			kernel.Rule{Protocol: protocol, Verdict: kernel.Drop},
		)
	}
	return rules
}

// addressForms are rules about families, addresses and where packets come from.
func addressForms() []kernel.Rule {
	rules := []kernel.Rule{
		{Family: 4, Verdict: kernel.Accept},
		{Family: 6, Fragment: true, Verdict: kernel.Drop},
		{NoInLink: true, Verdict: kernel.Accept},
	}
	for _, family := range []struct {
		v6       bool
		name     string
		prefixes []string
	}{
		{false, "4", []string{"0.0.0.0/0", "128.0.0.0/1", "10.0.0.0/8", "10.128.0.0/9", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.2/31", "10.1.2.3/32"}},
		{true, "6", []string{"::/0", "8000::/1", "fd00::/8", "fd80::/9", "fd00:1::/64", "fd00:1:0:0:8000::/65", "fd00:1::2/127", "fd00:1::3/128"}},
	} {
		match := func(place kernel.Place, keys kernel.Keys, set string) kernel.AddrMatch {
			return kernel.AddrMatch{Place: place, IPv6: family.v6, Keys: keys, Set: set + family.name}
		}
		not := func(a kernel.AddrMatch) kernel.AddrMatch { a.Not = true; return a }
		rule := func(addrs ...kernel.AddrMatch) kernel.Rule { return kernel.Rule{Addrs: addrs, Verdict: kernel.Accept} }
		for _, prefix := range family.prefixes {
			p := netip.MustParsePrefix(prefix)
			src := kernel.AddrMatch{Place: kernel.Source, IPv6: family.v6, Prefix: p}
			dst := kernel.AddrMatch{Place: kernel.Destination, IPv6: family.v6, Prefix: p}
			rules = append(rules, rule(src), rule(not(dst)), rule(src, dst), rule(dst, src), rule(not(src), dst, match(kernel.Destination, "", "pools")))
		}
		services, sources := match(kernel.Destination, kernel.KeysServices, "services"), match(kernel.Source, kernel.KeysSources, "sources")
		serving := match(kernel.Source, kernel.KeysServices, "services")
		rules = append(rules, rule(serving), rule(not(serving)), rule(serving, services))
		fromPort := rule(services)
		fromPort.Protocol, fromPort.Ports = kernel.ProtoUDP, []kernel.PortMatch{{Place: kernel.Source, First: 53, Last: 53}}
		rules = append(rules, fromPort, rule(services), rule(not(services)), rule(sources), rule(not(sources)), rule(services, sources),
			rule(match(kernel.Source, "", "nodes"), not(match(kernel.Source, "", "pools")), match(kernel.Destination, "", "pools"), not(match(kernel.Destination, "", "nodes"))))
	}
	return rules
}

// doingForms are rules about connections, and those that do something before their
// verdict.
func doingForms() []kernel.Rule {
	log := &kernel.Log{Group: 2, Prefix: "policy a/b: "}
	rules := []kernel.Rule{
		{States: kernel.StateEstablished | kernel.StateRelated, Verdict: kernel.Accept},
		{States: kernel.StateInvalid, Verdict: kernel.Drop},
		{Protocol: kernel.ProtoTCP, NoSYN: true, Verdict: kernel.Drop},
		{Protocol: kernel.ProtoTCP, DstPort: 80, Ports: []kernel.PortMatch{{Place: kernel.Source, First: 1, Last: 9}}, NoSYN: true, States: kernel.StateNew, Verdict: kernel.Drop},
		{States: kernel.StateInvalid | kernel.StateEstablished | kernel.StateRelated | kernel.StateNew | kernel.StateUntracked, Verdict: kernel.Drop},
		{States: kernel.StateUntracked, Translated: true, Verdict: kernel.NoTrack},
		{Counter: true, Verdict: kernel.Continue},
		{Counter: true, Verdict: kernel.Continue, Comment: "counts"},
		{Log: &kernel.Log{}, Verdict: kernel.Continue},
		{Log: &kernel.Log{Group: 65535}, Verdict: kernel.Return},
		{Log: log, Verdict: kernel.Drop},
		{Counter: true, Log: log, Verdict: kernel.Accept},
		{Limit: &kernel.Limit{Rate: 10, Burst: 5}, Log: log, Verdict: kernel.Continue},
		{Limit: &kernel.Limit{Rate: 1, Burst: 1}, Verdict: kernel.Accept},
		{Protocol: kernel.ProtoTCP, DstPort: 80, Src: kernel.InSet{Set: "nodes4"}, States: kernel.StateNew, Counter: true,
			Limit: &kernel.Limit{Rate: 1<<32 - 1, Burst: 1<<32 - 1}, Log: log, Verdict: kernel.Goto, Target: "pods/b", Comment: "all of it"},
	}
	return rules
}
