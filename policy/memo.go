package policy

import "net/netip"

// memo is what was found of a world, so that many questions cost less. The zero value
// remembers nothing.
type memo struct {
	byAddr  map[netip.Addr][]*Endpoint // those with the address, in their order, and all of nets
	nets    []*Endpoint                // those with nets
	sites   map[netip.Addr]site
	concern map[concern][]TierPolicies
	uplinks map[uplink]*Endpoint
	asked   *asked
}

// uplink is what World.uplink is asked.
type uplink struct {
	node string
	addr netip.Addr
}

// concern is what Concerning is asked.
type concern struct {
	endpoint  *Endpoint
	direction Direction
	phase     Phase
}

// Remembering returns the same world, which keeps what it finds out: many questions cost
// less then. It is for one goroutine, and neither world may be changed any more.
func (w *World) Remembering() *World {
	kept := *w
	kept.memo = newMemo(&kept)
	return &kept
}

func newMemo(w *World) memo {
	m := memo{
		byAddr: map[netip.Addr][]*Endpoint{}, sites: map[netip.Addr]site{},
		concern: map[concern][]TierPolicies{}, uplinks: map[uplink]*Endpoint{},
	}
	for _, e := range w.Endpoints {
		if len(e.Nets) > 0 {
			m.nets = append(m.nets, e)
			continue
		}
		for _, a := range e.Addrs {
			m.byAddr[a] = append(m.byAddr[a], e)
		}
	}
	for a, list := range m.byAddr {
		m.byAddr[a] = append(list, m.nets...)
	}
	return m
}

// at returns endpoints among which are all that have an address.
func (w *World) at(a netip.Addr) []*Endpoint {
	if w.memo.byAddr == nil {
		return w.Endpoints
	}
	if list, ok := w.memo.byAddr[a]; ok {
		return list
	}
	return w.memo.nets
}

// kept returns what is remembered in by, or else what find says.
func kept[K comparable, V any](by map[K]V, k K, find func() V) V {
	if by == nil {
		return find()
	}
	found, ok := by[k]
	if !ok {
		found = find()
		by[k] = found
	}
	return found
}
