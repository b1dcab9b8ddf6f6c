package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// Exchange is Assign for a handle whose request may change, and names the
// families. What it has of them in pools that the request may use stays, what
// else it has is given back, in one step: it is never without. If there is
// nothing to give instead, it keeps what it has, and there is an error.
func (a *Allocator) Exchange(ctx context.Context, r Request) (Assignment, error) {
	if !r.IPv4 && !r.IPv6 {
		return Assignment{}, fmt.Errorf("exchange: %w: it names no family", ErrInvalid)
	}
	return a.assign(ctx, r, true)
}

// open returns which addresses of an entry, if there is one, answer a request, and
// the demands that are open besides. Without exchange all that it has does.
func (a *Allocator) open(e *entry, r Request, exchange bool) (keep []netip.Addr, demands []*demand, err error) {
	if e != nil && !exchange {
		return e.Addrs(), nil, nil
	}
	all, err := a.choose(r)
	if e == nil || err != nil {
		return nil, all, err
	}
	for _, d := range all {
		pools := a.poolsFor(d)
		i := slices.IndexFunc(e.Addrs(), func(ip netip.Addr) bool {
			return ip.Is4() == d.ip4 && slices.ContainsFunc(pools, func(p pool) bool { return p.cidr.Contains(ip) })
		})
		if i < 0 {
			demands = append(demands, d)
		} else {
			keep = append(keep, e.Addrs()[i])
		}
	}
	return keep, demands, nil
}
