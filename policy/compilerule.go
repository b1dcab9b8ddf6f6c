package policy

import (
	"net/netip"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/selector"
)

// alternative is what a rule may ask of one end of a packet: all of it.
type alternative struct {
	addrs    []kernel.AddrMatch
	ports    []kernel.PortMatch
	protocol uint8 // 0: whatever the rule says
}

func (a alternative) and(b alternative) alternative {
	return alternative{append(a.addrs[:len(a.addrs):len(a.addrs)], b.addrs...), append(a.ports[:len(a.ports):len(a.ports)], b.ports...), max(a.protocol, b.protocol)}
}

// each returns what is in both: one of these and one of those.
func each(these, those []alternative) []alternative {
	var all []alternative
	for _, a := range these {
		for _, b := range those {
			all = append(all, a.and(b))
		}
	}
	return all
}

// ruleCompiler compiles the rules of one policy.
type ruleCompiler struct {
	// chooses says whether a selector chooses addresses, or wider nets, of a family just
	// now. Only then do its rules ask for such: a packet pays for no question whose answer
	// is known.
	chooses func(s *selector.Selector, wide, v6 bool) bool
	// everyPort returns the protocols of which a Service has endpoints that take every
	// port.
	everyPort func(service ID) []uint8

	asked     map[string]lookup    // by name: the sets that rules may ask for
	selectors []*selector.Selector // about which chooses was asked
	services  []ID                 // about which everyPort was asked
}

// rule returns the rules that match what r does, as to packets only. There are
// several where nftables has no "or": one for each family, as a rule.
func (c *ruleCompiler) rule(r Rule) []kernel.Rule {
	base := kernel.Rule{Protocol: r.Protocol, NotProtocol: r.NotProtocol}
	if r.ICMP != nil {
		base.ICMP = &kernel.ICMP{Type: r.ICMP.Type, Code: r.ICMP.Code, AnyCode: r.ICMP.AnyCode}
	}
	if r.NotICMP != nil {
		base.NotICMP = &kernel.ICMP{Type: r.NotICMP.Type, Code: r.NotICMP.Code, AnyCode: r.NotICMP.AnyCode}
	}
	if r.Protocol != 0 && r.Protocol == r.NotProtocol {
		return nil
	}
	if r.Protocol != 0 {
		base.NotProtocol = 0
	}
	var rules []kernel.Rule
	for _, v6 := range []bool{false, true} {
		if !r.takes(v6) {
			continue
		}
		for _, a := range each(c.peer(r, r.Source, kernel.Source, v6), c.peer(r, r.Destination, kernel.Destination, v6)) {
			k := base
			k.Addrs, k.Ports = a.addrs, a.ports
			if a.protocol != 0 {
				k.Protocol, k.NotProtocol = a.protocol, 0
			}
			if len(a.addrs) == 0 {
				k.Family = 4
				if v6 {
					k.Family = 6
				}
			}
			rules = append(rules, k)
		}
	}
	return bothFamilies(r, rules)
}

// bothFamilies returns one rule in place of two that differ by family only.
func bothFamilies(r Rule, rules []kernel.Rule) []kernel.Rule {
	if len(rules) != 2 || r.IPVersion != 0 || len(rules[0].Addrs) > 0 || len(rules[1].Addrs) > 0 || rules[0].Family == rules[1].Family {
		return rules
	}
	rules[0].Family = 0
	return rules[:1]
}

// takes says whether a rule can match packets of a family.
func (r Rule) takes(v6 bool) bool {
	const icmp, icmpv6 = 1, 58
	if r.IPVersion == 4 && v6 || r.IPVersion == 6 && !v6 || r.Protocol == icmp && v6 || r.Protocol == icmpv6 && !v6 {
		return false
	}
	for _, p := range []Peer{r.Source, r.Destination} {
		if len(p.Nets) > 0 && len(disjoint(p.Nets, v6)) == 0 {
			return false
		}
	}
	return true
}

