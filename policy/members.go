package policy

import (
	"iter"
	"net/netip"
	"slices"

	"cairn.network/cairn/selector"
)

// Members knows the addresses and nets that selectors stand for: those of the
// endpoints and network sets that they choose. It tells what changes of them, so that
// sets in the kernel follow at the cost of the change.
//
// It is for one goroutine, and keeps of an endpoint no more than its addresses, nets
// and ports. Nodes, as peers of rules, have Members of their own, which are given each
// as an endpoint of another kind, without namespace.
type Members struct {
	edits   Edits
	chosen  Selection[*content]
	known   map[ID]*content
	watches map[string]*memberWatch // by the selector's text
}

// Edits are told what changes. What is told of a selector, one after the other, is
// always true: an address or net begins to be in only when it is not, and ends only
// when it is. While something changes, what stays covered by other nets may be out for
// a moment, between two edits. They must not call Members.
type Edits struct {
	// Prefix is told that an address (IsSingleIP) or a wider net begins or ends to be
	// among what the selector of this text stands for. Of wider nets none overlaps
	// another: those that lie in others are left out. Addresses may lie in them.
	Prefix func(selector string, p netip.Prefix, in bool)
	// Port is told likewise of the addresses and ports that a named port stands for.
	Port func(of NamedPorts, at netip.AddrPort, in bool)
}

// NamedPorts are the ports of one name and protocol of all endpoints that a selector,
// given by its text, chooses.
type NamedPorts struct {
	Selector string
	Name     string
	Protocol uint8
}

// NewMembers returns members without endpoints and selectors.
func NewMembers(edits Edits) *Members {
	m := &Members{edits: edits, known: map[ID]*content{}, watches: map[string]*memberWatch{}}
	m.chosen = NewSelection(m.changed)
	return m
}

// SetEndpoint puts an endpoint or network set in, or in the place of what had its ID.
func (m *Members) SetEndpoint(e *Endpoint) {
	now := contentOf(e)
	c := m.known[e.ID]
	switch {
	case c == nil:
		c = &now
		m.known[e.ID] = c
	case !c.equal(now):
		for s := range m.chosen.Matches(c) {
			m.watches[s.String()].change(now, *c, m.edits)
		}
		*c = now
	}
	m.chosen.Set(c, e)
}

// DeleteEndpoint takes an endpoint or network set out, if it is in.
func (m *Members) DeleteEndpoint(id ID) {
	if c := m.known[id]; c != nil {
		m.chosen.Delete(c)
		delete(m.known, id)
	}
}

// SetNamespace says what labels a namespace has; nil: it is gone.
func (m *Members) SetNamespace(name string, labels map[string]string) {
	m.chosen.SetNamespace(name, labels)
}

// SetServiceAccount says what labels a service account has; nil: it is gone. Its ID
// is without kind.
func (m *Members) SetServiceAccount(id ID, labels map[string]string) {
	m.chosen.SetServiceAccount(id, labels)
}

// Watch has the selector's addresses and nets told, and at once those that there are.
// What is watched several times is told once, until it was unwatched as often.
func (m *Members) Watch(s *selector.Selector) {
	w := m.watch(s)
	if w.addresses == nil {
		n := 0
		for c := range m.chosen.Items(s) {
			n += len(c.addrs)
		}
		w.addresses = &memberAddrs{selector: s.String(), addrs: make(counts[netip.Addr], n)}
		var nets content // together, for each change of them costs a walk through all
		for c := range m.chosen.Items(s) {
			w.addresses.change(content{addrs: c.addrs}, content{}, m.edits)
			nets.nets = append(nets.nets, c.nets...)
		}
		w.addresses.change(nets, content{}, m.edits)
	}
	w.addresses.watched++
}

// Unwatch ends what Watch began: all that is in is told to be out.
func (m *Members) Unwatch(s *selector.Selector) {
	w := m.watches[s.String()]
	if w == nil || w.addresses == nil {
		return
	}
	if w.addresses.watched--; w.addresses.watched == 0 {
		w.addresses.clear(m.edits)
		w.addresses = nil
	}
	m.unwatch(s)
}

// WatchPort has the ports of a name and protocol told, of endpoints that the selector
// chooses; nil: of all. It returns what they are told as.
func (m *Members) WatchPort(s *selector.Selector, name string, protocol uint8) NamedPorts {
	if s == nil {
		s = selector.All()
	}
	of := NamedPorts{s.String(), name, protocol}
	w := m.watch(s)
	i := w.find(of)
	if i < 0 {
		i = len(w.ports)
		w.ports = append(w.ports, &memberPorts{of: of, at: counts[netip.AddrPort]{}})
		for c := range m.chosen.Items(s) {
			w.ports[i].change(*c, content{}, m.edits)
		}
	}
	w.ports[i].watched++
	return of
}

// UnwatchPort ends what WatchPort began: all that is in is told to be out.
func (m *Members) UnwatchPort(of NamedPorts) {
	w := m.watches[of.Selector]
	if w == nil {
		return
	}
	i := w.find(of)
	if i < 0 {
		return
	}
	if w.ports[i].watched--; w.ports[i].watched == 0 {
		w.ports[i].clear(m.edits)
		w.ports = slices.Delete(w.ports, i, i+1)
	}
	m.unwatch(w.selector)
}

// watch returns the watch of a selector, which counts one more reason for it.
func (m *Members) watch(s *selector.Selector) *memberWatch {
	w := m.watches[s.String()]
	if w == nil {
		// Registered first: of what it matches already, those who watch are told at once.
		m.chosen.Add(s)
		w = &memberWatch{selector: s}
		m.watches[s.String()] = w
	}
	w.reasons++
	return w
}

// unwatch counts one reason less.
func (m *Members) unwatch(s *selector.Selector) {
	w := m.watches[s.String()]
	if w.reasons--; w.reasons == 0 {
		delete(m.watches, s.String())
		m.chosen.Remove(s)
	}
}

func (m *Members) changed(s *selector.Selector, c *content, in bool) {
	switch w := m.watches[s.String()]; {
	case w == nil: // it comes or goes
	case in:
		w.change(*c, content{}, m.edits)
	default:
		w.change(content{}, *c, m.edits)
	}
}

// memberWatch is what is told of a selector.
type memberWatch struct {
	selector  *selector.Selector
	reasons   int          // that it is registered
	addresses *memberAddrs // nil: they are not told
	ports     []*memberPorts
}

func (w *memberWatch) find(of NamedPorts) int {
	return slices.IndexFunc(w.ports, func(p *memberPorts) bool { return p.of == of })
}

// change puts add in and takes remove out. What is in both stays.
func (w *memberWatch) change(add, remove content, edits Edits) {
	if w.addresses != nil {
		w.addresses.change(add, remove, edits)
	}
	for _, p := range w.ports {
		p.change(add, remove, edits)
	}
}

// Prefixes yields the addresses and wider nets that a watched selector stands for, as
// they were told.
func (m *Members) Prefixes(s *selector.Selector) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		w := m.watches[s.String()]
		if w == nil || w.addresses == nil {
			return
		}
		for a := range w.addresses.addrs {
			if !yield(wholeAddr(a)) {
				return
			}
		}
		for _, p := range w.addresses.nets.widest() {
			if !yield(p) {
				return
			}
		}
	}
}

// Ports yields what watched named ports stand for, as it was told.
func (m *Members) Ports(of NamedPorts) iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		w := m.watches[of.Selector]
		if w == nil {
			return
		}
		if i := w.find(of); i >= 0 {
			for at := range w.ports[i].at {
				if !yield(at) {
					return
				}
			}
		}
	}
}
