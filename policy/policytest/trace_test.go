package policytest

import (
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

type (
	setsOf   = map[string]kernel.Set
	chainsOf = map[string]kernel.Chain
)

// sets are those that the tests' rules ask.
func sets() setsOf {
	return setsOf{
		"a4": {}, "a6": {IPv6: true}, "nets4": {Ranges: true},
		"ports": {Keys: kernel.KeysPorts, Ranges: true}, "web": {Keys: kernel.KeysServices},
		"own4": {Keys: kernel.KeysSources}, "from": {Keys: kernel.KeysLinks}, "to": {Keys: kernel.KeysLinks},
	}
}

func elements() map[kernel.Element]struct{} {
	p := netip.MustParsePrefix
	return map[kernel.Element]struct{}{
		{Set: "a4", Prefix: p("10.0.0.1/32")}:                              {},
		{Set: "a6", Prefix: p("fd00::1/128")}:                              {},
		{Set: "nets4", Prefix: p("10.0.0.0/24")}:                           {},
		{Set: "nets4", Prefix: p("10.0.1.1/32")}:                           {},
		{Set: "ports", Port: 80}:                                           {},
		{Set: "ports", Port: 100, LastPort: 200}:                           {},
		{Set: "web", Prefix: p("10.0.0.2/32"), Protocol: 6, Port: 80}:      {},
		{Set: "own4", Prefix: p("10.0.0.1/32"), Beside: "cairn0000000001"}: {},
	}
}

func load(t *testing.T, sets setsOf, elements map[kernel.Element]struct{}, chains chainsOf) *Ruleset {
	t.Helper()
	r, err := NewRuleset(maps.All(sets), maps.All(elements), maps.All(chains))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func base(hook kernel.Hook, priority int, rules ...kernel.Rule) kernel.Chain {
	return kernel.Chain{Hook: hook, Type: kernel.ChainFilter, Priority: priority, Rules: kernel.RulesOf(rules...)}
}

func list(rules ...kernel.Rule) kernel.Chain { return kernel.Chain{Rules: kernel.RulesOf(rules...)} }

// tcp is a packet that is forwarded from one pod to another.
func tcp(change ...func(*PacketAt)) PacketAt {
	p := PacketAt{Packet: policy.Packet{
		Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: 6, SrcPort: 1024, DstPort: 80,
	}, InLink: "cairn0000000001", OutLink: "cairn0000000002"}
	for _, c := range change {
		c(&p)
	}
	return p
}

func tcp6(change ...func(*PacketAt)) PacketAt {
	return tcp(append([]func(*PacketAt){func(p *PacketAt) {
		p.Src, p.Dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	}}, change...)...)
}

func udp(p *PacketAt)      { p.Protocol = 17 }
func later(p *PacketAt)    { p.Fragment, p.Later = true, true }
func fragment(p *PacketAt) { p.Fragment = true }
func ping(p *PacketAt) {
	p.Protocol, p.ICMPType, p.ICMPCode = 1, 8, 0
	if p.Src.Is6() {
		p.Protocol, p.ICMPType = 58, 128
	}
}

func TestRuleMatches(t *testing.T) {
	addr := func(m kernel.AddrMatch) kernel.Rule { return kernel.Rule{Addrs: []kernel.AddrMatch{m}} }
	ports := func(m ...kernel.PortMatch) kernel.Rule { return kernel.Rule{Protocol: 6, Ports: m} }
	src, dst := kernel.Source, kernel.Destination
	noLink := func(p *PacketAt) { p.InLink = "" }
	state := func(s kernel.State) func(*PacketAt) { return func(p *PacketAt) { p.State = s } }
	port := func(n uint16) func(*PacketAt) { return func(p *PacketAt) { p.DstPort = n } }
	vni := func(n uint32) func(*PacketAt) { return func(p *PacketAt) { p.Protocol, p.VNI = 17, n } }
	code := func(n uint8) func(*PacketAt) { return func(p *PacketAt) { ping(p); p.ICMPCode = n } }
	from := func(a string) func(*PacketAt) { return func(p *PacketAt) { p.Src = netip.MustParseAddr(a) } }
	for name, row := range map[string]struct {
		rule    kernel.Rule
		yes, no []PacketAt
	}{
		"nothing":             {kernel.Rule{}, []PacketAt{tcp(), tcp6(), tcp(later)}, nil},
		"in":                  {kernel.Rule{InLink: "cairn0000000001"}, []PacketAt{tcp()}, []PacketAt{tcp(noLink)}},
		"in, another":         {kernel.Rule{InLink: "cairn000000000"}, nil, []PacketAt{tcp()}},
		"in, any rest":        {kernel.Rule{InLink: "cairn*"}, []PacketAt{tcp()}, []PacketAt{tcp(noLink)}},
		"in, none":            {kernel.Rule{NoInLink: true}, []PacketAt{tcp(noLink)}, []PacketAt{tcp()}},
		"out":                 {kernel.Rule{OutLink: "cairn0000000002"}, []PacketAt{tcp()}, []PacketAt{tcp(func(p *PacketAt) { p.OutLink = "eth0" })}},
		"family 4":            {kernel.Rule{Family: 4}, []PacketAt{tcp()}, []PacketAt{tcp6()}},
		"family 6":            {kernel.Rule{Family: 6}, []PacketAt{tcp6()}, []PacketAt{tcp()}},
		"protocol":            {kernel.Rule{Protocol: 6}, []PacketAt{tcp(), tcp6(later)}, []PacketAt{tcp(udp)}},
		"not protocol":        {kernel.Rule{NotProtocol: 6}, []PacketAt{tcp(udp)}, []PacketAt{tcp(), tcp6()}},
		"port":                {kernel.Rule{Protocol: 6, DstPort: 80}, []PacketAt{tcp(), tcp6(fragment)}, []PacketAt{tcp(port(81)), tcp(udp), tcp(later)}},
		"VNI":                 {kernel.Rule{Protocol: 17, VNI: 7}, []PacketAt{tcp(vni(7))}, []PacketAt{tcp(vni(8)), tcp(udp)}},
		"fragment":            {kernel.Rule{Fragment: true}, []PacketAt{tcp6(fragment), tcp6(later)}, []PacketAt{tcp6(), tcp(fragment)}},
		"no SYN":              {kernel.Rule{Protocol: 6, NoSYN: true}, []PacketAt{tcp(func(p *PacketAt) { p.MidStream = true })}, []PacketAt{tcp()}},
		"translated":          {kernel.Rule{Translated: true}, []PacketAt{tcp(func(p *PacketAt) { p.Translated = true })}, []PacketAt{tcp()}},
		"new":                 {kernel.Rule{States: kernel.StateNew}, []PacketAt{tcp(), tcp(state(kernel.StateNew))}, []PacketAt{tcp(state(kernel.StateEstablished))}},
		"one of two states":   {kernel.Rule{States: kernel.StateEstablished | kernel.StateRelated}, []PacketAt{tcp(state(kernel.StateRelated))}, []PacketAt{tcp(), tcp(state(kernel.StateInvalid)), tcp(state(kernel.StateUntracked))}},
		"source set":          {kernel.Rule{Src: kernel.InSet{Set: "a4"}}, []PacketAt{tcp()}, []PacketAt{tcp(from("10.0.0.3")), tcp6()}},
		"not source set":      {kernel.Rule{Src: kernel.InSet{Set: "a4", Not: true}}, []PacketAt{tcp(from("10.0.0.3"))}, []PacketAt{tcp(), tcp6()}},
		"destination set":     {kernel.Rule{Dst: kernel.InSet{Set: "a6", IPv6: true, Not: true}}, []PacketAt{tcp6()}, []PacketAt{tcp()}},
		"both sets":           {kernel.Rule{Src: kernel.InSet{Set: "a4"}, Dst: kernel.InSet{Set: "a4"}}, nil, []PacketAt{tcp()}},
		"address in set":      {addr(kernel.AddrMatch{Place: src, Set: "a4"}), []PacketAt{tcp()}, []PacketAt{tcp(from("10.0.0.3")), tcp6()}},
		"address not in set":  {addr(kernel.AddrMatch{Place: dst, IPv6: true, Set: "a6", Not: true}), []PacketAt{tcp6()}, []PacketAt{tcp()}},
		"address in ranges":   {addr(kernel.AddrMatch{Place: src, Set: "nets4"}), []PacketAt{tcp(), tcp(from("10.0.0.255")), tcp(from("10.0.1.1"))}, []PacketAt{tcp(from("10.0.1.0")), tcp6()}},
		"address in prefix":   {addr(kernel.AddrMatch{Place: src, Prefix: netip.MustParsePrefix("10.0.0.0/31")}), []PacketAt{tcp()}, []PacketAt{tcp(from("10.0.0.2")), tcp6()}},
		"not in prefix":       {addr(kernel.AddrMatch{Place: src, Not: true, Prefix: netip.MustParsePrefix("10.0.0.0/31")}), []PacketAt{tcp(from("10.0.0.2"))}, []PacketAt{tcp(), tcp6()}},
		"two addresses":       {kernel.Rule{Addrs: []kernel.AddrMatch{{Place: src, Set: "nets4"}, {Place: src, Set: "a4", Not: true}}}, []PacketAt{tcp(from("10.0.0.2"))}, []PacketAt{tcp()}},
		"service":             {addr(kernel.AddrMatch{Place: dst, Set: "web", Keys: kernel.KeysServices}), []PacketAt{tcp()}, []PacketAt{tcp(port(81)), tcp(udp), tcp(ping), tcp(later)}},
		"not service":         {addr(kernel.AddrMatch{Place: dst, Set: "web", Keys: kernel.KeysServices, Not: true}), []PacketAt{tcp(port(81)), tcp(ping)}, []PacketAt{tcp(), tcp(later)}},
		"own address":         {addr(kernel.AddrMatch{Place: src, Set: "own4", Keys: kernel.KeysSources}), []PacketAt{tcp()}, []PacketAt{tcp(noLink), tcp(from("10.0.0.2"))}},
		"not own address":     {addr(kernel.AddrMatch{Place: src, Set: "own4", Keys: kernel.KeysSources, Not: true}), []PacketAt{tcp(noLink), tcp(from("10.0.0.2"))}, []PacketAt{tcp(), tcp6()}},
		"range of ports":      {ports(kernel.PortMatch{Place: dst, First: 80, Last: 81}), []PacketAt{tcp(), tcp(port(81))}, []PacketAt{tcp(port(79)), tcp(port(82)), tcp(udp), tcp(later)}},
		"not range":           {ports(kernel.PortMatch{Place: dst, First: 80, Last: 81, Not: true}), []PacketAt{tcp(port(79)), tcp6(port(82))}, []PacketAt{tcp(), tcp(later)}},
		"set of ports":        {ports(kernel.PortMatch{Place: dst, Set: "ports"}), []PacketAt{tcp(), tcp6(port(100)), tcp(port(200))}, []PacketAt{tcp(port(99)), tcp(port(201))}},
		"not set of ports":    {ports(kernel.PortMatch{Place: dst, Set: "ports", Not: true}), []PacketAt{tcp(port(99))}, []PacketAt{tcp()}},
		"source port":         {ports(kernel.PortMatch{Place: src, First: 1024, Last: 65535}), []PacketAt{tcp()}, []PacketAt{tcp(func(p *PacketAt) { p.SrcPort = 1023 })}},
		"both ports":          {ports(kernel.PortMatch{Place: src, First: 1024, Last: 1024}, kernel.PortMatch{Place: dst, First: 81, Last: 81}), []PacketAt{tcp(port(81))}, []PacketAt{tcp()}},
		"ICMP":                {kernel.Rule{Protocol: 1, ICMP: &kernel.ICMP{Type: 8, AnyCode: true}}, []PacketAt{tcp(ping), tcp(code(1))}, []PacketAt{tcp(), tcp6(ping), tcp(ping, later)}},
		"ICMP and code":       {kernel.Rule{Protocol: 1, ICMP: &kernel.ICMP{Type: 8}}, []PacketAt{tcp(ping)}, []PacketAt{tcp(code(1))}},
		"not ICMPv6 and code": {kernel.Rule{Protocol: 58, NotICMP: &kernel.ICMP{Type: 128}}, []PacketAt{tcp6(code(1))}, []PacketAt{tcp6(ping), tcp(code(1)), tcp6(ping, later)}},
		"not ICMP":            {kernel.Rule{Protocol: 1, NotICMP: &kernel.ICMP{Type: 0, AnyCode: true}}, []PacketAt{tcp(ping)}, []PacketAt{tcp6(ping), tcp()}},
	} {
		t.Run(name, func(t *testing.T) {
			row.rule.Verdict = kernel.Drop
			r := load(t, sets(), elements(), chainsOf{"forward": base(kernel.HookForward, 0, row.rule)})
			for want, packets := range map[bool][]PacketAt{true: row.yes, false: row.no} {
				for _, p := range packets {
					if out, err := r.Trace(kernel.HookForward, p); err != nil || out.Dropped != want {
						t.Errorf("%+v: dropped %v, want %v: %v", p, out.Dropped, want, err)
					}
				}
			}
		})
	}
}

func TestTrace(t *testing.T) {
	drop, accept, back := kernel.Rule{Verdict: kernel.Drop, Comment: "no"}, kernel.Rule{Verdict: kernel.Accept, Comment: "yes"}, kernel.Rule{Verdict: kernel.Return}
	to := func(v kernel.Verdict, target string) kernel.Rule { return kernel.Rule{Verdict: v, Target: target} }
	log := kernel.Rule{Verdict: kernel.Continue, Counter: true, Log: &kernel.Log{Group: 7, Prefix: "seen"}}
	limited := kernel.Rule{Verdict: kernel.Drop, Counter: true, Limit: &kernel.Limit{Rate: 1}, Log: log.Log}
	masquerade := kernel.Chain{Hook: kernel.HookPostrouting, Type: kernel.ChainNAT, Priority: 100, Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Masquerade})}
	forward := func(rules ...kernel.Rule) kernel.Chain { return base(kernel.HookForward, 0, rules...) }
	only := func(hooks ...kernel.Hook) []kernel.Hook { return hooks }
	atForward := only(kernel.HookForward)
	untrack := kernel.Rule{Verdict: kernel.NoTrack}
	by := func(chain string, rule int, comment string) RuleAt {
		return RuleAt{Chain: chain, Rule: rule, Comment: comment}
	}
	for name, row := range map[string]struct {
		chains chainsOf
		hooks  []kernel.Hook
		packet PacketAt
		want   Outcome
	}{
		"no chains":               {nil, atForward, tcp(), Outcome{}},
		"other hook":              {chainsOf{"i": base(kernel.HookInput, 0, drop)}, atForward, tcp(), Outcome{}},
		"drop":                    {chainsOf{"f": forward(drop)}, atForward, tcp(), Outcome{Dropped: true, By: by("f", 0, "no")}},
		"accept":                  {chainsOf{"f": forward(accept, drop)}, atForward, tcp(), Outcome{By: by("f", 0, "yes")}},
		"accept ends one chain":   {chainsOf{"f": forward(accept), "g": base(kernel.HookForward, 1, drop)}, atForward, tcp(), Outcome{Dropped: true, By: by("g", 0, "no")}},
		"drop ends all":           {chainsOf{"f": forward(drop), "g": base(kernel.HookForward, 1, log)}, atForward, tcp(), Outcome{Dropped: true, By: by("f", 0, "no")}},
		"by priority":             {chainsOf{"f": forward(drop), "g": base(kernel.HookForward, -1, kernel.Rule{Verdict: kernel.Drop})}, atForward, tcp(), Outcome{Dropped: true, By: by("g", 0, "")}},
		"continue":                {chainsOf{"f": forward(log, drop)}, atForward, tcp(), Outcome{Dropped: true, By: by("f", 1, "no"), Counted: []RuleAt{by("f", 0, "")}, Logs: []Logged{{RuleAt: by("f", 0, ""), Log: *log.Log}}}},
		"return from a base":      {chainsOf{"f": forward(back, drop)}, atForward, tcp(), Outcome{}},
		"jump comes back":         {chainsOf{"f": forward(to(kernel.Jump, "s"), drop), "s": list()}, atForward, tcp(), Outcome{Dropped: true, By: by("f", 1, "no")}},
		"jump and return":         {chainsOf{"f": forward(to(kernel.Jump, "s"), drop), "s": list(back, accept)}, atForward, tcp(), Outcome{Dropped: true, By: by("f", 1, "no")}},
		"jump and accept":         {chainsOf{"f": forward(to(kernel.Jump, "s"), drop), "s": list(accept)}, atForward, tcp(), Outcome{By: by("s", 0, "yes")}},
		"jump and drop":           {chainsOf{"f": forward(to(kernel.Jump, "s"), accept), "s": list(drop)}, atForward, tcp(), Outcome{Dropped: true, By: by("s", 0, "no")}},
		"goto stays away":         {chainsOf{"f": forward(to(kernel.Goto, "s"), drop), "s": list(back)}, atForward, tcp(), Outcome{}},
		"jump, goto, and back":    {chainsOf{"f": forward(to(kernel.Jump, "s"), drop), "s": list(to(kernel.Goto, "u"), accept), "u": list()}, atForward, tcp(), Outcome{Dropped: true, By: by("f", 1, "no")}},
		"goto and drop":           {chainsOf{"f": forward(to(kernel.Goto, "s")), "s": list(drop)}, atForward, tcp(), Outcome{Dropped: true, By: by("s", 0, "no")}},
		"entry":                   {chainsOf{"f": forward(to(kernel.InVerdicts, "from")), "s": list(drop), kernel.EntryKey("from", "cairn0000000001"): {To: "s"}}, atForward, tcp(), Outcome{Dropped: true, By: by("s", 0, "no")}},
		"entry stays away":        {chainsOf{"f": forward(to(kernel.InVerdicts, "from"), drop), "s": list(), kernel.EntryKey("from", "cairn0000000001"): {To: "s"}}, atForward, tcp(), Outcome{}},
		"no entry":                {chainsOf{"f": forward(to(kernel.InVerdicts, "from"), drop), "s": list(accept), kernel.EntryKey("from", "cairn0000000002"): {To: "s"}}, atForward, tcp(), Outcome{Dropped: true, By: by("f", 1, "no")}},
		"entry by the way out":    {chainsOf{"f": forward(to(kernel.OutVerdicts, "to")), "s": list(drop), kernel.EntryKey("to", "cairn0000000002"): {To: "s"}}, atForward, tcp(), Outcome{Dropped: true, By: by("s", 0, "no")}},
		"no way out yet":          {chainsOf{"f": base(kernel.HookInput, 0, to(kernel.OutVerdicts, "to")), "s": list(drop), kernel.EntryKey("to", "cairn0000000002"): {To: "s"}}, only(kernel.HookInput), tcp(), Outcome{}},
		"no way in any more":      {chainsOf{"f": base(kernel.HookOutput, 0, kernel.Rule{NoInLink: true, Verdict: kernel.Drop})}, only(kernel.HookOutput), tcp(), Outcome{Dropped: true, By: by("f", 0, "")}},
		"limit":                   {chainsOf{"f": forward(limited)}, atForward, tcp(), Outcome{Dropped: true, By: by("f", 0, ""), Counted: []RuleAt{by("f", 0, "")}, Logs: []Logged{{RuleAt: by("f", 0, ""), Log: *log.Log}}}},
		"over the limit":          {chainsOf{"f": forward(limited)}, atForward, tcp(func(p *PacketAt) { p.OverLimit = true }), Outcome{Counted: []RuleAt{by("f", 0, "")}}},
		"masquerade":              {chainsOf{"n": masquerade}, only(kernel.HookPostrouting), tcp(), Outcome{Masquerade: true, By: by("n", 0, "")}},
		"masquerade, later":       {chainsOf{"n": masquerade}, only(kernel.HookPostrouting), tcp(func(p *PacketAt) { p.State = kernel.StateEstablished }), Outcome{}},
		"notrack goes on":         {chainsOf{"r": base(kernel.HookPrerouting, -300, untrack, drop)}, only(kernel.HookPrerouting), tcp(), Outcome{NoTrack: true, Dropped: true, By: by("r", 1, "no")}},
		"notrack is remembered":   {chainsOf{"r": base(kernel.HookPrerouting, -300, untrack), "f": forward(kernel.Rule{States: kernel.StateUntracked, Verdict: kernel.Drop}), "n": masquerade}, only(kernel.HookPrerouting, kernel.HookForward, kernel.HookPostrouting), tcp(), Outcome{NoTrack: true, Dropped: true, By: by("f", 0, "")}},
		"untracked, no NAT":       {chainsOf{"r": base(kernel.HookPrerouting, -300, untrack), "n": masquerade}, only(kernel.HookPrerouting, kernel.HookPostrouting), tcp(), Outcome{NoTrack: true}},
		"no connections yet":      {chainsOf{"r": base(kernel.HookPrerouting, -300, kernel.Rule{States: ^kernel.StateInvalid & 0x4f, Verdict: kernel.Drop}, kernel.Rule{Translated: true, Verdict: kernel.Drop})}, only(kernel.HookPrerouting), tcp(func(p *PacketAt) { p.State, p.Translated = kernel.StateEstablished, true }), Outcome{}},
		"connections from mangle": {chainsOf{"r": base(kernel.HookPrerouting, -150, kernel.Rule{States: kernel.StateEstablished, Verdict: kernel.Drop})}, only(kernel.HookPrerouting), tcp(func(p *PacketAt) { p.State = kernel.StateEstablished }), Outcome{Dropped: true, By: by("r", 0, "")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := load(t, sets(), elements(), row.chains)
			out, err := r.Path(row.packet, row.hooks...)
			if err != nil {
				t.Fatalf("%v\n%s", err, r)
			}
			if diff := cmp.Diff(row.want, out); diff != "" {
				t.Errorf("%s\n%s", diff, r)
			}
		})
	}
}

