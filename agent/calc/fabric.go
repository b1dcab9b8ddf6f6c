package calc

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// fabric is the host as routes to other nodes depend on it: without the links
// of pods, which come and go and lead nowhere else, and without Cairn's tunnels,
// which carry packets for pods and never those between nodes.
type fabric struct {
	links   map[string]port
	addrs   map[kernel.Addr]struct{}
	foreign map[kernel.RouteKey]kernel.NextHops
	release string // of the kernel
	// vmxnet3 says that one of the host's network cards has this driver, be it below
	// a VLAN or a bond.
	vmxnet3 bool

	holders map[netip.Addr]string     // the link of each of the host's addresses
	ways    map[netip.Prefix][]onward // by destination, the lowest metric first
	// outward is the least MTU of the links by which gateways are reached, by family
	// of the routes; without an entry there are none.
	outward map[bgp.Family]int
}

// port is what counts of a link.
type port struct {
	mtu int
	up  bool
	// inert says that nothing leaves the host by it: who has an address on it is
	// reached by other links.
	inert bool
}

// onward is a route of others, by which next hops are resolved.
type onward struct {
	priority uint32
	hops     []kernel.NextHop
}

// newFabric returns the host's fabric; the earlier one if nothing in it changed.
func newFabric(h *kernel.Host, earlier *fabric) *fabric {
	f := &fabric{
		links:   map[string]port{},
		addrs:   map[kernel.Addr]struct{}{},
		foreign: make(map[kernel.RouteKey]kernel.NextHops, len(h.Foreign)),
		release: h.Release,
	}
	note := func(link string) {
		if l, ok := h.Links[link]; ok {
			f.links[link] = port{l.MTU, l.Up, l.Name == "lo" || l.Kind == "dummy"}
		}
	}
	for _, l := range h.Links {
		f.vmxnet3 = f.vmxnet3 || l.Driver == "vmxnet3"
	}
	for a := range h.Addrs {
		if a.Prefix.IsValid() && !a.Prefix.Addr().IsLinkLocalUnicast() && !isInner(h, a.Link) {
			f.addrs[a] = struct{}{}
			note(a.Link)
		}
	}
	// Most routes share few sets of next hops.
	known := map[kernel.NextHops]kernel.NextHops{}
	for k, r := range h.Foreign {
		if k.Table != kernel.MainTable || r.Type != kernel.Unicast || !k.Dst.IsValid() || k.Dst.Addr().IsLinkLocalUnicast() {
			continue
		}
		hops, ok := known[r.Hops]
		if !ok {
			list := slices.DeleteFunc(r.Hops.List(), func(hop kernel.NextHop) bool { return isInner(h, hop.Link) })
			for _, hop := range list {
				note(hop.Link)
			}
			hops = kernel.Hops(list...)
			known[r.Hops] = hops
		}
		if hops.Len() > 0 {
			f.foreign[k] = hops
		}
	}
	if earlier != nil && f.release == earlier.release && f.vmxnet3 == earlier.vmxnet3 && maps.Equal(f.links, earlier.links) && maps.Equal(f.addrs, earlier.addrs) && maps.Equal(f.foreign, earlier.foreign) {
		return earlier
	}
	f.index()
	return f
}

// isInner says whether a link leads to pods: to one here, or through a tunnel.
func isInner(h *kernel.Host, name string) bool {
	l, ok := h.Links[name]
	if !ok {
		return strings.HasPrefix(name, kernel.PodLinkPrefix) || slices.Contains(kernel.TunnelLinks(), name)
	}
	_, pod := kernel.ParsePodAlias(l.Alias)
	return pod || l.Alias == kernel.TunnelAlias
}

func (f *fabric) index() {
	f.holders = make(map[netip.Addr]string, len(f.addrs))
	f.ways = make(map[netip.Prefix][]onward, len(f.foreign))
	f.outward = make(map[bgp.Family]int)
	for k, hops := range f.foreign {
		list := hops.List()
		f.ways[k.Dst] = append(f.ways[k.Dst], onward{k.Priority, list})
		family := bgp.FamilyOf(k.Dst.Addr())
		for _, hop := range list {
			if mtu, least := f.links[hop.Link].mtu, f.outward[family]; hop.Gateway.IsValid() && mtu > 0 && (least == 0 || mtu < least) {
				f.outward[family] = mtu
			}
		}
	}
	for _, ways := range f.ways {
		slices.SortFunc(ways, func(a, b onward) int { return cmp.Compare(a.priority, b.priority) })
	}
	addrs := slices.SortedFunc(maps.Keys(f.addrs), compareAddrs)
	for _, a := range addrs {
		if _, ok := f.holders[a.Prefix.Addr()]; !ok {
			f.holders[a.Prefix.Addr()] = a.Link
		}
		// An address without a route to its subnet (noprefixroute) still says what
		// is on the link; the kernel then wants to be told so.
		if subnet := a.Prefix.Masked(); len(f.ways[subnet]) == 0 && !subnet.IsSingleIP() {
			f.ways[subnet] = []onward{{hops: []kernel.NextHop{{Link: a.Link, OnLink: true, Weight: 1}}}}
		}
	}
}

