package policy

import (
	"net/netip"
	"slices"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/selector"
)

// setPool keeps the sets that rules ask for, each as long as somebody needs it, and
// what is in them.
type setPool struct {
	members *Members // endpoints and network sets
	nodes   *Members // nodes, as endpoints
	dirty   func(*code)

	sets     immutable.Editor[string, kernel.Set]
	elements immutable.Editor[kernel.Element, struct{}]
	needs    map[string]*need
	needed   map[string]int // of these, by the text of the selector whose members are in them

	choices  map[string]*choice // by a selector's text
	services map[ID][]ServiceEndpoint
	uses     map[ID]*serviceUse
}

// need is a set, and how many need it.
type need struct {
	lookup
	refs int
}

// choice is a selector on which rules depend by what it chooses: with the first address
// or wider net of a family, and without the last, they are compiled anew.
type choice struct {
	chosen [2][2]int // how many just now: addresses, wider nets; each of IPv4, of IPv6
	users  map[*code]bool
}

// count counts an address or wider net, and says whether it is the first of its kind, or
// was the last.
func (ch *choice) count(p netip.Prefix, in bool) (turned bool) {
	n := &ch.chosen[index(!p.IsSingleIP())][index(p.Addr().Is6())]
	before := *n
	if in {
		*n++
	} else {
		*n--
	}
	return (before == 0) != (*n == 0)
}

// serviceUse is a Service that rules depend on.
type serviceUse struct{ users map[*code]bool }

// watched is what in the pool some rules depend on.
type watched struct {
	choices  []*selector.Selector
	services []ID
}

func newSetPool(dirty func(*code)) *setPool {
	s := &setPool{
		dirty: dirty, needs: map[string]*need{}, needed: map[string]int{}, choices: map[string]*choice{},
		services: map[ID][]ServiceEndpoint{}, uses: map[ID]*serviceUse{},
	}
	s.members = NewMembers(Edits{Prefix: s.member, Port: s.portMember})
	s.nodes = NewMembers(Edits{Prefix: s.nodeMember})
	return s
}

// index is the place of one of two in pairs.
func index(second bool) int {
	if second {
		return 1
	}
	return 0
}

// need makes a set, and fills it, if nobody needs it yet.
func (s *setPool) need(l lookup) {
	n := s.needs[l.name]
	if n != nil {
		n.refs++
		return
	}
	s.needs[l.name] = &need{l, 1}
	s.sets.Set(l.name, l.kind)
	switch {
	case l.members != nil:
		m := s.of(l)
		s.needed[l.members.String()]++
		m.Watch(l.members) // tells all, if nobody else watches it
		for p := range m.Prefixes(l.members) {
			if p.Addr().Is6() == l.kind.IPv6 && p.IsSingleIP() != l.kind.Ranges {
				s.put(kernel.Element{Set: l.name, Prefix: p}, true)
			}
		}
	case l.port != nil:
		of := s.members.WatchPort(l.port.selector, l.port.name, l.port.protocol)
		for at := range s.members.Ports(of) {
			if at.Addr().Is6() == l.kind.IPv6 {
				s.put(portElement(l.name, of, at), true)
			}
		}
	default:
		for e := range s.fixed(l) {
			s.put(e, true)
		}
	}
}

// unneed takes back that somebody needs a set; nobody may have.
func (s *setPool) unneed(name string) {
	n := s.needs[name]
	if n == nil {
		return
	}
	if n.refs--; n.refs > 0 {
		return
	}
	l := n.lookup
	switch {
	case l.members != nil:
		m := s.of(l)
		for p := range m.Prefixes(l.members) {
			s.put(kernel.Element{Set: name, Prefix: p}, false)
		}
		m.Unwatch(l.members)
		if s.needed[l.members.String()]--; s.needed[l.members.String()] == 0 {
			delete(s.needed, l.members.String())
		}
	case l.port != nil:
		for at := range s.members.Ports(l.port.of()) {
			s.put(portElement(name, l.port.of(), at), false)
		}
		s.members.UnwatchPort(l.port.of())
	default:
		for e := range s.fixed(l) {
			s.put(e, false)
		}
	}
	delete(s.needs, name)
	s.sets.Delete(name)
}

// of returns the members that a set's selector chooses from.
func (s *setPool) of(l lookup) *Members {
	if l.nodes {
		return s.nodes
	}
	return s.members
}

// put puts an element into a set that somebody needs, or takes it out.
func (s *setPool) put(e kernel.Element, in bool) {
	if in {
		s.elements.Set(e, struct{}{})
	} else {
		s.elements.Delete(e)
	}
}

// fixed yields what is in a set that no members are in.
func (s *setPool) fixed(l lookup) func(yield func(kernel.Element) bool) {
	if l.service != nil {
		return s.behind(l, s.services[*l.service])
	}
	return slices.Values(l.fixed)
}

// member hears that a selector chooses an address or a wider net, or no longer does.
func (s *setPool) member(sel string, p netip.Prefix, in bool) {
	if s.needed[sel] > 0 { // else its name is not worth the while
		s.move(selectedName(sel, !p.IsSingleIP(), false, p.Addr().Is6()), p, in)
	}
	if ch := s.choices[sel]; ch != nil && ch.count(p, in) {
		for it := range ch.users {
			s.dirty(it)
		}
	}
}

