package kernel

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"syscall"
)

// Neighbours returns the table of permanent neighbour entries on tunnel devices.
func (f *Fake) Neighbours() Table[Neighbour, MAC] { return fakeNeighbours{f} }

type fakeNeighbours struct{ *Fake }

func (f fakeNeighbours) Read(ctx context.Context) (map[Neighbour]MAC, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "neighbours")); err != nil {
		return nil, fmt.Errorf("read neighbours: %w", err)
	}
	have := make(map[Neighbour]MAC, len(f.tunnels.neighbours))
	for n, mac := range f.tunnels.neighbours {
		if IsTunnelLink(f.links[n.Link]) {
			have[n] = mac
		}
	}
	return have, nil
}

func (f fakeNeighbours) Write(ctx context.Context, set map[Neighbour]MAC, del []Neighbour) error {
	put := func(n Neighbour, mac MAC) error {
		err := cmp.Or(n.Check(mac), f.ourLink(n.Link))
		if err == nil {
			f.putNeighbour(n, mac)
		}
		return err
	}
	drop := func(n Neighbour) error {
		if f.ourLink(n.Link) == nil {
			f.dropNeighbour(n)
		}
		return nil
	}
	return fakeWrite(ctx, f.Fake, "neighbours", set, del, put, drop)
}

func (f *Fake) putNeighbour(n Neighbour, mac MAC) {
	if f.tunnels.neighbours == nil {
		f.tunnels.neighbours = make(map[Neighbour]MAC)
	}
	f.tunnels.neighbours[n] = mac
	f.tellNeighbour(n, &mac)
}

func (f *Fake) dropNeighbour(n Neighbour) {
	if _, there := f.tunnels.neighbours[n]; there {
		delete(f.tunnels.neighbours, n)
		f.tellNeighbour(n, nil)
	}
}

// tellNeighbour tells of an entry if its link is Cairn's.
func (f *Fake) tellNeighbour(n Neighbour, mac *MAC) {
	if f.ourLink(n.Link) == nil {
		f.tell(Event{Neighbours: map[Neighbour]*MAC{n: mac}}, false)
	}
}

// dropNeighbours removes what a link loses when it goes down or gets another MAC
// address.
func (f *Fake) dropNeighbours(link string, e *Event) {
	maps.DeleteFunc(f.tunnels.neighbours, func(n Neighbour, _ MAC) bool {
		if n.Link != link {
			return false
		}
		if f.ourLink(link) == nil {
			e.Neighbours = together(e.Neighbours, map[Neighbour]*MAC{n: nil})
		}
		return true
	})
}

// PutNeighbour does what "ip neigh replace … nud permanent" does.
func (f *Fake) PutNeighbour(n Neighbour, mac MAC) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.putNeighbour(n, mac)
}

// DropNeighbour does what "ip neigh del" does.
func (f *Fake) DropNeighbour(n Neighbour) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropNeighbour(n)
}

// Forwarding returns the table of entries in the forwarding databases of VXLAN
// devices.
func (f *Fake) Forwarding() Table[Forwarding, netip.Addr] { return fakeForwarding{f} }

type fakeForwarding struct{ *Fake }

func (f fakeForwarding) Read(ctx context.Context) (map[Forwarding]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "forwarding")); err != nil {
		return nil, fmt.Errorf("read forwarding entries: %w", err)
	}
	have := make(map[Forwarding]netip.Addr, len(f.tunnels.forwarding))
	for k, node := range f.tunnels.forwarding {
		if IsTunnelLink(f.links[k.Link]) {
			have[k] = node
		}
	}
	return have, nil
}

func (f fakeForwarding) Write(ctx context.Context, set map[Forwarding]netip.Addr, del []Forwarding) error {
	put := func(k Forwarding, node netip.Addr) error {
		err := cmp.Or(k.Check(node), f.ourLink(k.Link), f.reaches(k.Link, node))
		if err == nil {
			f.putForwarding(k, node)
		}
		return err
	}
	drop := func(k Forwarding) error {
		if f.ourLink(k.Link) == nil {
			f.dropForwardingEntry(k)
		}
		return nil
	}
	return fakeWrite(ctx, f.Fake, "forwarding entries", set, del, put, drop)
}

// reaches returns the error that Linux has for a node of an address that a device
// can't send to.
func (f *Fake) reaches(link string, node netip.Addr) error {
	t := f.tunnel(f.links[link])
	switch {
	case t.Kind != VXLAN:
		return fmt.Errorf("link %s is of kind %s: %w", link, t.Kind, syscall.EINVAL)
	case t.Local.Is4() != node.Is4():
		return fmt.Errorf("%w: %w", ErrUnsupported, syscall.EAFNOSUPPORT)
	}
	return nil
}

func (f *Fake) putForwarding(k Forwarding, node netip.Addr) {
	if f.tunnels.forwarding == nil {
		f.tunnels.forwarding = make(map[Forwarding]netip.Addr)
	}
	if old, there := f.tunnels.forwarding[k]; there && old == node {
		return // the kernel says nothing
	}
	f.tunnels.forwarding[k] = node
	f.tellForwarding(k, &node)
}

func (f *Fake) dropForwardingEntry(k Forwarding) {
	if _, there := f.tunnels.forwarding[k]; there {
		delete(f.tunnels.forwarding, k)
		f.tellForwarding(k, nil)
	}
}

// tellForwarding tells of an entry if its link is Cairn's.
func (f *Fake) tellForwarding(k Forwarding, node *netip.Addr) {
	if f.ourLink(k.Link) == nil {
		f.tell(Event{Forwarding: map[Forwarding]*netip.Addr{k: node}}, false)
	}
}

// dropForwarding removes what goes with a device.
func (f *Fake) dropForwarding(link string, e *Event) {
	maps.DeleteFunc(f.tunnels.forwarding, func(k Forwarding, _ netip.Addr) bool {
		if k.Link != link {
			return false
		}
		if f.ourLink(link) == nil {
			e.Forwarding = together(e.Forwarding, map[Forwarding]*netip.Addr{k: nil})
		}
		return true
	})
}

// PutForwarding does what "bridge fdb replace … self permanent" does.
func (f *Fake) PutForwarding(k Forwarding, node netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.putForwarding(k, node)
}

// DropForwarding does what "bridge fdb del" does.
func (f *Fake) DropForwarding(k Forwarding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropForwardingEntry(k)
}
