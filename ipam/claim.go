package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// A claim has two phases: the node creates the block as pending, makes sure
// that the pool still wants it and that no other block overlaps it, and only
// then confirms it. Of two nodes that claim overlapping blocks, the one that
// created its block later sees the other's and withdraws. A block is returned
// the same way: releasing first, then deleted if it is still what was seen.
// Whatever a crash leaves half done is finished by finish.

// claimBlocks claims blocks until every demand has what it needs or its pools
// are full.
func (a *Allocator) claimBlocks(ctx context.Context) error {
	for {
		a.mu.Lock()
		p, need, ok := a.nextClaim(time.Now())
		a.mu.Unlock()
		if !ok {
			return nil
		}
		claimed, err := a.claim(ctx, p, need)
		if err != nil {
			return fmt.Errorf("claim block of pool %s: %w", p.name, err)
		}
		if !claimed {
			a.mu.Lock()
			a.full[p.name] = time.Now()
			a.mu.Unlock()
		}
	}
}

// nextClaim returns the pool to claim a block from next, and how many addresses
// are needed of it. Called with the lock held.
func (a *Allocator) nextClaim(now time.Time) (pool, int, bool) {
	for _, d := range a.sortedDemands() {
		t := a.tally(d, now, nil)
		need, last := t.target()-t.ready-t.spread, recheck
		if t.ready < t.target() && t.spread > 0 {
			a.kick() // requests came meanwhile; the own blocks have some for them
		}
		if d.waiting > 0 {
			last = fullFor
		} else {
			// Nobody is in a hurry: what rests will do.
			need -= t.resting + t.soon
		}
		if need <= 0 {
			d.fullAt = 0
			continue
		}
		for _, p := range a.poolsFor(d) {
			if at, full := a.full[p.name]; !full || now.Sub(at) >= last {
				return p, need, true
			}
		}
		d.fullAt = a.begun
	}
	return pool{}, 0, false
}

// claim claims the node's next block of a pool and holds up to need of its
// addresses; false: there is none to be had.
func (a *Allocator) claim(ctx context.Context, p pool, need int) (bool, error) {
	blocks, err := a.listBlocks(ctx)
	if err != nil {
		return false, err
	}
	there := claimsOf(blocks)
	if there.full(p) {
		return false, nil
	}
	for cidr := range p.blocks(a.node) {
		if _, overlaps := there.overlap(cidr); overlaps || there.exact[cidr] {
			continue
		}
		got, why, err := a.claimBlock(ctx, p, cidr, need)
		if err != nil || got {
			return got, err
		}
		if why == poolChanged {
			return false, nil
		}
		there.add(cidr)
	}
	return false, nil
}

// refusal says why a block could not be claimed.
type refusal string

const (
	poolChanged refusal = "its pool changed"
	taken       refusal = "another block is in its place"
)

// claimBlock claims one block.
func (a *Allocator) claimBlock(ctx context.Context, p pool, cidr netip.Prefix, need int) (bool, refusal, error) {
	o := &v1.IPAMBlock{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "IPAMBlock"},
		ObjectMeta: metav1.ObjectMeta{Name: v1.BlockName(cidr)},
		Spec:       v1.IPAMBlockSpec{CIDR: cidr.String(), Pool: p.name, Node: a.node, State: v1.BlockPending},
	}
	// Known before it exists: should the answer get lost, it is finished later.
	a.mu.Lock()
	earlier, unsure := a.claiming[cidr]
	a.claiming[cidr] = time.Now().Add(recheck)
	a.mu.Unlock()
	_, err := a.store.Create(ctx, o)
	if ambiguous(err) {
		return false, "", err
	}
	var got bool
	var why refusal
	if err == nil || errors.Is(err, datastore.ErrExists) {
		got, why, err = a.finish(ctx, cidr, need)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case ambiguous(err):
	case unsure: // an earlier attempt may still come to pass
		a.claiming[cidr] = earlier
	default:
		delete(a.claiming, cidr)
	}
	return got, why, err
}

// doubt says of a block that a write whose answer got lost may still come to
// pass, so it must be read again later. Called with the lock held.
func (a *Allocator) doubt(b *block) {
	if b != nil {
		b.unsure, b.look = true, time.Now().Add(recheck)
	}
}

// finishBlocks ends the claims and returns that were left half done.
func (a *Allocator) finishBlocks(ctx context.Context) error {
	now := time.Now()
	a.mu.Lock()
	todo := maps.Clone(a.claiming)
	for _, b := range a.blocks {
		if b.spec.Node == a.node && b.spec.State != v1.BlockConfirmed {
			todo[b.cidr] = a.claiming[b.cidr]
		}
	}
	a.mu.Unlock()
	for _, cidr := range slices.SortedFunc(maps.Keys(todo), netip.Prefix.Compare) {
		if _, _, err := a.finish(ctx, cidr, 0); err != nil {
			return fmt.Errorf("finish block %s: %w", cidr, err)
		}
		if !todo[cidr].After(now) { // whatever was under way has come or never will
			a.mu.Lock()
			delete(a.claiming, cidr)
			a.mu.Unlock()
		}
	}
	return nil
}

