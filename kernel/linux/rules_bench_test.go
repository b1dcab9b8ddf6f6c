//go:build linux

package linux

import (
	"fmt"
	"net/netip"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// manyElements are n addresses of a set, of IPv6 if its name ends in 6.
func manyElements(set string, n int) []kernel.Element {
	elements := make([]kernel.Element, n)
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if set[len(set)-1] == '6' {
			a = netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
		}
		elements[i] = kernel.Element{Set: set, Prefix: netip.PrefixFrom(a, a.BitLen())}
	}
	return elements
}

func elementMap(elements []kernel.Element) map[kernel.Element]struct{} {
	m := make(map[kernel.Element]struct{}, len(elements))
	for _, e := range elements {
		m[e] = struct{}{}
	}
	return m
}

// BenchmarkElements adds, reads and deletes the addresses of 10,000 nodes, of both
// families.
func BenchmarkElements(b *testing.B) {
	w := newRulesWorld(b)
	kerneltest.Put(b, w.sets, map[string]kernel.Set{"nodes4": {}, "nodes6": {IPv6: true}})
	list := append(manyElements("nodes4", 10_000), manyElements("nodes6", 10_000)...)
	all := elementMap(list)
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			kerneltest.Put(b, w.elements, all)
			b.StopTimer()
			kerneltest.Put(b, w.elements, nil, list...)
			b.StartTimer()
		}
	})
	kerneltest.Put(b, w.elements, all)
	b.Run("add what is there", func(b *testing.B) {
		for b.Loop() {
			kerneltest.Put(b, w.elements, all)
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if have, err := w.elements.Read(b.Context()); err != nil || len(have) != len(list) {
				b.Fatal(len(have), err)
			}
		}
	})
	b.Run("delete", func(b *testing.B) {
		for b.Loop() {
			kerneltest.Put(b, w.elements, nil, list...)
			b.StopTimer()
			kerneltest.Put(b, w.elements, all)
			b.StartTimer()
		}
	})
}

// BenchmarkOneElement adds and deletes one element of a set of 10,000, with more
// sets beside it.
func BenchmarkOneElement(b *testing.B) {
	for _, sets := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d sets", sets), func(b *testing.B) {
			w := newRulesWorld(b)
			kinds := map[string]kernel.Set{"nodes4": {}}
			for i := range sets - 1 {
				kinds[fmt.Sprintf("s%d", i)] = kernel.Set{}
			}
			kerneltest.Put(b, w.sets, kinds)
			kerneltest.Put(b, w.elements, elementMap(manyElements("nodes4", 10_000)))
			one := kerneltest.Member("nodes4", "192.0.2.1")
			set := elementMap([]kernel.Element{one})
			for b.Loop() {
				kerneltest.Put(b, w.elements, set)
				kerneltest.Put(b, w.elements, nil, one)
			}
		})
	}
}

// BenchmarkChain replaces the rules of a chain.
func BenchmarkChain(b *testing.B) {
	w := newRulesWorld(b)
	kerneltest.Put(b, w.sets, map[string]kernel.Set{"nodes4": {}})
	var chains [2]map[string]kernel.Chain
	for i := range chains {
		chains[i] = map[string]kernel.Chain{"it": {Hook: kernel.HookInput, Type: kernel.ChainFilter, Rules: kernel.RulesOf(
			kernel.Rule{Src: kernel.InSet{Set: "nodes4", Not: true}, Protocol: kernel.ProtoUDP, DstPort: 4789, VNI: uint32(i + 1), Verdict: kernel.Drop},
			kernel.Rule{Dst: kernel.InSet{Set: "nodes4", Not: true}, Protocol: kernel.ProtoUDP, DstPort: 4789, VNI: uint32(i + 1), Verdict: kernel.Drop},
		)}}
	}
	for i := 0; b.Loop(); i++ {
		kerneltest.Put(b, w.chains, chains[i%2])
	}
}
