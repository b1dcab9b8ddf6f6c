package calc

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

var (
	testIPIP   = kernel.Tunnel{Kind: kernel.IPIP, MTU: 1480}
	testVXLAN  = kernel.Tunnel{Kind: kernel.VXLAN, MTU: 1450, VNI: 4096, Port: 4789}
	testVXLAN6 = kernel.Tunnel{Kind: kernel.VXLAN, MTU: 1430, VNI: 77, Port: 8472}
)

func testTunnels(links ...string) immutable.Map[string, kernel.Tunnel] {
	e := immutable.Map[string, kernel.Tunnel]{}.Edit()
	for _, l := range links {
		e.Set(l, map[string]kernel.Tunnel{
			kernel.LinkIPIP: testIPIP, kernel.LinkVXLAN4: testVXLAN, kernel.LinkVXLAN6: testVXLAN6,
			kernel.LinkWireGuard: {Kind: kernel.WireGuard, MTU: 1440, Port: 51820},
		}[l])
	}
	return e.Map()
}

func testNodes(addrs ...string) immutable.Map[netip.Addr, string] {
	e := immutable.Map[netip.Addr, string]{}.Edit()
	for _, a := range addrs {
		e.Set(netip.MustParseAddr(a), "n"+a)
	}
	return e.Map()
}

func testPools(natOutgoing bool, cidrs ...string) []protectedPool {
	var pools []protectedPool
	for _, c := range cidrs {
		pools = append(pools, protectedPool{netip.MustParsePrefix(c), natOutgoing})
	}
	return pools
}

func (p protection) String() string {
	return kernel.RulesText(p.sets.All(), p.elements.All(), p.chains.All())
}

func TestProtection(t *testing.T) {
	nodes := testNodes("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")
	plain := testPools(false, "10.0.0.0/16", "fd00::/64")
	for _, tt := range []struct {
		name string
		in   protectionInput
	}{
		{"none", protectionInput{}},
		{"plain", protectionInput{nodes: nodes, pools: plain}},
		{"wireguard", protectionInput{tunnels: testTunnels(kernel.LinkWireGuard), nodes: nodes, pools: plain}},
		{"ipip", protectionInput{tunnels: testTunnels(kernel.LinkIPIP), nodes: nodes, pools: plain}},
		{"vxlan", protectionInput{tunnels: testTunnels(kernel.LinkVXLAN4), nodes: nodes, pools: plain}},
		{"vxlan6", protectionInput{tunnels: testTunnels(kernel.LinkVXLAN6), nodes: nodes, pools: plain}},
		{"nat4", protectionInput{nodes: nodes, pools: append(testPools(true, "10.1.0.0/16"), plain...)}},
		{"nat6", protectionInput{nodes: nodes, pools: append(testPools(true, "fd00:0:0:1::/64"), plain...)}},
		{"all", protectionInput{
			tunnels: testTunnels(kernel.TunnelLinks()...), nodes: nodes,
			pools: slices.Concat(testPools(true, "10.1.0.0/16", "10.2.0.0/24", "fd00:0:0:1::/64"), plain),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p protector
			got := p.protection(tt.in)
			file := filepath.Join("testdata", "protection", tt.name+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if again := p.protection(tt.in); again != got {
				t.Error("the same input gives other maps")
			}
			writeToFake(t, got)
		})
	}
}

// writeToFake writes the protection to a fake kernel, which refuses what doesn't fit
// together.
func writeToFake(t *testing.T, p protection) {
	t.Helper()
	f := kernel.NewFake()
	kerneltest.Put(t, f.Sets(), p.sets.Plain())
	kerneltest.Put(t, f.Elements(), p.elements.Plain())
	kerneltest.Put(t, f.Chains(), p.chains.Plain())
}

// TestProtectionHasNoHistory walks through inputs by chance: the protection is
// that of the present.
func TestProtectionHasNoHistory(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func(all []string) (chosen []string) {
		for _, s := range all {
			if r.IntN(2) == 0 {
				chosen = append(chosen, s)
			}
		}
		return chosen
	}
	addrs := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"}
	var p protector
	for step := range 1000 {
		in := p.in
		switch r.IntN(3) {
		case 0:
			in.tunnels = testTunnels(some(kernel.TunnelLinks())...)
		case 1:
			in.nodes = testNodes(some(addrs)...)
		case 2:
			in.pools = nil
			for _, c := range some([]string{"10.0.0.0/16", "10.1.0.0/16", "fd00::/64", "fd00:0:0:1::/64"}) {
				in.pools = append(in.pools, testPools(r.IntN(2) == 0, c)...)
			}
		}
		var fresh protector
		got, want := p.protection(in), fresh.protection(in)
		if diff := cmp.Diff(want.String(), got.String()); diff != "" {
			t.Fatalf("step %d (-from scratch +edited):\n%s", step, diff)
		}
		if step%100 == 0 {
			writeToFake(t, got)
		}
	}
}

// TestProtectionOfOneMore shows that a node more is an element more, and that the
// rest is the same.
func TestProtectionOfOneMore(t *testing.T) {
	var p protector
	in := protectionInput{tunnels: testTunnels(kernel.LinkVXLAN4), nodes: testNodes("192.0.2.1"), pools: testPools(true, "10.0.0.0/16")}
	before := p.protection(in)
	in.nodes = in.nodes.With(netip.MustParseAddr("192.0.2.2"), "two").With(netip.MustParseAddr("2001:db8::2"), "two")
	after := p.protection(in)
	if before.sets != after.sets || before.chains != after.chains {
		t.Error("sets or chains are others")
	}
	diff := slices.Collect(immutable.Diff(before.elements, after.elements))
	if want := kerneltest.Member("nodes4", "192.0.2.2"); len(diff) != 1 || diff[0] != want {
		t.Errorf("elements that differ: %v, want %v", diff, want)
	}
	// The same address of a node of another name.
	in.nodes = in.nodes.With(netip.MustParseAddr("192.0.2.2"), "three")
	if renamed := p.protection(in); renamed != after {
		t.Errorf("a node of another name changed %v", slices.Collect(immutable.Diff(after.elements, renamed.elements)))
	}
}

func TestProtects(t *testing.T) {
	var p protector
	out := p.protection(protectionInput{tunnels: testTunnels(kernel.TunnelLinks()...), pools: testPools(true, "10.0.0.0/16")})
	counts := make(map[string]int)
	for chain := range out.chains.All() {
		for _, l := range kernel.TunnelLinks() {
			if Protects(chain, l) {
				counts[l]++
			}
		}
	}
	want := map[string]int{kernel.LinkIPIP: 2, kernel.LinkVXLAN4: 4, kernel.LinkVXLAN6: 4}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("chains of each device (-want +got):\n%s", diff)
	}
}

// BenchmarkProtection adds a node to very many.
func BenchmarkProtection(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		e := immutable.Map[netip.Addr, string]{}.Edit()
		for i := range n {
			e.Set(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), "")
		}
		in := protectionInput{tunnels: testTunnels(kernel.LinkVXLAN4), nodes: e.Map()}
		one := in
		one.nodes = in.nodes.With(netip.MustParseAddr("192.0.2.1"), "")
		b.Run(fmt.Sprintf("%d nodes", n), func(b *testing.B) {
			var p protector
			p.protection(in)
			for b.Loop() {
				p.protection(one)
				p.protection(in)
			}
		})
	}
}
