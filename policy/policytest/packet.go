package policytest

import (
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"cairn.network/cairn/policy"
)

// Packet returns random packets between the addresses of a world and some beyond, of
// protocols and to ports that its policies name and some beside.
func Packet(w *policy.World) *rapid.Generator[policy.Packet] {
	return rapid.Custom(func(t *rapid.T) policy.Packet {
		d := dice{t}
		v6 := d.oneIn(3, "IPv6")
		return d.packet(w, d.end(w, v6), d.end(w, v6))
	})
}

// packet draws what else there is to a packet between two addresses.
func (d dice) packet(w *policy.World, src, dst netip.Addr) policy.Packet {
	icmpOf := map[bool]uint8{false: icmp, true: icmpv6}[src.Is6()]
	p := policy.Packet{Src: src, Dst: dst, Protocol: pick(d, "protocol", 6, 6, 6, 6, 17, 17, 132, 136, icmpOf, icmpOf, icmpOf, 47)}
	switch {
	case hasPorts(p.Protocol):
		p.SrcPort, p.DstPort = d.portNear(w), d.portNear(w)
	case p.Protocol == icmpOf:
		p.ICMPType, p.ICMPCode = pick[uint8](d, "type", 8, 8, 128, 128, 0, 3, 1), pick[uint8](d, "code", 0, 0, 1)
	}
	return p
}

// end draws an address that the world knows, or one at the border of what it knows.
func (d dice) end(w *policy.World, v6 bool) netip.Addr {
	list := addrs("198.51.100.200", "2001:db8:9::9")
	for _, e := range w.Endpoints {
		list = append(list, e.Addrs...)
		if e.Kind == policy.KindPod { // most packets are theirs
			list = append(list, e.Addrs...)
		}
		for _, n := range e.Nets {
			list = append(list, n.Addr(), n.Addr().Next(), n.Addr().Prev())
		}
	}
	for _, n := range w.Nodes {
		list = append(list, n.Addrs...)
	}
	for _, behind := range w.Services {
		for _, s := range behind {
			list = append(list, s.Addr)
		}
	}
	list = slices.DeleteFunc(list, func(a netip.Addr) bool { return !a.IsValid() || a.Is6() != v6 || a.IsUnspecified() })
	return pick(d, "address", list...)
}

// portNear draws a port that something in the world names, or one beside.
func (d dice) portNear(w *policy.World) uint16 {
	list := []uint16{80, 1024, 40000}
	for _, e := range w.Endpoints {
		for _, p := range e.Ports {
			list = append(list, p.Port)
		}
	}
	for _, p := range w.Policies {
		for _, r := range slices.Concat(p.Rules[0], p.Rules[1]) {
			for _, asked := range slices.Concat(r.Source.Ports, r.Source.NotPorts, r.Destination.Ports, r.Destination.NotPorts) {
				if asked.Name == "" { // the border and beyond; the sums may go round
					list = append(list, asked.First, asked.Last, asked.First-1, asked.Last+1)
				}
			}
		}
	}
	for _, f := range slices.Concat(w.FailSafe[0], w.FailSafe[1]) {
		list = append(list, f.Port)
	}
	return pick(d, "port", list...)
}
