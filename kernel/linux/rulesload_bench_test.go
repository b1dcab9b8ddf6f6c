//go:build linux

package linux

import (
	"fmt"
	"net/netip"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// policyLoad is what a node with many policies has: a set and a chain for each, chains of
// pods that ask ten of them, and an entry for each pod.
type policyLoad struct {
	sets     map[string]kernel.Set
	elements map[kernel.Element]struct{}
	chains   map[string]kernel.Chain
}

func policyName(i int) string { return fmt.Sprintf("policies/in/%08x", i) }
func setName(i int) string    { return fmt.Sprintf("s4/%08x", i) }

// policyChain is the chain of the policy i; its rules differ by variant.
func policyChain(i, sets int, variant uint16) kernel.Chain {
	return kernel.Chain{Rules: kernel.RulesOf(
		kernel.Rule{Protocol: kernel.ProtoTCP, DstPort: 80 + variant, Src: kernel.InSet{Set: setName(i % sets)}, Verdict: kernel.Accept, Comment: "policy rule 1"},
		kernel.Rule{Protocol: kernel.ProtoTCP, DstPort: 443, Src: kernel.InSet{Set: setName((i + 1) % sets)}, Counter: true, Verdict: kernel.Accept, Comment: "policy rule 2"},
		kernel.Rule{Counter: true, Verdict: kernel.Return, Comment: "policy rule 3"},
	)}
}

func newLoad(sets, members, policies, pods int) policyLoad {
	l := policyLoad{map[string]kernel.Set{"from-pod": {Keys: kernel.KeysLinks}}, map[kernel.Element]struct{}{}, map[string]kernel.Chain{}}
	for i := range sets {
		l.sets[setName(i)] = kernel.Set{}
		for j := range members {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)})
			l.elements[kernel.Element{Set: setName(i), Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
		}
	}
	for i := range policies {
		l.chains[policyName(i)] = policyChain(i, sets, 0)
	}
	for i := range pods {
		var rules []kernel.Rule
		for j := range 10 {
			rules = append(rules, kernel.Rule{Verdict: kernel.Jump, Target: policyName((10*i + j) % policies)})
		}
		pod := fmt.Sprintf("pods/in/%08x", i)
		l.chains[pod] = kernel.Chain{Rules: kernel.RulesOf(append(rules, kernel.Rule{Verdict: kernel.Drop})...)}
		l.chains[kernel.EntryKey("from-pod", fmt.Sprintf("cairn%d", i))] = kernel.Chain{To: pod}
	}
	l.chains["forward"] = kernel.Chain{Hook: kernel.HookForward, Type: kernel.ChainFilter, Rules: kernel.RulesOf(
		kernel.Rule{States: kernel.StateEstablished | kernel.StateRelated, Verdict: kernel.Accept},
		kernel.Rule{Verdict: kernel.InVerdicts, Target: "from-pod"},
	)}
	return l
}

func (l policyLoad) put(b *testing.B, w *rulesWorld) {
	kerneltest.Put(b, w.sets, l.sets)
	kerneltest.Put(b, w.elements, l.elements)
	kerneltest.Put(b, w.chains, l.chains)
}

// BenchmarkColdLoad writes 2,000 sets of 10 elements, 2,000 chains of 3 rules, and 100
// pods, into a host that has none.
func BenchmarkColdLoad(b *testing.B) {
	l := newLoad(2000, 10, 2000, 100)
	var all [3]float64
	for b.Loop() {
		b.StopTimer()
		w := newRulesWorld(b)
		b.StartTimer()
		for i, put := range []func(){
			func() { kerneltest.Put(b, w.sets, l.sets) },
			func() { kerneltest.Put(b, w.elements, l.elements) },
			func() { kerneltest.Put(b, w.chains, l.chains) },
		} {
			before := b.Elapsed()
			put()
			all[i] += (b.Elapsed() - before).Seconds() * 1000
		}
	}
	for i, what := range []string{"sets", "elements", "chains"} {
		b.ReportMetric(all[i]/float64(b.N), what+"-ms/op")
	}
}

// BenchmarkOneChange changes one thing with very many others there.
func BenchmarkOneChange(b *testing.B) {
	for _, size := range []struct{ sets, chains int }{{100, 100}, {2000, 1000}, {2000, 5000}, {10000, 5000}} {
		b.Run(fmt.Sprintf("%d sets, %d chains", size.sets, size.chains), func(b *testing.B) { oneChange(b, size.sets, size.chains) })
	}
}

func oneChange(b *testing.B, sets, chains int) {
	w := newRulesWorld(b)
	newLoad(sets, 2, chains, 100).put(b, w)
	run := func(what string, change func(i int)) {
		b.Run(what, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				change(i)
			}
		})
	}
	run("chain", func(i int) {
		kerneltest.Put(b, w.chains, map[string]kernel.Chain{policyName(7): policyChain(7, sets, uint16(i%2))})
	})
	run("element", func(i int) {
		e := kerneltest.Member(setName(sets/2), "192.0.2.1")
		if i%2 == 0 {
			kerneltest.Put(b, w.elements, elementMap([]kernel.Element{e}))
		} else {
			kerneltest.Put(b, w.elements, nil, e)
		}
	})
	run("entry", func(i int) {
		kerneltest.Put(b, w.chains, map[string]kernel.Chain{kernel.EntryKey("from-pod", "cairn7"): {To: fmt.Sprintf("pods/in/%08x", 7+i%2)}})
	})
	run("new pod", func(i int) {
		pod := map[string]kernel.Chain{
			"pods/in/new":                           {Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Jump, Target: policyName(i % chains)}, kernel.Rule{Verdict: kernel.Drop})},
			kernel.EntryKey("from-pod", "cairnnew"): {To: "pods/in/new"},
		}
		kerneltest.Put(b, w.chains, pod)
		kerneltest.Put(b, w.chains, nil, "pods/in/new", kernel.EntryKey("from-pod", "cairnnew"))
	})
	run("set", func(i int) {
		kerneltest.Put(b, w.sets, map[string]kernel.Set{"new": {}})
		kerneltest.Put(b, w.sets, nil, "new")
	})
}

// BenchmarkReadLoad reads what a node with very many policies has.
func BenchmarkReadLoad(b *testing.B) {
	w := newRulesWorld(b)
	newLoad(5000, 2, 10000, 100).put(b, w)
	counters := NewCounters(In(int(w.netns.Fd())))
	for what, read := range map[string]func() error{
		"sets":     func() error { _, err := w.sets.Read(b.Context()); return err },
		"elements": func() error { _, err := w.elements.Read(b.Context()); return err },
		"chains":   func() error { _, err := w.chains.Read(b.Context()); return err },
		"counters": func() error { _, err := counters.RuleCounters(b.Context()); return err },
	} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				if err := read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
