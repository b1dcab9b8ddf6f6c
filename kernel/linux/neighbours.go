//go:build linux

package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewNeighbours returns the permanent neighbour entries on tunnel devices, of both
// families.
func NewNeighbours(opts ...Option) kernel.Table[kernel.Neighbour, kernel.MAC] {
	return entries[kernel.Neighbour, kernel.MAC]{
		config: configure(opts), noun: "neighbours", families: []uint8{unix.AF_INET, unix.AF_INET6},
		link:  func(n kernel.Neighbour) string { return n.Link },
		check: kernel.Neighbour.Check,
		message: func(n kernel.Neighbour, mac kernel.MAC) neighbourMessage {
			return neighbourMessage{family: family(n.IP), ip: n.IP, mac: mac}
		},
		parse: func(m neighbourMessage, link string) (kernel.Neighbour, *kernel.MAC, bool) { return m.neighbour(link) },
	}
}

// NewForwarding returns the permanent entries in the forwarding databases of VXLAN
// devices, but for the one of address zero: there go frames whose destination is
// unknown.
func NewForwarding(opts ...Option) kernel.Table[kernel.Forwarding, netip.Addr] {
	return entries[kernel.Forwarding, netip.Addr]{
		config: configure(opts), noun: "forwarding entries", families: []uint8{unix.AF_BRIDGE}, kind: kernel.VXLAN,
		link:  func(f kernel.Forwarding) string { return f.Link },
		check: kernel.Forwarding.Check,
		message: func(f kernel.Forwarding, node netip.Addr) neighbourMessage {
			return neighbourMessage{family: unix.AF_BRIDGE, ip: node, mac: f.MAC}
		},
		parse: func(m neighbourMessage, link string) (kernel.Forwarding, *netip.Addr, bool) {
			return m.forwarding(link)
		},
	}
}

// entries is a table of what rtnetlink(7) calls neighbours: of IP, or of the
// forwarding database of a link.
type entries[K, V comparable] struct {
	config
	noun     string
	families []uint8
	kind     kernel.TunnelKind // of the links that have such; "": any
	link     func(K) string
	check    func(K, V) error
	message  func(K, V) neighbourMessage
	parse    func(m neighbourMessage, link string) (K, *V, bool)
}

func (t entries[K, V]) Read(ctx context.Context) (map[K]V, error) {
	conn, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.noun, err)
	}
	defer conn.Close()
	links, err := listLinks(ctx, conn, func(l kernel.Link) bool {
		return kernel.IsTunnelLink(l) && (t.kind == "" || l.Kind == string(t.kind))
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.noun, err)
	}
	have := make(map[K]V)
	for _, l := range links {
		for _, family := range t.families {
			if err := t.list(ctx, conn, l, family, have); err != nil && !errors.Is(err, unix.ENODEV) {
				return nil, fmt.Errorf("read %s of %s: %w", t.noun, l.Name, err)
			}
		}
	}
	return have, nil
}

// list adds the entries of one link and family.
func (t entries[K, V]) list(ctx context.Context, conn *netlink.Conn, l linkState, family uint8, have map[K]V) error {
	attrs := netlink.NewAttributeEncoder()
	attrs.Uint32(unix.NDA_IFINDEX, uint32(l.Index))
	m, err := request(unix.RTM_GETNEIGH, 0, neighbourHeader{family: family}.marshal(), attrs)
	if err != nil {
		return err
	}
	// A list that is begun again finds the same keys, or such as have just gone.
	found := make(map[K]V)
	err = dump(ctx, conn, m, func() { clear(found) }, func(m netlink.Message) error {
		n, err := parseNeighbour(m.Data)
		if err != nil || n.index != uint32(l.Index) || n.family != family {
			return err
		}
		if k, v, ok := t.parse(n, l.Name); ok && v != nil {
			found[k] = *v
		}
		return nil
	})
	for k, v := range found {
		have[k] = v
	}
	return err
}

func (t entries[K, V]) Write(ctx context.Context, set map[K]V, del []K) error {
	conn, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("write %s: %w", t.noun, err)
	}
	defer conn.Close()
	links := newTunnelLinks(conn)
	var failed failures[K]
	if err := t.set(ctx, conn, links, set, &failed); err != nil {
		return errors.Join(append(failed, fmt.Errorf("write %s: %w", t.noun, err))...)
	}
	if err := t.delete(ctx, conn, links, del, &failed); err != nil {
		return errors.Join(append(failed, fmt.Errorf("write %s: %w", t.noun, err))...)
	}
	return errors.Join(failed...)
}

func (t entries[K, V]) set(ctx context.Context, conn *netlink.Conn, links *tunnelLinks, set map[K]V, failed *failures[K]) error {
	var p pipeline[K]
	for k, v := range set {
		err := t.check(k, v)
		if err == nil {
			var l linkState
			if l, err = t.find(links, k); err == nil {
				m := t.message(k, v)
				m.index = uint32(l.Index)
				err = p.add(k)(m.put())
			}
		}
		if err != nil {
			failed.fail("set", k, err)
		}
	}
	return p.run(ctx, conn, func(k K, err error) {
		if err != nil {
			failed.fail("set", k, err)
		}
	})
}

