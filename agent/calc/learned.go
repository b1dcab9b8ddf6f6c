package calc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// learn decides about a prefix that peers told and the datastore does not know.
func (v *view) learn(dst netip.Prefix, paths []bgp.LearnedPath) verdict {
	if block, ok := v.claims.inside(dst); ok {
		return verdict{unused: fmt.Sprintf("peer %s tells a way into this node's own block %s", paths[0].Peer, block)}
	}
	w, from := v.told(dst, paths, "")
	if from == "" {
		return verdict{unused: w.why, held: w.waits}
	}
	d := v.routed(w, OriginBGP, from)
	if v.pools.of(dst) == nil { // no pods there
		d.route.MTU = 0
	}
	return d
}

// told returns the way that peers tell to a prefix and the first of those peers,
// or else why no path of theirs will do. Holder is the node that the datastore
// says has the prefix; "" if it does not know it.
func (v *view) told(dst netip.Prefix, paths []bgp.LearnedPath, holder string) (w way, from string) {
	var used []way
	var refusals []string
	for _, p := range paths {
		n := v.path(dst, p, holder)
		if n.why != "" {
			w.waits = w.waits || n.waits
			if !slices.Contains(refusals, n.why) {
				refusals = append(refusals, n.why)
			}
			continue
		}
		if used = append(used, n); len(used) == 1 {
			from = p.Peer.String()
		}
	}
	switch len(used) {
	case 0:
		w.why = strings.Join(refusals, "; ")
		return w, ""
	case 1:
		return used[0], from
	}
	joined := way{source: used[0].source}
	for _, n := range used {
		joined.list = append(joined.list, n.list...)
		if n.source != joined.source {
			joined.source = netip.Addr{}
		}
	}
	joined.hops = ecmp(joined.list)
	return joined, from
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

// path returns the way of one path, or why it is refused. What is to be encrypted
// goes no other way, whoever tells one. Where the next hop is a node the pool's
// mode decides how packets travel there: a pool that wants a tunnel gets no other
// way by what nodes tell each other.
func (v *view) path(dst netip.Prefix, p bgp.LearnedPath, holder string) way {
	if why := v.forbidden(dst, p.Peer, holder != ""); why != "" {
		return way{why: why}
	}
	a, f := p.NextHop.Unmap(), bgp.FamilyOf(dst.Addr())
	if !a.IsValid() || bgp.FamilyOf(a) != f {
		return way{why: fmt.Sprintf("next hop %s of peer %s is no %s address", p.NextHop, p.Peer, f)}
	}
	if m := v.members.named(holder); m != nil && v.encrypts(m) {
		return v.through(dst, m, kernel.LinkWireGuard)
	}
	if m := v.members.at(a); m != nil && m.name != v.own.name {
		pool := v.pools.of(dst)
		if holder == "" && pool != nil && v.encrypts(m) {
			return way{why: fmt.Sprintf("peer %s tells it before the datastore, and what is sent to pods of node %s is encrypted", p.Peer, m.name)}
		}
		if link := v.transport(m, pool); link != "" {
			return v.through(dst, m, link)
		}
	}
	w, ok := v.nextHops[a]
	if !ok {
		w = v.fabric.resolve(a).way()
		v.nextHops[a] = w
	}
	switch {
	case w.why != "":
		return way{why: fmt.Sprintf("next hop %s of peer %s %s", a, p.Peer, w.why)}
	case w.cutOff(dst):
		return way{why: fmt.Sprintf("next hop %s of peer %s would be reached through the route itself", a, p.Peer)}
	}
	return w
}

// forbidden says why a route must not be taken from a peer; "" if it may. What
// the datastore knows as a node's may come from any peer.
func (v *view) forbidden(dst netip.Prefix, peer netip.Addr, known bool) string {
	s, ok := v.sessions.peers.Get(peer)
	accepts := v.sessions.accepts[peer]
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
	if own := v.own.address(bgp.FamilyOf(dst.Addr())); own.IsValid() && own.Overlaps(dst) &&
		(contains(own.Masked(), dst) || dst.Contains(own.Addr())) {
		return fmt.Sprintf("peer %s tells a route for this node's own subnet %s, and its acceptCIDRs do not list %s", peer, own.Masked(), dst)
	}
	if v.pools.of(dst) != nil || slices.ContainsFunc(accepts, func(a netip.Prefix) bool { return contains(a, dst) }) {
		return ""
	}
	return fmt.Sprintf("peer %s tells a route outside the pools and its acceptCIDRs", peer)
}