// nodeMember is member of a selector of nodes.
func (s *setPool) nodeMember(sel string, p netip.Prefix, in bool) {
	s.move(selectedName(sel, false, true, p.Addr().Is6()), p, in)
}

// portMember hears of a named port.
func (s *setPool) portMember(of NamedPorts, at netip.AddrPort, in bool) {
	if name := namedPortName(of, at.Addr().Is6()); s.needs[name] != nil {
		s.put(portElement(name, of, at), in)
	}
}

func portElement(set string, of NamedPorts, at netip.AddrPort) kernel.Element {
	return serviceElement(set, ServiceEndpoint{Addr: at.Addr(), Protocol: of.Protocol, Port: at.Port()})
}

func (s *setPool) move(name string, p netip.Prefix, in bool) {
	if s.needs[name] != nil {
		s.put(kernel.Element{Set: name, Prefix: p}, in)
	}
}

func serviceElement(set string, e ServiceEndpoint) kernel.Element {
	return kernel.Element{Set: set, Prefix: netip.PrefixFrom(e.Addr, e.Addr.BitLen()), Protocol: e.Protocol, Port: e.Port}
}

// behind yields the elements of a set of a Service's endpoints.
func (s *setPool) behind(l lookup, endpoints []ServiceEndpoint) func(yield func(kernel.Element) bool) {
	return func(yield func(kernel.Element) bool) {
		for _, e := range endpoints {
			takesAll := e.Protocol != 0 && e.Port == 0
			switch {
			case e.Addr.Is6() != l.kind.IPv6,
				l.everyPort != 0 && (!takesAll || e.Protocol != l.everyPort),
				l.kind.Keys == kernel.KeysServices && e.Port == 0:
				continue
			case l.kind.Keys != kernel.KeysServices:
				e.Protocol, e.Port = 0, 0
			}
			if !yield(serviceElement(l.name, e)) {
				return
			}
		}
	}
}

// everyPort returns the protocols of which a Service has endpoints that take every
// port, in order.
func (s *setPool) everyPort(id ID) []uint8 {
	var all []uint8
	for _, e := range s.services[id] {
		if e.Protocol != 0 && e.Port == 0 {
			all = append(all, e.Protocol)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// setService sets what is behind a Service.
func (s *setPool) setService(id ID, endpoints []ServiceEndpoint) {
	old, every := s.services[id], s.everyPort(id)
	if len(endpoints) == 0 {
		delete(s.services, id)
	} else {
		s.services[id] = endpoints
	}
	for _, v6 := range []bool{false, true} {
		for _, l := range servicesOf(id, slices.Concat(every, s.everyPort(id)), v6) {
			if s.needs[l.name] == nil {
				continue
			}
			stay := map[kernel.Element]bool{}
			for e := range s.behind(l, endpoints) {
				stay[e] = true
				s.put(e, true)
			}
			for e := range s.behind(l, old) {
				if !stay[e] {
					s.put(e, false)
				}
			}
		}
	}
	if use := s.uses[id]; use != nil && !slices.Equal(every, s.everyPort(id)) {
		for it := range use.users {
			s.dirty(it)
		}
	}
}

// compiler returns what compiles rules by the sets as they are.
func (s *setPool) compiler() *ruleCompiler {
	return &ruleCompiler{asked: map[string]lookup{}, chooses: s.chooses, everyPort: s.everyPort}
}

// chooses says whether a selector chooses addresses, or wider nets, of a family. From
// the first question on it is known.
func (s *setPool) chooses(sel *selector.Selector, wide, v6 bool) bool {
	ch := s.choices[sel.String()]
	if ch == nil {
		ch = &choice{users: map[*code]bool{}}
		s.choices[sel.String()] = ch
		s.members.Watch(sel)
		ch.chosen = [2][2]int{} // whether or not it was told just now
		for p := range s.members.Prefixes(sel) {
			ch.count(p, true)
		}
	}
	return ch.chosen[index(wide)][index(v6)] > 0
}

// rewatch notes what rules depend on that were compiled anew, in place of what they
// did.
func (s *setPool) rewatch(it *code, rc *ruleCompiler) {
	was := it.watched
	it.watched = watched{rc.selectors, rc.services}
	for _, sel := range rc.selectors {
		s.choices[sel.String()].users[it] = true
	}
	for _, id := range rc.services {
		if s.uses[id] == nil {
			s.uses[id] = &serviceUse{users: map[*code]bool{}}
		}
		s.uses[id].users[it] = true
	}
	s.unwatch(it, was)
}

// unwatch takes back that rules depend on something, but for what they depend on now.
func (s *setPool) unwatch(it *code, was watched) {
	for _, sel := range was.choices {
		ch := s.choices[sel.String()]
		if ch == nil || slices.ContainsFunc(it.watched.choices, func(now *selector.Selector) bool { return now.String() == sel.String() }) {
			continue
		}
		if delete(ch.users, it); len(ch.users) == 0 {
			delete(s.choices, sel.String())
			s.members.Unwatch(sel)
		}
	}
	for _, id := range was.services {
		use := s.uses[id]
		if use == nil || slices.Contains(it.watched.services, id) {
			continue
		}
		if delete(use.users, it); len(use.users) == 0 {
			delete(s.uses, id)
		}
	}
}
