package ipam

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// put stores a block as an earlier agent left it.
func (c *cluster) put(t *testing.T, s *v1.IPAMBlockSpec) {
	t.Helper()
	cidr, err := check(s)
	if err != nil {
		t.Fatal(err)
	}
	o := &v1.IPAMBlock{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "IPAMBlock"},
		ObjectMeta: metav1.ObjectMeta{Name: v1.BlockName(cidr)}, Spec: *s,
	}
	if _, err := c.Create(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

// used is a block with these addresses, as "address@node" or, when a container
// uses it, "address@node=container".
func used(cidr, pool, node string, state v1.BlockState, held ...string) *v1.IPAMBlockSpec {
	s := &v1.IPAMBlockSpec{CIDR: cidr, Pool: pool, Node: node, State: state}
	for _, h := range held {
		h, id, _ := strings.Cut(h, "=")
		a, node, _ := strings.Cut(h, "@")
		al := v1.Allocation{Address: a, Node: node}
		if id != "" {
			al.Owner = &v1.AllocationOwner{ContainerID: id, Interface: "eth0"}
		}
		s.Allocations = append(s.Allocations, al)
	}
	return s
}

// journalOf writes a journal that says so.
func journalOf(t *testing.T, rs ...record) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal")
	text, err := lines(append([]record{{Journal: 1}}, rs...))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRecover(t *testing.T) {
	complete := record{Complete: true}
	tests := []struct {
		name    string
		blocks  []*v1.IPAMBlockSpec
		journal []record
		live    []Assignment
		want    string   // assignments: container address...
		owners  string   // in the datastore afterwards: address=container@node
		issues  []string // parts of them
	}{
		{name: "nothing at all"},
		{
			name:    "all agree",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.1@n1=a")},
			journal: []record{use(assignment("a", "10.0.0.1")), complete}, live: []Assignment{assignment("a", "10.0.0.1")},
			want: "a 10.0.0.1", owners: "10.0.0.1=a@n1",
		},
		{
			name:   "journal lost, link there",
			blocks: []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.1@n1=a")},
			live:   []Assignment{assignment("a", "10.0.0.1")},
			want:   "a 10.0.0.1", owners: "10.0.0.1=a@n1",
		},
		{
			name:    "owner not written yet",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.1@n1")},
			journal: []record{use(assignment("a", "10.0.0.1")), complete},
			want:    "a 10.0.0.1", owners: "10.0.0.1=a@n1",
		},
		{
			name:    "release not written yet",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.1@n1=a")},
			journal: []record{complete},
		},
		{
			name:    "address passed on, not written yet",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.1@n1=a")},
			journal: []record{use(assignment("b", "10.0.0.1")), complete},
			want:    "b 10.0.0.1", owners: "10.0.0.1=b@n1",
		},
		{
			name:    "a link wins over the journal",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.1@n1", "10.0.0.2@n1")},
			journal: []record{use(assignment("a", "10.0.0.1 fd00::1")), complete},
			live:    []Assignment{assignment("b", "10.0.0.1"), assignment("a", "fd00::1")},
			want:    "a fd00::1; b 10.0.0.1", owners: "10.0.0.1=b@n1 fd00::1=a@n1",
		},
		{
			name:    "a link says what the journal has wrong",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.1@n1", "10.0.0.2@n1")},
			journal: []record{use(assignment("a", "10.0.0.1 fd00::1")), complete},
			live:    []Assignment{assignment("a", "10.0.0.2")},
			want:    "a 10.0.0.2 fd00::1", owners: "10.0.0.2=a@n1 fd00::1=a@n1",
		},
		{
			name:   "live address that nobody holds, own block",
			blocks: []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed)},
			live:   []Assignment{assignment("a", "10.0.0.9")},
			want:   "a 10.0.0.9", owners: "10.0.0.9=a@n1",
		},
		{
			name: "live address without block",
			live: []Assignment{assignment("a", "10.0.0.9 fd00::9")},
			want: "a 10.0.0.9 fd00::9", owners: "10.0.0.9=a@n1 fd00::9=a@n1",
		},
		{
			name:   "live address free in another node's block",
			blocks: []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n2", v1.BlockConfirmed)},
			live:   []Assignment{assignment("a", "10.0.0.9")},
			want:   "a 10.0.0.9", owners: "10.0.0.9=a@n1",
		},
		{
			name:   "live address held by another node",
			blocks: []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n2", v1.BlockConfirmed, "10.0.0.9@n2=x")},
			live:   []Assignment{assignment("a", "10.0.0.9")},
			want:   "a 10.0.0.9", owners: "10.0.0.9=x@n2", issues: []string{"10.0.0.9: used by a/eth0 on this node; the datastore says that n2 holds it"},
		},
		{
			name: "live address of no pool",
			live: []Assignment{assignment("a", "172.16.0.9")},
			want: "a 172.16.0.9", issues: []string{"no pool has it"},
		},
		{
			name:   "two links with one address",
			blocks: []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.9@n1")},
			live:   []Assignment{assignment("a", "10.0.0.9"), assignment("b", "10.0.0.9")},
			want:   "a 10.0.0.9", owners: "10.0.0.9=a@n1", issues: []string{"carries 10.0.0.9, which a/eth0 uses too"},
		},
		{
			name:    "borrowed and not used any more",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n2", v1.BlockConfirmed, "10.0.0.9@n1=a", "10.0.0.10@n2=x")},
			journal: []record{complete},
			owners:  "10.0.0.10=x@n2",
		},
		{
			name:    "claim begun",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockPending)},
			journal: []record{complete},
		},
		{
			name:    "claim begun in a pool that is gone",
			blocks:  []*v1.IPAMBlockSpec{used("10.7.0.0/26", "gone", "n1", v1.BlockPending)},
			journal: []record{complete},
		},
		{
			name:    "claims begun of blocks that overlap",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockPending), used("10.0.0.0/27", "four", "n2", v1.BlockConfirmed)},
			journal: []record{complete},
		},
		{
			name:    "return begun",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockReleasing)},
			journal: []record{complete},
		},
		{
			name:    "return begun, but somebody borrowed",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.0/26", "four", "n1", v1.BlockReleasing, "10.0.0.9@n2=x")},
			journal: []record{complete},
			owners:  "10.0.0.9=x@n2",
		},
		{
			name:    "another node's claim is left alone",
			blocks:  []*v1.IPAMBlockSpec{used("10.0.0.64/26", "four", "n2", v1.BlockPending)},
			journal: []record{complete},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, testPool("four", "10.0.0.0/24", 26), testPool("six", "fd00::/118", 122))
				for _, s := range tt.blocks {
					c.put(t, s)
				}
				o := Options{Reserve: 2}
				if tt.journal != nil {
					o.Journal = journalOf(t, tt.journal...)
				}
				a := c.start(t, o, tt.live...)
				flush(t, a)
				time.Sleep(2 * time.Minute)
				flush(t, a)
				if got := describe(a.Assignments()); got != tt.want {
					t.Errorf("assignments %q, want %q", got, tt.want)
				}
				var owners []string
				for _, b := range c.blocks(t) {
					if b.Spec.Node == "n1" && b.Spec.State != v1.BlockConfirmed || b.Spec.Pool == "gone" {
						t.Errorf("block %s of pool %s is %s", b.Name, b.Spec.Pool, b.Spec.State)
					}
					if b.Spec.Node == "n2" && b.Spec.State == v1.BlockPending && b.Name != "10-0-0-64-26" {
						t.Errorf("block %s of n2 is %s", b.Name, b.Spec.State)
					}
					for _, al := range b.Spec.Allocations {
						if al.Owner != nil {
							owners = append(owners, al.Address+"="+al.Owner.ContainerID+"@"+al.Node)
						}
					}
				}
				if d := cmp.Diff(tt.owners, strings.Join(owners, " ")); d != "" {
					t.Errorf("owners (-want +got):\n%s", d)
				}
				checkIssues(t, a, tt.issues)
				if err := a.Recover(t.Context(), nil); err == nil {
					t.Error("recovered twice")
				}
			})
		})
	}
}

