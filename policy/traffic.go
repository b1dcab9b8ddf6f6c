package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Traffic is packets between two ends that no policy between them tells apart: of one
// protocol and, where it has ports, to a range of them; of ICMP, of one type and code. It
// holds one of each as example.
type Traffic struct {
	Protocol    uint8
	First, Last uint16 // ports of the destination; 1 to 65535: all of the protocol
	// Source is the port of the source: one that no rule names.
	Source uint16
	ICMP   ICMP // of ICMP and ICMPv6
	// Rest says that it stands for all that is not named otherwise: with Whole, of every
	// protocol that is not, else of the protocol.
	Rest, Whole bool
}

// Packet returns an example.
func (t Traffic) Packet(src, dst netip.Addr) Packet {
	p := Packet{Src: src, Dst: dst, Protocol: t.Protocol}
	switch {
	case hasPorts(t.Protocol):
		p.SrcPort, p.DstPort = t.Source, t.First
	case t.Protocol == protoICMP || t.Protocol == protoICMPv6:
		p.ICMPType, p.ICMPCode = t.ICMP.Type, t.ICMP.Code
	}
	return p
}

// String says it for people: "tcp 80", "tcp 8000-8099", "other tcp", "icmp type 8",
// "anything else".
func (t Traffic) String() string {
	name := strings.ToLower(protocolText(t.Protocol))
	switch {
	case t.Whole && !t.Rest:
		return "anything"
	case t.Whole:
		return "anything else"
	case t.Rest:
		return "other " + name
	case hasPorts(t.Protocol) && (t.First > 1 || t.Last < 65535) && t.Last > 0:
		return name + " " + Port{First: t.First, Last: t.Last}.String()
	case (t.Protocol == protoICMP || t.Protocol == protoICMPv6) && t.Last == 0:
		return name + " " + t.ICMP.String()
	}
	return name
}

// Mention gathers what policies name of packets: protocols, ports, types of ICMP. The
// zero value has nothing.
type Mention struct {
	protocols map[uint8]bool
	ports     map[uint8][]Port // of destinations, by protocol
	sources   []Port
	icmp      map[uint8][]ICMP // by protocol
}

// Between adds what the policies name that packets between two addresses meet.
func (m *Mention) Between(w *World, src, dst netip.Addr) {
	from, to := w.siteOf(src), w.siteOf(dst)
	if from.pod != nil {
		m.concerning(w, from.pod, Egress, src, dst, Normal)
	}
	if to.pod != nil {
		m.concerning(w, to.pod, Ingress, src, dst, Normal)
	}
	if from.node == to.node {
		return
	}
	if host := w.uplink(from.node, src); host != nil {
		phases := []Phase{Untracked, Normal}
		if from.pod != nil {
			phases = []Phase{Forward}
		}
		m.concerning(w, host, Egress, src, dst, phases...)
	}
	if host := w.uplink(to.node, dst); host != nil {
		last := Normal
		if to.pod != nil {
			last = Forward
		}
		m.concerning(w, host, Ingress, src, dst, Untracked, PreDNAT, last)
	}
}

// concerning adds what the policies name that an endpoint asks in some phases.
func (m *Mention) concerning(w *World, e *Endpoint, d Direction, src, dst netip.Addr, phases ...Phase) {
	for _, ph := range phases {
		tiers := w.Concerning(e, d, ph)
		for _, t := range tiers {
			for _, p := range t.Policies {
				for _, r := range p.Rules[d] {
					m.rule(w, r, src, dst)
				}
			}
		}
		if e.Kind == KindHost && len(tiers) > 0 && ph != Forward {
			m.failSafe(w.FailSafe, d, ph)
		}
	}
}

// failSafe adds the ports that a host endpoint leaves open in a phase. Before
// connections are tracked, what answers from such a port is let through, too.
func (m *Mention) failSafe(ports [2][]FailSafe, d Direction, ph Phase) {
	for _, f := range ports[d] {
		m.port(f.Protocol, Port{First: f.Port, Last: f.Port})
	}
	if ph != Untracked {
		return
	}
	for _, f := range ports[1-d] {
		m.protocol(f.Protocol)
		m.sources = append(m.sources, Port{First: f.Port, Last: f.Port})
	}
}

func (m *Mention) protocol(n uint8) {
	if m.protocols == nil {
		m.protocols, m.ports, m.icmp = map[uint8]bool{}, map[uint8][]Port{}, map[uint8][]ICMP{}
	}
	if n != 0 {
		m.protocols[n] = true
	}
}

func (m *Mention) port(protocol uint8, p Port) {
	m.protocol(protocol)
	if !slices.Contains(m.ports[protocol], p) {
		m.ports[protocol] = append(m.ports[protocol], p)
	}
}

func (m *Mention) rule(w *World, r Rule, src, dst netip.Addr) {
	m.protocol(r.Protocol)
	m.protocol(r.NotProtocol)
	for _, i := range []*ICMP{r.ICMP, r.NotICMP} {
		if i == nil {
			continue
		}
		for _, n := range []uint8{protoICMP, protoICMPv6} {
			if r.Protocol == 0 || r.Protocol == n {
				m.protocol(n)
				m.icmp[n] = append(m.icmp[n], *i)
			}
		}
	}
	protocols := []uint8{r.Protocol}
	if r.Protocol == 0 {
		protocols = []uint8{protoTCP, protoUDP, protoSCTP, protoUDPLite}
	}
	asks := slices.Concat(r.Source.Ports, r.Source.NotPorts, r.Destination.Ports, r.Destination.NotPorts)
	for _, n := range protocols {
		if len(asks) > 0 {
			m.protocol(n)
		}
		for _, p := range ranges(w, dst, n, slices.Concat(r.Destination.Ports, r.Destination.NotPorts)) {
			m.port(n, p)
		}
		m.sources = append(m.sources, ranges(w, src, n, slices.Concat(r.Source.Ports, r.Source.NotPorts))...)
	}
	for _, s := range w.Services[ID{Namespace: r.Destination.Service.Namespace, Name: r.Destination.Service.Name}] {
		if s.Addr == dst && s.Port != 0 {
			m.port(s.Protocol, Port{First: s.Port, Last: s.Port})
		} else if s.Addr == dst {
			m.protocol(s.Protocol)
		}
	}
}

