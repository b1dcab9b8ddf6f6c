package kerneltest

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

// sharedName returns the name of one of several shared sets of a family; those with one
// beginning are kept together.
func sharedName(ipv6 bool, beginning, end byte) string {
	return kernel.SharedName(ipv6, kernel.SharedID{beginning << 3, 9: end})
}

func sharedSets(t *testing.T, w RulesWorld) {
	a, b, c, six := sharedName(false, 1, 1), sharedName(false, 1, 2), sharedName(false, 2, 1), sharedName(true, 1, 1)
	sets := map[string]kernel.Set{a: {Shared: true}, b: {Shared: true}, c: {Shared: true}, six: {Shared: true, IPv6: true}, "nodes4": {}}
	Put(t, w.Sets(), sets)
	WantRules(t, w, sets, nil, nil)
	elements := []kernel.Element{
		Member(a, "192.0.2.1"), Member(a, "192.0.2.2"), Member(b, "192.0.2.1"), Member(c, "0.0.0.0"), Member(c, "255.255.255.255"),
		Member(six, "2001:db8::1"), Member("nodes4", "192.0.2.1"),
	}
	Put(t, w.Elements(), members(elements...))
	Put(t, w.Elements(), members(elements...)) // as they are
	Put(t, w.Sets(), sets)
	WantRules(t, w, sets, elements, nil)

	chains := map[string]kernel.Chain{"it": baseOf(
		kernel.Rule{Src: kernel.InSet{Set: a}, Dst: kernel.InSet{Set: b, Not: true}, Protocol: kernel.ProtoTCP, DstPort: 80, Verdict: kernel.Accept},
		kernel.Rule{Src: kernel.InSet{Set: six, IPv6: true}, Verdict: kernel.Drop},
		kernel.Rule{Addrs: []kernel.AddrMatch{
			{Place: kernel.Source, Set: c}, {Place: kernel.Source, Set: a, Not: true}, {Place: kernel.Source, Set: "nodes4"},
		}, Verdict: kernel.Drop},
	)}
	Put(t, w.Chains(), chains)
	WantRules(t, w, sets, elements, chains)

	Put(t, w.Elements(), members(Member(b, "192.0.2.3")), Member(a, "192.0.2.1"), Member(a, "192.0.2.9"), Member(sharedName(false, 3, 1), "192.0.2.1"))
	elements = append(elements[1:], Member(b, "192.0.2.3"))
	WantRules(t, w, sets, elements, chains)

	// They go with what is in them, whoever asks for them, and come empty.
	Put(t, w.Sets(), nil, a, sharedName(false, 4, 1))
	delete(sets, a)
	elements = elements[1:]
	WantRules(t, w, sets, elements, chains)
	sets[a] = kernel.Set{Shared: true}
	Put(t, w.Sets(), sets)
	WantRules(t, w, sets, elements, chains)

	Put(t, w.Chains(), nil, "it")
	Put(t, w.Sets(), nil, slices.Collect(maps.Keys(sets))...)
	WantRules(t, w, nil, nil, nil)
}

func badSharedSets(t *testing.T, w RulesWorld) {
	there, missing, six := sharedName(false, 1, 1), sharedName(false, 1, 2), sharedName(true, 1, 1)
	err := w.Sets().Write(t.Context(), map[string]kernel.Set{
		there: {Shared: true}, missing: {}, "it": {Shared: true}, sharedName(false, 1, 3): {Shared: true, Ranges: true},
		sharedName(false, 1, 4): {Shared: true, Keys: kernel.KeysPorts}, sharedName(false, 1, 5): {Shared: true, IPv6: true}, six: {Shared: true},
	}, nil)
	wantFailures(t, err, "set", map[string]error{
		missing: syscall.EINVAL, "it": syscall.EINVAL, sharedName(false, 1, 3): syscall.EINVAL, sharedName(false, 1, 4): syscall.EINVAL,
		sharedName(false, 1, 5): syscall.EINVAL, six: syscall.EINVAL,
	})
	good := Member(there, "192.0.2.1")
	err = w.Elements().Write(t.Context(), members(good, Member(missing, "192.0.2.1"), Member(there, "192.0.2.0/24"), Member(there, "2001:db8::1")), nil)
	wantFailures(t, err, "set", map[kernel.Element]error{
		Member(missing, "192.0.2.1"): syscall.ENOENT, Member(there, "192.0.2.0/24"): syscall.EINVAL, Member(there, "2001:db8::1"): syscall.EINVAL,
	})
	asks := func(set string, ipv6 bool) kernel.Chain {
		return chainOf(kernel.Rule{Src: kernel.InSet{Set: set, IPv6: ipv6}, Verdict: kernel.Drop})
	}
	err = w.Chains().Write(t.Context(), map[string]kernel.Chain{"good": asks(there, false), "missing": asks(missing, false), "family": asks(there, true)}, nil)
	wantFailures(t, err, "set", map[string]error{"missing": syscall.ENOENT, "family": syscall.EINVAL})
	WantRules(t, w, map[string]kernel.Set{there: {Shared: true}}, []kernel.Element{good}, map[string]kernel.Chain{"good": asks(there, false)})
}

func manySharedSets(t *testing.T, w RulesWorld) {
	sets := make(map[string]kernel.Set)
	var elements []kernel.Element
	for i := range 200 {
		name := sharedName(i%2 == 1, byte(i%32), byte(i))
		sets[name] = kernel.Set{Shared: true, IPv6: i%2 == 1}
		for j := range 10 {
			addr := fmt.Sprintf("192.0.2.%d", j)
			if i%2 == 1 {
				addr = fmt.Sprintf("2001:db8::%d", j)
			}
			elements = append(elements, Member(name, addr))
		}
	}
	Put(t, w.Sets(), sets)
	Put(t, w.Elements(), members(elements...))
	WantRules(t, w, sets, elements, nil)
	Put(t, w.Elements(), nil, elements[:1000]...)
	WantRules(t, w, sets, elements[1000:], nil)
	Put(t, w.Sets(), nil, slices.Collect(maps.Keys(sets))...)
	WantRules(t, w, nil, nil, nil)
}