func TestAt(t *testing.T) {
	r := load(t, nil, nil, chainsOf{
		"f": base(kernel.HookForward, 0, kernel.Rule{Verdict: kernel.Jump, Target: "s"}), "g": base(kernel.HookForward, 1), "s": list(kernel.Rule{Verdict: kernel.Drop}),
	})
	for priority, want := range map[int]bool{0: true, 1: false} {
		if out, err := r.At(priority).Trace(kernel.HookForward, tcp()); err != nil || out.Dropped != want {
			t.Errorf("priority %d: dropped %v, want %v: %v", priority, out.Dropped, want, err)
		}
	}
}

// TestUnmeant traces packets to what the kernel takes and can't be meant.
func TestUnmeant(t *testing.T) {
	for name, row := range map[string]struct {
		chain kernel.Chain
		want  string
	}{
		"notrack at filter":   {base(kernel.HookPrerouting, 0, kernel.Rule{Verdict: kernel.NoTrack}), "too late for notrack"},
		"notrack, forwarded":  {base(kernel.HookForward, -300, kernel.Rule{Verdict: kernel.NoTrack}), "too late for notrack"},
		"masquerade, filter":  {base(kernel.HookPostrouting, 0, kernel.Rule{Verdict: kernel.Masquerade}), "masquerades"},
		"masquerade too soon": {kernel.Chain{Hook: kernel.HookPrerouting, Type: kernel.ChainNAT, Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Masquerade})}, "masquerades"},
	} {
		t.Run(name, func(t *testing.T) {
			r := load(t, nil, nil, chainsOf{"it": row.chain})
			if _, err := r.Trace(row.chain.Hook, tcp()); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want: %s", err, row.want)
			}
		})
	}
}

