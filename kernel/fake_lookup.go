package kernel

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// Route decides by the main table, and by the host's addresses. Fail("route", dst,
// err) makes it fail.
func (f *Fake) Route(ctx context.Context, q RouteQuery) (Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("route", q.Dst), f.known(q.InLink)); err != nil {
		return Decision{}, fmt.Errorf("look up the route to %v: %w", q.Dst, err)
	}
	if q.InLink != "" && f.local(q.Src) {
		return Decision{Type: DecidedRefused, Src: q.Src}, nil
	}
	if f.local(q.Dst) {
		return Decision{Type: DecidedLocal, Link: "lo", Src: cmp.Or(q.Src, q.Dst), Table: LocalTable}, nil
	}
	key, found := RouteKey{}, false
	for k := range f.routes {
		if k.Table != MainTable || !k.Dst.Contains(q.Dst) {
			continue
		}
		longer, same := k.Dst.Bits() > key.Dst.Bits(), k.Dst.Bits() == key.Dst.Bits()
		if !found || longer || same && k.Priority < key.Priority {
			key, found = k, true
		}
	}
	r := f.routes[key]
	switch {
	case !found:
		return Decision{Type: DecidedNone, Src: q.Src}, nil
	case r.Type == Blackhole:
		return Decision{Type: DecidedBlackhole, Src: q.Src}, nil
	case r.Type != Unicast:
		return Decision{Type: DecidedUnreachable, Src: q.Src}, nil
	}
	hop := r.Hops.List()[0]
	return Decision{
		Type: DecidedUnicast, Gateway: hop.Gateway, Link: hop.Link, Table: key.Table,
		Src: cmp.Or(q.Src, r.Source, f.sourceOn(hop.Link, q.Dst)),
	}, nil
}

// known returns an error when there is no link of this name.
func (f *Fake) known(link string) error {
	if _, ok := f.links[link]; link != "" && !ok {
		return fmt.Errorf("link %s: %w", link, syscall.ENODEV)
	}
	return nil
}

// sourceOn returns the least address of a link that is of the family of dst.
func (f *Fake) sourceOn(link string, dst netip.Addr) (source netip.Addr) {
	for a := range f.addrs {
		ip := a.Prefix.Addr()
		if a.Link == link && ip.Is4() == dst.Is4() && (!source.IsValid() || ip.Less(source)) {
			source = ip
		}
	}
	return source
}
