package policy

import (
	"net/netip"
	"slices"
)

// countedNets are masked nets, each with how many bring it: sorted, each once. A
// change of any number of them costs one walk.
type countedNets []countedNet

type countedNet struct {
	net netip.Prefix
	n   int
}

func (a countedNet) compare(b countedNet) int { return a.net.Compare(b.net) }

// changed returns the nets with some more, and some less. They must be there.
func (ns countedNets) changed(add, remove []netip.Prefix) countedNets {
	changes := make(countedNets, 0, len(add)+len(remove))
	for _, p := range add {
		changes = append(changes, countedNet{p, 1})
	}
	for _, p := range remove {
		changes = append(changes, countedNet{p, -1})
	}
	slices.SortFunc(changes, countedNet.compare)
	merged := make(countedNets, 0, len(ns)+len(add))
	for len(ns) > 0 || len(changes) > 0 {
		var next countedNet
		if len(changes) == 0 || len(ns) > 0 && ns[0].compare(changes[0]) <= 0 {
			next, ns = ns[0], ns[1:]
		} else {
			next.net = changes[0].net
		}
		for len(changes) > 0 && changes[0].net == next.net {
			next.n += changes[0].n
			changes = changes[1:]
		}
		if next.n > 0 {
			merged = append(merged, next)
		}
	}
	return merged
}

// widest returns those that lie in no other, sorted. They cover the same as all do.
func (ns countedNets) widest() []netip.Prefix {
	var found []netip.Prefix
	var last netip.Prefix
	for _, n := range ns {
		// A net comes behind those that it lies in, and before what these don't hold.
		if !last.Overlaps(n.net) {
			last = n.net
			found = append(found, last)
		}
	}
	return found
}

// notIn returns what of a is not in b; both are sorted.
func notIn(b, a []netip.Prefix) []netip.Prefix {
	var found []netip.Prefix
	for _, p := range a {
		for len(b) > 0 && b[0].Compare(p) < 0 {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != p {
			found = append(found, p)
		}
	}
	return found
}
