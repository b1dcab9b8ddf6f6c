//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewConntrack returns the kernel's table of connections. For a few addresses the
// kernel picks their entries out of its table (Linux 5.8), in a walk for each of
// the four places of an address in an entry; for many it lists the table once.
func NewConntrack(opts ...Option) kernel.Conntrack { return conntrack{configure(opts)} }

type conntrack struct{ config }

// Messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaID         = 12
	ctaZone       = 18
	ctaFilter     = 25

	ctaTupleIP = 1

	ctaIPv4Source      = 1
	ctaIPv4Destination = 2
	ctaIPv6Source      = 3
	ctaIPv6Destination = 4

	ctaFilterOrig  = 1
	ctaFilterReply = 2

	filterSource      = 1 << 0
	filterDestination = 1 << 1
)

// nfHeaderLen is the size of struct nfgenmsg: family, version, resource.
const nfHeaderLen = 4

// place is one of the four places of an address in an entry. Without NAT the
// reply's are the original's in turn; with it, all four may differ.
type place struct {
	tuple uint16
	flag  uint32
}

// fewAddrs is up to how many addresses of a family are looked for by the kernel.
const fewAddrs = 2

func (t conntrack) Flush(ctx context.Context, addrs ...netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	if err := t.flush(ctx, addrs); err != nil {
		return fmt.Errorf("flush connections of %v: %w", addrs, err)
	}
	return nil
}

func (t conntrack) flush(ctx context.Context, addrs []netip.Addr) error {
	conn, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	queries, err := connectionsQueries(addrs)
	if err != nil {
		return err
	}
	wanted := map[netip.Addr]bool{}
	for _, a := range addrs {
		wanted[a.Unmap()] = true
	}
	var deletions []netlink.Message
	for _, query := range queries {
		var found []netlink.Message
		err = dump(ctx, conn, query, func() { found = nil }, func(m netlink.Message) error {
			del, ok, err := deletion(m.Data, wanted)
			if ok {
				found = append(found, del)
			}
			return err
		})
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("connection tracking is %w: %w", kernel.ErrUnsupported, err)
		}
		if err != nil {
			return err
		}
		deletions = append(deletions, found...)
	}
	var failed []error
	err = batch(ctx, conn, deletions, func(_ int, err error) {
		if err != nil && !errors.Is(err, unix.ENOENT) { // it ended, or was found twice
			failed = append(failed, err)
		}
	})
	return errors.Join(append(failed, err)...)
}

// connectionsQueries returns the requests whose answers hold every entry of these
// addresses.
func connectionsQueries(addrs []netip.Addr) ([]netlink.Message, error) {
	byFamily := map[uint8][]netip.Addr{}
	for _, a := range addrs {
		byFamily[family(a.Unmap())] = append(byFamily[family(a.Unmap())], a.Unmap())
	}
	var queries []netlink.Message
	for f, as := range byFamily {
		if len(as) > fewAddrs {
			q, err := request(ctGet, 0, []byte{f, unix.NFNETLINK_V0, 0, 0}, netlink.NewAttributeEncoder())
			if err != nil {
				return nil, err
			}
			queries = append(queries, q)
			continue
		}
		for _, a := range as {
			for _, p := range []place{
				{ctaTupleOrig, filterSource}, {ctaTupleOrig, filterDestination},
				{ctaTupleReply, filterSource}, {ctaTupleReply, filterDestination},
			} {
				q, err := connectionsRequest(p, a)
				if err != nil {
					return nil, err
				}
				queries = append(queries, q)
			}
		}
	}
	return queries, nil
}

// connectionsRequest asks for the entries that have addr at this place.
func connectionsRequest(p place, addr netip.Addr) (netlink.Message, error) {
	source, destination := uint16(ctaIPv4Source), uint16(ctaIPv4Destination)
	if addr.Is6() {
		source, destination = ctaIPv6Source, ctaIPv6Destination
	}
	attrs := netlink.NewAttributeEncoder()
	attrs.Nested(p.tuple, func(tuple *netlink.AttributeEncoder) error {
		tuple.Nested(ctaTupleIP, func(ip *netlink.AttributeEncoder) error {
			if p.flag == filterSource {
				ip.Bytes(source, addr.AsSlice())
			} else {
				ip.Bytes(destination, addr.AsSlice())
			}
			return nil
		})
		return nil
	})
	attrs.Nested(ctaFilter, func(filter *netlink.AttributeEncoder) error {
		if p.tuple == ctaTupleOrig {
			filter.Uint32(ctaFilterOrig, p.flag)
		} else {
			filter.Uint32(ctaFilterReply, p.flag)
		}
		return nil
	})
	return request(ctGet, 0, []byte{family(addr), unix.NFNETLINK_V0, 0, 0}, attrs)
}

// deletion builds the request to delete an entry that was listed, and false when
// the entry does not concern a wanted address: more than was asked for may be
// listed.
func deletion(data []byte, wanted map[netip.Addr]bool) (netlink.Message, bool, error) {
	if len(data) < nfHeaderLen {
		return netlink.Message{}, false, errShort
	}
	in, err := netlink.NewAttributeDecoder(data[nfHeaderLen:])
	if err != nil {
		return netlink.Message{}, false, fmt.Errorf("decode connection: %w", err)
	}
	out := netlink.NewAttributeEncoder()
	concerned := false
	for in.Next() {
		switch in.Type() {
		case ctaTupleOrig, ctaTupleReply:
			if in.Type() == ctaTupleOrig {
				out.Bytes(in.Type()|netlink.Nested, in.Bytes())
			}
			in.Nested(func(tuple *netlink.AttributeDecoder) error {
				concerned = hasAddress(tuple, wanted) || concerned
				return nil
			})
		case ctaZone, ctaID: // the ID makes sure that it is this one and no successor
			out.Bytes(in.Type(), in.Bytes())
		}
	}
	if err := in.Err(); err != nil || !concerned {
		return netlink.Message{}, false, err
	}
	m, err := request(ctDelete, 0, []byte{data[0], unix.NFNETLINK_V0, 0, 0}, out)
	return m, err == nil, err
}

func hasAddress(tuple *netlink.AttributeDecoder, wanted map[netip.Addr]bool) (has bool) {
	for tuple.Next() {
		if tuple.Type() != ctaTupleIP {
			continue
		}
		tuple.Nested(func(ip *netlink.AttributeDecoder) error {
			for ip.Next() {
				if a, ok := netip.AddrFromSlice(ip.Bytes()); ok && wanted[a] {
					has = true
				}
			}
			return nil
		})
	}
	return has
}
