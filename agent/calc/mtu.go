package calc

import (
	"cmp"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

const (
	// defaultMTU is Ethernet's, in bytes.
	defaultMTU = 1500
	// minMTU4 and minMTU6 are the least that the families work with (RFC 791,
	// section 3.2; RFC 8200, section 5).
	minMTU4 = 68
	minMTU6 = 1280
)

// What a tunnel adds to each packet, in bytes.
const (
	overheadIPIP       = 20 // IPv4
	overheadVXLAN4     = 50 // IPv4 20, UDP 8, VXLAN 8, Ethernet 14
	overheadVXLAN6     = 70 // IPv6 40
	overheadWireGuard4 = 60 // IPv4 20, UDP 8, WireGuard 32
	overheadWireGuard6 = 80
)

// mtu returns the MTU of the links with the node's addresses of these families:
// what each of them carries. For an address on a link like lo, where nothing
// leaves the host, those count by which the host reaches others.
func (f *fabric) mtu(m *member, families ...bgp.Family) int {
	least := 0
	for _, family := range families {
		if m == nil || !m.address(family).IsValid() {
			continue
		}
		link := f.linkOf(m.address(family).Addr())
		if link.inert {
			link.mtu = f.outward[family]
		}
		if link.mtu > 0 && (least == 0 || link.mtu < least) {
			least = link.mtu
		}
	}
	return cmp.Or(least, defaultMTU)
}

// lessened returns an MTU less what tunnels add, but no less than packets inside
// must have: what is too large then is fragmented outside.
func lessened(mtu, overhead int, with6 bool) int {
	least := minMTU4
	if with6 {
		least = minMTU6
	}
	return max(mtu-overhead, min(mtu, least))
}

// overhead returns what a tunnel of this node adds to each packet.
func overhead(link string, own *member, ms *members) int {
	switch link {
	case kernel.LinkIPIP:
		return overheadIPIP
	case kernel.LinkVXLAN4:
		return overheadVXLAN4
	case kernel.LinkVXLAN6:
		return overheadVXLAN6
	}
	if own != nil && own.address(bgp.IPv4).IsValid() && ms.without4 == 0 {
		return overheadWireGuard4
	}
	return overheadWireGuard6
}

// families returns the families of the packets that a tunnel carries, and over
// which it does: the same, except that WireGuard carries both over either.
func families(link string) []bgp.Family {
	switch link {
	case kernel.LinkIPIP, kernel.LinkVXLAN4:
		return []bgp.Family{bgp.IPv4}
	case kernel.LinkVXLAN6:
		return []bgp.Family{bgp.IPv6}
	}
	return []bgp.Family{bgp.IPv4, bgp.IPv6}
}