// TestKnowsEveryField fails when rules, sets or packets get a new word: teach it to the
// tracer, and add it here.
func TestKnowsEveryField(t *testing.T) {
	for _, row := range []struct {
		of   any
		want string
	}{
		{kernel.Rule{}, "InLink OutLink Src Dst Protocol DstPort VNI NoSYN Fragment Translated States Family NotProtocol NoInLink Addrs Ports ICMP NotICMP " +
			"Counter Limit Log Verdict Target Comment Other"},
		{kernel.InSet{}, "Set IPv6 Not"},
		{kernel.AddrMatch{}, "Place IPv6 Not Set Keys Prefix"},
		{kernel.PortMatch{}, "Place Not Set First Last"},
		{kernel.ICMP{}, "Type Code AnyCode"},
		{kernel.Limit{}, "Rate Burst"},
		{kernel.Log{}, "Group Prefix"},
		{kernel.Chain{}, "Hook Type Priority Rules To Other"},
		{kernel.Set{}, "Keys IPv6 Ranges Shared Other"},
		{kernel.Element{}, "Set Prefix Beside Protocol Port LastPort"},
	} {
		var names []string
		for f := range reflect.TypeOf(row.of).NumField() {
			names = append(names, reflect.TypeOf(row.of).Field(f).Name)
		}
		if diff := cmp.Diff(row.want, strings.Join(names, " ")); diff != "" {
			t.Errorf("%T: %s", row.of, diff)
		}
	}
}
