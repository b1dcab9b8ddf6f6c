package kernel_test

import (
	"testing"

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
