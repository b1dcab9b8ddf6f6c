//go:build linux

package linux

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewLookup returns what asks the host's routing.
func NewLookup(opts ...Option) kernel.Lookup { return lookup{configure(opts)} }

type lookup struct{ config }

// Attributes of linux/rtnetlink.h that ask for a packet of a protocol.
const (
	routeProtocol = 27 // RTA_IP_PROTO
	routeSrcPort  = 28 // RTA_SPORT
	routeDstPort  = 29 // RTA_DPORT
)

func (l lookup) Route(ctx context.Context, q kernel.RouteQuery) (kernel.Decision, error) {
	d, err := l.route(ctx, q)
	if err != nil {
		return kernel.Decision{}, fmt.Errorf("look up the route to %v: %w", q.Dst, err)
	}
	return d, nil
}

func (l lookup) route(ctx context.Context, q kernel.RouteQuery) (kernel.Decision, error) {
	if err := ctx.Err(); err != nil {
		return kernel.Decision{}, err
	}
	conn, err := l.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return kernel.Decision{}, err
	}
	defer conn.Close()
	links := newNames(conn)
	d, err := askRoute(conn, links, q)
	if errors.Is(err, unix.EINVAL) && q.InLink != "" {
		// A blackhole, or no way for the source to come. The first is one for the host's own
		// packets, too.
		_, err := askRoute(conn, links, kernel.RouteQuery{Dst: q.Dst, Mark: q.Mark})
		if !errors.Is(err, unix.EINVAL) {
			return kernel.Decision{Type: kernel.DecidedRefused, Src: q.Src}, nil
		}
	}
	kind, ok := decisionOf(err)
	switch {
	case ok:
		return kernel.Decision{Type: kind, Src: q.Src}, nil
	case err != nil:
		return kernel.Decision{}, refusal(err)
	}
	d.Src = cmp.Or(q.Src, d.Src)
	return d, nil
}

// decisionOf returns what the kernel's answer to a look-up says, beside a route.
func decisionOf(err error) (kernel.DecisionType, bool) {
	var op *netlink.OpError
	if !errors.As(err, &op) || op.Message != "" { // not the kernel's, or about the request
		return "", false
	}
	for errno, kind := range map[error]kernel.DecisionType{
		unix.EINVAL: kernel.DecidedBlackhole, unix.EHOSTUNREACH: kernel.DecidedUnreachable,
		unix.EACCES: kernel.DecidedProhibit, unix.ENETUNREACH: kernel.DecidedNone, unix.EXDEV: kernel.DecidedRefused,
	} {
		if errors.Is(err, errno) {
			return kind, true
		}
	}
	return "", false
}

// askRoute asks the kernel for the way of one packet (rtnetlink(7), RTM_GETROUTE).
func askRoute(conn *netlink.Conn, links *names, q kernel.RouteQuery) (kernel.Decision, error) {
	h := routeHeader{family: family(q.Dst), dstLen: uint8(q.Dst.BitLen())}
	if q.Dst.Is4() { // IPv6 tells the route's table unasked
		h.flags = unix.RTM_F_LOOKUP_TABLE
	}
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.RTA_DST, q.Dst.AsSlice())
	if q.Src.IsValid() {
		h.srcLen = uint8(q.Src.BitLen())
		attrs.Bytes(unix.RTA_SRC, q.Src.AsSlice())
	}
	if q.InLink != "" {
		index, err := links.indexOf(q.InLink)
		if err != nil {
			return kernel.Decision{}, err
		}
		attrs.Uint32(unix.RTA_IIF, index)
	}
	if q.Mark != 0 {
		attrs.Uint32(unix.RTA_MARK, q.Mark)
	}
	if q.Protocol == kernel.ProtoTCP || q.Protocol == kernel.ProtoUDP { // it knows no others' ports
		attrs.Uint8(routeProtocol, q.Protocol)
		for attr, port := range map[uint16]uint16{routeSrcPort: q.SrcPort, routeDstPort: q.DstPort} {
			if port != 0 {
				attrs.Bytes(attr, binary.BigEndian.AppendUint16(nil, port))
			}
		}
	}
	m, err := request(unix.RTM_GETROUTE, netlink.Request, h.marshal(), attrs)
	if err != nil {
		return kernel.Decision{}, err
	}
	replies, err := conn.Execute(m)
	if err != nil {
		return kernel.Decision{}, err
	}
	if len(replies) != 1 || replies[0].Header.Type != unix.RTM_NEWROUTE {
		return kernel.Decision{}, fmt.Errorf("%d messages in place of a route", len(replies))
	}
	return parseDecision(replies[0].Data, links.name)
}

// parseDecision returns what a message says about a packet's way.
func parseDecision(data []byte, name func(index uint32) string) (kernel.Decision, error) {
	if len(data) < routeHeaderLen {
		return kernel.Decision{}, errShort
	}
	d := kernel.Decision{Table: uint32(data[4])}
	kinds := map[uint8]kernel.DecisionType{
		unix.RTN_UNICAST: kernel.DecidedUnicast, unix.RTN_LOCAL: kernel.DecidedLocal, unix.RTN_BROADCAST: kernel.DecidedBroadcast,
		unix.RTN_ANYCAST: kernel.DecidedAnycast, unix.RTN_MULTICAST: kernel.DecidedMulticast, unix.RTN_BLACKHOLE: kernel.DecidedBlackhole,
		unix.RTN_UNREACHABLE: kernel.DecidedUnreachable, unix.RTN_PROHIBIT: kernel.DecidedProhibit,
	}
	d.Type = kinds[data[7]]
	if d.Type == "" {
		return kernel.Decision{}, fmt.Errorf("route of type %d", data[7])
	}
	attrs, err := netlink.NewAttributeDecoder(data[routeHeaderLen:])
	if err != nil {
		return kernel.Decision{}, fmt.Errorf("decode route: %w", err)
	}
	for attrs.Next() {
		switch attrs.Type() {
		case unix.RTA_TABLE:
			d.Table = attrs.Uint32()
		case unix.RTA_PREFSRC:
			d.Src, _ = netip.AddrFromSlice(attrs.Bytes())
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			d.Gateway = parseGateway(attrs)
		case unix.RTA_OIF:
			d.Link = name(attrs.Uint32())
		}
	}
	if err := attrs.Err(); err != nil {
		return kernel.Decision{}, fmt.Errorf("decode route: %w", err)
	}
	if d.Table == kernel.MainTable && (d.Type == kernel.DecidedLocal || d.Type == kernel.DecidedBroadcast) {
		// Of IPv4 both tables are one until there is a rule, and the kernel names the other.
		d.Table = kernel.LocalTable
	}
	return d, nil
}
