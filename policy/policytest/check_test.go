package policytest

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"cairn.network/cairn/kernel"
)

// TestRefusals loads what the kernel would not take, and what the tracer does not know.
func TestRefusals(t *testing.T) {
	rule := func(r kernel.Rule) chainsOf {
		if r.Verdict == "" {
			r.Verdict = kernel.Drop
		}
		return chainsOf{"f": base(kernel.HookForward, 0, r), "s": list()}
	}
	addr := func(m kernel.AddrMatch) chainsOf { return rule(kernel.Rule{Addrs: []kernel.AddrMatch{m}}) }
	ports := func(m kernel.PortMatch) chainsOf { return rule(kernel.Rule{Protocol: 6, Ports: []kernel.PortMatch{m}}) }
	element := func(e kernel.Element) map[kernel.Element]struct{} { return map[kernel.Element]struct{}{e: {}} }
	p := netip.MustParsePrefix
	jumps := func(n int) chainsOf {
		c := chainsOf{"f": base(kernel.HookForward, 0, kernel.Rule{Verdict: kernel.Jump, Target: "s0"}), fmt.Sprintf("s%d", n-1): list()}
		for i := range n - 1 {
			c[fmt.Sprintf("s%d", i)] = list(kernel.Rule{Verdict: kernel.Jump, Target: fmt.Sprintf("s%d", i+1)})
		}
		return c
	}
	dst := kernel.Destination
	for name, row := range map[string]struct {
		sets     setsOf
		elements map[kernel.Element]struct{}
		chains   chainsOf
		want     string // "": it is taken
	}{
		"nothing":                    {want: ""},
		"set of another hand":        {sets: setsOf{"x": {Other: "map"}}, want: "unknown kind map"},
		"set of unknown keys":        {sets: setsOf{"x": {Keys: "marks"}}, want: `unknown keys "marks"`},
		"shared by name only":        {sets: setsOf{kernel.SharedName(false, kernel.SharedID{}): {}}, want: "name of another kind"},
		"shared by kind only":        {sets: setsOf{"x": {Shared: true}}, want: "name of another kind"},
		"ranges of services":         {sets: setsOf{"x": {Keys: kernel.KeysServices, Ranges: true}}, want: "no ranges"},
		"element of no set":          {elements: element(kernel.Element{Set: "none", Prefix: p("10.0.0.1/32")}), want: "no such set"},
		"range in a set without":     {elements: element(kernel.Element{Set: "a4", Prefix: p("10.0.0.0/31")}), want: "has no ranges"},
		"element of other family":    {elements: element(kernel.Element{Set: "a4", Prefix: p("fd00::1/128")}), want: "no address of the set"},
		"element not masked":         {elements: element(kernel.Element{Set: "nets4", Prefix: p("10.0.0.1/24")}), want: "no address of the set"},
		"element by another hand":    {elements: element(kernel.Element{Set: "nets4", Prefix: p("10.0.0.1/32")}.To(netip.MustParseAddr("10.0.0.3"))), want: "unknown range"},
		"address among ports":        {elements: element(kernel.Element{Set: "ports", Prefix: p("10.0.0.1/32")}), want: "no address of the set"},
		"port among addresses":       {elements: element(kernel.Element{Set: "a4", Prefix: p("10.0.0.1/32"), Port: 1}), want: "what the set's elements don't"},
		"link among services":        {elements: element(kernel.Element{Set: "web", Prefix: p("10.0.0.1/32"), Beside: "eth0"}), want: "what the set's elements don't"},
		"range of ports, backwards":  {elements: element(kernel.Element{Set: "ports", Port: 9, LastPort: 8}), want: "ends before it begins"},
		"element of a verdict map":   {elements: element(kernel.Element{Set: "from", Beside: "eth0"}), want: "entries, not elements"},
		"nets that overlap":          {elements: map[kernel.Element]struct{}{{Set: "nets4", Prefix: p("10.0.0.0/24")}: {}, {Set: "nets4", Prefix: p("10.0.0.1/32")}: {}}, want: "overlaps"},
		"ports that overlap":         {elements: map[kernel.Element]struct{}{{Set: "ports", Port: 1, LastPort: 3}: {}, {Set: "ports", Port: 3, LastPort: 4}: {}}, want: "overlaps"},
		"ports side by side":         {elements: map[kernel.Element]struct{}{{Set: "ports", Port: 1, LastPort: 3}: {}, {Set: "ports", Port: 4, LastPort: 5}: {}}, want: ""},
		"entry of no map":            {chains: chainsOf{"none eth0": {To: "s"}, "s": list()}, want: "no such verdict map"},
		"entry of a set":             {chains: chainsOf{"a4 eth0": {To: "s"}, "s": list()}, want: "no such verdict map"},
		"entry to no chain":          {chains: chainsOf{"from eth0": {To: "none"}}, want: `no chain "none"`},
		"entry to a base chain":      {chains: chainsOf{"from eth0": {To: "f"}, "f": base(kernel.HookForward, 0)}, want: "is a base chain"},
		"entry with rules":           {chains: chainsOf{"from eth0": {To: "s", Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Drop})}, "s": list()}, want: "a chain, too"},
		"chain of another hand":      {chains: chainsOf{"s": {Other: "policy drop"}}, want: "unknown kind of chain"},
		"chain of unknown hook":      {chains: chainsOf{"f": base("ingress", 0)}, want: `unknown hook "ingress"`},
		"chain of unknown type":      {chains: chainsOf{"f": {Hook: kernel.HookForward, Type: "route"}}, want: `unknown type "route"`},
		"priority without hook":      {chains: chainsOf{"s": {Priority: 1}}, want: "of base chains"},
		"chain that leads somewhere": {chains: chainsOf{"s": {To: "u"}, "u": list()}, want: "unknown kind of chain"},
		"jump to no chain":           {chains: rule(kernel.Rule{Verdict: kernel.Jump, Target: "none"}), want: `no chain "none"`},
		"jump to a base chain":       {chains: rule(kernel.Rule{Verdict: kernel.Goto, Target: "f"}), want: "is a base chain"},
		"loop":                       {chains: chainsOf{"s": list(kernel.Rule{Verdict: kernel.Goto, Target: "u"}), "u": list(kernel.Rule{Verdict: kernel.Jump, Target: "s"})}, want: "leads back to itself"},
		"loop by an entry":           {chains: chainsOf{"s": list(kernel.Rule{Verdict: kernel.InVerdicts, Target: "from"}), "from eth0": {To: "s"}}, want: "leads back to itself"},
		"16 jumps":                   {chains: jumps(16), want: ""},
		"17 jumps":                   {chains: jumps(17), want: "17 deep"},
		"lookup in no map":           {chains: rule(kernel.Rule{Verdict: kernel.InVerdicts, Target: "none"}), want: `no verdict map "none"`},
		"lookup in a set":            {chains: rule(kernel.Rule{Verdict: kernel.OutVerdicts, Target: "a4"}), want: `no verdict map "a4"`},
		"drop with a target":         {chains: rule(kernel.Rule{Verdict: kernel.Drop, Target: "s"}), want: "has no target"},
		"unknown verdict":            {chains: rule(kernel.Rule{Verdict: "queue"}), want: `unknown verdict "queue"`},
		"rule of another hand":       {chains: rule(kernel.Rule{Other: "meta mark 1"}), want: "unknown rule: meta mark 1"},
		"no set":                     {chains: rule(kernel.Rule{Src: kernel.InSet{Set: "none"}}), want: "no set none"},
		"set of the other family":    {chains: rule(kernel.Rule{Dst: kernel.InSet{Set: "a4", IPv6: true}}), want: "no set a4"},
		"set of other keys":          {chains: addr(kernel.AddrMatch{Place: dst, Set: "web"}), want: "no set web"},
		"ports in addresses":         {chains: ports(kernel.PortMatch{Place: dst, Set: "a4"}), want: "no set a4"},
		"address nowhere":            {chains: addr(kernel.AddrMatch{Set: "a4"}), want: `unknown place ""`},
		"address of nothing":         {chains: addr(kernel.AddrMatch{Place: dst}), want: "unknown match of addresses"},
		"prefix of other family":     {chains: addr(kernel.AddrMatch{Place: dst, IPv6: true, Prefix: p("10.0.0.0/8")}), want: "unknown match of addresses"},
		"set and prefix":             {chains: addr(kernel.AddrMatch{Place: dst, Set: "a4", Prefix: p("10.0.0.0/8")}), want: "unknown match of addresses"},
		"links as addresses":         {chains: addr(kernel.AddrMatch{Place: dst, Set: "from", Keys: kernel.KeysLinks}), want: "addresses in a set of links"},
		"port nowhere":               {chains: ports(kernel.PortMatch{First: 1, Last: 2}), want: `unknown place ""`},
		"set and range of ports":     {chains: ports(kernel.PortMatch{Place: dst, Set: "ports", Last: 1}), want: "unknown match of ports"},
		"ports backwards":            {chains: ports(kernel.PortMatch{Place: dst, First: 2, Last: 1}), want: "unknown match of ports"},
		"ports without protocol":     {chains: rule(kernel.Rule{Ports: []kernel.PortMatch{{Place: dst, Last: 1}}}), want: "has no ports"},
		"port of ICMP":               {chains: rule(kernel.Rule{Protocol: 1, DstPort: 1}), want: "has no ports"},
		"VNI of TCP":                 {chains: rule(kernel.Rule{Protocol: 6, VNI: 1}), want: "VNI without UDP"},
		"SYN of UDP":                 {chains: rule(kernel.Rule{Protocol: 17, NoSYN: true}), want: "flags without TCP"},
		"ICMP of UDP":                {chains: rule(kernel.Rule{Protocol: 17, ICMP: &kernel.ICMP{}}), want: "no types of ICMP"},
		"unknown state":              {chains: rule(kernel.Rule{States: 1 << 4}), want: "unknown states 0x10"},
		"unknown family":             {chains: rule(kernel.Rule{Family: 5}), want: "unknown family 5"},
		"a link and none":            {chains: rule(kernel.Rule{InLink: "eth0", NoInLink: true}), want: "a link, and none"},
	} {
		t.Run(name, func(t *testing.T) {
			all := sets()
			maps.Copy(all, row.sets)
			_, err := NewRuleset(maps.All(all), maps.All(row.elements), maps.All(row.chains))
			switch {
			case row.want == "" && err != nil:
				t.Error(err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("got %v, want: %s", err, row.want)
			}
		})
	}
}
