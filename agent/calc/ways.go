package calc

import (
	"fmt"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// way is how packets travel to another node, or to a next hop.
type way struct {
	list   []kernel.NextHop
	hops   kernel.NextHops // the same
	source netip.Addr      // of this host's own packets; invalid: the kernel chooses
	// by is what a route must not hide, or it would hide the way itself; see reach.
	by []netip.Prefix

	why string // if there is no way: the reason
	// waits says that there will be one: what is routed now stays until then.
	waits bool
}

func (r reach) way() way {
	return way{list: r.hops, hops: kernel.Hops(r.hops...), by: r.by, why: r.why}
}

// cutOff says whether a route to dst by this way would hide the way itself.
func (w way) cutOff(dst netip.Prefix) bool { return reach{by: w.by}.cutOff(dst) }

type wayKey struct {
	node   string
	family bgp.Family
	link   string
}

// to returns the way to another node, for packets of a family, through a tunnel
// or, without a link, as they are.
func (v *view) to(m *member, f bgp.Family, link string) way {
	k := wayKey{m.name, f, link}
	w, ok := v.ways[k]
	if ok {
		return w
	}
	if link == "" {
		w = v.plain(m, f)
	} else {
		w = v.tunnelled(m, f, link)
	}
	if len(v.claims.of[m.name]) > 1 { // or nobody asks again
		v.ways[k] = w
	}
	return w
}

// plain returns the way to a neighbour in the own subnet.
func (v *view) plain(m *member, f bgp.Family) way {
	own := v.own.address(f)
	if why := v.unaddressed(m, f); why != "" {
		return way{why: why}
	}
	if !own.Contains(m.address(f).Addr()) {
		return way{why: fmt.Sprintf("node %s is in another subnet", m.name)}
	}
	return v.fabric.direct(own.Addr(), m.address(f).Addr()).way()
}

// unaddressed says why there is nothing between this node and another by a
// family; "" if there may be.
func (v *view) unaddressed(m *member, f bgp.Family) string {
	switch {
	case !m.address(f).IsValid():
		return fmt.Sprintf("node %s has no %s address", m.name, f)
	case !v.own.address(f).IsValid():
		return fmt.Sprintf("this node has no %s address", f)
	}
	return ""
}

// tunnelled returns the way to another node through a tunnel.
func (v *view) tunnelled(m *member, f bgp.Family, link string) way {
	t := v.tunnels.at(link)
	if t.lacking {
		return way{why: lack(link)}
	}
	end, _ := v.endpoint(m)
	if link != kernel.LinkWireGuard {
		if why := v.unaddressed(m, f); why != "" {
			return way{why: why}
		}
		end = m.address(f).Addr()
	}
	if t.needs(f) && !t.address(f).IsValid() {
		return way{waits: true, why: fmt.Sprintf("waits for this node's own %s address", tunnelName(link))}
	}
	if !m.publishes(link) {
		return way{waits: true, why: fmt.Sprintf("waits for node %s to publish its %s address", m.name, tunnelName(link))}
	}
	if link == kernel.LinkWireGuard && !v.met.Has(m.wireGuard.key) {
		// Until the other side knows our key too it drops what we send.
		return way{waits: true, why: fmt.Sprintf("waits for the first WireGuard handshake with node %s", m.name)}
	}
	hop := kernel.NextHop{Link: link, Weight: 1}
	switch link {
	case kernel.LinkIPIP:
		hop.Gateway, hop.OnLink = m.v4.Addr(), true
	case kernel.LinkVXLAN4:
		hop.Gateway, hop.OnLink = m.vxlan4.gateway(), true
	case kernel.LinkVXLAN6:
		hop.Gateway = m.vxlan6.gateway()
	}
	return way{
		list: []kernel.NextHop{hop}, hops: kernel.Hops(hop), source: t.address(f), by: v.fabric.outer(end),
	}
}

// endpoint returns the address by which another node's WireGuard device is
// reached, and whether it has one.
func (v *view) endpoint(m *member) (netip.Addr, bool) {
	for _, f := range []bgp.Family{bgp.IPv4, bgp.IPv6} {
		if v.unaddressed(m, f) == "" {
			return m.address(f).Addr(), true
		}
	}
	return netip.Addr{}, false
}

// encrypts says whether what is sent to another node's pods goes through
// WireGuard: both have told their keys.
func (v *view) encrypts(m *member) bool {
	t := v.tunnels.at(kernel.LinkWireGuard)
	_, reachable := v.endpoint(m)
	return t.sending && !t.lacking && v.own.wireGuard.exists() && m.wireGuard.exists() && reachable
}

// transport returns the link of the tunnel in which a pool's packets travel to
// another node; "" if they travel as they are.
func (v *view) transport(m *member, p *pool) string {
	if p == nil || p.mode == v1.EncapNever {
		return ""
	}
	if p.mode == v1.EncapCrossSubnet {
		f := bgp.FamilyOf(p.cidr.Addr())
		if own := v.own.address(f); own.IsValid() && own.Contains(m.address(f).Addr()) {
			return ""
		}
	}
	return p.link
}

// toNode returns the way to a range that a node has, as far as the datastore and
// the host know it.
func (v *view) toNode(dst netip.Prefix, node string) way {
	m := v.members.named(node)
	if m == nil {
		return way{why: fmt.Sprintf("node %s has no address", node)}
	}
	link := v.transport(m, v.pools.of(dst))
	if v.encrypts(m) {
		link = kernel.LinkWireGuard
	}
	return v.through(dst, m, link)
}

// through returns the way to a range behind another node, see to.
func (v *view) through(dst netip.Prefix, m *member, link string) way {
	w := v.to(m, bgp.FamilyOf(dst.Addr()), link)
	if w.why == "" && w.cutOff(dst) {
		return way{why: fmt.Sprintf("it holds the address of node %s itself", m.name)}
	}
	return w
}

// mtu returns the MTU of a route to pods elsewhere: 0 unless one of its links
// carries more than pods do.
func (v *view) mtu(hops []kernel.NextHop) uint32 {
	if slices.ContainsFunc(hops, func(h kernel.NextHop) bool { return v.carries(h.Link) > v.tunnels.mtu }) {
		return uint32(v.tunnels.mtu)
	}
	return 0
}

// carries returns a link's MTU.
func (v *view) carries(link string) int {
	if l, ok := v.fabric.links[link]; ok {
		return l.mtu
	}
	if slices.Contains(kernel.TunnelLinks(), link) {
		return v.tunnels.at(link).device.MTU
	}
	return 0
}
