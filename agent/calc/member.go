package calc

import (
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// member is a node that others can reach.
type member struct {
	profile
	labels map[string]string
}

// profile is what counts of a node besides its labels.
type profile struct {
	name string
	// v4 and v6 are the node's addresses, each with the length of its subnet's
	// prefix, not masked; invalid: none.
	v4, v6 netip.Prefix
	as     uint32 // 0: the cluster's

	// What the node publishes of its tunnel devices.

	ipip           netip.Addr // invalid: nothing
	vxlan4, vxlan6 vtep
	wireGuard      wireGuardEnd
}

// vtep is a node's VXLAN device.
type vtep struct {
	addr netip.Addr // invalid: there is none
	mac  kernel.MAC
}

// wireGuardEnd is a node's WireGuard device.
type wireGuardEnd struct {
	key    kernel.WireGuardKey // zero: there is none
	port   uint16
	v4, v6 netip.Addr // invalid: none
}

func (w wireGuardEnd) exists() bool { return w.key != kernel.WireGuardKey{} }

// address returns the node's address of a family with its subnet's length;
// invalid if it has none.
func (p *profile) address(f bgp.Family) netip.Prefix {
	if f == bgp.IPv4 {
		return p.v4
	}
	return p.v6
}

// addresses returns the node's addresses with their subnets' lengths, IPv4 first.
func (p *profile) addresses() []netip.Prefix {
	return slices.DeleteFunc([]netip.Prefix{p.v4, p.v6}, func(a netip.Prefix) bool { return !a.IsValid() })
}

// publishes says whether the node has told the others of its end of a tunnel.
func (p *profile) publishes(link string) bool {
	switch link {
	case kernel.LinkIPIP:
		return p.ipip.IsValid()
	case kernel.LinkVXLAN4:
		return p.vxlan4.addr.IsValid()
	case kernel.LinkVXLAN6:
		return p.vxlan6.addr.IsValid()
	}
	return p.wireGuard.exists()
}

// tunnelAddresses returns the addresses of the node's tunnel devices, each with
// full length.
func (p *profile) tunnelAddresses() []netip.Prefix {
	var all []netip.Prefix
	for _, a := range []netip.Addr{p.ipip, p.vxlan4.addr, p.vxlan6.addr, p.wireGuard.v4, p.wireGuard.v6} {
		if a.IsValid() {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all
}

// sameMember says whether two members are the same to all who ask. Either may be
// nil.
func sameMember(a, b *member) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.profile == b.profile && maps.Equal(a.labels, b.labels)
}

// parseNode returns the member that a Node makes; nil if it is refused, or has no
// addresses.
func parseNode(o *v1.Node) (*member, []v1.Issue) {
	full, issues := check(o, "the node counts as one without addresses")
	if len(issues) > 0 || full.Spec.BGP == nil {
		return nil, issues
	}
	m := &member{profile: profile{name: o.Name, v4: full.Address(false), v6: full.Address(true)}, labels: o.Labels}
	if as := full.Spec.BGP.ASNumber; as != nil {
		m.as = *as
	}
	m.ipip = address(full.Spec.BGP.IPv4IPIPTunnelAddr)
	m.vxlan4 = parseVTEP(full.Spec.IPv4VXLANTunnelAddr, full.Spec.VXLANTunnelMACAddr)
	m.vxlan6 = parseVTEP(full.Spec.IPv6VXLANTunnelAddr, full.Spec.VXLANTunnelMACAddrV6)
	if w := full.Spec.WireGuard; w != nil {
		m.wireGuard = wireGuardEnd{
			port: uint16(w.ListeningPort), v4: address(w.InterfaceIPv4Address), v6: address(w.InterfaceIPv6Address),
		}
		m.wireGuard.key, _ = kernel.ParseWireGuardKey(w.PublicKey) // Validate has parsed it
	}
	return m, nil
}

// address returns an address that Validate has parsed; invalid: it was left out.
func address(text string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	return a
}

func parseVTEP(addr, mac string) vtep {
	hw, err := net.ParseMAC(mac)
	a := address(addr)
	if err != nil || !a.IsValid() || kernel.MAC(hw) == (kernel.MAC{}) {
		return vtep{}
	}
	return vtep{a, kernel.MAC(hw)}
}

// role is what a node has something for that no other can have.
type role uint8

// Roles. Node addresses come first: what the administrator gave goes before what
// agents chose.
const (
	roleNode4 role = iota
	roleNode6
	roleIPIP
	roleVXLAN4
	roleVXLAN6
	roleMAC4
	roleMAC6
	roleKey
	roleWireGuard4
	roleWireGuard6
)

// text returns the field that a role comes from, and what it is.
func (r role) text() (field, what string) {
	switch r {
	case roleIPIP:
		return "spec.bgp.ipv4IPIPTunnelAddr", "IPIP address"
	case roleVXLAN4:
		return "spec.ipv4VXLANTunnelAddr", "VXLAN address"
	case roleVXLAN6:
		return "spec.ipv6VXLANTunnelAddr", "VXLAN address"
	case roleMAC4:
		return "spec.vxlanTunnelMACAddr", "VXLAN hardware address"
	case roleMAC6:
		return "spec.vxlanTunnelMACAddrV6", "VXLAN hardware address"
	case roleKey:
		return "spec.wireguard.publicKey", "WireGuard key"
	case roleWireGuard4:
		return "spec.wireguard.interfaceIPv4Address", "WireGuard address"
	case roleWireGuard6:
		return "spec.wireguard.interfaceIPv6Address", "WireGuard address"
	}
	return "spec.bgp", "address"
}

// identity is something that only one node can have: an address, whatever it is
// for, a hardware address on one of the VXLANs, or a key.
type identity struct {
	of role // roleNode4 for every address
	id [32]byte
}

func addressIdentity(a netip.Addr) identity {
	var i identity
	b := a.As16()
	copy(i.id[:], b[:])
	return i
}

func macIdentity(of role, m kernel.MAC) identity {
	i := identity{of: of}
	copy(i.id[:], m[:])
	return i
}

func (i identity) String() string {
	switch i.of {
	case roleMAC4, roleMAC6:
		return kernel.MAC(i.id[:6]).String()
	case roleKey:
		return kernel.WireGuardKey(i.id).String()
	}
	return netip.AddrFrom16([16]byte(i.id[:16])).Unmap().String()
}

// identities returns what the node says is its own alone, and for what.
func (p *profile) identities() iter.Seq2[identity, role] {
	return func(yield func(identity, role) bool) {
		for _, a := range [...]struct {
			addr netip.Addr
			role role
		}{
			{p.v4.Addr(), roleNode4}, {p.v6.Addr(), roleNode6}, {p.ipip, roleIPIP}, {p.vxlan4.addr, roleVXLAN4},
			{p.vxlan6.addr, roleVXLAN6}, {p.wireGuard.v4, roleWireGuard4}, {p.wireGuard.v6, roleWireGuard6},
		} {
			if a.addr.IsValid() && !yield(addressIdentity(a.addr), a.role) {
				return
			}
		}
		if p.vxlan4.addr.IsValid() && !yield(macIdentity(roleMAC4, p.vxlan4.mac), roleMAC4) {
			return
		}
		if p.vxlan6.addr.IsValid() && !yield(macIdentity(roleMAC6, p.vxlan6.mac), roleMAC6) {
			return
		}
		if p.wireGuard.exists() {
			yield(identity{of: roleKey, id: p.wireGuard.key}, roleKey)
		}
	}
}

// lose takes from the node what another has already.
func (p *profile) lose(r role) {
	switch r {
	case roleNode4:
		p.v4 = netip.Prefix{}
	case roleNode6:
		p.v6 = netip.Prefix{}
	case roleIPIP:
		p.ipip = netip.Addr{}
	case roleVXLAN4, roleMAC4:
		p.vxlan4 = vtep{}
	case roleVXLAN6, roleMAC6:
		p.vxlan6 = vtep{}
	case roleKey:
		p.wireGuard = wireGuardEnd{}
	case roleWireGuard4:
		p.wireGuard.v4 = netip.Addr{}
	case roleWireGuard6:
		p.wireGuard.v6 = netip.Addr{}
	}
}
