//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewConntrack returns the kernel's table of connections. For a few addresses of IPv4
// the kernel picks their entries out of its table (Linux 5.8), in a walk for each of
// the four places of an address in an entry; for others it lists the family once.
func NewConntrack(opts ...Option) kernel.Conntrack { return conntrack{configure(opts)} }

type conntrack struct{ config }

// Messages, and attributes of filters, of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	// Filters are of Linux 5.8.
	ctaFilter      = 25
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

// fewAddrs is up to how many addresses of IPv4 are looked for by the kernel. Of IPv6 it
// lists just those that have another address at the place asked for.
const fewAddrs = 2

func (t conntrack) Flush(ctx context.Context, addrs ...netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	err := t.with(func(conn *netlink.Conn) error {
		var found []kernel.Connection
		err := listConnections(ctx, conn, addrs, func(c kernel.Connection) bool {
			found = append(found, c)
			return true
		})
		if err != nil {
			return err
		}
		return deleteConnections(ctx, conn, found)
	})
	if err != nil {
		return fmt.Errorf("flush connections of %v: %w", addrs, err)
	}
	return nil
}

func (t conntrack) List(ctx context.Context, f func(kernel.Connection) bool, addrs ...netip.Addr) error {
	err := t.with(func(conn *netlink.Conn) error { return listConnections(ctx, conn, addrs, f) })
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	return nil
}

func (t conntrack) Delete(ctx context.Context, connections []kernel.Connection) error {
	if len(connections) == 0 {
		return nil
	}
	err := t.with(func(conn *netlink.Conn) error { return deleteConnections(ctx, conn, connections) })
	if err != nil {
		return fmt.Errorf("delete connections: %w", err)
	}
	return nil
}

// with runs f with a socket of its own.
func (t conntrack) with(f func(*netlink.Conn) error) error {
	conn, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(conn)
}

// errEnough ends a list early.
var errEnough = errors.New("enough was listed")

func listConnections(ctx context.Context, conn *netlink.Conn, addrs []netip.Addr, f func(kernel.Connection) bool) error {
	queries, err := connectionsQueries(addrs)
	if err != nil {
		return err
	}
	for i, query := range queries {
		err := dump(ctx, conn, query.Message, func() {}, func(m netlink.Message) error {
			c, err := parseConnection(m.Data)
			switch {
			case err != nil:
				return err
			case !query.finds(c) || slices.ContainsFunc(queries[:i], func(q connectionsQuery) bool { return q.finds(c) }):
				// Not what was asked for, which kernels before 5.8 tell too, or told already.
			case !f(c):
				return errEnough
			}
			return nil
		})
		switch {
		case errors.Is(err, errEnough):
			return nil
		case errors.Is(err, unix.EINVAL):
			return fmt.Errorf("connection tracking is %w: %w", kernel.ErrUnsupported, err)
		case err != nil:
			return err
		}
	}
	return nil
}

func deleteConnections(ctx context.Context, conn *netlink.Conn, connections []kernel.Connection) error {
	var deletions []netlink.Message
	for _, c := range connections {
		m, err := deletion(c)
		if err != nil {
			return err
		}
		deletions = append(deletions, m)
	}
	var failed []error
	err := batch(ctx, conn, deletions, func(i int, err error) {
		if err != nil && !errors.Is(err, unix.ENOENT) { // it ended
			failed = append(failed, fmt.Errorf("%v: %w", connections[i], err))
		}
	})
	return errors.Join(append(failed, err)...)
}

// connectionsQuery is a request for connections, and which of its answers are meant.
type connectionsQuery struct {
	netlink.Message
	finds func(kernel.Connection) bool
}

// connectionsQueries returns the requests whose answers hold every entry of these
// addresses, or of all addresses.
func connectionsQueries(addrs []netip.Addr) ([]connectionsQuery, error) {
	byFamily := map[uint8]map[netip.Addr]bool{unix.AF_INET: {}, unix.AF_INET6: {}}
	for _, a := range addrs {
		byFamily[family(a.Unmap())][a.Unmap()] = true
	}
	var queries []connectionsQuery
	for f, wanted := range byFamily {
		switch {
		case len(addrs) > 0 && len(wanted) == 0:
			continue
		case len(addrs) == 0 || len(wanted) > fewAddrs || f == unix.AF_INET6:
			m, err := request(ctGet, 0, []byte{f, unix.NFNETLINK_V0, 0, 0}, netlink.NewAttributeEncoder())
			if err != nil {
				return nil, err
			}
			queries = append(queries, connectionsQuery{m, func(c kernel.Connection) bool {
				o, r := c.Original, c.Reply
				return family(o.Src) == f && (len(addrs) == 0 || wanted[o.Src] || wanted[o.Dst] || wanted[r.Src] || wanted[r.Dst])
			}})
			continue
		}
		for a := range wanted {
			for _, p := range []place{
				{ctaTupleOrig, filterSource}, {ctaTupleOrig, filterDestination},
				{ctaTupleReply, filterSource}, {ctaTupleReply, filterDestination},
			} {
				m, err := connectionsRequest(p, a)
				if err != nil {
					return nil, err
				}
				queries = append(queries, connectionsQuery{m, func(c kernel.Connection) bool { return p.of(c) == a }})
			}
		}
	}
	return queries, nil
}

// of returns the address at this place.
func (p place) of(c kernel.Connection) netip.Addr {
	tuple := c.Original
	if p.tuple == ctaTupleReply {
		tuple = c.Reply
	}
	if p.flag == filterSource {
		return tuple.Src
	}
	return tuple.Dst
}

// connectionsRequest asks for the entries that have addr, of IPv4, at this place.
func connectionsRequest(p place, addr netip.Addr) (netlink.Message, error) {
	attrs := netlink.NewAttributeEncoder()
	attrs.Nested(p.tuple, func(tuple *netlink.AttributeEncoder) error {
		tuple.Nested(ctaTupleIP, func(ip *netlink.AttributeEncoder) error {
			if p.flag == filterSource {
				ip.Bytes(ctaIPv4Source, addr.AsSlice())
			} else {
				ip.Bytes(ctaIPv4Destination, addr.AsSlice())
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
	return request(ctGet, 0, []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, attrs)
}
