package kernel_test

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// fakeRulesWorld lets the suite act on a fake as another hand would.
type fakeRulesWorld struct{ *kernel.Fake }

func (w fakeRulesWorld) AddSet(_ testing.TB, name string, s kernel.Set) { w.Fake.AddSet(name, s) }
func (w fakeRulesWorld) AddElement(_ testing.TB, e kernel.Element)      { w.Fake.AddElement(e) }
func (w fakeRulesWorld) DropElement(_ testing.TB, e kernel.Element)     { w.Fake.DropElement(e) }
func (w fakeRulesWorld) DropChain(_ testing.TB, name string)            { w.Fake.DropChain(name) }
func (w fakeRulesWorld) FlushRuleset(testing.TB)                        { w.Fake.FlushRuleset() }

func (w fakeRulesWorld) AddChain(_ testing.TB, name string, c kernel.Chain) {
	w.Fake.AddChain(name, c)
}

func TestFakeRulesPassTheSuite(t *testing.T) {
	kerneltest.RunRules(t, func(*testing.T) kerneltest.RulesWorld { return fakeRulesWorld{kernel.NewFake()} })
}

func TestRulesAreValues(t *testing.T) {
	drop := kernel.Rule{Src: kernel.InSet{Set: "nodes6", IPv6: true, Not: true}, Protocol: kernel.ProtoUDP, DstPort: 4789, VNI: 4096, Verdict: kernel.Drop}
	accept := kernel.Rule{InLink: "cairn*", Verdict: kernel.Accept, Comment: "<why>"}
	for _, tt := range []struct {
		name string
		list []kernel.Rule
		text string
	}{
		{"none", nil, ""},
		{"one", []kernel.Rule{accept}, `iifname "cairn*" accept comment "<why>"`},
		{"two", []kernel.Rule{drop, accept}, "udp dport 4789 @th,96,24 0x1000 ip6 saddr != @nodes6 drop\n" + `iifname "cairn*" accept comment "<why>"`},
		{"turned round", []kernel.Rule{accept, drop}, `iifname "cairn*" accept comment "<why>"` + "\nudp dport 4789 @th,96,24 0x1000 ip6 saddr != @nodes6 drop"},
		{"unknown", []kernel.Rule{{Other: "counter"}}, "# unknown: counter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules := kernel.RulesOf(tt.list...)
			if again := kernel.RulesOf(slices.Clone(tt.list)...); rules != again {
				t.Error("the same rules are not equal")
			}
			if diff := cmp.Diff(tt.list, rules.List()); diff != "" {
				t.Errorf("list (-want +got):\n%s", diff)
			}
			if rules.String() != tt.text {
				t.Errorf("text\n%s\nwant\n%s", rules, tt.text)
			}
			if other := kernel.RulesOf(append(slices.Clone(tt.list), accept)...); rules == other {
				t.Error("a rule more makes no difference")
			}
		})
	}
	if kernel.RulesOf() != (kernel.Rules{}) {
		t.Error("no rules are not the zero value")
	}
}

