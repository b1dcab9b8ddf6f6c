package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// TestForgetter holds that a failed walk is repeated, that what is freed meanwhile
// shares the next, and that an address in use again is left alone.
func TestForgetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := netip.MustParseAddr("10.244.0.1"), netip.MustParseAddr("fd00::2")
		table := kernel.NewFake()
		three := netip.MustParseAddr("10.244.0.3")
		used := ipam.NewAssignments(ipam.Assignment{IPv4: three})
		f := newForgetter(table, func() *ipam.Assignments { return used }, slog.New(slog.NewTextHandler(io.Discard, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { f.run(ctx); close(done) }()
		table.Fail("flush", one, errors.New("interrupted"))
		f.forget(one, three)
		synctest.Wait()
		f.forget(two)
		table.Fail("flush", one, nil)
		time.Sleep(time.Minute) // the bubble's clock
		if d := cmp.Diff([]netip.Addr{one, two}, table.Flushed(), equalAddrs); d != "" {
			t.Errorf("forgotten (-want +got):\n%s", d)
		}
		cancel()
		<-done
	})
}

func TestUnused(t *testing.T) {
	block := &v1.IPAMBlock{TypeMeta: typeMeta("IPAMBlock"), Spec: v1.IPAMBlockSpec{CIDR: "10.244.0.0/29", Node: "n1",
		Allocations: []v1.Allocation{{Address: "10.244.0.0", Node: "n1"}, {Address: "10.244.0.1", Node: "n1"}},
		Released:    []v1.Release{{Address: "10.244.0.2"}},
	}}
	block.Name = "10-244-0-0-29"
	other := block.DeepCopy()
	other.Name, other.Spec.Node, other.Spec.CIDR = "10-244-0-8-29", "n2", "10.244.0.8/29"
	used := ipam.NewAssignments(ipam.Assignment{IPv4: netip.MustParseAddr("10.244.0.1")})
	got := unused(datastore.NewSnapshot(block, other), "n1", used)
	want := []netip.Addr{netip.MustParseAddr("10.244.0.2"), netip.MustParseAddr("10.244.0.0")}
	if d := cmp.Diff(want, got, equalAddrs); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

var equalAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
