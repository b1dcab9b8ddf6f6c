package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// Times of the writer.
const (
	// gap lies at least between the beginnings of two rounds: what comes in
	// meanwhile is written together.
	gap      = 5 * time.Millisecond
	minDelay = 50 * time.Millisecond // after a failed round, doubled for each further one
	maxDelay = 3 * time.Second
	// resync is how long a block goes unread: it may have been changed by hand.
	resync = 10 * time.Minute
	// recheck is when to look again for what only others can change: a late
	// write, the block of an address that has none, a pool that was full.
	recheck = 10 * time.Second
	// fullFor is how long a pool counts as full while requests wait.
	fullFor = time.Second
)

// Run writes to the datastore what was assigned and released, and keeps the
// reserve, until ctx is done. While the datastore is away it tries again.
func (a *Allocator) Run(ctx context.Context) error {
	delay := minDelay
	for {
		start := time.Now()
		next, err := a.round(ctx)
		work := (<-chan struct{})(a.work)
		if err != nil {
			// Not before the delay is over, however much work comes in.
			next, work = delay/2+rand.N(delay/2), nil
			delay = min(2*delay, maxDelay)
		} else {
			delay = minDelay
		}
		wait(ctx, next, work)
		wait(ctx, gap-time.Since(start), nil)
		if ctx.Err() != nil {
			return nil
		}
	}
}

// wait returns after that time, when work comes in, or when ctx is done.
func wait(ctx context.Context, d time.Duration, work <-chan struct{}) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-work:
	case <-timer.C:
	}
}

// round brings the datastore up to date once, and returns when to come back
// at the latest.
func (a *Allocator) round(ctx context.Context) (time.Duration, error) {
	a.mu.Lock()
	if !a.recovered {
		a.mu.Unlock()
		return resync, nil
	}
	a.begun++
	start := time.Now()
	a.mu.Unlock()

	var errs []error
	for _, step := range []func(context.Context) error{
		a.repairJournal, a.findBlocks, a.finishBlocks, a.settleBlocks, a.claimBlocks, a.releaseBlocks,
	} {
		err := step(ctx)
		errs = append(errs, err)
		if ctx.Err() != nil || ambiguous(err) {
			break // it would be the same with the other steps
		}
	}
	err := errors.Join(errs...)

	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = round{number: a.begun, clean: err == nil && a.agrees(), err: err}
	a.tell()
	return a.nextLook(start), err
}

// repairJournal makes the journal on disk what was accepted, should a write have
// failed.
func (a *Allocator) repairJournal(context.Context) error {
	err := a.journal.repair()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.report("disk", v1.Issue{Object: "journal", Reason: err.Error() + "; no address can be assigned or released"})
	} else {
		a.settled("disk")
	}
	return nil // the datastore is not concerned
}

