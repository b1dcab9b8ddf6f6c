//go:build linux

package linux

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// probeLimit is how many taken keys are looked up one by one; for more, listing
// the tables is quicker.
const probeLimit = 16

// settle sets the routes whose keys are taken: by ours, which is replaced, or by
// another's, which is not. The kernel's own "replace" asks nobody: it takes the
// first route of the key, whatever its protocol.
func (w *routeWrite) settle(taken map[kernel.RouteKey]kernel.Route) error {
	var p pipeline[kernel.RouteKey]
	unsure := make(map[kernel.RouteKey]kernel.Route)
	for k, r := range taken {
		if w.doubled[k] > 0 || len(taken) > probeLimit || !w.standsAlone(k) {
			unsure[k] = r
			continue
		}
		w.replace(&p, k, r)
	}
	var extra pipeline[kernel.RouteKey]
	if len(unsure) > 0 {
		there, err := w.list(unsure)
		if err != nil {
			return err
		}
		for k, r := range unsure {
			w.resolve(k, r, there[k], &p, &extra)
		}
	}
	err := p.run(w.ctx, w.conn, func(k kernel.RouteKey, err error) {
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("the routes of this key are changing: %w: %w", kernel.ErrBusy, err)
		}
		if err != nil {
			w.fail("set", k, w.explain(taken[k], err))
		}
	})
	if err != nil {
		return err
	}
	return extra.run(w.ctx, w.conn, func(k kernel.RouteKey, err error) {
		if err != nil && !errors.Is(err, unix.ESRCH) {
			w.fail("set", k, fmt.Errorf("delete a second route of this key: %w", err))
		}
	})
}

// resolve decides what to do for a key, knowing every route there, in the
// kernel's order. The first one is used for packets.
func (w *routeWrite) resolve(k kernel.RouteKey, r kernel.Route, there []routeMessage, p, extra *pipeline[kernel.RouteKey]) {
	ours := func(m routeMessage) bool { return m.protocol == kernel.RouteProtocol }
	if len(there) == 0 { // gone meanwhile
		if err := p.add(k)(newRoute(k, r, netlink.Create|netlink.Excl, w.links)); err != nil {
			w.fail("set", k, err)
		}
		return
	}
	if !ours(there[0]) {
		w.fail("set", k, fmt.Errorf("a route of protocol %d is there: %w: %w", there[0].protocol, kernel.ErrForeign, unix.EEXIST))
		return
	}
	wanted := slices.IndexFunc(there, func(m routeMessage) bool { return ours(m) && m.route == r })
	if wanted < 0 {
		w.replace(p, k, r)
		wanted = 0
	}
	for i, m := range there {
		if i == wanted || !ours(m) {
			continue
		}
		if err := extra.add(k)(delRouteExactly(k, m.route, w.links)); err != nil {
			w.fail("set", k, err)
		}
	}
}

func (w *routeWrite) replace(p *pipeline[kernel.RouteKey], k kernel.RouteKey, r kernel.Route) {
	if err := p.add(k)(newRoute(k, r, netlink.Create|netlink.Replace, w.links)); err != nil {
		w.fail("set", k, err)
	}
}

// standsAlone says whether the route that the kernel uses for the first address
// of k is ours and the one at k. False also means that this can't be seen: a
// longer prefix or a better metric may hide it, and a blackhole is never shown.
func (w *routeWrite) standsAlone(k kernel.RouteKey) bool {
	h := routeHeader{family: family(k.Dst.Addr()), dstLen: uint8(k.Dst.Addr().BitLen()), flags: unix.RTM_F_FIB_MATCH}
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.RTA_DST, k.Dst.Addr().AsSlice())
	m, err := request(unix.RTM_GETROUTE, netlink.Request, h.marshal(), attrs)
	if err != nil {
		return false
	}
	replies, err := w.conn.Execute(m)
	if err != nil || len(replies) != 1 || replies[0].Header.Type != unix.RTM_NEWROUTE {
		return false
	}
	r, ok, err := parseRoute(replies[0].Data, w.links.name)
	return err == nil && ok && r.key == k && r.protocol == kernel.RouteProtocol
}

// list returns every route, whoever's, at the keys.
func (w *routeWrite) list(keys map[kernel.RouteKey]kernel.Route) (map[kernel.RouteKey][]routeMessage, error) {
	type part struct {
		family uint8
		table  uint32
	}
	parts := make(map[part]bool)
	for k := range keys {
		p := part{family: family(k.Dst.Addr())}
		if k.Table < 256 { // the header has one byte for it; 0 lists every table
			p.table = k.Table
		}
		parts[p] = true
	}
	there := make(map[kernel.RouteKey][]routeMessage)
	for p := range parts {
		found, err := dumpRoutes(w.ctx, w.conn, routeHeader{family: p.family, table: uint8(p.table)})
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			if _, asked := keys[m.key]; asked && (p.table == 0) == (m.key.Table >= 256) {
				there[m.key] = append(there[m.key], m)
			}
		}
	}
	return there, nil
}