func checkIssues(t *testing.T, a *Allocator, want []string) {
	t.Helper()
	issues := a.Issues()
	if len(issues) != len(want) {
		t.Fatalf("issues %v, want %q", issues, want)
	}
	for i, is := range issues {
		if text := is.Object + ": " + is.Reason; !strings.Contains(text, want[i]) {
			t.Errorf("issue %q, want %q", text, want[i])
		}
	}
}

// describe lists assignments as "container address...; ...".
func describe(as *Assignments) string {
	var out []string
	for a := range as.All() {
		text := a.ContainerID
		for _, ip := range a.Addrs() {
			text += " " + ip.String()
		}
		out = append(out, text)
	}
	return strings.Join(slices.Sorted(slices.Values(out)), "; ")
}

// A journal that got lost can't tell what was freed a moment ago, so everything
// rests; new addresses are had all the same.
func TestRecoverWithoutJournalRestsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("four", "10.0.0.0/24", 26))
		c.put(t, used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.0@n1", "10.0.0.1@n1=a"))
		a := c.start(t, Options{Reserve: 2})
		first, err := a.Assign(t.Context(), request("first"))
		if err != nil || first.IPv4.String() != "10.0.0.2" {
			t.Fatalf("got %v, %v; want the first address never held", first.Addrs(), err)
		}
		time.Sleep(time.Minute)
		next, err := a.Assign(t.Context(), request("next"))
		if err != nil || next.IPv4 == first.IPv4 {
			t.Fatalf("got %v, %v", next.Addrs(), err)
		}
	})
}

func TestRecoverWithUnsoundBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("four", "10.0.0.0/24", 26))
		for _, s := range []*v1.IPAMBlockSpec{
			used("10.0.0.0/26", "four", "n1", v1.BlockConfirmed, "10.0.0.2@n1", "10.0.0.1@n1"),
			used("10.0.0.64/26", "four", "n2", v1.BlockConfirmed, "10.0.0.99@n2", "10.0.0.98@n2"),
		} {
			o := &v1.IPAMBlock{TypeMeta: metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "IPAMBlock"}, Spec: *s}
			o.Name = v1.BlockName(netip.MustParsePrefix(s.CIDR))
			if _, err := c.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		c.PutRaw(datastore.Key{Kind: "IPAMBlock", Name: "10-0-0-128-26"}, []byte("{"))
		a := c.start(t, Options{}, assignment("a", "10.0.0.1"))
		as, err := a.Assign(t.Context(), request("b"))
		if err != nil || !netip.MustParsePrefix("10.0.0.192/26").Contains(as.IPv4) {
			t.Errorf("got %v, %v; want one of the only sound block", as.Addrs(), err)
		}
		checkIssues(t, a, []string{"IPAMBlock 10-0-0-0-26: unsound block", "used by a/eth0 on this node"})
	})
}

func TestRecoverNeedsTheDatastore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("four", "10.0.0.0/24", 26))
		path := journalOf(t, use(assignment("a", "10.0.0.1")), record{Complete: true})
		c.SetDown(errors.New("away"))
		a, err := Open(Options{Node: "n1", Store: c, Journal: path})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		a.SetPools(c.pools, nil)
		if err := a.Recover(t.Context(), nil); err == nil {
			t.Fatal("recovered without a datastore")
		}
		if _, err := a.Assign(t.Context(), request("b")); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		// A DEL needs neither.
		if as, ok, err := a.Release(t.Context(), Handle{"a", "eth0"}); err != nil || !ok || as.IPv4.String() != "10.0.0.1" {
			t.Errorf("release: %v, %v, %v", as, ok, err)
		}
		c.SetDown(nil)
		if err := a.Recover(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := describe(a.Assignments()); got != "" {
			t.Errorf("assignments %q", got)
		}
	})
}

// Blocks that others changed by hand are healed, and never make the allocator
// use what is another node's.
func TestForeignChanges(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, c *cluster, b *v1.IPAMBlock)
		issues []string
	}{
		{"block deleted", func(t *testing.T, c *cluster, b *v1.IPAMBlock) {
			if err := c.Delete(t.Context(), blockKey(mustCheck(t, b)), ""); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"allocations deleted", func(t *testing.T, c *cluster, b *v1.IPAMBlock) {
			b.Spec.Allocations = nil
			c.replace(t, b)
		}, nil},
		{"given to another node", func(t *testing.T, c *cluster, b *v1.IPAMBlock) {
			for i := range b.Spec.Allocations {
				b.Spec.Allocations[i].Node = "n2"
			}
			c.replace(t, b)
		}, []string{"the datastore says that n2 holds it"}},
		{"made nonsense", func(t *testing.T, c *cluster, b *v1.IPAMBlock) {
			b.Spec.Allocations = append(b.Spec.Allocations, b.Spec.Allocations[0])
			c.replace(t, b)
		}, []string{"unsound block"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, testPool("four", "10.0.0.0/24", 26))
				a := c.start(t, Options{Reserve: 2})
				first, err := a.Assign(t.Context(), request("first"))
				if err != nil {
					t.Fatal(err)
				}
				flush(t, a)
				tt.change(t, c, c.blocks(t)[0])
				time.Sleep(resync + time.Minute)
				flush(t, a)
				checkIssues(t, a, tt.issues)
				if len(tt.issues) > 0 {
					return
				}
				if _, al := Find(c.blocks(t), first.IPv4); al == nil || al.Node != "n1" || al.Owner.ContainerID != "first" {
					t.Errorf("%s is %+v", first.IPv4, al)
				}
				if next, err := a.Assign(t.Context(), request("next")); err != nil || next.IPv4 == first.IPv4 {
					t.Errorf("got %v, %v", next.Addrs(), err)
				}
			})
		})
	}
}

func mustCheck(t *testing.T, b *v1.IPAMBlock) netip.Prefix {
	t.Helper()
	cidr, err := check(&b.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return cidr
}

func (c *cluster) replace(t *testing.T, b *v1.IPAMBlock) {
	t.Helper()
	if _, err := c.Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// Nodes that claim at the same time never share an address, and fill a pool to
// its last one.
func TestNodesFillAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("four", "10.0.0.0/26", 29))
		names := map[string]string{}
		for _, node := range []string{"n1", "n2", "n3", "n4"} {
			a := c.start(t, Options{Node: node, Reserve: 1})
			for i := range 20 {
				as, err := a.Assign(t.Context(), request(node+strings.Repeat("x", i)))
				if errors.Is(err, ErrExhausted) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if other, twice := names[as.IPv4.String()]; twice {
					t.Errorf("%s given to %s and %s", as.IPv4, other, node)
				}
				names[as.IPv4.String()] = node
			}
			flush(t, a)
		}
		blocks := map[string]int{}
		for _, b := range c.blocks(t) {
			blocks[b.Spec.Node]++
		}
		// The third node got what was left, the fourth nothing.
		if len(names) != 20+20+16 || !maps.Equal(blocks, map[string]int{"n1": 3, "n2": 3, "n3": 2}) {
			t.Errorf("%d addresses given, blocks %v", len(names), blocks)
		}
	})
}
