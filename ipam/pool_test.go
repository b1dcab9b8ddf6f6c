package ipam

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
)

func mustPool(t *testing.T, p *v1.IPPool) pool {
	t.Helper()
	out, err := poolOf(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPoolBlocks(t *testing.T) {
	tests := []struct {
		name, cidr string
		size       int
		want       int // blocks
	}{
		{"one block", "10.0.0.0/26", 26, 1},
		{"two", "10.0.0.0/25", 26, 2},
		{"many", "10.0.0.0/16", 26, 1024},
		{"single addresses", "10.0.0.0/24", 32, 256},
		{"IPv6", "fd00::/112", 122, 1024},
		{"IPv6 across the half", "fd00::/60", 70, 1024},
		{"IPv6 in the upper half", "fd00::/32", 42, 1024},
		{"single IPv6 addresses", "fd00::/120", 128, 256},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pool{name: "p", cidr: netip.MustParsePrefix(tt.cidr), block: tt.size}
			seen := map[netip.Prefix]bool{}
			var first []netip.Prefix
			for b := range p.blocks("node-1") {
				if !p.holds(b) || b.Bits() != tt.size || b != b.Masked() || seen[b] {
					t.Fatalf("block %s: outside, of wrong size or seen before", b)
				}
				seen[b] = true
				first = append(first, b)
			}
			if len(seen) != tt.want {
				t.Fatalf("%d blocks, want %d", len(seen), tt.want)
			}
			if tt.want > 100 && slices.Equal(first, slices.Collect(p.blocks("node-2"))) {
				t.Error("two nodes have the same order")
			}
			if !slices.Equal(first, slices.Collect(p.blocks("node-1"))) {
				t.Error("the order is not the node's own")
			}
		})
	}
}

func TestHugePoolHasBlocks(t *testing.T) {
	p := pool{name: "p", cidr: netip.MustParsePrefix("fd00::/8"), block: 122}
	n := 0
	for b := range p.blocks("node-1") {
		if !p.holds(b) {
			t.Fatalf("block %s outside", b)
		}
		if n++; n == 1000 {
			break
		}
	}
}

func TestNodesSeldomCollide(t *testing.T) {
	p := pool{name: "p", cidr: netip.MustParsePrefix("10.0.0.0/16"), block: 26}
	taken := map[netip.Prefix]bool{}
	collisions := 0
	for i := range 100 {
		for b := range p.blocks("worker-" + string(rune('a'+i%26)) + string(rune('a'+i/26))) {
			if !taken[b] {
				taken[b] = true
				break
			}
			collisions++
		}
	}
	// Of 100 random choices among 1024 some 5 collide.
	if collisions > 20 {
		t.Errorf("%d collisions", collisions)
	}
}

func TestPoolOf(t *testing.T) {
	with := func(change func(*v1.IPPool)) *v1.IPPool {
		p := testPool("p", "10.0.0.0/16", 26)
		change(p)
		return p
	}
	tests := []struct {
		name         string
		pool         *v1.IPPool
		refuse, fail string
	}{
		{"usable", with(func(p *v1.IPPool) {}), "", ""},
		{"disabled", with(func(p *v1.IPPool) { p.Spec.Disabled = true }), "is disabled", ""},
		{"selected", with(func(p *v1.IPPool) { p.Spec.NodeSelector = "rack == 'a'" }), "", ""},
		{"not selected", with(func(p *v1.IPPool) { p.Spec.NodeSelector = "rack == 'b'" }), "does not select this node", ""},
		{"being deleted", with(func(p *v1.IPPool) { p.DeletionTimestamp = &metav1.Time{Time: noon} }), "is being deleted", ""},
		{"no selector", with(func(p *v1.IPPool) { p.Spec.NodeSelector = "rack ==" }), "", "nodeSelector"},
		{"no range", with(func(p *v1.IPPool) { p.Spec.CIDR = "ten" }), "", "ten"},
		{"blocks larger than the pool", with(func(p *v1.IPPool) { p.Spec.BlockSize = 15 }), "", "do not fit"},
		{"block as large as the pool", with(func(p *v1.IPPool) { p.Spec.BlockSize = 16 }), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := poolOf(tt.pool, map[string]string{"rack": "a"})
			if tt.fail != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fail) {
					t.Errorf("got %v, want %q", err, tt.fail)
				}
				return
			}
			if err != nil || got.refuse != tt.refuse {
				t.Errorf("got %q, %v; want %q", got.refuse, err, tt.refuse)
			}
		})
	}
}

