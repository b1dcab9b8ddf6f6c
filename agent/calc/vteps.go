package calc

import (
	"net/netip"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// vteps is the other nodes' ends of this node's VXLANs: what a gateway's hardware
// address is, and which node has it.
type vteps struct {
	on         [2]bool // VXLAN over IPv4, over IPv6
	neighbours immutable.Map[kernel.Neighbour, kernel.MAC]
	forwarding immutable.Map[kernel.Forwarding, netip.Addr]
}

// update takes in the devices and the nodes as they are now. The entries are
// there as long as the device: routes that are held may use them.
func (vs *vteps) update(ts *tunnels, ms *members, changes []memberChange) {
	on := [2]bool{ts.at(kernel.LinkVXLAN4).there(), ts.at(kernel.LinkVXLAN6).there()}
	if on == vs.on && len(changes) == 0 {
		return
	}
	neighbours, forwarding := vs.neighbours.Edit(), vs.forwarding.Edit()
	if on != vs.on {
		vs.on = on
		neighbours, forwarding = new(immutable.Editor[kernel.Neighbour, kernel.MAC]), new(immutable.Editor[kernel.Forwarding, netip.Addr])
		changes = nil
		for m := range ms.others() {
			changes = append(changes, memberChange{name: m.name, is: m})
		}
	}
	for _, c := range changes { // an address may go from one node to another
		vs.each(ms, c.was, func(n kernel.Neighbour, f kernel.Forwarding, _ netip.Addr) {
			neighbours.Delete(n)
			forwarding.Delete(f)
		})
	}
	for _, c := range changes {
		vs.each(ms, c.is, func(n kernel.Neighbour, f kernel.Forwarding, node netip.Addr) {
			neighbours.Set(n, f.MAC)
			forwarding.Set(f, node)
		})
	}
	vs.neighbours = immutable.Share(neighbours.Map(), vs.neighbours)
	vs.forwarding = immutable.Share(forwarding.Map(), vs.forwarding)
}

// each calls f for each VXLAN that reaches a node, which may be nil.
func (vs *vteps) each(ms *members, m *member, f func(kernel.Neighbour, kernel.Forwarding, netip.Addr)) {
	if m == nil || m.name == ms.node {
		return
	}
	if node := m.address(bgp.IPv4); vs.on[0] && node.IsValid() && m.vxlan4.addr.IsValid() {
		f(kernel.Neighbour{Link: kernel.LinkVXLAN4, IP: m.vxlan4.gateway()},
			kernel.Forwarding{Link: kernel.LinkVXLAN4, MAC: m.vxlan4.mac}, node.Addr())
	}
	if node := m.address(bgp.IPv6); vs.on[1] && node.IsValid() && m.vxlan6.addr.IsValid() {
		f(kernel.Neighbour{Link: kernel.LinkVXLAN6, IP: m.vxlan6.gateway()},
			kernel.Forwarding{Link: kernel.LinkVXLAN6, MAC: m.vxlan6.mac}, node.Addr())
	}
}

// gateway returns the next hop of routes to the node behind the device. For IPv6
// it is the link-local address that belongs to the hardware address (RFC 4291,
// appendix A). That one the kernel takes whatever other routes there are; it
// refuses the device's own address while another route leads elsewhere with it,
// as one does when a pool's mode changes.
func (e vtep) gateway() netip.Addr {
	if e.addr.Is4() {
		return e.addr
	}
	m := e.mac
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}
