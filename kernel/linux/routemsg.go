//go:build linux

package linux

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// routeMessage is one route as the kernel tells it (rtnetlink(7), RTM_NEWROUTE).
type routeMessage struct {
	key      kernel.RouteKey
	route    kernel.Route
	protocol uint8
}

// routeHeader is struct rtmsg.
type routeHeader struct {
	family, dstLen, srcLen, tos  uint8
	table, protocol, scope, kind uint8
	flags                        uint32
}

const routeHeaderLen = 12

func (h routeHeader) marshal() []byte {
	b := []byte{h.family, h.dstLen, h.srcLen, h.tos, h.table, h.protocol, h.scope, h.kind, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(b[8:], h.flags)
	return b
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// request builds a message of header and attributes.
func request(kind netlink.HeaderType, flags netlink.HeaderFlags, header []byte, attrs *netlink.AttributeEncoder) (netlink.Message, error) {
	b, err := attrs.Encode()
	if err != nil {
		return netlink.Message{}, fmt.Errorf("encode request: %w", err)
	}
	return netlink.Message{Header: netlink.Header{Type: kind, Flags: flags}, Data: append(header, b...)}, nil
}

// newRoute builds the request to make or replace a route.
func newRoute(k kernel.RouteKey, r kernel.Route, flags netlink.HeaderFlags, links *names) (netlink.Message, error) {
	h := routeHeader{protocol: kernel.RouteProtocol, scope: unix.RT_SCOPE_UNIVERSE}
	attrs, err := routeAttributes(k, r, &h, links)
	if err != nil {
		return netlink.Message{}, err
	}
	return request(unix.RTM_NEWROUTE, flags, h.marshal(), attrs)
}

// delRoute builds the request to delete our route at k, whatever it is.
func delRoute(k kernel.RouteKey) (netlink.Message, error) {
	h := routeHeader{protocol: kernel.RouteProtocol, scope: unix.RT_SCOPE_NOWHERE}
	attrs := netlink.NewAttributeEncoder()
	keyAttributes(k, &h, attrs)
	return request(unix.RTM_DELROUTE, 0, h.marshal(), attrs)
}

// delRouteExactly builds the request to delete our route at k that is r.
func delRouteExactly(k kernel.RouteKey, r kernel.Route, links *names) (netlink.Message, error) {
	h := routeHeader{protocol: kernel.RouteProtocol}
	attrs, err := routeAttributes(k, r, &h, links)
	if err != nil {
		return netlink.Message{}, err
	}
	h.scope = unix.RT_SCOPE_NOWHERE
	return request(unix.RTM_DELROUTE, 0, h.marshal(), attrs)
}

func keyAttributes(k kernel.RouteKey, h *routeHeader, attrs *netlink.AttributeEncoder) {
	h.family, h.dstLen = family(k.Dst.Addr()), uint8(k.Dst.Bits())
	attrs.Bytes(unix.RTA_DST, k.Dst.Addr().AsSlice())
	attrs.Uint32(unix.RTA_TABLE, k.Table)
	attrs.Uint32(unix.RTA_PRIORITY, k.Priority)
}

func routeAttributes(k kernel.RouteKey, r kernel.Route, h *routeHeader, links *names) (*netlink.AttributeEncoder, error) {
	attrs := netlink.NewAttributeEncoder()
	keyAttributes(k, h, attrs)
	switch r.Type {
	case kernel.Unicast:
		h.kind = unix.RTN_UNICAST
	case kernel.Blackhole:
		h.kind = unix.RTN_BLACKHOLE
	default:
		h.kind = uint8(r.Type)
	}
	if r.Source.IsValid() {
		attrs.Bytes(unix.RTA_PREFSRC, r.Source.AsSlice())
	}
	if r.MTU != 0 {
		attrs.Nested(unix.RTA_METRICS, func(m *netlink.AttributeEncoder) error {
			m.Uint32(unix.RTAX_MTU, r.MTU)
			return nil
		})
	}
	hops := r.Hops.List()
	indexes := make([]uint32, len(hops))
	connected := len(hops) > 0
	for i, hop := range hops {
		index, err := links.indexOf(hop.Link)
		if err != nil {
			return nil, err
		}
		indexes[i] = index
		connected = connected && !hop.Gateway.IsValid()
	}
	if connected && h.family == unix.AF_INET {
		h.scope = unix.RT_SCOPE_LINK
	}
	switch len(hops) {
	case 0:
	case 1:
		if hops[0].OnLink {
			h.flags |= unix.RTNH_F_ONLINK
		}
		gatewayAttribute(h.family, hops[0].Gateway, attrs)
		attrs.Uint32(unix.RTA_OIF, indexes[0])
	default:
		attrs.Do(unix.RTA_MULTIPATH, func() ([]byte, error) { return marshalHops(h.family, hops, indexes) })
	}
	return attrs, nil
}

// gatewayAttribute adds a gateway, which may be an IPv6 one for an IPv4 route.
func gatewayAttribute(routeFamily uint8, gateway netip.Addr, attrs *netlink.AttributeEncoder) {
	switch {
	case !gateway.IsValid():
	case family(gateway) == routeFamily:
		attrs.Bytes(unix.RTA_GATEWAY, gateway.AsSlice())
	default:
		via := binary.NativeEndian.AppendUint16(nil, uint16(family(gateway)))
		attrs.Bytes(unix.RTA_VIA, append(via, gateway.AsSlice()...))
	}
}

// hopHeaderLen is the size of struct rtnexthop: length, flags, hops, index.
const hopHeaderLen = 8

func marshalHops(routeFamily uint8, hops []kernel.NextHop, indexes []uint32) ([]byte, error) {
	var b []byte
	for i, hop := range hops {
		attrs := netlink.NewAttributeEncoder()
		gatewayAttribute(routeFamily, hop.Gateway, attrs)
		gateway, err := attrs.Encode()
		if err != nil {
			return nil, err
		}
		var flags uint8
		if hop.OnLink {
			flags = unix.RTNH_F_ONLINK
		}
		b = binary.NativeEndian.AppendUint16(b, uint16(hopHeaderLen+len(gateway)))
		b = append(b, flags, hop.Weight-1)
		b = binary.NativeEndian.AppendUint32(b, indexes[i])
		b = append(b, gateway...)
	}
	return b, nil
}

// parseRoute returns the route that a message tells, and false for what is no
// route of a table: a cached copy, or one for some sources or services only,
// which stands beside the others of its key.
func parseRoute(data []byte, name func(index uint32) string) (routeMessage, bool, error) {
	if len(data) < routeHeaderLen {
		return routeMessage{}, false, errShort
	}
	h := routeHeader{
		family: data[0], dstLen: data[1], srcLen: data[2], tos: data[3], table: data[4], protocol: data[5],
		scope: data[6], kind: data[7], flags: binary.NativeEndian.Uint32(data[8:]),
	}
	if h.flags&unix.RTM_F_CLONED != 0 || h.tos != 0 || h.srcLen != 0 || h.family != unix.AF_INET && h.family != unix.AF_INET6 {
		return routeMessage{}, false, nil
	}
	m := routeMessage{protocol: h.protocol, key: kernel.RouteKey{Table: uint32(h.table)}}
	switch h.kind {
	case unix.RTN_UNICAST:
		m.route.Type = kernel.Unicast
	case unix.RTN_BLACKHOLE:
		m.route.Type = kernel.Blackhole
	default:
		m.route.Type = kernel.RouteType(h.kind)
	}
	dst := netip.IPv4Unspecified()
	if h.family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	hop := kernel.NextHop{OnLink: h.flags&unix.RTNH_F_ONLINK != 0}
	var hops []kernel.NextHop
	attrs, err := netlink.NewAttributeDecoder(data[routeHeaderLen:])
	if err != nil {
		return routeMessage{}, false, fmt.Errorf("decode route: %w", err)
	}
	for attrs.Next() {
		switch attrs.Type() {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(attrs.Bytes())
		case unix.RTA_TABLE:
			m.key.Table = attrs.Uint32()
		case unix.RTA_PRIORITY:
			m.key.Priority = attrs.Uint32()
		case unix.RTA_PREFSRC:
			m.route.Source, _ = netip.AddrFromSlice(attrs.Bytes())
		case unix.RTA_METRICS:
			attrs.Nested(func(metrics *netlink.AttributeDecoder) error {
				for metrics.Next() {
					if metrics.Type() == unix.RTAX_MTU {
						m.route.MTU = metrics.Uint32()
					}
				}
				return nil
			})
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			hop.Gateway = parseGateway(attrs)
		case unix.RTA_OIF:
			hop.Link = name(attrs.Uint32())
		case unix.RTA_MULTIPATH:
			hops, err = parseHops(attrs.Bytes(), name)
		}
	}
	if err := cmp.Or(attrs.Err(), err); err != nil {
		return routeMessage{}, false, fmt.Errorf("decode route: %w", err)
	}
	m.key.Dst = netip.PrefixFrom(dst, int(h.dstLen))
	if len(hops) == 0 && hop.Link != "" && m.route.Type == kernel.Unicast {
		hops = []kernel.NextHop{hop} // a blackhole of IPv6 names the loopback link
	}
	m.route.Hops = kernel.Hops(hops...)
	return m, true, nil
}

func parseGateway(attrs *netlink.AttributeDecoder) netip.Addr {
	b := attrs.Bytes()
	if attrs.Type() == unix.RTA_VIA && len(b) > 2 {
		b = b[2:] // the family, which the length tells too
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func parseHops(b []byte, name func(index uint32) string) ([]kernel.NextHop, error) {
	var hops []kernel.NextHop
	for len(b) >= hopHeaderLen {
		length := int(binary.NativeEndian.Uint16(b))
		if length < hopHeaderLen || length > len(b) {
			return nil, errShort
		}
		hop := kernel.NextHop{
			Link:   name(binary.NativeEndian.Uint32(b[4:])),
			OnLink: b[2]&unix.RTNH_F_ONLINK != 0,
			Weight: uint8(min(int(b[3])+1, 255)),
		}
		attrs, err := netlink.NewAttributeDecoder(b[hopHeaderLen:length])
		if err != nil {
			return nil, err
		}
		for attrs.Next() {
			if t := attrs.Type(); t == unix.RTA_GATEWAY || t == unix.RTA_VIA {
				hop.Gateway = parseGateway(attrs)
			}
		}
		if err := attrs.Err(); err != nil {
			return nil, err
		}
		hops = append(hops, hop)
		b = b[min((length+3)&^3, len(b)):]
	}
	return hops, nil
}
