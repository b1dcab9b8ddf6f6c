//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewTunnels returns the host's tunnel devices that carry Cairn's alias.
//
// MTU, MAC address, checksum offload and WireGuard's port are changed in place. For
// any other difference the device is deleted and made anew; so is a link of
// another's that has the name, except for tunl0: that one belongs to whoever marked
// it first, or made it of another kind, and the key fails with kernel.ErrForeign.
//
// The kernel makes a tunl0 in every network namespace, which can't be deleted: it
// is set down instead, without addresses and alias.
func NewTunnels(opts ...Option) kernel.Table[string, kernel.Tunnel] {
	return tunnels{configure(opts)}
}

type tunnels struct{ config }

func (t tunnels) Read(ctx context.Context) (map[string]kernel.Tunnel, error) {
	conn, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("read tunnels: %w", err)
	}
	defer conn.Close()
	links, err := listLinks(ctx, conn, kernel.IsTunnelLink)
	if err != nil {
		return nil, fmt.Errorf("read tunnels: %w", err)
	}
	have := make(map[string]kernel.Tunnel, len(links))
	for _, l := range links {
		s, exists, err := t.look(conn, l.Name)
		if errors.Is(err, unix.ENODEV) || err == nil && !exists {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read tunnel %s: %w", l.Name, err)
		}
		have[l.Name] = s.value()
	}
	return have, nil
}

// look returns the link with this name, and false when there is none.
func (t tunnels) look(conn *netlink.Conn, name string) (s tunnelState, exists bool, err error) {
	data, exists, err := getLink(conn, name)
	if err != nil || !exists {
		return tunnelState{}, false, err
	}
	if s, err = parseTunnel(data); err != nil {
		return tunnelState{}, false, err
	}
	switch s.tunnel.Kind {
	case kernel.VXLAN:
		offloaded, err := t.checksumsOffloaded(name)
		s.tunnel.NoChecksumOffload = !offloaded
		return s, true, err
	case kernel.WireGuard:
		s.tunnel.Port, err = t.wireGuardPort(name)
		return s, true, err
	}
	return s, true, nil
}

// value is the device as the table tells it.
func (s tunnelState) value() kernel.Tunnel {
	differs := s.odd
	if !s.admin {
		differs = append(slices.Clone(differs), "down")
	}
	t := s.tunnel
	t.Kind = kernel.TunnelKind(strings.Join(append([]string{string(t.Kind)}, differs...), ", "))
	return t
}

func (t tunnels) Write(ctx context.Context, set map[string]kernel.Tunnel, del []string) error {
	conn, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("write tunnels: %w", err)
	}
	defer conn.Close()
	var failed failures[string]
	for name, want := range set {
		failed.try(ctx, "set", name, func() error { return t.set(ctx, conn, name, want) })
	}
	for _, name := range del {
		failed.try(ctx, "delete", name, func() error { return t.delete(ctx, conn, name) })
	}
	return failed.join(ctx, "tunnels")
}

// set makes the device, or makes the one that is there what is wanted.
func (t tunnels) set(ctx context.Context, conn *netlink.Conn, name string, want kernel.Tunnel) error {
	if err := want.Check(name); err != nil {
		return err
	}
	s, exists, err := t.look(conn, name)
	if err != nil {
		return err
	}
	if exists && !s.fits(want) {
		if err := s.replaceable(); err != nil {
			return err
		}
		if err := s.remove(conn); err != nil {
			return fmt.Errorf("delete the %s that is there: %w", s.value(), err)
		}
		exists = false
	}
	if !exists {
		if s, err = t.make(conn, name, want); err != nil {
			return err
		}
	}
	return t.adjust(ctx, conn, s, want)
}

// replaceable returns an error if the link must stay as it is.
func (s tunnelState) replaceable() error {
	if s.Name == kernel.LinkIPIP && !kernel.IsTunnelLink(s.Link) {
		return fmt.Errorf("%s is a %s: %w: %w", s.Name, s.value(), kernel.ErrForeign, unix.EEXIST)
	}
	return nil
}

