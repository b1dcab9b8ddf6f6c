package calc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// learn routes a prefix that peers told and the datastore does not know as
// another node's.
func (r *routes) learn(dst netip.Prefix, paths []bgp.LearnedPath) {
	if block, ok := r.claims.inside(r.members.node, dst); ok {
		r.unused[dst] = fmt.Sprintf("peer %s tells a way into this node's own block %s", paths[0].Peer, block)
		return
	}
	hops, from, refusal := r.told(dst, paths, false)
	if from == "" {
		r.unused[dst] = refusal
		return
	}
	r.set(dst, kernel.Route{Hops: hops}, OriginBGP, from)
}

// told returns the way that peers tell to a prefix and the first of those peers,
// or else why no path of theirs will do. Known says that the datastore has the
// prefix as a node's.
func (r *routes) told(dst netip.Prefix, paths []bgp.LearnedPath, known bool) (hops kernel.NextHops, from, refusal string) {
	var list []kernel.NextHop
	var refusals []string
	used := 0
	for _, p := range paths {
		n, why := r.pathWay(dst, p, known)
		if why != "" {
			if !slices.Contains(refusals, why) {
				refusals = append(refusals, why)
			}
			continue
		}
		if used++; used == 1 {
			hops, from = n.hops, p.Peer.String()
		}
		list = append(list, n.reach.hops...)
	}
	if used > 1 {
		hops = ecmp(list)
	}
	return hops, from, strings.Join(refusals, "; ")
}

// ecmp joins the ways of equal paths. Where several share a next hop its share
// is the largest that one of them gives it.
func ecmp(list []kernel.NextHop) kernel.NextHops {
	share := map[kernel.NextHop]uint8{}
	for _, h := range list {
		weight := h.Weight
		h.Weight = 0
		share[h] = max(share[h], weight, 1)
	}
	joined := make([]kernel.NextHop, 0, len(share))
	for h, weight := range share {
		h.Weight = weight
		joined = append(joined, h)
	}
	return kernel.Hops(joined...)
}

// nextHop is a resolved next hop of a path.
type nextHop struct {
	reach reach
	hops  kernel.NextHops
}

// pathWay returns the way of one path, or why it is refused.
func (r *routes) pathWay(dst netip.Prefix, p bgp.LearnedPath, known bool) (nextHop, string) {
	if why := r.forbidden(dst, p.Peer, known); why != "" {
		return nextHop{}, why
	}
	a := p.NextHop.Unmap()
	if !a.IsValid() || a.Is4() != dst.Addr().Is4() {
		return nextHop{}, fmt.Sprintf("next hop %s of peer %s is no %s address", p.NextHop, p.Peer, bgp.FamilyOf(dst.Addr()))
	}
	n, ok := r.nextHops[a]
	if !ok {
		n.reach = r.fabric.resolve(a)
		n.hops = kernel.Hops(n.reach.hops...)
		r.nextHops[a] = n
	}
	switch {
	case n.reach.why != "":
		return nextHop{}, fmt.Sprintf("next hop %s of peer %s %s", a, p.Peer, n.reach.why)
	case n.reach.cutOff(dst):
		return nextHop{}, fmt.Sprintf("next hop %s of peer %s would be reached through the route itself", a, p.Peer)
	}
	return n, ""
}

// forbidden says why a route must not be taken from a peer; "" if it may. What
// the datastore knows as a node's may come from any peer.
func (r *routes) forbidden(dst netip.Prefix, peer netip.Addr, known bool) string {
	s, ok := r.sessions.peers[peer]
	accepts := r.sessions.accepts[peer]
	exactly := slices.Contains(accepts, dst)
	switch {
	case !ok:
		return fmt.Sprintf("peer %s is not configured", peer)
	case !s.IPv4 && dst.Addr().Is4() || !s.IPv6 && !dst.Addr().Is4():
		return fmt.Sprintf("peer %s is not to tell %s routes", peer, bgp.FamilyOf(dst.Addr()))
	case known || exactly:
		return ""
	case dst != dst.Masked() || dst.Addr().Is4In6():
		return fmt.Sprintf("peer %s tells a malformed prefix", peer)
	case dst.Bits() == 0:
		return fmt.Sprintf("peer %s tells a default route, and its acceptCIDRs do not list %s", peer, dst)
	case dst.Addr().IsLoopback() || dst.Addr().IsMulticast() || dst.Addr().IsLinkLocalUnicast():
		return fmt.Sprintf("peer %s tells a prefix that can't be routed", peer)
	}
	if own := r.members.own.address(bgp.FamilyOf(dst.Addr())); own.IsValid() && own.Overlaps(dst) &&
		(contains(own.Masked(), dst) || dst.Contains(own.Addr())) {
		return fmt.Sprintf("peer %s tells a route for this node's own subnet %s, and its acceptCIDRs do not list %s", peer, own.Masked(), dst)
	}
	if r.pools.of(dst) != nil || slices.ContainsFunc(accepts, func(a netip.Prefix) bool { return contains(a, dst) }) {
		return ""
	}
	return fmt.Sprintf("peer %s tells a route outside the pools and its acceptCIDRs", peer)
}