// finish confirms or deletes a block of the node that is not confirmed, and
// says whether it is confirmed now. It leaves other nodes' blocks alone.
func (a *Allocator) finish(ctx context.Context, cidr netip.Prefix, need int) (bool, refusal, error) {
	got, err := a.store.Get(ctx, blockKey(cidr))
	o, sound := got.(*v1.IPAMBlock)
	if sound {
		_, unsound := check(&o.Spec)
		sound = unsound == nil
	}
	switch {
	case errors.Is(err, datastore.ErrNotFound), errors.Is(err, datastore.ErrBroken), err == nil && !sound:
		a.mu.Lock()
		a.lose(cidr)
		a.mu.Unlock()
		return false, taken, nil
	case err != nil:
		return false, "", err
	}
	a.mu.Lock()
	a.absorb(o, nil)
	a.mu.Unlock()
	if o.Spec.Node != a.node {
		return false, taken, nil
	}
	keep := o.Spec.State == v1.BlockConfirmed
	why := refusal("")
	if o.Spec.State == v1.BlockPending {
		if keep, why, err = a.verify(ctx, o.Spec.Pool, cidr); err != nil {
			return false, "", err
		}
	}
	if keep || len(o.Spec.Allocations) > 0 {
		return true, "", a.settle(ctx, cidr, change{confirm: true, take: need})
	}
	err = a.store.Delete(ctx, blockKey(cidr), o.ResourceVersion)
	switch {
	case errors.Is(err, datastore.ErrConflict):
		a.kick() // somebody borrowed of it: look again
		return false, why, nil
	case err != nil && !errors.Is(err, datastore.ErrNotFound):
		return false, "", err
	}
	a.mu.Lock()
	a.lose(cidr)
	a.mu.Unlock()
	return false, why, nil
}

// verify says whether a pending block may be confirmed, as the datastore is now.
func (a *Allocator) verify(ctx context.Context, name string, cidr netip.Prefix) (bool, refusal, error) {
	a.mu.Lock()
	labels := a.labels
	needed := false
	for ip, s := range a.slots {
		needed = needed || s.block == nil && cidr.Contains(ip)
	}
	a.mu.Unlock()
	o, err := a.store.Get(ctx, datastore.Key{Kind: "IPPool", Name: name})
	if errors.Is(err, datastore.ErrNotFound) || errors.Is(err, datastore.ErrBroken) {
		return false, poolChanged, nil
	}
	if err != nil {
		return false, "", err
	}
	p, ok := o.(*v1.IPPool)
	if !ok {
		return false, "", fmt.Errorf("the store returned a %T for pool %s", o, name)
	}
	now, err := poolOf(p, labels)
	if err != nil || !now.holds(cidr) || now.block != cidr.Bits() {
		return false, poolChanged, nil
	}
	// What is used already stays, whatever became of its pool.
	if now.refuse != "" && !needed {
		return false, poolChanged, nil
	}
	blocks, err := a.listBlocks(ctx)
	if err != nil {
		return false, "", err
	}
	if _, overlaps := claimsOf(blocks).overlap(cidr); overlaps {
		return false, taken, nil
	}
	return true, "", nil
}

// releaseBlocks returns blocks that are empty and not needed.
func (a *Allocator) releaseBlocks(ctx context.Context) error {
	a.mu.Lock()
	var todo []netip.Prefix
	for b := range a.spare(time.Now()) {
		if a.empty(&b.spec) && !b.dirty {
			todo = append(todo, b.cidr)
		}
	}
	a.mu.Unlock()
	slices.SortFunc(todo, netip.Prefix.Compare)
	for _, cidr := range todo {
		if err := a.releaseBlock(ctx, cidr); err != nil {
			return fmt.Errorf("release block %s: %w", cidr, err)
		}
	}
	return nil
}

// empty says whether nobody holds an address of a block and none rests: that
// would be forgotten with the block.
func (a *Allocator) empty(s *v1.IPAMBlockSpec) bool {
	return len(s.Allocations) == 0 && firstRested(s, time.Now(), a.coolDown).IsZero()
}

func (a *Allocator) releaseBlock(ctx context.Context, cidr netip.Prefix) error {
	o, err := datastore.Update(ctx, a.store, blockKey(cidr), func(o *v1.IPAMBlock) error {
		if o.Spec.Node != a.node || o.Spec.State != v1.BlockConfirmed || !a.empty(&o.Spec) {
			return datastore.ErrAbort
		}
		o.Spec.State = v1.BlockReleasing
		return nil
	})
	a.mu.Lock()
	switch {
	case err == nil && o.Spec.State == v1.BlockReleasing:
		a.absorb(o, nil)
	case errors.Is(err, datastore.ErrNotFound):
		a.lose(cidr)
	case a.blocks[cidr] != nil:
		a.blocks[cidr].dirty = true // it isn't what it was taken for
		if ambiguous(err) {
			a.doubt(a.blocks[cidr])
		}
	}
	a.mu.Unlock()
	if errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	if err != nil || o.Spec.State != v1.BlockReleasing {
		return err
	}
	_, _, err = a.finish(ctx, cidr, 0)
	return err
}

// claimsOf returns the blocks there are, except those whose range is unreadable.
func claimsOf(blocks []*v1.IPAMBlock) claims {
	var out []netip.Prefix
	for _, o := range blocks {
		if p, err := netip.ParsePrefix(o.Spec.CIDR); err == nil {
			out = append(out, p.Masked())
		}
	}
	return newClaims(out)
}