// TestRulesHaveOneForm says the same in several ways.
func TestRulesHaveOneForm(t *testing.T) {
	src, dst := kernel.Source, kernel.Destination
	prefix := kernel.AddrMatch{Place: src, Prefix: netip.MustParsePrefix("10.0.0.0/8")}
	port := func(first, last uint16) kernel.PortMatch {
		return kernel.PortMatch{Place: dst, First: first, Last: last}
	}
	for _, tt := range []struct {
		name       string
		said, same kernel.Rule
		text       string
		family     uint8
		sets       []kernel.Asked
	}{
		{
			name: "family of a prefix", said: kernel.Rule{Family: 4, Addrs: []kernel.AddrMatch{prefix}}, same: kernel.Rule{Addrs: []kernel.AddrMatch{prefix}},
			text: "ip saddr 10.0.0.0/8 drop", family: 4,
		},
		{name: "family alone", said: kernel.Rule{Family: 6}, same: kernel.Rule{Family: 6}, text: "meta nfproto ipv6 drop", family: 6},
		{name: "none", text: "drop"},
		{
			name: "family and code of ICMP", said: kernel.Rule{Family: 6, Protocol: kernel.ProtoICMPv6, ICMP: &kernel.ICMP{Type: 128, Code: 3, AnyCode: true}},
			same: kernel.Rule{Protocol: kernel.ProtoICMPv6, ICMP: &kernel.ICMP{Type: 128, AnyCode: true}}, text: "icmpv6 type echo-request drop", family: 6,
		},
		{
			name: "sets", said: kernel.Rule{Addrs: []kernel.AddrMatch{prefix, {Place: dst, Set: "a", Not: true}, {Place: src, Set: "b"}, {Place: src, Set: "c"}}},
			same: kernel.Rule{Src: kernel.InSet{Set: "b"}, Dst: kernel.InSet{Set: "a", Not: true}, Addrs: []kernel.AddrMatch{prefix, {Place: src, Set: "c"}}},
			text: "ip saddr @b ip daddr != @a ip saddr 10.0.0.0/8 ip saddr @c drop", family: 4,
			sets: []kernel.Asked{{Name: "b"}, {Name: "a"}, {Name: "c"}},
		},
		{
			name: "one set", said: kernel.Rule{Addrs: []kernel.AddrMatch{{Place: src, IPv6: true, Set: "b"}}}, same: kernel.Rule{Src: kernel.InSet{Set: "b", IPv6: true}},
			text: "ip6 saddr @b drop", family: 6, sets: []kernel.Asked{{Name: "b", IPv6: true}},
		},
		{
			name: "port", said: kernel.Rule{Protocol: kernel.ProtoUDP, Ports: []kernel.PortMatch{port(1, 2), port(53, 53), port(54, 54), {Place: src, Set: "p"}}},
			same: kernel.Rule{Protocol: kernel.ProtoUDP, DstPort: 53, Ports: []kernel.PortMatch{port(1, 2), port(54, 54), {Place: src, Set: "p"}}},
			text: "udp dport 53 udp dport 1-2 udp dport 54 udp sport @p drop", sets: []kernel.Asked{{Name: "p", Keys: kernel.KeysPorts}},
		},
		{
			name: "port of SCTP", said: kernel.Rule{Protocol: kernel.ProtoSCTP, Ports: []kernel.PortMatch{port(53, 53)}},
			same: kernel.Rule{Protocol: kernel.ProtoSCTP, Ports: []kernel.PortMatch{port(53, 53)}}, text: "sctp dport 53 drop",
		},
		{
			name: "services, by a link", said: kernel.Rule{Verdict: kernel.InVerdicts, Target: "m", Addrs: []kernel.AddrMatch{{Place: dst, Set: "s", Keys: kernel.KeysServices}}},
			same: kernel.Rule{Verdict: kernel.InVerdicts, Target: "m", Addrs: []kernel.AddrMatch{{Place: dst, Set: "s", Keys: kernel.KeysServices}}},
			text: "ip daddr . meta l4proto . th dport @s iifname vmap @m", family: 4, sets: []kernel.Asked{{Name: "s", Keys: kernel.KeysServices}, {Name: "m", Keys: kernel.KeysLinks}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.said.Verdict == "" {
				tt.said.Verdict, tt.same.Verdict = kernel.Drop, kernel.Drop
			}
			before := kernel.RulesOf(tt.same)
			rules := kernel.RulesOf(tt.said)
			if diff := cmp.Diff([]kernel.Rule{tt.same}, rules.List(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if rules != before {
				t.Error("what says the same is not equal")
			}
			if rules.String() != tt.text {
				t.Errorf("text %s, want %s", rules, tt.text)
			}
			r := rules.List()[0]
			if got := r.PacketFamily(); got != tt.family {
				t.Errorf("family %d, want %d", got, tt.family)
			}
			if diff := cmp.Diff(tt.sets, r.Asks()); diff != "" {
				t.Errorf("sets asked (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFakeCounts counts for some rules, and replaces them.
func TestFakeCounts(t *testing.T) {
	f := kernel.NewFake()
	rule := func(comment string) kernel.Rule {
		return kernel.Rule{Counter: true, Verdict: kernel.Continue, Comment: comment}
	}
	chains := map[string]kernel.Chain{"it": {Rules: kernel.RulesOf(rule("a"), kernel.Rule{Verdict: kernel.Return}, rule("b"))}, "silent": {}}
	kerneltest.Put(t, f.Chains(), chains)
	f.AddCount("it", "b", 2, 100)
	f.AddCount("it", "b", 1, 50)
	f.AddCount("gone", "b", 1, 50)
	counts := func() map[string][]kernel.RuleCount {
		counts, err := f.RuleCounters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return counts
	}
	if diff := cmp.Diff(map[string][]kernel.RuleCount{"it": {{Comment: "a"}, {Comment: "b", Packets: 3, Bytes: 150}}}, counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	kerneltest.Put(t, f.Chains(), map[string]kernel.Chain{"it": {Rules: kernel.RulesOf(rule("b"))}})
	if diff := cmp.Diff(map[string][]kernel.RuleCount{"it": {{Comment: "b"}}}, counts()); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
}

// TestFakeRulesFail injects a fault into each operation.
func TestFakeRulesFail(t *testing.T) {
	f := kernel.NewFake()
	ctx := t.Context()
	e := kerneltest.Member("nodes4", "192.0.2.1")
	sets, elements := map[string]kernel.Set{"nodes4": {}}, map[kernel.Element]struct{}{e: {}}
	chains := map[string]kernel.Chain{"it": {Hook: kernel.HookInput, Type: kernel.ChainFilter}}
	for _, tt := range []struct {
		op  string
		key any
		do  func() error
	}{
		{"read", "sets", func() error { _, err := f.Sets().Read(ctx); return err }},
		{"read", "elements", func() error { _, err := f.Elements().Read(ctx); return err }},
		{"read", "chains", func() error { _, err := f.Chains().Read(ctx); return err }},
		{"read", "counters", func() error { _, err := f.RuleCounters(ctx); return err }},
		{"set", "nodes4", func() error { return f.Sets().Write(ctx, sets, nil) }},
		{"set", e, func() error { return f.Elements().Write(ctx, elements, nil) }},
		{"set", "it", func() error { return f.Chains().Write(ctx, chains, nil) }},
		{"delete", "it", func() error { return f.Chains().Write(ctx, nil, []string{"it"}) }},
		{"delete", e, func() error { return f.Elements().Write(ctx, nil, []kernel.Element{e}) }},
		{"delete", "nodes4", func() error { return f.Sets().Write(ctx, nil, []string{"nodes4"}) }},
	} {
		f.Fail(tt.op, tt.key, syscall.EIO)
		if err := tt.do(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s %v: %v, want the fault", tt.op, tt.key, err)
		}
		f.Fail(tt.op, tt.key, nil)
		if err := tt.do(); err != nil {
			t.Errorf("%s %v after the fault: %v", tt.op, tt.key, err)
		}
	}
}
