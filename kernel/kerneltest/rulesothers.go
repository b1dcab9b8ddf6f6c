package kerneltest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"cairn.network/cairn/kernel"
)

func byAnotherHand(t *testing.T, w RulesWorld) {
	for name, s := range kinds() {
		w.AddSet(t, name, s)
	}
	e := Member("pools4", "10.5.0.0").To(netip.MustParseAddr("10.5.0.9"))
	elements := []kernel.Element{e, Member("pools4", "10.6.0.0/16"), Member("nodes6", "2001:db8::1"), {Set: "port-ranges", Port: 5, LastPort: 9}}
	for name, s := range kinds() {
		if s.Keys == kernel.KeysServices || s.Keys == kernel.KeysSources {
			elements = append(elements, memberOf(name, s))
		}
	}
	for _, e := range elements {
		w.AddElement(t, e)
	}
	chains := ruleForms()
	order, _ := kernel.ChainOrder(kernel.OpenChains(chains))
	for _, key := range order {
		w.AddChain(t, key, chains[key])
	}
	WantRules(t, w, kinds(), elements, chains)
	w.DropElement(t, elements[1])
	w.DropChain(t, "input")
	entry := kernel.EntryKey("from/pod", "cairn0")
	w.DropChain(t, entry)
	delete(chains, "input")
	delete(chains, entry)
	elements = slices.Delete(elements, 1, 2)
	WantRules(t, w, kinds(), elements, chains)

	// Entries that do anything but go to a chain equal nothing that is wanted.
	for _, does := range []string{"drop", "accept", "return", "continue", "jump pods/b"} {
		w.AddChain(t, entry, kernel.Chain{Other: does})
		chains[entry] = kernel.Chain{Other: does}
		WantRules(t, w, kinds(), elements, chains)
		chains[entry] = kernel.Chain{To: "pods/a/in"}
		Put(t, w.Chains(), map[string]kernel.Chain{entry: chains[entry]})
		WantRules(t, w, kinds(), elements, chains)
		w.DropChain(t, entry)
	}
	delete(chains, entry)

	// It is in the way of what is wanted only until it is deleted.
	wanted := Member("pools4", "10.5.0.0/24")
	wantFailures(t, w.Elements().Write(t.Context(), members(wanted), nil), "set", map[kernel.Element]error{wanted: syscall.EEXIST})
	Put(t, w.Elements(), nil, e)
	Put(t, w.Elements(), members(wanted))
	elements[0] = wanted
	WantRules(t, w, kinds(), elements, chains)

	Put(t, w.Chains(), nil, slices.Collect(maps.Keys(chains))...)
	Put(t, w.Sets(), nil, slices.Collect(maps.Keys(kinds()))...)
	WantRules(t, w, nil, nil, nil)

	Put(t, w.Sets(), kinds())
	Put(t, w.Chains(), ruleForms())
	w.FlushRuleset(t)
	WantRules(t, w, nil, nil, nil)
	Put(t, w.Sets(), kinds())
	Put(t, w.Chains(), ruleForms())
	WantRules(t, w, kinds(), nil, ruleForms())
}

func rulesWatched(t *testing.T, w RulesWorld) {
	told := make(chan kernel.Event, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Watch(ctx, func(e kernel.Event) { told <- e }) }()
	<-told // it is watching
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"a set", func() { w.AddSet(t, "nodes4", kernel.Set{}) }},
		{"an element", func() { w.AddElement(t, Member("nodes4", "192.0.2.1")) }},
		{"a chain", func() { w.AddChain(t, "it", kernel.Chain{Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Drop})}) }},
		{"a verdict map", func() { w.AddSet(t, "links", kernel.Set{Keys: kernel.KeysLinks}) }},
		{"an entry", func() { w.AddChain(t, kernel.EntryKey("links", "cairn0"), kernel.Chain{To: "it"}) }},
		{"an entry less", func() { w.DropChain(t, kernel.EntryKey("links", "cairn0")) }},
		{"an element less", func() { w.DropElement(t, Member("nodes4", "192.0.2.1")) }},
		{"a chain less", func() { w.DropChain(t, "it") }},
		{"nothing left", func() { w.FlushRuleset(t) }},
	} {
		step.do()
		for limit := time.After(patience); ; {
			select {
			case e := <-told:
				if e.Host == nil {
					t.Fatal("event without a host")
				}
				if !e.Rules {
					continue
				}
			case <-limit:
				t.Fatalf("no word of %s", step.name)
			}
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Watch returned %v after its context was done, want nil", err)
	}
}
