//go:build linux

package linux

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
	"cairn.network/cairn/kernel/linux/needs"
)

// BenchmarkWireGuardVM adds, reads, changes and deletes peers, with three allowed
// prefixes each.
func BenchmarkWireGuardVM(b *testing.B) {
	needs.Link(b, "wireguard")
	for _, n := range []int{1_000, 10_000} {
		w := newWireGuardWorld(b)
		w.AddDevice(b)
		table, peers := w.encryption.Peers(), kerneltest.ManyPeers(n)
		keys := slices.Collect(maps.Keys(peers))
		name := fmt.Sprintf("peers=%d/", n)
		b.Run(name+"add", func(b *testing.B) {
			for b.Loop() {
				kerneltest.Put(b, table, peers)
				b.StopTimer()
				kerneltest.Put(b, table, nil, keys...)
				b.StartTimer()
			}
		})
		kerneltest.Put(b, table, peers)
		b.Run(name+"read", func(b *testing.B) {
			for b.Loop() {
				if have, err := table.Read(b.Context()); err != nil || len(have) != n {
					b.Fatalf("%d peers, %v", len(have), err)
				}
			}
		})
		b.Run(name+"key", func(b *testing.B) {
			for b.Loop() {
				if _, err := w.encryption.Key(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		one := kerneltest.PeerKey(n / 2)
		b.Run(name+"change one", func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				p := peers[one]
				if i%2 == 0 {
					p = kerneltest.Peer("192.0.2.1:51820", "10.250.0.0/26")
				}
				kerneltest.Put(b, table, map[kernel.WireGuardKey]kernel.WireGuardPeer{one: p})
			}
		})
		b.Run(name+"delete", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				kerneltest.Put(b, table, peers)
				b.StartTimer()
				kerneltest.Put(b, table, nil, keys...)
			}
		})
	}
}