// peer returns what a rule asks of one end of packets of a family.
func (c *ruleCompiler) peer(r Rule, p Peer, place kernel.Place, v6 bool) []alternative {
	all := []alternative{{}}
	is := func(l lookup, not bool) kernel.AddrMatch {
		c.asked[l.name] = l
		return kernel.AddrMatch{Place: place, IPv6: v6, Not: not, Set: l.name, Keys: l.kind.Keys}
	}
	one := func(m kernel.AddrMatch) alternative { return alternative{addrs: []kernel.AddrMatch{m}} }
	if p.Selector != nil {
		var chosen []alternative
		for _, wide := range c.chosen(p.Selector, v6) {
			chosen = append(chosen, one(is(selected(p.Selector, wide, false, v6), false)))
		}
		all = each(all, chosen)
	}
	if p.NotSelector != nil {
		for _, wide := range c.chosen(p.NotSelector, v6) {
			all = each(all, []alternative{one(is(selected(p.NotSelector, wide, false, v6), true))})
		}
	}
	if p.Nodes != nil {
		all = each(all, []alternative{one(is(selected(p.Nodes, false, true, v6), false))})
	}
	for _, in := range []struct {
		nets []netip.Prefix
		not  bool
	}{{p.Nets, false}, {p.NotNets, true}} {
		switch nets := disjoint(in.nets, v6); {
		case len(nets) == 0:
		case len(nets) == 1:
			all = each(all, []alternative{one(kernel.AddrMatch{Place: place, IPv6: v6, Not: in.not, Prefix: nets[0]})})
		default:
			all = each(all, []alternative{one(is(prefixes(nets, v6), in.not))})
		}
	}
	if p.Service != (ID{}) {
		all = each(all, c.service(r, p.Service, place, is, one, v6))
	}
	return each(all, c.ports(r, p, place, is, one, v6))
}

// chosen returns what a selector chooses of a family: false for addresses, true for
// wider nets; and notes that it matters.
func (c *ruleCompiler) chosen(s *selector.Selector, v6 bool) (kinds []bool) {
	c.selectors = append(c.selectors, s)
	for _, wide := range []bool{false, true} {
		if c.chooses(s, wide, v6) {
			kinds = append(kinds, wide)
		}
	}
	return kinds
}

func (c *ruleCompiler) service(r Rule, id ID, place kernel.Place, is func(lookup, bool) kernel.AddrMatch, one func(kernel.AddrMatch) alternative, v6 bool) []alternative {
	if place == kernel.Source {
		return []alternative{one(is(behind(id, false, v6), false))}
	}
	var chosen []alternative
	if r.Protocol == 0 || hasPorts(r.Protocol) {
		chosen = append(chosen, one(is(behind(id, true, v6), false)))
	}
	c.services = append(c.services, id)
	for _, protocol := range c.everyPort(id) {
		if (r.Protocol == 0 || r.Protocol == protocol) && r.NotProtocol != protocol {
			a := one(is(everyPort(id, protocol, v6), false))
			a.protocol = protocol
			chosen = append(chosen, a)
		}
	}
	return chosen
}

// ports returns what is asked of a port: a number or a name out of several, and none
// out of others.
func (c *ruleCompiler) ports(r Rule, p Peer, place kernel.Place, is func(lookup, bool) kernel.AddrMatch, one func(kernel.AddrMatch) alternative, v6 bool) []alternative {
	number := func(ranges []Port, not bool) alternative {
		if len(ranges) == 1 {
			return alternative{ports: []kernel.PortMatch{{Place: place, Not: not, First: ranges[0].First, Last: ranges[0].Last}}}
		}
		l := ports(ranges)
		c.asked[l.name] = l
		return alternative{ports: []kernel.PortMatch{{Place: place, Not: not, Set: l.name}}}
	}
	named := func(name string, not bool) alternative {
		return one(is(namedPort(portKey{p.Selector, name, r.Protocol}, v6), not))
	}
	all := []alternative{{}}
	if len(p.Ports) > 0 {
		var chosen []alternative
		ranges, names := joined(p.Ports)
		if len(ranges) > 0 {
			chosen = append(chosen, number(ranges, false))
		}
		for _, n := range names {
			chosen = append(chosen, named(n, false))
		}
		all = chosen
	}
	ranges, names := joined(p.NotPorts)
	if len(ranges) > 0 {
		all = each(all, []alternative{number(ranges, true)})
	}
	for _, n := range names {
		all = each(all, []alternative{named(n, true)})
	}
	return all
}
