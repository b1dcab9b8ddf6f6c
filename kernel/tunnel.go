package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
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

// IsTunnelLink says whether a link is a tunnel device that is Cairn's.
func IsTunnelLink(l Link) bool { return l.Alias == TunnelAlias }

// ConcernsTunnels says whether a link is a tunnel device of Cairn's, or has the
// name of one.
func ConcernsTunnels(l Link) bool { return IsTunnelLink(l) || slices.Contains(TunnelLinks(), l.Name) }

// TunnelKind is the kind of a tunnel device, as the kernel names it
// (IFLA_INFO_KIND). A driver that reads a device which differs in something that
// Tunnel has no field for (it is down, it learns) adds that in words, as in
// "vxlan, down": this is no kind to set.
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

// Check returns an error that says why no link of this name can be such a device.
// It unwraps to the errno EINVAL.
func (t Tunnel) Check(link string) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
	}
	switch {
	case !slices.Contains(TunnelLinks(), link):
		return invalid("%q is no name of a tunnel device", link)
	case (t.Kind == IPIP) != (link == LinkIPIP) || (t.Kind == WireGuard) != (link == LinkWireGuard):
		return invalid("%s is not for kind %s", link, t.Kind)
	case t.MTU < minTunnelMTU || t.MTU > maxTunnelMTU:
		return invalid("MTU %d is not from %d to %d", t.MTU, minTunnelMTU, maxTunnelMTU)
	case t.Kind != VXLAN && t != Tunnel{Kind: t.Kind, MTU: t.MTU, Port: t.Port}, t.Kind == IPIP && t.Port != 0:
		return invalid("kind %s has no such parameters", t.Kind)
	case t.Kind == WireGuard && t.Port == 0:
		return invalid("no port")
	case t.Kind != VXLAN:
		return nil
	case t.VNI >= 1<<24:
		return invalid("network identifier %d has more than 24 bits", t.VNI)
	case t.Port == 0:
		return invalid("no port")
	case !t.Local.IsValid() || t.Local.Is4() != (link == LinkVXLAN4) || t.Local.Is4In6() || t.Local.IsUnspecified():
		return invalid("%v is no local address for %s", t.Local, link)
	case !t.MAC.unicast():
		return invalid("%v is no MAC address of one device", t.MAC)
	}
	return nil
}

// minTunnelMTU is the least that IPv4 works with (RFC 791), maxTunnelMTU the
// greatest length of its packets.
const (
	minTunnelMTU = 68
	maxTunnelMTU = 65535
)

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

// unicast says whether it is the address of one device (IEEE 802, the I/G bit).
func (m MAC) unicast() bool { return m[0]&1 == 0 && m != MAC{} }

// Neighbour is the key of a permanent neighbour entry on a tunnel device
// (ip-neighbour(8)). Its value is the MAC address.
type Neighbour struct {
	Link string
	IP   netip.Addr
}

func (n Neighbour) String() string { return fmt.Sprintf("%s dev %s", n.IP, n.Link) }

// Check returns an error that says why no kernel can have this entry. It unwraps
// to the errno EINVAL.
func (n Neighbour) Check(mac MAC) error {
	switch {
	case !n.IP.IsValid() || n.IP.Is4In6() || n.IP.Zone() != "" || n.IP.IsMulticast() || n.IP.IsUnspecified():
		return fmt.Errorf("%v is no address of a neighbour: %w", n.IP, syscall.EINVAL)
	case !mac.unicast():
		return fmt.Errorf("%v is no MAC address of one device: %w", mac, syscall.EINVAL)
	}
	return nil
}

// Forwarding is the key of an entry of a VXLAN device's forwarding database
// (bridge(8), fdb). Its value is the address of the node that has the MAC address.
type Forwarding struct {
	Link string
	MAC  MAC
}

func (f Forwarding) String() string { return fmt.Sprintf("%s dev %s", f.MAC, f.Link) }

// Check returns an error that says why no kernel can have this entry. It unwraps
// to the errno EINVAL.
func (f Forwarding) Check(node netip.Addr) error {
	switch {
	case !f.MAC.unicast():
		return fmt.Errorf("%v is no MAC address of one device: %w", f.MAC, syscall.EINVAL)
	case !node.IsValid() || node.Is4In6() || node.Zone() != "" || node.IsMulticast() || node.IsUnspecified():
		return fmt.Errorf("%v is no address of a node: %w", node, syscall.EINVAL)
	}
	return nil
}
