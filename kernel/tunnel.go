package kernel

import (
	"fmt"
	"net/netip"
)

// Names of the tunnel devices.
const (
	LinkIPIP      = "tunl0"       // IPIP to any node; the name that the kernel gives to its first
	LinkVXLAN4    = "vxlan.cairn" // VXLAN over IPv4
	LinkVXLAN6    = "vxlan6.cairn"
	LinkWireGuard = "wireguard.cairn"
)

// TunnelLinks returns the names of all tunnel devices.
func TunnelLinks() []string { return []string{LinkIPIP, LinkVXLAN4, LinkVXLAN6, LinkWireGuard} }

// TunnelAlias is the alias of a tunnel device that is Cairn's (IFLA_IFALIAS). The
// kernel makes a tunl0 in every namespace; only with this mark it is ours.
const TunnelAlias = "cairn.network/tunnel"

// TunnelKind is the kind of a tunnel device, as the kernel names it
// (IFLA_INFO_KIND).
type TunnelKind string

// Kinds of tunnel devices.
const (
	IPIP      TunnelKind = "ipip"      // RFC 2003, IPv4 in IPv4
	VXLAN     TunnelKind = "vxlan"     // RFC 7348
	WireGuard TunnelKind = "wireguard" // wireguard.com/protocol
)

// Tunnel is a tunnel device: up, for any number of remote nodes, learning
// nothing from packets. Where the kernel can't change a parameter of a device in
// place it is made anew, and what hung on it is gone.
type Tunnel struct {
	Kind TunnelKind
	MTU  int // bytes, of the packets inside

	// What follows is VXLAN's, except that WireGuard has Port.

	VNI   uint32     // network identifier
	Port  uint16     // UDP: VXLAN's destination, or the one WireGuard listens on
	Local netip.Addr // the source of the packets outside
	MAC   MAC
	// NoChecksumOffload has the kernel compute the checksums of packets inside,
	// because the network card gets them wrong (ethtool tx-checksum-ip-generic off).
	NoChecksumOffload bool
}

func (t Tunnel) String() string {
	s := fmt.Sprintf("%s mtu %d", t.Kind, t.MTU)
	switch t.Kind {
	case VXLAN:
		s += fmt.Sprintf(" vni %d port %d local %s mac %s", t.VNI, t.Port, t.Local, t.MAC)
		if t.NoChecksumOffload {
			s += " checksum offload off"
		}
	case WireGuard:
		s += fmt.Sprintf(" port %d", t.Port)
	}
	return s
}

// MAC is a hardware address of Ethernet.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Neighbour is the key of a permanent neighbour entry on a tunnel device
// (ip-neighbour(8)). Its value is the MAC address.
type Neighbour struct {
	Link string
	IP   netip.Addr
}

func (n Neighbour) String() string { return fmt.Sprintf("%s dev %s", n.IP, n.Link) }

// Forwarding is the key of an entry of a VXLAN device's forwarding database
// (bridge(8), fdb). Its value is the address of the node that has the MAC address.
type Forwarding struct {
	Link string
	MAC  MAC
}

func (f Forwarding) String() string { return fmt.Sprintf("%s dev %s", f.MAC, f.Link) }