// ranges returns the ports with the names resolved that they have at an address.
func ranges(w *World, a netip.Addr, protocol uint8, ports []Port) []Port {
	var all []Port
	for _, p := range ports {
		if p.Name == "" {
			all = append(all, p)
			continue
		}
		for _, e := range w.at(a) {
			for _, n := range e.Ports {
				if e.has(a) && n.Name == p.Name && n.Protocol == protocol {
					all = append(all, Port{First: n.Port, Last: n.Port})
				}
			}
		}
	}
	return all
}

// Traffic returns all packets of a family, told apart as far as what was gathered may
// tell them apart: by protocol, what is named before the rest.
func (m *Mention) Traffic(v6 bool) []Traffic {
	var all []Traffic
	source := unnamed(m.sources)
	for _, n := range slices.Sorted(maps.Keys(m.protocols)) {
		switch {
		case n == protoICMP && v6, n == protoICMPv6 && !v6:
		case n == protoICMP || n == protoICMPv6:
			all = append(all, icmpTraffic(n, m.icmp[n])...)
		case hasPorts(n):
			all = append(all, portTraffic(n, source, m.ports[n])...)
		default:
			all = append(all, Traffic{Protocol: n})
		}
	}
	others := []uint8{protoTCP, protoUDP, protoSCTP, 253} // the last is for experiments (RFC 3692)
	i := slices.IndexFunc(others, func(n uint8) bool { return !m.protocols[n] })
	if i < 0 {
		i = len(others) - 1
	}
	rest := Traffic{Protocol: others[i], Source: source, Rest: len(all) > 0, Whole: true}
	rest.First = unnamed(nil)
	rest.Last = rest.First
	return append(all, rest)
}

// unnamed returns a port that is in none of the ranges; of those that clients take if
// there is one.
func unnamed(ranges []Port) uint16 {
	const first = 50000
	for i := range 1 << 16 {
		p := uint16(first + i)
		if p != 0 && !slices.ContainsFunc(ranges, func(r Port) bool { return r.First <= p && p <= r.Last }) {
			return p
		}
	}
	return first
}

// portTraffic tells the ports of a protocol apart.
func portTraffic(protocol uint8, source uint16, named []Port) []Traffic {
	if len(named) == 0 {
		return []Traffic{{Protocol: protocol, Source: source, First: 1, Last: 65535}}
	}
	borders := map[uint32]bool{}
	for _, p := range named {
		borders[uint32(max(p.First, 1))], borders[uint32(p.Last)+1] = true, true
	}
	starts := slices.Sorted(maps.Keys(borders))
	all := []Traffic{}
	for i, start := range starts[:len(starts)-1] {
		one := Traffic{Protocol: protocol, Source: source, First: uint16(start), Last: uint16(starts[i+1] - 1)}
		if slices.ContainsFunc(named, func(p Port) bool { return p.First <= one.First && one.First <= p.Last }) {
			all = append(all, one)
		}
	}
	if free := unnamed(named); !slices.ContainsFunc(named, func(p Port) bool { return p.First <= free && free <= p.Last }) {
		all = append(all, Traffic{Protocol: protocol, Source: source, First: free, Last: free, Rest: true})
	}
	return all
}

// icmpTraffic tells the types and codes of ICMP apart.
func icmpTraffic(protocol uint8, named []ICMP) []Traffic {
	if len(named) == 0 {
		return []Traffic{{Protocol: protocol, First: 1, Last: 65535}}
	}
	codes := map[uint8]map[uint8]bool{}
	for _, i := range named {
		if codes[i.Type] == nil {
			codes[i.Type] = map[uint8]bool{}
		}
		if !i.AnyCode {
			codes[i.Type][i.Code] = true
		}
	}
	free := func(taken func(uint8) bool) uint8 {
		for n := range 256 {
			if !taken(uint8(n)) {
				return uint8(n)
			}
		}
		return 255
	}
	var all []Traffic
	for _, kind := range slices.Sorted(maps.Keys(codes)) {
		for _, code := range slices.Sorted(maps.Keys(codes[kind])) {
			all = append(all, Traffic{Protocol: protocol, ICMP: ICMP{Type: kind, Code: code}})
		}
		other := free(func(n uint8) bool { return codes[kind][n] })
		all = append(all, Traffic{Protocol: protocol, ICMP: ICMP{Type: kind, Code: other, AnyCode: true}})
	}
	other := free(func(n uint8) bool { return codes[n] != nil })
	return append(all, Traffic{Protocol: protocol, ICMP: ICMP{Type: other}, Rest: true})
}

// NamedPorts returns the ports that endpoints with an address have names for, in order.
func (w *World) NamedPorts(a netip.Addr) []NamedPort {
	var all []NamedPort
	for _, e := range w.at(a) {
		if e.has(a) {
			all = append(all, e.Ports...)
		}
	}
	slices.SortFunc(all, func(x, y NamedPort) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), cmp.Compare(x.Protocol, y.Protocol), cmp.Compare(x.Port, y.Port))
	})
	return slices.Compact(all)
}

// HasPorts says whether a protocol has ports.
func HasPorts(protocol uint8) bool { return hasPorts(protocol) }
