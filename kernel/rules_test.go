package kernel_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

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
