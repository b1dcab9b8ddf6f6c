package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Protocol numbers of routes that others make (rtnetlink(7), rt_protos).
const (
	ProtocolKernel = 2 // connected routes
	ProtocolBoot   = 3 // ip route add
	ProtocolStatic = 4 // an administrator's
)

// fakeRoute is a route and whose it is.
type fakeRoute struct {
	Route
	protocol uint8
}

// Routes returns the table of Cairn's routes.
func (f *Fake) Routes() Table[RouteKey, Route] { return fakeRoutes{f} }

type fakeRoutes struct{ *Fake }

func (f fakeRoutes) Read(ctx context.Context) (map[RouteKey]Route, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "routes")); err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	return f.ourRoutes(), nil
}

func (f fakeRoutes) Write(ctx context.Context, set map[RouteKey]Route, del []RouteKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write routes: %w", err)
	}
	var errs []error
	for k, r := range set {
		f.writes++
		if err := cmp.Or(f.failure("set", k), r.Check(k), f.possible(k, r), f.ours(k)); err != nil {
			errs = append(errs, &KeyError[RouteKey]{Op: "set", Key: k, Err: err})
			continue
		}
		f.put(k, r, RouteProtocol)
	}
	for _, k := range del {
		f.writes++
		if err := f.failure("delete", k); err != nil {
			errs = append(errs, &KeyError[RouteKey]{Op: "delete", Key: k, Err: err})
			continue
		}
		if r, ok := f.routes[k]; ok && r.protocol == RouteProtocol {
			f.drop(k)
		}
	}
	return errors.Join(errs...)
}

// ours returns an error when another's route stands at k.
func (f *Fake) ours(k RouteKey) error {
	if r, ok := f.routes[k]; ok && r.protocol != RouteProtocol {
		return fmt.Errorf("a route of protocol %d is there: %w: %w", r.protocol, ErrForeign, syscall.EEXIST)
	}
	return nil
}

// possible returns the error that Linux has for a route that does not fit the
// host as it is.
func (f *Fake) possible(k RouteKey, r Route) error {
	for _, h := range r.Hops.List() {
		l, ok := f.links[h.Link]
		switch {
		case !ok:
			return fmt.Errorf("link %s: %w", h.Link, syscall.ENODEV)
		case !l.Up:
			return fmt.Errorf("link %s: %w", h.Link, syscall.ENETDOWN)
		case !h.Gateway.IsValid():
		case f.local(h.Gateway):
			return fmt.Errorf("gateway %v is the host's own: %w", h.Gateway, syscall.EINVAL)
		case !h.OnLink && !f.onLink(h.Gateway, h.Link):
			errno := syscall.ENETUNREACH
			if h.Gateway.Is6() {
				errno = syscall.EHOSTUNREACH
			}
			return fmt.Errorf("gateway %v is not on link %s: %w", h.Gateway, h.Link, errno)
		}
	}
	if r.Source.IsValid() && !f.local(r.Source) {
		return fmt.Errorf("source %v is no address of the host: %w", r.Source, syscall.EINVAL)
	}
	return nil
}

// local says whether ip is an address of the host.
func (f *Fake) local(ip netip.Addr) bool {
	for a := range f.addrs {
		if a.Prefix.Addr() == ip {
			return true
		}
	}
	return false
}

// onLink says whether a route without gateway leads to ip through link.
func (f *Fake) onLink(ip netip.Addr, link string) bool {
	if ip.Is6() && ip.IsLinkLocalUnicast() {
		return true
	}
	best := -1
	direct := false
	for k, r := range f.routes {
		if k.Table != MainTable || !k.Dst.Contains(ip) || k.Dst.Bits() <= best {
			continue
		}
		for _, h := range r.Hops.List() {
			if h.Link == link {
				best, direct = k.Dst.Bits(), !h.Gateway.IsValid()
			}
		}
	}
	return direct
}

func (f *Fake) put(k RouteKey, r Route, protocol uint8) {
	old, existed := f.routes[k]
	f.routes[k] = fakeRoute{r, protocol}
	e := Event{}
	if protocol == RouteProtocol {
		e.change(k, &r)
	} else if existed && old.protocol == RouteProtocol {
		e.change(k, nil)
	}
	f.tell(e, protocol != RouteProtocol || existed && old.protocol != RouteProtocol)
}

func (f *Fake) drop(k RouteKey) {
	old := f.routes[k]
	delete(f.routes, k)
	e := Event{}
	if old.protocol == RouteProtocol {
		e.change(k, nil)
	}
	f.tell(e, old.protocol != RouteProtocol)
}

// PutRoute does what "ip route replace" with a protocol does: it puts a route
// there whoever's was there before. With RouteProtocol it is a change of ours by
// another hand.
func (f *Fake) PutRoute(k RouteKey, r Route, protocol uint8) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(k, r, protocol)
}

// DropRoute does what "ip route del" does, whoever's the route is.
func (f *Fake) DropRoute(k RouteKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.routes[k]; ok {
		f.drop(k)
	}
}

// OurRoutes returns the routes that carry Cairn's protocol number.
func (f *Fake) OurRoutes() map[RouteKey]Route {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ourRoutes()
}

func (f *Fake) ourRoutes() map[RouteKey]Route {
	ours := make(map[RouteKey]Route)
	for k, r := range f.routes {
		if r.protocol == RouteProtocol {
			ours[k] = r.Route
		}
	}
	return ours
}