// remove deletes the link. The kernel's own tunl0 stays, without a word.
func (s tunnelState) remove(conn *netlink.Conn) error {
	err := execute(conn)(delLink(uint32(s.Index)))
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP): // of a physical link
		return fmt.Errorf("%w: %w", kernel.ErrForeign, unix.EOPNOTSUPP)
	}
	return err
}

// make makes the device and returns it as it is.
func (t tunnels) make(conn *netlink.Conn, name string, want kernel.Tunnel) (tunnelState, error) {
	err := execute(conn)(newTunnel(name, want))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return tunnelState{}, fmt.Errorf("this kernel has no %s (module %s): %w", want.Kind, want.Kind, err)
	case err != nil && !errors.Is(err, unix.EEXIST): // tunl0 comes with its module, which the request made the kernel load
		return tunnelState{}, fmt.Errorf("make %s: %w", want, err)
	}
	s, exists, lookErr := t.look(conn, name)
	switch {
	case lookErr != nil:
		return tunnelState{}, lookErr
	case !exists && err != nil: // another device has the same parameters
		return tunnelState{}, fmt.Errorf("make %s: %w", want, err)
	case !exists:
		return tunnelState{}, fmt.Errorf("%s vanished as soon as it was made: %w", name, kernel.ErrBusy)
	case !s.fits(want):
		return tunnelState{}, fmt.Errorf("%s is a %s now: %w", name, s.value(), kernel.ErrBusy)
	}
	return s, nil
}

// adjust changes what the kernel can change of a device in place. A device that
// was not Cairn's so far begins without addresses: nobody knows what for they are.
func (t tunnels) adjust(ctx context.Context, conn *netlink.Conn, s tunnelState, want kernel.Tunnel) error {
	if s.Name == kernel.LinkIPIP && s.Alias != "" && !kernel.IsTunnelLink(s.Link) {
		return fmt.Errorf("%s has the alias %q: %w: %w", s.Name, s.Alias, kernel.ErrForeign, unix.EEXIST)
	}
	index := uint32(s.Index)
	var change linkChange
	if !kernel.IsTunnelLink(s.Link) {
		if err := flushAddresses(ctx, conn, index); err != nil {
			return err
		}
		if err := execute(conn)(noLinkLocal(index)); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("have no link-local address: %w", err)
		}
		alias := kernel.TunnelAlias
		change.alias = &alias
	}
	if want.Kind == kernel.VXLAN && s.tunnel.NoChecksumOffload != want.NoChecksumOffload {
		if err := t.offloadChecksums(s.Name, !want.NoChecksumOffload); err != nil {
			return err
		}
	}
	if want.Kind == kernel.WireGuard && s.tunnel.Port != want.Port {
		if err := t.setWireGuardPort(s.Name, want.Port); err != nil {
			return fmt.Errorf("listen on port %d: %w", want.Port, err)
		}
	}
	if s.tunnel.MTU != want.MTU {
		change.mtu = want.MTU
	}
	if s.tunnel.MAC != want.MAC {
		change.mac = &want.MAC
	}
	if !s.admin {
		up := true
		change.up = &up
	}
	if change == (linkChange{}) {
		return nil
	}
	err := execute(conn)(changeLink(index, change))
	if errors.Is(err, unix.EAFNOSUPPORT) {
		// IPv6 is switched off. That is no kernel.ErrUnsupported, which would say that
		// there is no VXLAN over IPv4 either.
		err = unix.EAFNOSUPPORT
	}
	if err != nil {
		return fmt.Errorf("set up %s: %w", want, err)
	}
	return nil
}

// delete removes the device if it is Cairn's.
func (t tunnels) delete(ctx context.Context, conn *netlink.Conn, name string) error {
	data, exists, err := getLink(conn, name)
	if err != nil || !exists {
		return err
	}
	s, err := parseTunnel(data)
	if err != nil || !kernel.IsTunnelLink(s.Link) {
		return err
	}
	if err := s.remove(conn); err != nil || name != kernel.LinkIPIP {
		return err
	}
	if _, exists, err := getLink(conn, name); err != nil || !exists {
		return err
	}
	index := uint32(s.Index)
	if err := flushAddresses(ctx, conn, index); err != nil {
		return err
	}
	alias, up := "", false
	return execute(conn)(changeLink(index, linkChange{alias: &alias, up: &up}))
}
