//go:build linux

package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewAddrs returns the addresses of tunnel devices, without the link-local ones
// that the kernel makes.
//
// They can be used at once, without duplicate-address detection. For packets whose
// route names no source the kernel chooses them only when it has no other: those of
// IPv4 are of scope link, those of IPv6 deprecated (RFC 6724, section 5, rule 3).
// Otherwise a host whose outgoing link has no address could send from a pod's.
func NewAddrs(opts ...Option) kernel.Table[kernel.Addr, struct{}] {
	return addrs{configure(opts)}
}

type addrs struct{ config }

func (t addrs) Read(ctx context.Context) (map[kernel.Addr]struct{}, error) {
	conn, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	defer conn.Close()
	links, err := listLinks(ctx, conn, kernel.IsTunnelLink)
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	have := make(map[kernel.Addr]struct{})
	for _, l := range links {
		on, err := listAddresses(ctx, conn, uint32(l.Index))
		if err != nil {
			return nil, fmt.Errorf("read addresses of %s: %w", l.Name, err)
		}
		for _, a := range on {
			have[kernel.Addr{Link: l.Name, Prefix: a.prefix}] = struct{}{}
		}
	}
	return have, nil
}

// linkAddress is an address and how it is used.
type linkAddress struct {
	address
	flags uint32 // those of addressShape
	scope uint8
}

// addressShape are the flags that tell an address that Write made from others.
const addressShape = unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED

// listAddresses returns the addresses of a link, but for link-local ones of IPv6.
func listAddresses(ctx context.Context, conn *netlink.Conn, index uint32) ([]linkAddress, error) {
	h := addressHeader{index: index}
	var found []linkAddress
	err := dump(ctx, conn, netlink.Message{Header: netlink.Header{Type: unix.RTM_GETADDR}, Data: h.marshal()}, func() { found = nil },
		func(m netlink.Message) error {
			a, flags, err := parseAddress(m.Data)
			if err == nil && a.index == index && !(a.prefix.Addr().Is6() && a.prefix.Addr().IsLinkLocalUnicast()) {
				found = append(found, linkAddress{a, flags & addressShape, m.Data[3]})
			}
			return err
		})
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	return found, err
}

func flushAddresses(ctx context.Context, conn *netlink.Conn, index uint32) error {
	on, err := listAddresses(ctx, conn, index)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range on {
		err := execute(conn)(delAddress(a.address))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %s: %w", a.prefix, err)
		}
	}
	return nil
}

// addressHeader is struct ifaddrmsg.
type addressHeader struct {
	family, length, flags, scope uint8
	index                        uint32
}

func (h addressHeader) marshal() []byte {
	return binary.NativeEndian.AppendUint32([]byte{h.family, h.length, h.flags, h.scope}, h.index)
}

// asMade returns the address as newAddress makes it.
func (a address) asMade() linkAddress {
	if a.prefix.Addr().Is6() {
		return linkAddress{a, unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_DEPRECATED, unix.RT_SCOPE_UNIVERSE}
	}
	return linkAddress{a, unix.IFA_F_NOPREFIXROUTE, unix.RT_SCOPE_LINK}
}

func newAddress(a address) (netlink.Message, error) {
	ip, flags := a.prefix.Addr(), uint32(unix.IFA_F_NOPREFIXROUTE)
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.IFA_LOCAL, ip.AsSlice())
	attrs.Bytes(unix.IFA_ADDRESS, ip.AsSlice())
	if ip.Is6() {
		flags |= unix.IFA_F_NODAD
		// It is preferred for no time and valid for ever (struct ifa_cacheinfo).
		lifetimes := make([]byte, unix.SizeofIfaCacheinfo)
		binary.NativeEndian.PutUint32(lifetimes[4:], ^uint32(0))
		attrs.Bytes(unix.IFA_CACHEINFO, lifetimes)
	}
	attrs.Uint32(unix.IFA_FLAGS, flags)
	h := addressHeader{family: family(ip), length: uint8(a.prefix.Bits()), scope: a.asMade().scope, index: a.index}
	return request(unix.RTM_NEWADDR, netlink.Request|netlink.Acknowledge|netlink.Create|netlink.Excl, h.marshal(), attrs)
}

func delAddress(a address) (netlink.Message, error) {
	ip := a.prefix.Addr()
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.IFA_LOCAL, ip.AsSlice())
	h := addressHeader{family: family(ip), length: uint8(a.prefix.Bits()), index: a.index}
	return request(unix.RTM_DELADDR, netlink.Request|netlink.Acknowledge, h.marshal(), attrs)
}

func (t addrs) Write(ctx context.Context, set map[kernel.Addr]struct{}, del []kernel.Addr) error {
	conn, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("write addresses: %w", err)
	}
	defer conn.Close()
	links := newTunnelLinks(conn)
	var failed failures[kernel.Addr]
	for k := range set {
		failed.try(ctx, "set", k, func() error { return setAddress(ctx, conn, links, k) })
	}
	for _, k := range del {
		failed.try(ctx, "delete", k, func() error { return dropAddress(conn, links, k) })
	}
	return failed.join(ctx, "addresses")
}

// dropAddress deletes an address if its link is Cairn's.
func dropAddress(conn *netlink.Conn, links *tunnelLinks, k kernel.Addr) error {
	l, err := links.find(k.Link)
	if err == nil {
		err = execute(conn)(delAddress(address{uint32(l.Index), k.Prefix}))
	}
	for _, gone := range []error{unix.ENODEV, kernel.ErrForeign, unix.EADDRNOTAVAIL} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

// setAddress makes the address, anew where it is there in another shape.
func setAddress(ctx context.Context, conn *netlink.Conn, links *tunnelLinks, k kernel.Addr) error {
	if err := k.Check(); err != nil {
		return err
	}
	l, err := links.find(k.Link)
	if err != nil {
		return err
	}
	a := address{uint32(l.Index), k.Prefix}
	err = execute(conn)(newAddress(a))
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	there, err := listAddresses(ctx, conn, a.index)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", k.Link, err)
	}
	for _, other := range there {
		if other == a.asMade() {
			return nil
		}
	}
	if err := execute(conn)(delAddress(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("delete the address to make it anew: %w", err)
	}
	return execute(conn)(newAddress(a))
}
