package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Packet is what the headers of an IP packet say.
type Packet struct {
	Src, Dst netip.Addr
	// Protocol is above IP, behind extension headers (iana.org/assignments/protocol-numbers).
	Protocol uint8
	// SrcPort and DstPort are of TCP, UDP, UDP-Lite, SCTP and DCCP.
	SrcPort, DstPort uint16
	ICMPType         uint8 // of ICMP and ICMPv6
	ICMPCode         uint8
	ICMPID           uint16 // of echo requests and replies
	TCPFlags         uint8  // RFC 9293, section 3.1: 1 FIN, 2 SYN, 4 RST, 8 PSH, 16 ACK, 32 URG
	Length           int    // bytes, IP's header included, as that says
	Fragment         bool   // one of several; only the first has ports, type and flags
}

// Extension headers of IPv6 that may stand before a protocol (RFC 8200, section 4;
// RFC 4302).
const (
	extHopByHop       = 0
	extRouting        = 43
	extFragment       = 44
	extAuthentication = 51
	extDestination    = 60
)

// Lengths of headers in bytes.
const (
	header4Len     = 20 // at least
	header6Len     = 40
	extFragmentLen = 8
	tcpFlagsAt     = 13
)

// errCut says that a packet's bytes end within its headers.
var errCut = errors.New("packet ends within its headers")

// ParsePacket decodes the headers of a packet of IPv4 (RFC 791) or IPv6 (RFC 8200),
// of which b holds the beginning. With an error the packet has what was read before it:
// addresses are valid when IP's own header was whole.
func ParsePacket(b []byte) (Packet, error) {
	if len(b) == 0 {
		return Packet{}, errCut
	}
	switch version := b[0] >> 4; version {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	default:
		return Packet{}, fmt.Errorf("packet of IP version %d", version)
	}
}

func parse4(b []byte) (Packet, error) {
	if len(b) < header4Len {
		return Packet{}, errCut
	}
	header := int(b[0]&0xf) * 4
	if header < header4Len {
		return Packet{}, fmt.Errorf("header of IPv4 with %d bytes", header)
	}
	const moreFragments, offset = 1 << 13, 1<<13 - 1
	fragment := binary.BigEndian.Uint16(b[6:])
	p := Packet{
		Src: netip.AddrFrom4([4]byte(b[12:16])), Dst: netip.AddrFrom4([4]byte(b[16:20])), Protocol: b[9],
		Length: int(binary.BigEndian.Uint16(b[2:])), Fragment: fragment&(moreFragments|offset) != 0,
	}
	switch {
	case fragment&offset != 0:
		return p, nil
	case len(b) < header:
		return p, errCut
	}
	return p, p.parseTransport(b[header:])
}

func parse6(b []byte) (Packet, error) {
	if len(b) < header6Len {
		return Packet{}, errCut
	}
	p := Packet{
		Src: netip.AddrFrom16([16]byte(b[8:24])), Dst: netip.AddrFrom16([16]byte(b[24:40])), Protocol: b[6],
		Length: header6Len + int(binary.BigEndian.Uint16(b[4:])),
	}
	for b = b[header6Len:]; ; {
		length := 0
		switch p.Protocol {
		case extFragment:
			length = extFragmentLen
		case extHopByHop, extRouting, extDestination, extAuthentication:
			if len(b) < 2 {
				return p, errCut
			}
			length = (int(b[1]) + 1) * 8
			if p.Protocol == extAuthentication {
				length = (int(b[1]) + 2) * 4
			}
		default:
			return p, p.parseTransport(b)
		}
		if len(b) < length {
			return p, errCut
		}
		if p.Protocol == extFragment {
			p.Fragment = true
			if offset := binary.BigEndian.Uint16(b[2:]) >> 3; offset != 0 {
				p.Protocol = b[0]
				return p, nil
			}
		}
		p.Protocol = b[0]
		b = b[length:]
	}
}

// parseTransport decodes what is above IP, as far as the protocol is known.
func (p *Packet) parseTransport(b []byte) error {
	switch p.Protocol {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP, ProtoDCCP:
		if len(b) < 4 {
			return errCut
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if p.Protocol != ProtoTCP {
			return nil
		}
		if len(b) <= tcpFlagsAt {
			return errCut
		}
		p.TCPFlags = b[tcpFlagsAt]
	case ProtoICMP, ProtoICMPv6:
		if len(b) < 2 {
			return errCut
		}
		p.ICMPType, p.ICMPCode = b[0], b[1]
		if !p.echo() {
			return nil
		}
		if len(b) < 6 {
			return errCut
		}
		p.ICMPID = binary.BigEndian.Uint16(b[4:])
	}
	return nil
}

// echo says whether it is an echo request or reply (RFC 792; RFC 4443, section 4).
func (p *Packet) echo() bool {
	const reply, request, request6, reply6 = 0, 8, 128, 129
	if p.Protocol == ProtoICMP {
		return p.ICMPType == reply || p.ICMPType == request
	}
	return p.ICMPType == request6 || p.ICMPType == reply6
}

// String returns addresses, ports where there are any, the protocol, and ICMP's type and
// code.
func (p Packet) String() string {
	src, dst := p.Src.String(), p.Dst.String()
	if p.SrcPort != 0 || p.DstPort != 0 {
		src, dst = netip.AddrPortFrom(p.Src, p.SrcPort).String(), netip.AddrPortFrom(p.Dst, p.DstPort).String()
	}
	text := fmt.Sprintf("%s > %s protocol %d", src, dst, p.Protocol)
	if p.Protocol == ProtoICMP || p.Protocol == ProtoICMPv6 {
		text += fmt.Sprintf(" type %d code %d", p.ICMPType, p.ICMPCode)
	}
	return text
}
