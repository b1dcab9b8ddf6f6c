package policy

import (
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/kernel"
)

// matches says whether everything that a rule asks for is so of the packet.
func (w *tracing) matches(r kernel.Rule) bool {
	return w.linksMatch(r) && w.headerMatches(r) && w.connectionMatches(r) && w.addressesMatch(r) && w.transportMatches(r)
}

func (w *tracing) linksMatch(r kernel.Rule) bool {
	return linkIs(r.InLink, w.p.InLink) && linkIs(r.OutLink, w.p.OutLink) && (!r.NoInLink || w.p.InLink == "")
}

// linkIs says whether a link has the name that a rule asks for.
func linkIs(asked, name string) bool {
	if start, any := strings.CutSuffix(asked, "*"); any {
		return strings.HasPrefix(name, start)
	}
	return asked == "" || asked == name
}

func (w *tracing) headerMatches(r kernel.Rule) bool {
	switch {
	case r.Family == 4 && !w.p.Src.Is4(), r.Family == 6 && !w.p.Src.Is6():
		return false
	case r.Protocol != 0 && r.Protocol != w.p.Protocol, r.NotProtocol != 0 && r.NotProtocol == w.p.Protocol:
		return false
	}
	return !r.Fragment || w.p.Fragment && w.p.Src.Is6()
}

func (w *tracing) connectionMatches(r kernel.Rule) bool {
	return (r.States == 0 || r.States&w.p.State != 0) && (!r.Translated || w.p.Translated)
}

func (w *tracing) addressesMatch(r kernel.Rule) bool {
	src := kernel.AddrMatch{Place: kernel.Source, IPv6: r.Src.IPv6, Not: r.Src.Not, Set: r.Src.Set}
	dst := kernel.AddrMatch{Place: kernel.Destination, IPv6: r.Dst.IPv6, Not: r.Dst.Not, Set: r.Dst.Set}
	if r.Src.Set != "" && !w.addressMatches(src) || r.Dst.Set != "" && !w.addressMatches(dst) {
		return false
	}
	return !slices.ContainsFunc(r.Addrs, func(m kernel.AddrMatch) bool { return !w.addressMatches(m) })
}

// addressMatches says whether an address is what is asked for. What is asked in one
// family, in whatever sense, is never so of a packet of the other.
func (w *tracing) addressMatches(m kernel.AddrMatch) bool {
	var a netip.Addr
	switch m.Place {
	case kernel.Source:
		a = w.p.Src
	case kernel.Destination:
		a = w.p.Dst
	}
	if a.Is6() != m.IPv6 {
		return false
	}
	if m.Set == "" {
		return m.Prefix.Contains(a) != m.Not
	}
	key := kernel.Element{Set: m.Set, Prefix: netip.PrefixFrom(a, a.BitLen())}
	switch m.Keys {
	case kernel.KeysServices:
		if w.p.Later {
			return false
		}
		key.Protocol, key.Port = w.p.Protocol, w.p.DstPort
		if m.Place == kernel.Source {
			key.Port = w.p.SrcPort
		}
	case kernel.KeysSources:
		key.Beside = w.p.InLink
	}
	return w.table.has(key) != m.Not
}

// transportMatches asks what only the first fragment can answer.
func (w *tracing) transportMatches(r kernel.Rule) bool {
	asked := r.DstPort != 0 || r.VNI != 0 || r.NoSYN || len(r.Ports) > 0 || r.ICMP != nil || r.NotICMP != nil
	switch {
	case asked && w.p.Later:
		return false
	case r.DstPort != 0 && r.DstPort != w.p.DstPort, r.VNI != 0 && r.VNI != w.p.VNI, r.NoSYN && !w.p.MidStream:
		return false
	case r.ICMP != nil && !w.icmpIs(*r.ICMP), r.NotICMP != nil && w.icmpIs(*r.NotICMP):
		return false
	}
	return !slices.ContainsFunc(r.Ports, func(m kernel.PortMatch) bool { return !w.portMatches(m) })
}

func (w *tracing) icmpIs(i kernel.ICMP) bool {
	return i.Type == w.p.ICMPType && (i.AnyCode || i.Code == w.p.ICMPCode)
}

func (w *tracing) portMatches(m kernel.PortMatch) bool {
	port := w.p.DstPort
	if m.Place == kernel.Source {
		port = w.p.SrcPort
	}
	if m.Set != "" {
		return w.table.has(kernel.Element{Set: m.Set, Port: port}) != m.Not
	}
	return (m.First <= port && port <= m.Last) != m.Not
}