// ambiguous says of a failed call that it may have happened or not: the store
// did not answer.
func ambiguous(err error) bool {
	if err == nil {
		return false
	}
	for _, known := range []error{
		datastore.ErrNotFound, datastore.ErrExists, datastore.ErrConflict, datastore.ErrDenied, datastore.ErrBroken, errUnsound,
	} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

// agrees says whether the datastore has what the journal has, as far as it can.
func (a *Allocator) agrees() bool {
	for _, b := range a.blocks {
		if b.dirty || b.spec.Node == a.node && b.spec.State != v1.BlockConfirmed {
			return false
		}
	}
	return a.orphans.After(time.Now()) || !a.hasOrphans()
}

// nextLook returns how long there is nothing to do if nothing happens, after a
// round that began at that time: what was due then has been done.
func (a *Allocator) nextLook(now time.Time) time.Duration {
	next := now.Add(resync)
	earlier := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	for _, b := range a.blocks {
		earlier(b.look)
		if n := len(b.spec.Released); n > 0 && len(b.spec.Allocations) == 0 {
			earlier(b.spec.Released[n-1].At.Add(a.coolDown)) // then it can be returned
		}
	}
	for _, t := range a.claiming {
		earlier(t)
	}
	if a.hasOrphans() {
		earlier(a.orphans)
	}
	for _, d := range a.demands {
		if t := a.tally(d, now, nil); t.ready < t.target() && len(a.poolsFor(d)) > 0 {
			earlier(a.firstRested(d, now))
			if d.waiting > 0 {
				earlier(now.Add(fullFor))
			} else {
				earlier(now.Add(recheck))
			}
		}
	}
	return max(time.Until(next), time.Millisecond)
}

// change is what is to be done to a block beyond recording who uses what.
type change struct {
	confirm bool         // make the claim a confirmed one
	take    int          // hold that many more addresses
	give    []netip.Addr // hold these no more, if still nobody uses them
}

// settleBlocks writes each block that differs from what is wanted, once.
func (a *Allocator) settleBlocks(ctx context.Context) error {
	a.mu.Lock()
	todo := a.plan(time.Now())
	a.mu.Unlock()
	var errs []error
	for _, cidr := range slices.SortedFunc(maps.Keys(todo), netip.Prefix.Compare) {
		err := a.settle(ctx, cidr, todo[cidr])
		errs = append(errs, err)
		if ambiguous(err) {
			break
		}
	}
	return errors.Join(errs...)
}

// errUnsound says that a block's content can't be trusted.
var errUnsound = errors.New("unsound block")

// settle makes a block in the datastore what is wanted.
func (a *Allocator) settle(ctx context.Context, cidr netip.Prefix, c change) error {
	var count int
	var wrote bool
	var rests map[netip.Addr]time.Time
	o, err := datastore.Update(ctx, a.store, blockKey(cidr), func(o *v1.IPAMBlock) error {
		if p, err := check(&o.Spec); err != nil {
			return fmt.Errorf("%w: %w", errUnsound, err)
		} else if p != cidr {
			return fmt.Errorf("%w: it is named for %s", errUnsound, cidr)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if b := a.blocks[cidr]; b != nil {
			count = b.changes
		}
		var changed bool
		changed, rests = a.amend(o, cidr, c)
		if wrote = changed; !changed {
			return datastore.ErrAbort
		}
		return nil
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.blocks[cidr]
	about := blockKey(cidr).String()
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		a.settled(about)
		a.lose(cidr)
		return nil
	case errors.Is(err, errUnsound), errors.Is(err, datastore.ErrBroken):
		a.report(about, v1.Issue{Object: about, Reason: err.Error() + "; its addresses can't be used"})
		if b != nil {
			b.dirty, b.look = false, time.Now().Add(recheck)
		}
		return nil
	case err != nil:
		if b != nil && wrote {
			b.dirty = true
			if ambiguous(err) {
				a.doubt(b)
			}
		}
		return fmt.Errorf("settle block %s: %w", cidr, err)
	}
	a.settled(about)
	b = a.absorb(o, rests)
	if b.changes == count {
		b.dirty = false
	}
	// A write whose answer got lost may still come to pass as long as the block's
	// revision is the old one: then look again.
	b.look = time.Now().Add(resync)
	if b.unsure && !wrote {
		b.look = time.Now().Add(recheck)
	}
	b.unsure = false
	if wrote && (c.take > 0 || len(c.give) > 0) {
		a.kick() // what is needed now may be something else
	}
	a.tell()
	return nil
}

// What follows is called with the lock held.

// amend changes a block to what is wanted; it says whether that changed
// anything, and since when the addresses taken have been free.
func (a *Allocator) amend(o *v1.IPAMBlock, cidr netip.Prefix, c change) (bool, map[netip.Addr]time.Time) {
	s, changed := &o.Spec, false
	if c.confirm && s.Node == a.node && s.State != v1.BlockConfirmed {
		s.State, changed = v1.BlockConfirmed, true
	}
	lingering := 0
	if b := a.blocks[cidr]; b != nil {
		lingering = len(b.slots)
		for _, ip := range slices.SortedFunc(maps.Keys(b.slots), netip.Addr.Compare) {
			changed = a.amendSlot(s, b.slots[ip], slices.Contains(c.give, ip)) || changed
		}
	}
	rests := map[netip.Addr]time.Time{}
	if c.take > 0 && s.Node == a.node && s.State == v1.BlockConfirmed {
		for _, f := range free(s, time.Now(), a.coolDown, c.take+lingering) {
			// A slot that is free here was given back by a write whose answer got
			// lost. It ends with this one; then the address may be taken anew.
			if len(rests) == c.take || a.slots[f.addr] != nil {
				continue
			}
			changed = hold(s, f.addr, a.node) == nil || changed
			rests[f.addr] = f.since
		}
	}
	// Nobody uses an address that the allocator does not know.
	for _, al := range s.Allocations {
		ip := parsed(al.Address)
		if al.Node == a.node && al.Owner != nil && a.slots[ip] == nil {
			changed = own(s, ip, a.node, nil) == nil || changed
		}
	}
	return changed, rests
}

// amendSlot changes what a block says of one slot, and says whether it did.
func (a *Allocator) amendSlot(s *v1.IPAMBlockSpec, sl *slot, give bool) bool {
	i, held := find(s, sl.addr)
	var by string
	var owner *v1.AllocationOwner
	if held {
		by, owner = s.Allocations[i].Node, s.Allocations[i].Owner
	}
	switch {
	case sl.user != nil:
		if !sl.user.committed {
			return false
		}
		if held && by != a.node {
			a.report(sl.addr.String(), addressIssue(sl, "the datastore says that "+by+" holds it"))
			return false
		}
		want := ownerOf(sl.user.Assignment)
		if held && sameOwner(owner, want) {
			return false
		}
		return hold(s, sl.addr, a.node) == nil && own(s, sl.addr, a.node, want) == nil
	case !held || by != a.node:
		return false
	case sl.giving || give:
		// From here on a write may be under way, so there is no way back.
		sl.giving = true
		a.unpark(sl)
		return release(s, sl.addr, a.node, sl.since) == nil
	case owner != nil:
		return own(s, sl.addr, a.node, nil) == nil
	}
	return false
}

// lose forgets a block that is no more. Addresses in use are looked for anew.
func (a *Allocator) lose(cidr netip.Prefix) {
	b := a.blocks[cidr]
	if b == nil {
		return
	}
	delete(a.blocks, cidr)
	for _, s := range b.slots {
		s.held, s.block = false, nil
		if s.user == nil {
			a.forget(s)
		} else {
			a.orphans = time.Time{}
		}
	}
}

func addressIssue(s *slot, reason string) v1.Issue {
	return v1.Issue{Object: "address " + s.addr.String(), Reason: "used by " + s.user.String() + " on this node; " + reason}
}

func blockKey(cidr netip.Prefix) datastore.Key {
	return datastore.Key{Kind: "IPAMBlock", Name: v1.BlockName(cidr)}
}
