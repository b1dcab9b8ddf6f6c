package policy

import (
	"net/netip"
	"slices"

	"cairn.network/cairn/selector"
)

// Numbers of protocols (iana.org/assignments/protocol-numbers).
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

// hasPorts says whether a protocol has ports.
func hasPorts(protocol uint8) bool {
	return slices.Contains([]uint8{protoTCP, protoUDP, protoSCTP, protoUDPLite}, protocol)
}

// ipVersion returns 4 or 6.
func (p Packet) ipVersion() uint8 {
	if p.Src.Is4() {
		return 4
	}
	return 6
}

// matches says whether everything that a rule names is so of a packet.
func (w *World) matches(r Rule, p Packet) bool {
	switch {
	case r.IPVersion != 0 && r.IPVersion != p.ipVersion():
		return false
	case r.Protocol != 0 && !p.is(r.Protocol):
		return false
	case r.NotProtocol != 0 && p.is(r.NotProtocol):
		return false
	case r.ICMP != nil && !(p.isICMP() && r.ICMP.holds(p)):
		return false
	case r.NotICMP != nil && !(p.isICMP() && !r.NotICMP.holds(p)):
		return false
	}
	return w.peerMatches(r.Source, end{p.Src, p.Protocol, p.SrcPort, false}) &&
		w.peerMatches(r.Destination, end{p.Dst, p.Protocol, p.DstPort, true})
}

// is says whether a packet is of a protocol. ICMP is IPv4's and ICMPv6 is IPv6's: their
// numbers mean nothing in the other family.
func (p Packet) is(protocol uint8) bool {
	switch protocol {
	case protoICMP:
		return p.Protocol == protocol && p.ipVersion() == 4
	case protoICMPv6:
		return p.Protocol == protocol && p.ipVersion() == 6
	}
	return p.Protocol == protocol
}

func (p Packet) isICMP() bool { return p.is(protoICMP) || p.is(protoICMPv6) }

func (i ICMP) holds(p Packet) bool {
	return i.Type == p.ICMPType && (i.AnyCode || i.Code == p.ICMPCode)
}

// end is one end of a packet.
type end struct {
	addr        netip.Addr
	protocol    uint8
	port        uint16
	destination bool
}

// peerMatches says whether everything that is asked of one end is so.
func (w *World) peerMatches(peer Peer, e end) bool {
	switch {
	case peer.Selector != nil && !w.selects(peer.Selector, e.addr):
		return false
	case peer.NotSelector != nil && w.selects(peer.NotSelector, e.addr):
		return false
	case peer.Nodes != nil && !w.selectsNode(peer.Nodes, e.addr):
		return false
	case len(peer.Nets) > 0 && !anyHolds(peer.Nets, e.addr):
		return false
	case anyHolds(peer.NotNets, e.addr):
		return false
	case len(peer.Ports) > 0 && !w.anyPort(peer.Ports, peer.Selector, e):
		return false
	case len(peer.NotPorts) > 0 && (!hasPorts(e.protocol) || w.anyPort(peer.NotPorts, peer.Selector, e)):
		return false
	case peer.Service != ID{} && !w.serves(peer.Service, e):
		return false
	}
	return true
}

// has says whether an address is one of the endpoint's, or in one of its nets.
func (e *Endpoint) has(a netip.Addr) bool {
	return slices.Contains(e.Addrs, a) || anyHolds(e.Nets, a)
}

func anyHolds(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

// selects says whether an address is of an endpoint or network set that s chooses. Two
// may have the same address: one that s chooses is enough.
func (w *World) selects(s *selector.Selector, a netip.Addr) bool {
	return slices.ContainsFunc(w.at(a), func(e *Endpoint) bool { return e.has(a) && s.Matches(w.labelsOf(e)) })
}

// selectsNode says whether an address is of a node that s chooses.
func (w *World) selectsNode(s *selector.Selector, a netip.Addr) bool {
	return slices.ContainsFunc(w.Nodes, func(n Node) bool { return slices.Contains(n.Addrs, a) && s.Match(n.Labels) })
}

// anyPort says whether the port of an end is one of several. A name stands for the
// port that an endpoint with the end's address gives that name, for the protocol; with
// a selector, only endpoints that it chooses name ports.
func (w *World) anyPort(ports []Port, s *selector.Selector, e end) bool {
	if !hasPorts(e.protocol) {
		return false
	}
	return slices.ContainsFunc(ports, func(p Port) bool {
		if p.Name == "" {
			return p.First <= e.port && e.port <= p.Last
		}
		named := NamedPort{p.Name, e.protocol, e.port}
		return slices.ContainsFunc(w.at(e.addr), func(o *Endpoint) bool {
			return slices.Contains(o.Ports, named) && o.has(e.addr) && (s == nil || s.Matches(w.labelsOf(o)))
		})
	})
}

// serves says whether an end is behind a Service. A destination must have the Service's
// protocol and port there, so an endpoint without ports is none. Nothing is behind a
// Service that does not exist.
func (w *World) serves(service ID, e end) bool {
	return slices.ContainsFunc(w.Services[ID{Namespace: service.Namespace, Name: service.Name}], func(s ServiceEndpoint) bool {
		if s.Addr != e.addr || !e.destination {
			return s.Addr == e.addr
		}
		return s.Protocol != 0 && s.Protocol == e.protocol && (s.Port == 0 || s.Port == e.port)
	})
}
