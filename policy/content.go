package policy

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// content is what an endpoint or network set brings into sets.
type content struct {
	addrs []netip.Addr
	nets  []netip.Prefix // masked, wider than one address
	ports []NamedPort    // each is at every address; network sets have none
}

func contentOf(e *Endpoint) content {
	c := content{addrs: slices.Clip(e.Addrs), ports: e.Ports}
	for _, p := range e.Nets {
		if p.IsSingleIP() {
			c.addrs = append(c.addrs, p.Addr())
		} else {
			c.nets = append(c.nets, p.Masked())
		}
	}
	return c
}

func (c content) equal(o content) bool {
	return slices.Equal(c.addrs, o.addrs) && slices.Equal(c.nets, o.nets) && slices.Equal(c.ports, o.ports)
}

// counts says how many endpoints bring something: two may bring the same.
type counts[K comparable] map[K]int32

// add returns whether it is the first.
func (c counts[K]) add(k K) bool {
	c[k]++
	return c[k] == 1
}

// remove returns whether it was the last.
func (c counts[K]) remove(k K) bool {
	if c[k]--; c[k] > 0 {
		return false
	}
	delete(c, k)
	return true
}

// memberAddrs are the addresses and nets of a selector.
type memberAddrs struct {
	selector string
	watched  int
	addrs    counts[netip.Addr]
	nets     countedNets
}

func (s *memberAddrs) change(add, remove content, edits Edits) {
	for _, a := range add.addrs {
		if s.addrs.add(a) {
			edits.Prefix(s.selector, wholeAddr(a), true)
		}
	}
	for _, a := range remove.addrs {
		if s.addrs.remove(a) {
			edits.Prefix(s.selector, wholeAddr(a), false)
		}
	}
	if len(add.nets)+len(remove.nets) > 0 {
		before := s.nets
		s.nets = before.changed(add.nets, remove.nets)
		s.tell(before, edits)
	}
}

// clear tells that nothing is in any more.
func (s *memberAddrs) clear(edits Edits) {
	for _, a := range slices.SortedFunc(maps.Keys(s.addrs), netip.Addr.Compare) {
		edits.Prefix(s.selector, wholeAddr(a), false)
	}
	before := s.nets
	s.nets = nil
	s.tell(before, edits)
}

// tell tells what is no longer as before. What goes, goes first: nets that come may
// overlap it.
func (s *memberAddrs) tell(before countedNets, edits Edits) {
	was, is := before.widest(), s.nets.widest()
	for _, p := range notIn(is, was) {
		edits.Prefix(s.selector, p, false)
	}
	for _, p := range notIn(was, is) {
		edits.Prefix(s.selector, p, true)
	}
}

func wholeAddr(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// memberPorts are the named ports of a selector.
type memberPorts struct {
	of      NamedPorts
	watched int
	at      counts[netip.AddrPort]
}

func (s *memberPorts) change(add, remove content, edits Edits) {
	for at := range s.of.in(add) {
		if s.at.add(at) {
			edits.Port(s.of, at, true)
		}
	}
	for at := range s.of.in(remove) {
		if s.at.remove(at) {
			edits.Port(s.of, at, false)
		}
	}
}

// in yields where an endpoint has the ports.
func (of NamedPorts) in(c content) iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		for _, p := range c.ports {
			if p.Name != of.Name || p.Protocol != of.Protocol {
				continue
			}
			for _, a := range c.addrs {
				if !yield(netip.AddrPortFrom(a, p.Port)) {
					return
				}
			}
		}
	}
}

// clear tells that nothing is in any more.
func (s *memberPorts) clear(edits Edits) {
	for _, at := range slices.SortedFunc(maps.Keys(s.at), netip.AddrPort.Compare) {
		edits.Port(s.of, at, false)
	}
	s.at = nil
}
