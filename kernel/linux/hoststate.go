//go:build linux

package linux

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// hostState follows the kernel's notifications. Links and addresses are told in
// full, so what is told twice does no harm. Routes are not: several may have the
// same key, and which of them counts is not said. Where that is in doubt the
// routes are read again.
type hostState struct {
	links   map[uint32]linkState
	addrs   map[address]struct{}
	foreign map[kernel.RouteKey]foreignRoute
	release string
	driver  func(link string) string // asks the kernel

	host  *kernel.Host // as last told; nil at first
	event kernel.Event // what to tell next, without the host

	newLinks, newAddrs, newForeign bool // differ from host
	doubtAll, doubtRoutes          bool // must be read again
}

// foreignRoute is the first route of a key, and how many there are.
type foreignRoute struct {
	kernel.Route
	count int
}

// load reads everything.
func (s *hostState) load(ctx context.Context, conn *netlink.Conn) error {
	before := s.links
	all, err := listLinks(ctx, conn, func(kernel.Link) bool { return true })
	if err != nil {
		return err
	}
	links := make(map[uint32]linkState, len(all))
	for _, l := range all {
		index := uint32(l.Index)
		links[index] = s.withDriver(l, before[index])
	}
	addrs := make(map[address]struct{})
	addrRequest := netlink.Message{Header: netlink.Header{Type: unix.RTM_GETADDR}, Data: make([]byte, unix.SizeofIfAddrmsg)}
	err = dump(ctx, conn, addrRequest, func() { clear(addrs) }, func(m netlink.Message) error {
		a, flags, err := parseAddress(m.Data)
		if err == nil && usable(flags) {
			addrs[a] = struct{}{}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	s.links, s.addrs = links, addrs
	for index, old := range before {
		if now, ok := links[index]; !ok || now.Name != old.Name || old.admin && !now.admin || old.Up && !now.Up {
			s.down(old)
		}
	}
	s.newLinks, s.newAddrs, s.doubtAll = true, true, false
	return s.loadRoutes(ctx, conn)
}

// withDriver adds the driver of a physical link, which keeps it as long as it lives.
func (s *hostState) withDriver(l, before linkState) linkState {
	switch {
	case l.Kind != "" || l.Name == "lo":
	case l.Index == before.Index && before.Driver != "":
		l.Driver = before.Driver
	default:
		l.Driver = s.driver(l.Name)
	}
	return l
}

// loadRoutes reads the foreign routes.
func (s *hostState) loadRoutes(ctx context.Context, conn *netlink.Conn) error {
	foreign := make(map[kernel.RouteKey]foreignRoute)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := dumpRoutes(ctx, conn, routeHeader{family: family, table: unix.RT_TABLE_MAIN})
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, m := range found {
			if !isForeign(m) {
				continue
			}
			r, there := foreign[m.key]
			if !there {
				r.Route = m.route
			}
			r.count++
			foreign[m.key] = r
		}
	}
	s.newForeign = s.newForeign || !maps.Equal(s.foreign, foreign)
	s.foreign, s.doubtRoutes = foreign, false
	return nil
}

// isForeign says whether a route belongs into Host.Foreign.
func isForeign(m routeMessage) bool {
	dst := m.key.Dst.Addr()
	return m.protocol != kernel.RouteProtocol && m.key.Table == kernel.MainTable && m.route.Type == kernel.Unicast &&
		!dst.IsMulticast() && !(dst.Is6() && dst.IsLinkLocalUnicast())
}

func (s *hostState) linkName(index uint32) string {
	if l, ok := s.links[index]; ok {
		return l.Name
	}
	return fmt.Sprintf("#%d", index)
}

// apply takes one notification.
func (s *hostState) apply(m netlink.Message) error {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok, err := parseLink(m.Data)
		if err != nil || !ok {
			return err
		}
		s.applyLink(l, m.Header.Type == unix.RTM_DELLINK)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, flags, err := parseAddress(m.Data)
		if err != nil {
			return err
		}
		gone := m.Header.Type == unix.RTM_DELADDR
		s.applyAddress(a, usable(flags) && !gone, gone)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok, err := parseRoute(m.Data, s.linkName)
		if err != nil || !ok || r.key.Table == unix.RT_TABLE_LOCAL {
			return err
		}
		if m.Header.Type == unix.RTM_DELROUTE {
			s.applyNoRoute(r)
		} else {
			s.applyRoute(r, m.Header.Flags&netlink.Replace != 0)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, err := parseNeighbour(m.Data)
		if err != nil {
			return err
		}
		n.permanent = n.permanent && m.Header.Type == unix.RTM_NEWNEIGH
		s.applyNeighbour(n)
	}
	return nil
}

// down notes that a link went down or lost an address: the kernel drops the IPv4
// routes that depend on it and says nothing about them.
func (s *hostState) down(l linkState) {
	if !slices.Contains(s.event.Down, l.Name) {
		s.event.Down = append(s.event.Down, l.Name)
	}
	for _, r := range s.foreign {
		if r.Hops.Uses(l.Name) {
			s.doubtRoutes = true
			return
		}
	}
}

func (s *hostState) applyLink(l linkState, gone bool) {
	index := uint32(l.Index)
	old, existed := s.links[index]
	s.touch(l.Link)
	if existed {
		s.touch(old.Link)
	}
	if gone {
		if !existed {
			return
		}
		delete(s.links, index)
		s.newLinks = true
		s.down(old)
		for a := range s.addrs {
			if a.index == index {
				delete(s.addrs, a)
				s.newAddrs = true
			}
		}
		return
	}
	l = s.withDriver(l, old)
	if existed && l == old {
		return
	}
	s.links[index] = l
	s.newLinks = s.newLinks || !existed || l.Link != old.Link
	if existed && (old.admin && !l.admin || old.Up && !l.Up) {
		s.down(old)
	}
	if existed && l.Name != old.Name {
		s.down(old)
		s.doubtAll = true // addresses and routes are told by name
	}
}

func (s *hostState) applyAddress(a address, usable, gone bool) {
	l := s.links[a.index]
	// One that goes before it was usable is told of only as it goes. IPv6's routes lose
	// it as their source without a word.
	s.touch(l.Link)
	if gone && kernel.ConcernsTunnels(l.Link) {
		s.down(l)
	}
	_, had := s.addrs[a]
	if usable == had {
		return
	}
	s.newAddrs = true
	if usable {
		s.addrs[a] = struct{}{}
		return
	}
	delete(s.addrs, a)
	if l.Name != "" && a.prefix.Addr().Is4() {
		s.down(l) // routes with this source go without a word
	}
	for _, r := range s.foreign {
		if r.Source == a.prefix.Addr() {
			s.doubtRoutes = true
			return
		}
	}
}

func (s *hostState) applyRoute(m routeMessage, replace bool) {
	old, had := s.foreign[m.key]
	switch {
	case !isForeign(m):
		s.doubtRoutes = s.doubtRoutes || had
	case !had:
		s.foreign[m.key] = foreignRoute{m.route, 1}
		s.newForeign = true
	case old.count == 1 && old.Route == m.route:
	case old.count == 1 && replace:
		s.foreign[m.key] = foreignRoute{m.route, 1}
		s.newForeign = true
	default:
		s.doubtRoutes = true
	}
	if m.protocol == kernel.RouteProtocol {
		s.changed(m.key, &m.route)
	} else if m.key.Priority == kernel.RoutePriority {
		s.changed(m.key, nil)
	}
}

func (s *hostState) applyNoRoute(m routeMessage) {
	if m.protocol == kernel.RouteProtocol {
		s.changed(m.key, nil)
		return
	}
	if old, had := s.foreign[m.key]; had && isForeign(m) {
		if old.count == 1 && old.Route == m.route {
			delete(s.foreign, m.key)
			s.newForeign = true
		} else {
			s.doubtRoutes = true
		}
	}
}

// touch notes that something was told of a link, if it is a tunnel device.
func (s *hostState) touch(l kernel.Link) {
	if kernel.ConcernsTunnels(l) && !slices.Contains(s.event.Tunnels, l.Name) {
		s.event.Tunnels = append(s.event.Tunnels, l.Name)
	}
}

// applyNeighbour notes an event of an entry on a tunnel device of ours.
func (s *hostState) applyNeighbour(n neighbourMessage) {
	l, ok := s.links[n.index]
	if !ok || !kernel.IsTunnelLink(l.Link) {
		return
	}
	if k, mac, ok := n.neighbour(l.Name); ok {
		if s.event.Neighbours == nil {
			s.event.Neighbours = make(map[kernel.Neighbour]*kernel.MAC)
		}
		s.event.Neighbours[k] = mac
	}
	if k, node, ok := n.forwarding(l.Name); ok {
		if s.event.Forwarding == nil {
			s.event.Forwarding = make(map[kernel.Forwarding]*netip.Addr)
		}
		s.event.Forwarding[k] = node
	}
}

// changed notes an event of a route of ours.
func (s *hostState) changed(k kernel.RouteKey, r *kernel.Route) {
	if s.event.Routes == nil {
		s.event.Routes = make(map[kernel.RouteKey]*kernel.Route)
	}
	s.event.Routes[k] = r
}

// silent says whether there is nothing to tell but the host.
func (s *hostState) silent() bool {
	e := &s.event
	return e.Routes == nil && e.Neighbours == nil && e.Forwarding == nil && e.Tunnels == nil &&
		!e.Rules && e.Down == nil && !e.Overrun
}

// take returns what there is to tell, and false when that is nothing. Maps that
// did not change are shared with the host told before.
func (s *hostState) take() (kernel.Event, bool) {
	if s.host == nil {
		s.host = &kernel.Host{Release: s.release}
		s.newLinks, s.newAddrs, s.newForeign = true, true, true
	}
	if s.newLinks || s.newAddrs || s.newForeign {
		next := *s.host
		if s.newLinks {
			next.Links = make(map[string]kernel.Link, len(s.links))
			for _, l := range s.links {
				next.Links[l.Name] = l.Link
			}
		}
		if s.newAddrs {
			next.Addrs = make(map[kernel.Addr]struct{}, len(s.addrs))
			for a := range s.addrs {
				next.Addrs[kernel.Addr{Link: s.linkName(a.index), Prefix: a.prefix}] = struct{}{}
			}
		}
		if s.newForeign {
			next.Foreign = make(map[kernel.RouteKey]kernel.Route, len(s.foreign))
			for k, r := range s.foreign {
				next.Foreign[k] = r.Route
			}
		}
		s.host = &next
	} else if s.silent() {
		return kernel.Event{}, false
	}
	e := s.event
	e.Host = s.host
	s.event = kernel.Event{}
	s.newLinks, s.newAddrs, s.newForeign = false, false, false
	return e, true
}
