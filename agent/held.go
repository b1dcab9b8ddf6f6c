package agent

import (
	"net/netip"
	"slices"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/reconcile"
	"cairn.network/cairn/kernel"
)

// keeper says what stays in the kernel though it is not wanted, because there is
// nothing to replace it with yet. What it says depends on the routes as they are
// when it is asked. Without anything to keep its methods return nil.
type keeper struct {
	state  *calc.State
	routes *reconcile.Tracker[kernel.RouteKey, kernel.Route]
}

// route keeps the routes to held destinations, and while BGP has not told
// everything those of the sort that BGP gives.
func (k keeper) route() func(kernel.RouteKey, kernel.Route) bool {
	if k.idle() {
		return nil
	}
	return func(key kernel.RouteKey, r kernel.Route) bool {
		return k.state.Held.Has(key) || k.state.Tentative && learned(key, r)
	}
}

// learned says whether a route is of the sort that BGP gives: to elsewhere, not to
// a pod here. A path to another node may have become its tunnel.
func learned(_ kernel.RouteKey, r kernel.Route) bool {
	hops := r.Hops.List()
	return len(hops) > 0 && (hops[0].Gateway.IsValid() || hops[0].Link == kernel.LinkWireGuard)
}

// inUse says whether a route that stays has a next hop for which f says true.
func (k keeper) inUse(f func(kernel.NextHop) bool) bool {
	if k.state.Tentative { // nearly any may
		return true
	}
	for key := range k.state.Held.All() {
		if r, ok := k.routes.Get(key); ok && slices.ContainsFunc(r.Hops.List(), f) {
			return true
		}
	}
	return false
}

// idle says that no route stays that is not wanted.
func (k keeper) idle() bool { return k.state.Held.Len() == 0 && !k.state.Tentative }

// neighbour keeps the entries of gateways of such routes: the node at the other
// end may not tell any more how it is reached, but listens as long as we send.
func (k keeper) neighbour() func(kernel.Neighbour, kernel.MAC) bool {
	if k.idle() {
		return nil
	}
	return func(n kernel.Neighbour, _ kernel.MAC) bool {
		return k.inUse(func(h kernel.NextHop) bool { return h.Link == n.Link && h.Gateway == n.IP })
	}
}

// forwarding keeps the entries of a device with such routes: which of them they
// need only its neighbours tell.
func (k keeper) forwarding() func(kernel.Forwarding, netip.Addr) bool {
	if k.idle() {
		return nil
	}
	return func(f kernel.Forwarding, _ netip.Addr) bool {
		return k.inUse(func(h kernel.NextHop) bool { return h.Link == f.Link })
	}
}

// wireguard keeps the peers behind which the destinations of such routes are.
func (k keeper) wireguard() func(kernel.WireGuardKey, kernel.WireGuardPeer) bool {
	if k.idle() {
		return nil
	}
	return func(_ kernel.WireGuardKey, p kernel.WireGuardPeer) bool {
		return slices.ContainsFunc(p.Allowed.List(), func(dst netip.Prefix) bool {
			key := kernel.RouteKey{Table: kernel.MainTable, Dst: dst, Priority: kernel.RoutePriority}
			r, ok := k.routes.Get(key)
			return ok && r.Hops.Uses(kernel.LinkWireGuard) && (k.state.Tentative || k.state.Held.Has(key))
		})
	}
}