// find returns the link of an entry.
func (t entries[K, V]) find(links *tunnelLinks, k K) (linkState, error) {
	l, err := links.find(t.link(k))
	if err == nil && t.kind != "" && l.Kind != string(t.kind) {
		err = fmt.Errorf("link %s is of kind %s: %w", l.Name, l.Kind, unix.EINVAL)
	}
	return l, err
}

func (t entries[K, V]) delete(ctx context.Context, conn *netlink.Conn, links *tunnelLinks, del []K, failed *failures[K]) error {
	var p pipeline[K]
	var none V
	for _, k := range del {
		l, err := t.find(links, k)
		switch {
		case errors.Is(err, unix.ENODEV), errors.Is(err, kernel.ErrForeign), errors.Is(err, unix.EINVAL): // nothing of ours is there
			continue
		case err == nil:
			m := t.message(k, none)
			m.index = uint32(l.Index)
			err = p.add(k)(m.drop())
		}
		if err != nil {
			failed.fail("delete", k, err)
		}
	}
	return p.run(ctx, conn, func(k K, err error) {
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			failed.fail("delete", k, err)
		}
	})
}

// neighbourHeader is struct ndmsg.
type neighbourHeader struct {
	family uint8
	index  uint32
	state  uint16
	flags  uint8
}

func (h neighbourHeader) marshal() []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = h.family
	binary.NativeEndian.PutUint32(b[4:], h.index)
	binary.NativeEndian.PutUint16(b[8:], h.state)
	b[10] = h.flags
	return b
}

// neighbourMessage is an entry as the kernel tells it (RTM_NEWNEIGH).
type neighbourMessage struct {
	family    uint8
	index     uint32
	ip        netip.Addr
	mac       kernel.MAC
	permanent bool // and no proxy's
	odd       bool // it leads elsewhere than to the node with this address: by a port, network or link of its own
}

// put builds the request to make the entry, or give it the value.
func (m neighbourMessage) put() (netlink.Message, error) {
	h := neighbourHeader{family: m.family, index: m.index, state: unix.NUD_PERMANENT}
	if m.family == unix.AF_BRIDGE {
		h.flags = unix.NTF_SELF
	}
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.NDA_DST, m.ip.AsSlice())
	attrs.Bytes(unix.NDA_LLADDR, m.mac[:])
	return request(unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, h.marshal(), attrs)
}

// drop builds the request to delete the entry, whatever its value.
func (m neighbourMessage) drop() (netlink.Message, error) {
	h := neighbourHeader{family: m.family, index: m.index}
	attrs := netlink.NewAttributeEncoder()
	if m.family == unix.AF_BRIDGE {
		h.flags = unix.NTF_SELF
		attrs.Bytes(unix.NDA_LLADDR, m.mac[:])
	} else {
		attrs.Bytes(unix.NDA_DST, m.ip.AsSlice())
	}
	return request(unix.RTM_DELNEIGH, 0, h.marshal(), attrs)
}

func parseNeighbour(data []byte) (neighbourMessage, error) {
	if len(data) < unix.SizeofNdMsg {
		return neighbourMessage{}, errShort
	}
	m := neighbourMessage{family: data[0], index: binary.NativeEndian.Uint32(data[4:])}
	m.permanent = binary.NativeEndian.Uint16(data[8:])&unix.NUD_PERMANENT != 0 && data[10]&unix.NTF_PROXY == 0
	attrs, err := netlink.NewAttributeDecoder(data[unix.SizeofNdMsg:])
	if err != nil {
		return neighbourMessage{}, fmt.Errorf("decode neighbour: %w", err)
	}
	for attrs.Next() {
		switch attrs.Type() {
		case unix.NDA_DST:
			m.ip, _ = netip.AddrFromSlice(attrs.Bytes())
		case unix.NDA_LLADDR:
			copy(m.mac[:], attrs.Bytes())
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX: // told where they are not the device's own
			m.odd = true
		}
	}
	if err := attrs.Err(); err != nil {
		return neighbourMessage{}, fmt.Errorf("decode neighbour: %w", err)
	}
	return m, nil
}

// neighbour returns the entry on a link of this name, nil where it is not
// permanent, and false if it is no entry that Cairn could have made.
func (m neighbourMessage) neighbour(link string) (kernel.Neighbour, *kernel.MAC, bool) {
	if m.family != unix.AF_INET && m.family != unix.AF_INET6 || !m.ip.IsValid() || m.ip.IsMulticast() {
		return kernel.Neighbour{}, nil, false
	}
	k := kernel.Neighbour{Link: link, IP: m.ip}
	if !m.permanent {
		return k, nil, true
	}
	return k, &m.mac, true
}

// forwarding returns the entry in the database of a link of this name, as neighbour
// does. The value of one that leads elsewhere is no address. Before Linux 6.14 each
// change is told twice, the second time without the node.
func (m neighbourMessage) forwarding(link string) (kernel.Forwarding, *netip.Addr, bool) {
	if m.family != unix.AF_BRIDGE || m.mac == (kernel.MAC{}) || !m.ip.IsValid() {
		return kernel.Forwarding{}, nil, false
	}
	k := kernel.Forwarding{Link: link, MAC: m.mac}
	switch {
	case !m.permanent:
		return k, nil, true
	case m.odd:
		return k, &netip.Addr{}, true
	}
	return k, &m.ip, true
}
