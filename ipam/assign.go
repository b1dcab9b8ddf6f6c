package ipam

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// demand is what requests for one family and one choice of pools need. The
// writer keeps the reserve for each demand there was.
type demand struct {
	ip4     bool
	wanted  []string // pools by name or CIDR; none: any
	waiting int      // requests that wait for an address
	// fullAt is the round that found nothing more to take, 0 if the last one did.
	fullAt int
}

// Assign gives addresses to a handle; the same ones if it has some already. When
// it returns, they are in the journal on disk. It waits a bounded time for an
// address to become free. Errors: ErrExhausted, ErrUnavailable, ErrInvalid,
// ErrClosed, and those of the disk.
func (a *Allocator) Assign(ctx context.Context, r Request) (Assignment, error) {
	return a.assign(ctx, r, false)
}

func (a *Allocator) assign(ctx context.Context, r Request, exchange bool) (Assignment, error) {
	if r.ContainerID == "" || r.Interface == "" {
		return Assignment{}, fmt.Errorf("assign: %w: container ID or interface missing", ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, a.wait)
	defer cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	e, err := a.take(ctx, r, exchange)
	if err != nil {
		return Assignment{}, fmt.Errorf("assign address to %s: %w", r.Handle, err)
	}
	if e.busy == nil { // it was there
		return e.Assignment, nil
	}
	at, records := time.Now(), []record{use(e.Assignment)}
	if e.before != nil {
		records = []record{unuse(e.before.Assignment, at), records[0]}
	}
	a.mu.Unlock()
	err = a.journal.commit(records...)
	a.mu.Lock()
	close(e.busy)
	e.busy = nil
	if err != nil {
		if delete(a.entries, e.Handle); e.before != nil {
			a.entries[e.Handle] = e.before
		}
		a.vacate(e, time.Time{})
		return Assignment{}, fmt.Errorf("assign address to %s: %w", r.Handle, err)
	}
	e.committed = true
	for _, ip := range e.Addrs() {
		a.slots[ip].user = e
		a.touch(a.slots[ip])
	}
	if e.before != nil {
		a.vacate(e.before, at)
		e.before = nil
	}
	a.changedAssignments()
	return e.Assignment, nil
}

// Release takes back the addresses of a handle and returns what it had; false if
// it had nothing. It does not need the datastore, nor Recover.
func (a *Allocator) Release(ctx context.Context, h Handle) (Assignment, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entries[h]
	for ; e != nil && e.busy != nil; e = a.entries[h] {
		if err := a.await(ctx, e.busy); err != nil {
			return Assignment{}, false, fmt.Errorf("release %s: %w", h, err)
		}
	}
	if e == nil {
		return Assignment{}, false, nil
	}
	e.busy = make(chan struct{})
	at := time.Now()
	a.mu.Unlock()
	err := a.journal.commit(unuse(e.Assignment, at))
	a.mu.Lock()
	close(e.busy)
	e.busy = nil
	if err != nil {
		a.kick() // to repair the journal
		return Assignment{}, false, fmt.Errorf("release %s: %w", h, err)
	}
	delete(a.entries, h)
	a.vacate(e, at)
	a.changedAssignments()
	return e.Assignment, true, nil
}

// What follows is called with the lock held.

// vacate ends an entry's use of its addresses; they rest from since, or not at
// all if it is zero.
func (a *Allocator) vacate(e *entry, since time.Time) {
	for _, ip := range e.Addrs() {
		s := a.slots[ip]
		if s == nil || s.user != e { // not recovered yet
			continue
		}
		s.user = nil
		if !since.IsZero() {
			s.since = since
		}
		a.settled(s.addr.String())
		a.touch(s)
		if s.held {
			a.park(s)
		} else {
			a.forget(s)
		}
	}
	a.tell()
}

// take returns the entry of a request's handle: the one there is, or a new one
// that is busy and has its addresses. It waits until there are some.
func (a *Allocator) take(ctx context.Context, r Request, exchange bool) (*entry, error) {
	since := a.begun
	var waiting []*demand // of which this request is part
	wait := func(demands []*demand) {
		for _, d := range waiting {
			d.waiting--
		}
		for _, d := range demands {
			d.waiting++
		}
		waiting = demands
	}
	defer wait(nil)
	for {
		e := a.entries[r.Handle]
		switch {
		case a.closed:
			return nil, ErrClosed
		case e != nil && e.busy != nil:
			if err := a.await(ctx, e.busy); err != nil {
				return nil, fmt.Errorf("%w: an earlier request for it still runs", ErrUnavailable)
			}
			continue
		case !a.recovered:
			if err := a.await(ctx, a.news); err != nil {
				return nil, fmt.Errorf("%w: not in sync with the datastore yet", ErrUnavailable)
			}
			continue
		}
		keep, demands, err := a.open(e, r, exchange)
		if err != nil {
			return nil, err
		}
		if !a.holds(keep) {
			if err := a.await(ctx, a.news); err != nil {
				return nil, fmt.Errorf("%w: it has %v, which the node does not hold", ErrUnavailable, keep)
			}
			continue
		}
		if e != nil && len(demands) == 0 && len(keep) == len(e.Addrs()) {
			return e, fits(e.Assignment, r)
		}
		if picked := a.pick(r, demands); picked != nil {
			picked.before = e
			picked.add(keep...)
			return picked, nil
		}
		if err := a.exhausted(ctx, demands, since); err != nil {
			return nil, err
		}
		// Once is enough: the writer knows who waits, and comes back by itself when
		// there is something to wait for.
		if !slices.Equal(waiting, demands) {
			wait(demands)
			a.kick()
		}
		if err := a.await(ctx, a.news); err != nil {
			return nil, a.gaveUp(demands)
		}
	}
}

// holds says whether the node holds all these addresses. It may not when they come
// from an earlier run that ended in the middle.
func (a *Allocator) holds(addrs []netip.Addr) bool {
	for _, ip := range addrs {
		if s := a.slots[ip]; s == nil || !s.held {
			return false
		}
	}
	return true
}

// fits says whether an assignment answers a request.
func fits(as Assignment, r Request) error {
	if !r.IPv4 && !r.IPv6 || r.IPv4 == as.IPv4.IsValid() && r.IPv6 == as.IPv6.IsValid() {
		return nil
	}
	return fmt.Errorf("%w: it has addresses of other families already: %v", ErrInvalid, as.Addrs())
}

// choose returns the demands that a request is part of, one for each family
// that it gets an address of.
func (a *Allocator) choose(r Request) ([]*demand, error) {
	var out []*demand
	for _, ip4 := range []bool{true, false} {
		asked := r.IPv4
		if !ip4 {
			asked = r.IPv6
		}
		pools, err := choose(a.pools, ip4, r.Pools)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		case len(pools) > 0 && (asked || !r.IPv4 && !r.IPv6):
			out = append(out, a.demandFor(ip4, r.Pools))
		case asked && len(r.Pools) > 0:
			return nil, fmt.Errorf("%w: none of the pools %s is %s", ErrInvalid, strings.Join(r.Pools, ", "), familyOf(ip4))
		case asked:
			return nil, fmt.Errorf("%w: there is no enabled %s pool that selects this node", ErrExhausted, familyOf(ip4))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: there is no enabled pool that selects this node", ErrExhausted)
	}
	return out, nil
}

func (a *Allocator) demandFor(ip4 bool, wanted []string) *demand {
	key := familyOf(ip4) + " " + strings.Join(wanted, " ")
	d := a.demands[key]
	if d == nil {
		d = &demand{ip4: ip4, wanted: slices.Clone(wanted)}
		a.demands[key] = d
	}
	return d
}

// poolsFor returns the pools that a demand is served from now; none if one of
// those asked for can't be used any more.
func (a *Allocator) poolsFor(d *demand) []pool {
	pools, err := choose(a.pools, d.ip4, d.wanted)
	if err != nil {
		return nil
	}
	return pools
}

// pick takes an address for each demand from the reserve, or none at all and
// returns nil.
func (a *Allocator) pick(r Request, demands []*demand) *entry {
	e := &entry{busy: make(chan struct{}), Assignment: Assignment{
		Handle: r.Handle, Namespace: r.Namespace, Pod: r.Pod, HostLink: r.HostLink,
		Netns: r.Netns, Network: r.Network, Labels: maps.Clone(r.Labels),
		ServiceAccount: r.ServiceAccount, Ports: slices.Clone(r.Ports),
	}}
	now := time.Now()
	var picked []*slot
	for _, d := range demands {
		s := a.first(d, now)
		if s == nil {
			return nil
		}
		picked = append(picked, s)
	}
	for _, s := range picked {
		a.unpark(s)
		s.user = e
		e.add(s.addr)
	}
	a.entries[e.Handle] = e
	return e
}

// add gives an entry addresses.
func (e *entry) add(addrs ...netip.Addr) {
	for _, ip := range addrs {
		if ip.Is4() {
			e.IPv4 = ip
		} else {
			e.IPv6 = ip
		}
	}
}

// first returns the address that is next for a demand; nil: there is none.
func (a *Allocator) first(d *demand, now time.Time) *slot {
	for _, p := range a.poolsFor(d) {
		for _, s := range a.idle {
			if s.block.spec.Pool == p.name && a.usable(s.block) && rested(s.since, now, a.coolDown) {
				return s
			}
		}
	}
	return nil
}

// gaveUp says why there was no address in time.
func (a *Allocator) gaveUp(demands []*demand) error {
	if a.ended.err != nil {
		return fmt.Errorf("%w: the reserve is used up, and: %w", ErrUnavailable, a.ended.err)
	}
	for _, d := range demands {
		if d.fullAt > 0 && a.first(d, time.Now()) == nil {
			return a.fullError(d)
		}
	}
	return fmt.Errorf("%w: the reserve is used up and the datastore did not answer in time", ErrUnavailable)
}

// exhausted returns ErrExhausted if a round that began after since found a
// demand's pools full, and no address will have rested before ctx ends.
func (a *Allocator) exhausted(ctx context.Context, demands []*demand, since int) error {
	deadline, _ := ctx.Deadline()
	for _, d := range demands {
		if d.fullAt <= since || a.first(d, time.Now()) != nil {
			continue
		}
		if due := a.firstRested(d, time.Now()); due.IsZero() || due.After(deadline) {
			return a.fullError(d)
		}
	}
	return nil
}

func (a *Allocator) fullError(d *demand) error {
	return fmt.Errorf("%w: full for this node: %s pools %s", ErrExhausted, familyOf(d.ip4), names(a.poolsFor(d)))
}

// firstRested returns when the next resting address may be used for a demand;
// zero if none rests.
func (a *Allocator) firstRested(d *demand, now time.Time) time.Time {
	var first time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, b := range a.served(d) {
		earlier(firstRested(&b.spec, now, a.coolDown))
		for _, s := range b.slots {
			if s.user == nil && !s.giving && !rested(s.since, now, a.coolDown) {
				earlier(s.since.Add(a.coolDown))
			}
		}
	}
	return first
}