// linkOf returns the link that has an address; its MTU is 0 if there is none.
func (f *fabric) linkOf(a netip.Addr) port { return f.links[f.holders[a]] }

// reach is how an address is reached.
type reach struct {
	hops []kernel.NextHop // empty: not at all
	why  string           // if not: the reason, to follow the address
	// by holds the address and each gateway on the way to it, each with the length
	// of the prefix that it was found by. A route to as long a prefix around one of
	// them would cut it off.
	by []netip.Prefix
}

// cutOff says whether a route to dst by this way would hide the way itself.
func (r reach) cutOff(dst netip.Prefix) bool {
	return slices.ContainsFunc(r.by, func(p netip.Prefix) bool {
		return dst.Bits() >= p.Bits() && dst.Contains(p.Addr())
	})
}

// resolve finds the way to a next hop by the routes of others: the longest
// prefix, then the lowest metric with a link that is up. The gateways of the
// kernel's routes are on their link, so one step is enough and there are no
// loops.
func (f *fabric) resolve(a netip.Addr) reach {
	if link, ok := f.holders[a]; ok {
		return reach{why: "is an address of this host on " + link}
	}
	bits, ways := f.lookup(a)
	why := "is not reachable"
	for _, w := range ways {
		r := reach{by: []netip.Prefix{netip.PrefixFrom(a, bits)}}
		for _, hop := range w.hops {
			if !f.links[hop.Link].up {
				why = "is not reachable: link " + hop.Link + " is down"
				continue
			}
			if hop.Gateway.IsValid() {
				r.by = append(r.by, f.onLink(hop.Gateway, hop.Link).by...)
			} else {
				hop.Gateway = a
			}
			r.hops = append(r.hops, hop)
		}
		if len(r.hops) > 0 {
			return r
		}
	}
	return reach{why: why}
}

// outer returns an address and the gateways on the way to it, as by of a reach
// has them: what a tunnel's packets between nodes need. There need not be a way
// just now, the tunnel is the same.
func (f *fabric) outer(a netip.Addr) []netip.Prefix {
	if r := f.resolve(a); r.why == "" {
		return r.by
	}
	return []netip.Prefix{netip.PrefixFrom(a, 0)}
}

// lookup returns the routes to the longest prefix around an address, and its
// length.
func (f *fabric) lookup(a netip.Addr) (int, []onward) {
	for bits := a.BitLen(); bits >= 0; bits-- {
		if ways := f.ways[netip.PrefixFrom(a, bits).Masked()]; len(ways) > 0 {
			return bits, ways
		}
	}
	return 0, nil
}

// direct returns the way to a neighbour in the subnet of an own address.
func (f *fabric) direct(own, neighbour netip.Addr) reach {
	link, ok := f.holders[own]
	if !ok {
		return reach{why: "node address " + own.String() + " is on no link"}
	}
	if !f.links[link].up {
		return reach{why: "link " + link + " is down"}
	}
	return f.onLink(neighbour, link)
}

// onLink returns the way to an address that is on a link. The kernel believes
// that only if a route says so, or the next hop does.
func (f *fabric) onLink(a netip.Addr, link string) reach {
	hop := kernel.NextHop{Gateway: a, Link: link, OnLink: true, Weight: 1}
	for bits := a.BitLen(); bits > 0; bits-- {
		for _, w := range f.ways[netip.PrefixFrom(a, bits).Masked()] {
			for _, h := range w.hops {
				if h.Link == link && !h.Gateway.IsValid() {
					hop.OnLink = h.OnLink
					return reach{hops: []kernel.NextHop{hop}, by: []netip.Prefix{netip.PrefixFrom(a, bits)}}
				}
			}
		}
	}
	return reach{hops: []kernel.NextHop{hop}, by: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}}
}
