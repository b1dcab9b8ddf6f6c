package ipam

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	v1 "cairn.network/cairn/api/v1"
)

// tally is what a demand has.
type tally struct {
	demand  *demand
	served  []*block
	reserve int
	ready   int // held, unused and rested
	resting int // held and unused, but not rested
	spread  int // free in the node's own blocks, and rested
	soon    int // the same, not rested
}

// target is how many ready addresses a demand should have.
func (t tally) target() int { return t.reserve + t.demand.waiting }

// limit is how many unused addresses a node holds at most for a demand, and how
// many it could have at once before it returns a block.
func (t tally) limit() int { return 2*t.reserve + t.demand.waiting }

// What follows is called with the lock held.

// served returns the blocks from which a demand may be served, in the order in
// which to use them.
func (a *Allocator) served(d *demand) []*block {
	pools := a.poolsFor(d)
	var out []*block
	for _, b := range a.blocks {
		if p, ok := a.poolOf(b); ok && a.usable(b) && slices.Contains(pools, p) {
			out = append(out, b)
		}
	}
	order := func(b *block) int {
		return slices.IndexFunc(pools, func(p pool) bool { return p.name == b.spec.Pool })
	}
	slices.SortFunc(out, func(x, y *block) int {
		return cmp.Or(cmp.Compare(order(x), order(y)), x.cidr.Compare(y.cidr))
	})
	return out
}

// tally counts what a demand has outside the given blocks.
func (a *Allocator) tally(d *demand, now time.Time, outside map[*block]bool) tally {
	t := tally{demand: d, served: a.served(d), reserve: a.reserve}
	for _, b := range t.served {
		if outside[b] {
			continue
		}
		for _, s := range b.slots {
			switch {
			case s.user != nil || s.giving || !s.held:
			case rested(s.since, now, a.coolDown):
				t.ready++
			default:
				t.resting++
			}
		}
		all := int(size(b.cidr)) - len(b.spec.Allocations)
		free := len(free(&b.spec, now, a.coolDown, all))
		t.spread += free
		t.soon += all - free
	}
	return t
}

// sortedDemands returns the demands, those for certain pools first: what they
// take counts for the others too.
func (a *Allocator) sortedDemands() []*demand {
	var out []*demand
	for _, key := range slices.Sorted(maps.Keys(a.demands)) {
		out = append(out, a.demands[key])
	}
	slices.SortStableFunc(out, func(x, y *demand) int {
		return cmp.Compare(bound(x), bound(y))
	})
	return out
}

func bound(d *demand) int {
	if len(d.wanted) == 0 {
		return math.MaxInt
	}
	return len(d.wanted)
}

func (a *Allocator) sortedBlocks() []*block {
	return slices.SortedFunc(maps.Values(a.blocks), func(x, y *block) int { return x.cidr.Compare(y.cidr) })
}

// plan returns what is to be done to which blocks.
func (a *Allocator) plan(now time.Time) map[netip.Prefix]change {
	todo := map[netip.Prefix]change{}
	spare := a.spare(now)
	var tallies []tally
	for _, d := range a.sortedDemands() {
		tallies = append(tallies, a.tally(d, now, spare))
	}
	for _, b := range a.blocks {
		if b.dirty || !b.look.After(now) {
			todo[b.cidr] = change{}
		}
	}
	for _, s := range a.surplus(now, spare, tallies) {
		c := todo[s.block.cidr]
		c.give = append(c.give, s.addr)
		todo[s.block.cidr] = c
	}
	for i, t := range tallies {
		need := t.target() - t.ready
		for _, b := range t.served {
			if spare[b] || need <= 0 {
				continue
			}
			c := todo[b.cidr]
			n := min(need, len(free(&b.spec, now, a.coolDown, c.take+need))-c.take)
			if n <= 0 {
				continue
			}
			c.take += n
			todo[b.cidr] = c
			need -= n
			for j := i + 1; j < len(tallies); j++ {
				if slices.Contains(tallies[j].served, b) {
					tallies[j].ready += n
				}
			}
		}
	}
	return todo
}

// surplus returns the unused slots that the node should not hold, freed last
// first: all of blocks that are of no use any more, and what goes beyond the
// limit of every demand it could serve, as long as they keep what they need.
func (a *Allocator) surplus(now time.Time, spare map[*block]bool, tallies []tally) []*slot {
	var out []*slot
	for _, s := range slices.Backward(a.idle) {
		if spare[s.block] || !a.usable(s.block) {
			out = append(out, s)
			continue
		}
		ready := rested(s.since, now, a.coolDown)
		var of []*tally
		beyond := true
		for i := range tallies {
			if t := &tallies[i]; slices.Contains(t.served, s.block) {
				of = append(of, t)
				beyond = beyond && t.ready+t.resting > t.limit() && (!ready || t.ready > t.target())
			}
		}
		if !beyond {
			continue
		}
		out = append(out, s)
		for _, t := range of {
			if ready {
				t.ready--
			} else {
				t.resting--
			}
		}
	}
	return out
}

// spare returns the node's blocks in which nothing is used and which it can do
// without: its other blocks have enough, and one stays for each pool. All
// blocks of pools that it may not use are spare once they are unused.
func (a *Allocator) spare(now time.Time) map[*block]bool {
	spare := map[*block]bool{}
	for _, b := range slices.Backward(a.sortedBlocks()) {
		if b.spec.Node != a.node || b.spec.State != v1.BlockConfirmed || a.inUse(b) {
			continue
		}
		spare[b] = true
		if a.usable(b) && !a.dispensable(b, spare, now) {
			delete(spare, b)
		}
	}
	return spare
}

// inUse says whether addresses of a block are used, here or elsewhere.
func (a *Allocator) inUse(b *block) bool {
	for _, al := range b.spec.Allocations {
		if al.Node != a.node {
			return true
		}
	}
	for _, s := range b.slots {
		if s.user != nil {
			return true
		}
	}
	return false
}

// dispensable says whether there is enough outside the spare blocks, of which b
// is one.
func (a *Allocator) dispensable(b *block, spare map[*block]bool, now time.Time) bool {
	last := true
	for _, other := range a.blocks {
		last = last && (spare[other] || !a.usable(other) || other.spec.Pool != b.spec.Pool)
	}
	if last {
		return false
	}
	for _, d := range a.demands {
		if t := a.tally(d, now, spare); slices.Contains(t.served, b) && t.ready+t.spread < t.limit() {
			return false
		}
	}
	return true
}
