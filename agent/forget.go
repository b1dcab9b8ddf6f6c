package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// forgetter makes the kernel forget the connections of freed addresses. It does
// so behind a DEL's back: the kernel walks its whole table of connections, and an
// address rests for the cool-down before anyone else gets it. Addresses that are
// freed meanwhile share the next walk.
type forgetter struct {
	table kernel.Conntrack
	used  func() *ipam.Assignments // who has addresses now
	log   *slog.Logger
	wake  chan struct{}

	mu  sync.Mutex
	due map[netip.Addr]bool
}

func newForgetter(table kernel.Conntrack, used func() *ipam.Assignments, log *slog.Logger) *forgetter {
	return &forgetter{table: table, used: used, log: log, wake: make(chan struct{}, 1), due: map[netip.Addr]bool{}}
}

// forget asks for the connections of these addresses to be forgotten soon.
func (f *forgetter) forget(addrs ...netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range addrs {
		f.due[a] = true
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take returns what is due, which then no longer is. An address that is in use
// again, because forgetting failed for so long, is left to its new user.
func (f *forgetter) take() []netip.Addr {
	inUse := addrsOfAll(f.used())
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.due, func(a netip.Addr, _ bool) bool { return inUse[a] })
	addrs := slices.SortedFunc(maps.Keys(f.due), netip.Addr.Compare)
	clear(f.due)
	return addrs
}

// run works until ctx is done. What fails is tried again, unless this kernel
// tracks no connections.
func (f *forgetter) run(ctx context.Context) error {
	const minDelay, maxDelay = time.Second, 10 * time.Second
	delay := minDelay
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
		addrs := f.take()
		err := f.table.Flush(ctx, addrs...)
		if err == nil || errors.Is(err, kernel.ErrUnsupported) || ctx.Err() != nil {
			delay = minDelay
			continue
		}
		f.log.Warn("connections of freed addresses are left for now", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
			delay = min(2*delay, maxDelay)
		}
		f.forget(addrs...)
	}
}

// addrsOfAll returns the addresses in use.
func addrsOfAll(used *ipam.Assignments) map[netip.Addr]bool {
	addrs := map[netip.Addr]bool{}
	for as := range used.All() {
		for _, a := range as.Addrs() {
			addrs[a] = true
		}
	}
	return addrs
}

// unused returns the addresses of a node's blocks that nobody uses: an earlier
// agent may have ended between freeing one and forgetting its connections.
func unused(s *datastore.Snapshot, node string, used *ipam.Assignments) []netip.Addr {
	inUse := addrsOfAll(used)
	var addrs []netip.Addr
	for block := range datastore.All[*v1.IPAMBlock](s) {
		if block.Spec.Node != node {
			continue
		}
		for _, r := range block.Spec.Released { // those never held have had no connections
			if a, err := netip.ParseAddr(r.Address); err == nil && !inUse[a] {
				addrs = append(addrs, a)
			}
		}
		for _, h := range block.Spec.Allocations {
			if a, err := netip.ParseAddr(h.Address); err == nil && !inUse[a] {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}
