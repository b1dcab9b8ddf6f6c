package ipam

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	v1 "cairn.network/cairn/api/v1"
)

// An orphan is an address in use that is not known to lie in a block: a live
// link carries it, or the journal says so, and the datastore does not know.

// hasOrphans says whether addresses are in use that are not known to lie in a
// block. Called with the lock held.
func (a *Allocator) hasOrphans() bool {
	for _, s := range a.slots {
		if s.user != nil && s.block == nil {
			return true
		}
	}
	return false
}

// findBlocks finds the blocks of addresses in use that are not known to lie in
// one, or claims them.
func (a *Allocator) findBlocks(ctx context.Context) error {
	a.mu.Lock()
	due := a.hasOrphans() && !a.orphans.After(time.Now())
	a.mu.Unlock()
	if !due {
		return nil
	}
	blocks, err := a.listBlocks(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	missing := a.attach(blocks)
	a.orphans = time.Now().Add(recheck)
	a.mu.Unlock()
	for cidr, p := range missing {
		if _, _, err := a.claimBlock(ctx, p, cidr, 0); err != nil {
			return fmt.Errorf("claim block %s of addresses in use: %w", cidr, err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if blocks, err = a.listBlocks(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	a.attach(blocks)
	a.mu.Unlock()
	return nil
}

// attach ties addresses in use to the blocks that they lie in, and returns the
// blocks to claim for the others. Called with the lock held.
func (a *Allocator) attach(blocks []*v1.IPAMBlock) map[netip.Prefix]pool {
	missing := map[netip.Prefix]pool{}
	sound := map[netip.Prefix]*v1.IPAMBlock{}
	for _, o := range blocks {
		if cidr, err := check(&o.Spec); err == nil {
			sound[cidr] = o
		}
	}
	there := newClaims(slices.Collect(maps.Keys(sound)))
	for ip, s := range a.slots {
		if s.user == nil || s.block != nil {
			continue
		}
		if cidr, ok := there.around(ip); ok {
			b := a.blocks[cidr]
			if b == nil {
				b = &block{cidr: cidr, spec: sound[cidr].Spec, slots: map[netip.Addr]*slot{}}
				a.blocks[cidr] = b
			}
			s.block, b.slots[ip] = b, s
			a.settled(ip.String())
			a.touch(s)
			continue
		}
		reason := "no block holds it, and none could be claimed yet"
		if j := slices.IndexFunc(a.pools, func(p pool) bool { return p.cidr.Contains(ip) }); j >= 0 {
			missing[a.pools[j].blockAt(ip)] = a.pools[j]
		} else {
			reason = "no pool has it, so the node can't hold it"
		}
		a.report(ip.String(), addressIssue(s, reason))
	}
	return missing
}