func TestOverlap(t *testing.T) {
	there := newClaims([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/26"), netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00::/122")})
	for cidr, want := range map[string]string{
		"10.0.0.0/26":   "", // itself
		"10.0.0.64/26":  "",
		"10.0.0.32/27":  "10.0.0.0/26",
		"10.0.0.0/25":   "10.0.0.0/26",
		"10.0.1.192/26": "10.0.1.0/24",
		"10.0.2.0/24":   "",
		"fd00::/121":    "fd00::/122",
		"fd00::1/128":   "fd00::/122",
		"fd01::1/128":   "",
	} {
		got, ok := there.overlap(netip.MustParsePrefix(cidr))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: got %v, want %q", cidr, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	pools := []pool{
		mustPool(t, testPool("a", "10.0.0.0/16", 26)), mustPool(t, testPool("b", "10.1.0.0/16", 26)),
		mustPool(t, testPool("c", "fd00::/112", 122)),
	}
	off := mustPool(t, testPool("off", "10.2.0.0/16", 26))
	off.refuse = "is disabled"
	pools = append(pools, off)
	tests := []struct {
		name   string
		ip4    bool
		wanted []string
		want   string
		fail   string
	}{
		{"any IPv4", true, nil, "a, b", ""},
		{"any IPv6", false, nil, "c", ""},
		{"by name", true, []string{"b"}, "b", ""},
		{"by range", true, []string{"10.1.0.0/16"}, "b", ""},
		{"in the order asked for", true, []string{"b", "a"}, "b, a", ""},
		{"twice", true, []string{"b", "10.1.0.0/16"}, "b", ""},
		{"one of each family", false, []string{"a", "c"}, "c", ""},
		{"of the other family only", false, []string{"a"}, "", ""},
		{"unknown", true, []string{"x"}, "", "there is no pool x"},
		{"range of no pool", true, []string{"10.1.0.0/17"}, "", "there is no pool 10.1.0.0/17"},
		{"disabled", true, []string{"off"}, "", "pool off is disabled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := choose(pools, tt.ip4, tt.wanted)
			if tt.fail != "" {
				if err == nil || err.Error() != tt.fail {
					t.Errorf("got %v, want %q", err, tt.fail)
				}
			} else if err != nil || names(got) != tt.want {
				t.Errorf("got %q, %v; want %q", names(got), err, tt.want)
			}
		})
	}
}

func TestSummarize(t *testing.T) {
	block := func(pool string, s *v1.IPAMBlockSpec) *v1.IPAMBlock {
		s.Pool = pool
		return &v1.IPAMBlock{Spec: *s}
	}
	used := spec("10.0.0.64/26", "10.0.0.64@n1", "10.0.0.65@n2")
	used.Allocations[0].Owner = &v1.AllocationOwner{ContainerID: "c"}
	got := Summarize(
		[]*v1.IPPool{testPool("six", "fd00::/48", 122), testPool("four", "10.0.0.0/24", 26)},
		[]*v1.IPAMBlock{block("four", used), block("four", spec("10.0.0.0/26")), block("gone", spec("10.9.0.0/30", "10.9.0.1@n1")), block("four", spec("broken"))},
	)
	prefix := netip.MustParsePrefix
	want := []PoolUsage{
		{Name: "four", CIDR: prefix("10.0.0.0/24"), Usage: Usage{Size: 256, Used: 1, Reserved: 1, Free: 254, Borrowed: 1}, Blocks: []BlockUsage{
			{CIDR: prefix("10.0.0.0/26"), Node: "n1", State: v1.BlockConfirmed, Usage: Usage{Size: 64, Free: 64}},
			{CIDR: prefix("10.0.0.64/26"), Node: "n1", State: v1.BlockConfirmed, Usage: Usage{Size: 64, Used: 1, Reserved: 1, Free: 62, Borrowed: 1}},
		}},
		{Name: "gone", Usage: Usage{Size: 4, Reserved: 1, Free: 3}, Blocks: []BlockUsage{
			{CIDR: prefix("10.9.0.0/30"), Node: "n1", State: v1.BlockConfirmed, Usage: Usage{Size: 4, Reserved: 1, Free: 3}},
		}},
		{Name: "six", CIDR: prefix("fd00::/48"), Usage: Usage{Size: 0x1p80, Free: 0x1p80}},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
		t.Error(d)
	}
	if b, al := Find([]*v1.IPAMBlock{block("four", used)}, netip.MustParseAddr("10.0.0.65")); b == nil || al == nil || al.Node != "n2" {
		t.Errorf("found %v, %v", b, al)
	}
	if b, al := Find([]*v1.IPAMBlock{block("four", used)}, netip.MustParseAddr("10.0.0.66")); b == nil || al != nil {
		t.Errorf("found %v, %v", b, al)
	}
	if b, al := Find(nil, netip.MustParseAddr("10.0.0.66")); b != nil || al != nil {
		t.Errorf("found %v, %v", b, al)
	}
}
