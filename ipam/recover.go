package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// Recover makes the journal, the datastore's blocks and the assignments found on
// the node's live links agree. It is called once, when the datastore is in sync,
// before the first Assign; an error means that it may be called again. Each live
// assignment has a handle of its own.
//
// What a live link carries is in use, whatever the journal says. What the
// journal says is in use stays so without a link, until it is released. What the
// datastore says is in use, and neither of them, is free again after a rest.
// Addresses in use that the node does not hold are taken hold of by Run if
// nobody holds them, and are an issue if another node does.
func (a *Allocator) Recover(ctx context.Context, live []Assignment) error {
	blocks, err := a.listBlocks(ctx)
	if err != nil {
		return fmt.Errorf("recover addresses: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.awaitReleases(ctx); err != nil {
		return fmt.Errorf("recover addresses: %w", err)
	}
	if a.recovered {
		return errors.New("recover addresses: done already")
	}
	// The lock stays held: nobody else may decide on an address meanwhile.
	next, records := a.adopt(live)
	rests, freed := a.rests(blocks, next)
	if err := a.journal.commit(append(records, freed...)...); err != nil {
		return fmt.Errorf("recover addresses: %w", err)
	}
	for _, r := range records {
		if r.Free != nil {
			delete(a.entries, Handle{ContainerID: r.Free.ContainerID, Interface: r.Free.Interface})
		} else {
			a.entries[r.Use.assignment().Handle] = &entry{Assignment: r.Use.assignment(), committed: true}
		}
	}
	for _, e := range a.entries {
		for _, ip := range e.Addrs() {
			a.slots[ip] = &slot{addr: ip, user: e}
		}
	}
	for _, o := range blocks {
		if concerns(o, a.node) {
			b := a.absorb(o, rests)
			b.dirty = true // owners may differ
		} else if _, err := check(&o.Spec); err != nil && o.Spec.Node == a.node {
			about := datastore.KeyOf(o).String()
			a.report(about, v1.Issue{Object: about, Reason: fmt.Sprintf("%v: %v; its addresses can't be used", errUnsound, err)})
		}
	}
	a.recovered = true
	a.changedAssignments()
	a.tell()
	a.kick()
	return nil
}

// awaitReleases waits until no release is under way. Called with the lock held.
func (a *Allocator) awaitReleases(ctx context.Context) error {
	for {
		var busy chan struct{}
		for _, e := range a.entries {
			if e.busy != nil {
				busy = e.busy
			}
		}
		if busy == nil {
			return nil
		}
		if err := a.await(ctx, busy); err != nil {
			return err
		}
	}
}

// listBlocks returns all blocks that can be read.
func (a *Allocator) listBlocks(ctx context.Context) ([]*v1.IPAMBlock, error) {
	objects, err := a.store.List(ctx, "IPAMBlock")
	if err != nil && !errors.Is(err, datastore.ErrBroken) {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	var out []*v1.IPAMBlock
	for _, o := range objects {
		b, ok := o.(*v1.IPAMBlock)
		if !ok {
			return nil, fmt.Errorf("list blocks: the store returned a %T", o)
		}
		out = append(out, b)
	}
	return out, nil
}

// concerns says whether a sound block is the node's, or has addresses that the
// node holds.
func concerns(o *v1.IPAMBlock, node string) bool {
	if _, err := check(&o.Spec); err != nil {
		return false
	}
	return o.Spec.Node == node ||
		slices.ContainsFunc(o.Spec.Allocations, func(al v1.Allocation) bool { return al.Node == node })
}

// adopt returns who uses which address once the live assignments count, and the
// records that lead there from the journal. Called with the lock held.
func (a *Allocator) adopt(live []Assignment) (*ledger, []record) {
	next := newLedger()
	for _, e := range a.entries {
		next.apply(use(e.Assignment))
	}
	var records []record
	add := func(r record) {
		records = append(records, r)
		next.apply(r)
	}
	now := time.Now()
	seen := map[netip.Addr]Handle{} // on live links
	live = slices.Clone(live)
	slices.SortFunc(live, func(x, y Assignment) int { return cmp.Compare(x.String(), y.String()) })
	for _, as := range live {
		var mine []netip.Addr
		for _, ip := range as.Addrs() {
			if other, twice := seen[ip]; twice && other != as.Handle {
				about := "link " + as.HostLink
				a.report(about, v1.Issue{Object: about, Reason: fmt.Sprintf("carries %s, which %s uses too", ip, other)})
				continue
			}
			seen[ip] = as.Handle
			mine = append(mine, ip)
		}
		was, known := next.uses[as.Handle]
		is := was
		if !known {
			is = as
			is.IPv4, is.IPv6 = netip.Addr{}, netip.Addr{}
		}
		for _, ip := range mine {
			if ip.Is4() {
				is.IPv4 = ip
			} else {
				is.IPv6 = ip
			}
		}
		if len(mine) == 0 || known && is.IPv4 == was.IPv4 && is.IPv6 == was.IPv6 {
			continue
		}
		for _, ip := range mine {
			if other, used := next.users[ip]; used && other != as.Handle {
				add(without(next.uses[other], ip, now))
			}
		}
		add(use(is))
	}
	return next, records
}

// without returns the record by which an assignment loses an address.
func without(as Assignment, ip netip.Addr, now time.Time) record {
	rest := as
	if ip.Is4() {
		rest.IPv4 = netip.Addr{}
	} else {
		rest.IPv6 = netip.Addr{}
	}
	if len(rest.Addrs()) == 0 {
		return unuse(as, now)
	}
	return use(rest)
}

// rests returns since when which address that the node holds rests though
// nobody uses it, and the records that make the journal know it.
// Called with the lock held.
func (a *Allocator) rests(blocks []*v1.IPAMBlock, next *ledger) (map[netip.Addr]time.Time, []record) {
	rests := map[netip.Addr]time.Time{}
	now := time.Now()
	var freed []netip.Addr
	for _, o := range blocks {
		if !concerns(o, a.node) {
			continue
		}
		for _, al := range o.Spec.Allocations {
			ip := parsed(al.Address)
			if _, used := next.users[ip]; al.Node != a.node || used {
				continue
			}
			// A journal that got lost can't tell what was freed just now.
			rests[ip] = a.journal.state.resting[ip]
			if !rests[ip].IsZero() {
				continue
			}
			if al.Owner != nil || !a.journal.state.complete {
				rests[ip] = now
				freed = append(freed, ip)
			}
		}
	}
	var records []record
	if len(freed) > 0 {
		records = append(records, record{Free: &freeRecord{At: now, Addresses: freed}})
	}
	// Last: it must not be on disk without what makes it true.
	return rests, append(records, record{Complete: true})
}

// absorb makes the allocator know a sound block as the datastore has it. Slots
// that are new have rested since what rests says; those that it does not name
// begin to rest, for nobody knows what they were used for last. Called with the
// lock held.
func (a *Allocator) absorb(o *v1.IPAMBlock, rests map[netip.Addr]time.Time) *block {
	cidr, _ := netip.ParsePrefix(o.Spec.CIDR)
	b := a.blocks[cidr]
	if b == nil {
		b = &block{cidr: cidr, slots: map[netip.Addr]*slot{}}
		a.blocks[cidr] = b
	}
	b.spec = *o.Spec.DeepCopy()
	held := make(map[netip.Addr]bool, len(b.slots))
	for _, al := range b.spec.Allocations {
		if al.Node != a.node {
			continue
		}
		ip := parsed(al.Address)
		held[ip] = true
		s := a.slots[ip]
		if s == nil {
			since, known := rests[ip]
			if !known {
				since = time.Now()
			}
			s = &slot{addr: ip, since: since}
			a.slots[ip] = s
		}
		if s.block != nil && s.block != b {
			continue // of an overlapping block, which nobody should have made
		}
		s.block, b.slots[ip] = b, s
		if !s.held {
			s.held = true
			a.settled(ip.String())
			if s.user == nil {
				a.park(s)
			}
		}
	}
	for ip, s := range b.slots {
		if held[ip] {
			continue
		}
		s.held = false
		if s.user == nil {
			a.forget(s)
		}
	}
	if o.Spec.Node != a.node && len(b.slots) == 0 {
		delete(a.blocks, cidr)
	}
	return b
}
