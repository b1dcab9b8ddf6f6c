package wire

import (
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Ports says which UDP ports carry VXLAN and WireGuard.
type Ports map[uint16]Kind

// Packet is a packet on its way.
type Packet struct {
	Transport
	// Src and Dst are the addresses of the packet inside; invalid for WireGuard,
	// which hides them.
	Src, Dst netip.Addr
}

// wireGuardData begins a message with a packet inside; one of just this size has
// none (wireguard.com/protocol).
const (
	wireGuardData      = 4
	wireGuardKeepalive = 32
)

// Decode returns what an Ethernet frame carries; false if it is nothing between
// hosts: no IP, or a message of WireGuard's own.
func Decode(frame []byte, ports Ports) (Packet, bool) {
	outer := decode(frame, layers.LayerTypeEthernet)
	src, dst, ok := addresses(outer, 0)
	if !ok {
		return Packet{}, false
	}
	if a, b, ok := addresses(outer, 1); ok && isIPIP(outer) {
		return Packet{Transport{Kind: IPIP, From: src, To: dst}, a, b}, true
	}
	if udp, ok := outer.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
		port := uint16(udp.DstPort)
		switch ports[port] {
		case VXLAN:
			inner := decode(udp.Payload, layers.LayerTypeVXLAN)
			vxlan, isVXLAN := inner.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN)
			a, b, ok := addresses(inner, 0)
			if !isVXLAN || !ok {
				return Packet{}, false
			}
			return Packet{Transport{Kind: VXLAN, VNI: vxlan.VNI, Port: port, From: src, To: dst}, a, b}, true
		case WireGuard:
			if len(udp.Payload) <= wireGuardKeepalive || udp.Payload[0] != wireGuardData {
				return Packet{}, false
			}
			return Packet{Transport: Transport{Kind: WireGuard, Port: port, From: src, To: dst}}, true
		}
	}
	return Packet{Transport{Kind: Plain}, src, dst}, true
}

func decode(b []byte, first gopacket.Decoder) gopacket.Packet {
	return gopacket.NewPacket(b, first, gopacket.DecodeOptions{NoCopy: true})
}

// isIPIP says whether the packet's first IP header is one of IPv4 before another.
func isIPIP(p gopacket.Packet) bool {
	ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	return ok && ip.Protocol == layers.IPProtocolIPv4
}

// addresses returns those of the n-th IP header, counted from the outside.
func addresses(p gopacket.Packet, n int) (src, dst netip.Addr, ok bool) {
	for _, l := range p.Layers() {
		switch ip := l.(type) {
		case *layers.IPv4:
			src, _ = netip.AddrFromSlice(ip.SrcIP)
			dst, _ = netip.AddrFromSlice(ip.DstIP)
		case *layers.IPv6:
			src, _ = netip.AddrFromSlice(ip.SrcIP)
			dst, _ = netip.AddrFromSlice(ip.DstIP)
		default:
			continue
		}
		if n == 0 {
			return src.Unmap(), dst.Unmap(), src.IsValid() && dst.IsValid() // not of half a header
		}
		n--
	}
	return src, dst, false
}
