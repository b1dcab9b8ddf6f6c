//go:build linux

package linux

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// BenchmarkNeighbours adds, reads, replaces and deletes 10,000 neighbours of each
// family, and changes one among them.
func BenchmarkNeighbours(b *testing.B) {
	for _, family := range []struct {
		name string
		base [16]byte
		from int // byte that counts
	}{
		{"IPv4", netip.MustParseAddr("::ffff:10.0.0.1").As16(), 13},
		{"IPv6", netip.MustParseAddr("fd00:244::1").As16(), 12},
	} {
		all, changed := make(map[kernel.Neighbour]kernel.MAC), make(map[kernel.Neighbour]kernel.MAC)
		for i := range 10_000 {
			ip := family.base
			ip[family.from], ip[family.from+1] = byte(i>>8), byte(i)
			k := kernel.Neighbour{Link: kernel.LinkVXLAN4, IP: netip.AddrFrom16(ip).Unmap()}
			all[k] = kernel.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
			changed[k] = kernel.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}
		}
		w := newTunnelWorld(b)
		kerneltest.Put(b, w.tunnels, map[string]kernel.Tunnel{kernel.LinkVXLAN4: sampleVXLAN()})
		b.Run(family.name, func(b *testing.B) { benchmarkEntries(b, w.neighbours, all, changed) })
	}
}

// BenchmarkForwarding does the same with 10,000 forwarding entries.
func BenchmarkForwarding(b *testing.B) {
	all, changed := make(map[kernel.Forwarding]netip.Addr), make(map[kernel.Forwarding]netip.Addr)
	for i := range 10_000 {
		k := kernel.Forwarding{Link: kernel.LinkVXLAN4, MAC: kernel.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}
		all[k] = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		changed[k] = netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
	}
	w := newTunnelWorld(b)
	kerneltest.Put(b, w.tunnels, map[string]kernel.Tunnel{kernel.LinkVXLAN4: sampleVXLAN()})
	benchmarkEntries(b, w.forwarding, all, changed)
}

func benchmarkEntries[K, V comparable](b *testing.B, table kernel.Table[K, V], all, changed map[K]V) {
	keys := slices.Collect(maps.Keys(all))
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			kerneltest.Put(b, table, all)
			b.StopTimer()
			kerneltest.Put(b, table, nil, keys...)
			b.StartTimer()
		}
	})
	kerneltest.Put(b, table, all)
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if have, err := table.Read(b.Context()); err != nil || len(have) != len(keys) {
				b.Fatal(len(have), err)
			}
		}
	})
	b.Run("replace", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			kerneltest.Put(b, table, []map[K]V{changed, all}[i%2])
		}
	})
	b.Run("replace one", func(b *testing.B) {
		k := keys[0]
		for i := 0; b.Loop(); i++ {
			kerneltest.Put(b, table, map[K]V{k: []map[K]V{changed, all}[i%2][k]})
		}
	})
	b.Run("delete", func(b *testing.B) {
		for b.Loop() {
			kerneltest.Put(b, table, nil, keys...)
			b.StopTimer()
			kerneltest.Put(b, table, all)
			b.StartTimer()
		}
	})
}
