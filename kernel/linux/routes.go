//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewRoutes returns the host's routes that carry Cairn's protocol number, of
// both families and every table.
//
// A route is replaced in place, so that no packet finds none; another's route
// with the same key stays, and the key fails with kernel.ErrForeign.
func NewRoutes(opts ...Option) kernel.Table[kernel.RouteKey, kernel.Route] {
	return &routes{config: configure(opts)}
}

type routes struct {
	config

	mu sync.Mutex
	// doubled holds the keys that the last Read found more than once (another
	// hand appended a route with our protocol), and how often.
	doubled map[kernel.RouteKey]int
}

// doubledType is the type that Read gives to a route that is there more than
// once: it equals nothing that is wanted, so the key will be written.
const doubledType kernel.RouteType = 255

func (t *routes) Read(ctx context.Context) (map[kernel.RouteKey]kernel.Route, error) {
	conn, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	defer conn.Close()
	ours := make(map[kernel.RouteKey]kernel.Route)
	doubled := make(map[kernel.RouteKey]int)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := dumpRoutes(ctx, conn, routeHeader{family: family, protocol: kernel.RouteProtocol})
		if err != nil {
			return nil, fmt.Errorf("read routes: %w", err)
		}
		for _, m := range found {
			// A kernel that does not know the filter sends the others' too.
			if m.protocol != kernel.RouteProtocol {
				continue
			}
			if _, again := ours[m.key]; again {
				m.route = kernel.Route{Type: doubledType}
				doubled[m.key] = max(doubled[m.key], 1) + 1
			}
			ours[m.key] = m.route
		}
	}
	t.mu.Lock()
	t.doubled = doubled
	t.mu.Unlock()
	return ours, nil
}

// dumpRoutes lists the routes that the header selects: by family, and by table
// and protocol where they are not zero.
func dumpRoutes(ctx context.Context, conn *netlink.Conn, h routeHeader) ([]routeMessage, error) {
	links := newNames(conn)
	var found []routeMessage
	request := netlink.Message{Header: netlink.Header{Type: unix.RTM_GETROUTE}, Data: h.marshal()}
	err := dump(ctx, conn, request, func() { found = nil }, func(m netlink.Message) error {
		if m.Header.Type != unix.RTM_NEWROUTE {
			return nil
		}
		r, ok, err := parseRoute(m.Data, links.name)
		if ok {
			found = append(found, r)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // no route was ever put into this table
	}
	return found, err
}

func (t *routes) Write(ctx context.Context, set map[kernel.RouteKey]kernel.Route, del []kernel.RouteKey) error {
	conn, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("write routes: %w", err)
	}
	defer conn.Close()
	w := &routeWrite{ctx: ctx, conn: conn, links: newNames(conn)}
	t.mu.Lock()
	w.doubled = maps.Clone(t.doubled)
	t.mu.Unlock()
	if err := w.set(set); err != nil {
		return errors.Join(append(w.failures, fmt.Errorf("write routes: %w", err))...)
	}
	if err := w.delete(del); err != nil {
		return errors.Join(append(w.failures, fmt.Errorf("write routes: %w", err))...)
	}
	return errors.Join(w.failures...)
}

// routeWrite is one call of Write.
type routeWrite struct {
	ctx     context.Context
	conn    *netlink.Conn
	links   *names
	doubled map[kernel.RouteKey]int
	failures[kernel.RouteKey]
}

// set makes every route that is not there yet, which the kernel refuses where
// its key is taken; what is taken is settled afterwards.
func (w *routeWrite) set(set map[kernel.RouteKey]kernel.Route) error {
	var p pipeline[kernel.RouteKey]
	for k, r := range set {
		if err := r.Check(k); err != nil {
			w.fail("set", k, err)
			continue
		}
		if err := p.add(k)(newRoute(k, r, netlink.Create|netlink.Excl, w.links)); err != nil {
			w.fail("set", k, err)
		}
	}
	taken := make(map[kernel.RouteKey]kernel.Route)
	err := p.run(w.ctx, w.conn, func(k kernel.RouteKey, err error) {
		switch {
		case errors.Is(err, unix.EEXIST):
			taken[k] = set[k]
		case err != nil:
			w.fail("set", k, w.explain(set[k], err))
		}
	})
	if err != nil || len(taken) == 0 {
		return err
	}
	return w.settle(taken)
}

func (w *routeWrite) delete(del []kernel.RouteKey) error {
	var p pipeline[kernel.RouteKey]
	for _, k := range del {
		for range max(w.doubled[k], 1) {
			if err := p.add(k)(delRoute(k)); err != nil {
				w.fail("delete", k, err)
			}
		}
	}
	return p.run(w.ctx, w.conn, func(k kernel.RouteKey, err error) {
		if err != nil && !errors.Is(err, unix.ESRCH) {
			w.fail("delete", k, err)
		}
	})
}

// explain adds to a refusal what the kernel does not say.
func (w *routeWrite) explain(r kernel.Route, err error) error {
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return fmt.Errorf("no way to the gateway on its link (%v): %w", r.Hops, err)
	}
	return err
}
