package gobgp

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"cairn.network/cairn/bgp"
)

// rib follows GoBGP's best paths. GoBGP tells which paths joined and left the
// best ones of a prefix; snapshots share what did not change.
type rib struct {
	own uint32 // our AS

	mu       sync.Mutex
	routes   map[netip.Prefix][]bgp.LearnedPath
	complete bool
	snapshot *bgp.RIB // nil: to be made
}

func newRIB(own uint32) *rib {
	return &rib{own: own, routes: map[netip.Prefix][]bgp.LearnedPath{}}
}

// update takes in changes and says whether there were any.
func (r *rib) update(paths []*apiutil.Path) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := false
	for _, p := range paths {
		prefix, ok := prefixOf(p)
		if !ok || !p.PeerAddress.IsValid() { // an own path has no peer
			continue
		}
		old := r.routes[prefix]
		best := slices.DeleteFunc(slices.Clone(old), func(l bgp.LearnedPath) bool { return l.Peer == p.PeerAddress.Unmap() })
		if !p.Withdrawal {
			best = append(best, decode(p, r.own))
			slices.SortFunc(best, func(a, b bgp.LearnedPath) int { return a.Peer.Compare(b.Peer) })
		}
		if slices.Equal(old, best) {
			continue
		}
		changed, r.snapshot = true, nil
		if len(best) == 0 {
			delete(r.routes, prefix)
		} else {
			r.routes[prefix] = best
		}
	}
	return changed
}

// finish makes the table complete and says whether that is new.
func (r *rib) finish() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.complete {
		return false
	}
	r.complete, r.snapshot = true, nil
	return true
}

func (r *rib) finished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.complete
}

// take returns the table as it is now.
func (r *rib) take() *bgp.RIB {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.snapshot == nil {
		r.snapshot = &bgp.RIB{Routes: maps.Clone(r.routes), Complete: r.complete}
	}
	return r.snapshot
}

// hides says whether a learned path is better than an own one to prefix.
func (r *rib) hides(prefix netip.Prefix) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.routes[prefix]
	return ok
}
