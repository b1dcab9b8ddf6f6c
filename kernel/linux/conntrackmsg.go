//go:build linux

package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// Attributes of entries, of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaID         = 12
	ctaZone       = 18

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Source      = 1
	ctaIPv4Destination = 2
	ctaIPv6Source      = 3
	ctaIPv6Destination = 4

	ctaProtoNumber     = 1
	ctaProtoSourcePort = 2
	ctaProtoDestPort   = 3
	ctaProtoICMPID     = 4
	ctaProtoICMPType   = 5
	ctaProtoICMPCode   = 6
	ctaProtoICMPv6ID   = 7
	ctaProtoICMPv6Type = 8
	ctaProtoICMPv6Code = 9
)

// Bits of a connection's status, of linux/netfilter/nf_conntrack_common.h; see
// destinationTranslated.
const sourceTranslated = 1 << 4

// tupleAddresses returns the attributes for addresses of the family of a.
func tupleAddresses(a netip.Addr) (source, destination uint16) {
	if a.Is6() {
		return ctaIPv6Source, ctaIPv6Destination
	}
	return ctaIPv4Source, ctaIPv4Destination
}

// parseConnection returns the entry that a message tells.
func parseConnection(data []byte) (kernel.Connection, error) {
	var c kernel.Connection
	err := attributes(data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case ctaTupleOrig:
			ad.Nested(func(tuple *netlink.AttributeDecoder) error { return parseTuple(tuple, &c.Original) })
		case ctaTupleReply:
			ad.Nested(func(tuple *netlink.AttributeDecoder) error { return parseTuple(tuple, &c.Reply) })
		case ctaStatus:
			status := ad.Uint32()
			c.SrcTranslated = status&sourceTranslated != 0
			c.DstTranslated = status&destinationTranslated != 0
		case ctaID:
			c.ID = ad.Uint32()
		case ctaZone:
			c.Zone = ad.Uint16()
		}
	})
	if err != nil {
		return kernel.Connection{}, fmt.Errorf("decode connection: %w", err)
	}
	return c, nil
}

func parseTuple(ad *netlink.AttributeDecoder, t *kernel.Tuple) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleIP:
			ad.Nested(func(ip *netlink.AttributeDecoder) error {
				for ip.Next() {
					switch a, _ := netip.AddrFromSlice(ip.Bytes()); ip.Type() {
					case ctaIPv4Source, ctaIPv6Source:
						t.Src = a
					case ctaIPv4Destination, ctaIPv6Destination:
						t.Dst = a
					}
				}
				return nil
			})
		case ctaTupleProto:
			ad.Nested(func(proto *netlink.AttributeDecoder) error { return parseTupleProto(proto, t) })
		case ctaTupleZone:
			t.Zone = ad.Uint16()
		}
	}
	return nil
}

func parseTupleProto(ad *netlink.AttributeDecoder, t *kernel.Tuple) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaProtoNumber:
			t.Protocol = ad.Uint8()
		case ctaProtoSourcePort:
			t.SrcPort = ad.Uint16()
		case ctaProtoDestPort:
			t.DstPort = ad.Uint16()
		case ctaProtoICMPID, ctaProtoICMPv6ID:
			t.ICMPID = ad.Uint16()
		case ctaProtoICMPType, ctaProtoICMPv6Type:
			t.ICMPType = ad.Uint8()
		case ctaProtoICMPCode, ctaProtoICMPv6Code:
			t.ICMPCode = ad.Uint8()
		}
	}
	return nil
}

// deletion builds the request to delete an entry that was listed.
func deletion(c kernel.Connection) (netlink.Message, error) {
	attrs := netlink.NewAttributeEncoder()
	attrs.ByteOrder = binary.BigEndian
	attrs.Nested(ctaTupleOrig, func(tuple *netlink.AttributeEncoder) error {
		encodeTuple(tuple, c.Original)
		return nil
	})
	if c.Zone != 0 {
		attrs.Uint16(ctaZone, c.Zone)
	}
	attrs.Uint32(ctaID, c.ID) // makes sure that it is this one and no successor
	return request(ctDelete, 0, []byte{family(c.Original.Src), unix.NFNETLINK_V0, 0, 0}, attrs)
}

func encodeTuple(attrs *netlink.AttributeEncoder, t kernel.Tuple) {
	attrs.Nested(ctaTupleIP, func(ip *netlink.AttributeEncoder) error {
		source, destination := tupleAddresses(t.Src)
		ip.Bytes(source, t.Src.AsSlice())
		ip.Bytes(destination, t.Dst.AsSlice())
		return nil
	})
	attrs.Nested(ctaTupleProto, func(proto *netlink.AttributeEncoder) error {
		proto.Uint8(ctaProtoNumber, t.Protocol)
		switch t.Protocol {
		case unix.IPPROTO_ICMP:
			proto.Uint16(ctaProtoICMPID, t.ICMPID)
			proto.Uint8(ctaProtoICMPType, t.ICMPType)
			proto.Uint8(ctaProtoICMPCode, t.ICMPCode)
		case unix.IPPROTO_ICMPV6:
			proto.Uint16(ctaProtoICMPv6ID, t.ICMPID)
			proto.Uint8(ctaProtoICMPv6Type, t.ICMPType)
			proto.Uint8(ctaProtoICMPv6Code, t.ICMPCode)
		default: // where there are none, the kernel passes over them
			proto.Uint16(ctaProtoSourcePort, t.SrcPort)
			proto.Uint16(ctaProtoDestPort, t.DstPort)
		}
		return nil
	})
	if t.Zone != 0 {
		attrs.Uint16(ctaTupleZone, t.Zone)
	}
}
