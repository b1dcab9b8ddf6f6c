package policy

import (
	"maps"
	"net/netip"
	"slices"

	"cairn.network/cairn/kernel"
)

// listHost makes the lists of a host endpoint, for the links that it covers.
func (c *Compiler) listHost(l *local, info *Enforced) {
	e := l.endpoint
	info.Links = c.covered(e)
	wildcard := c.wildcard() != nil
	for ph := range Phase(phases) {
		for d := range Direction(2) {
			if hostMaps[ph][d] == "" {
				continue
			}
			chain := unconcerned
			if all := c.listOf(e.ID, d, ph, c.headOf(e.ID, ph, d)); all != nil {
				l.lists = append(l.lists, all)
				chain = all.chain
			}
			switch {
			case e.Link == AnyLink && chain != unconcerned:
				l.others[ph][d] = chain
			case e.Link != AnyLink && (chain != unconcerned || wildcard):
				for _, link := range info.Links {
					c.enter(l, hostMaps[ph][d], link, chain)
				}
			}
		}
	}
}

// wildcard returns the host endpoint that covers links which have no other, or nil:
// links that have one are kept from it. Of several it is the one that Covering takes.
func (c *Compiler) wildcard() *local {
	var first *local
	for id, l := range c.locals {
		if id.Kind == KindHost && l.endpoint.Link == AnyLink && (first == nil || id.Compare(first.endpoint.ID) < 0) {
			first = l
		}
	}
	return first
}

// headOf returns what a host endpoint always lets pass, so that nobody locks himself
// out.
func (c *Compiler) headOf(id ID, ph Phase, d Direction) []kernel.Rule {
	if ph == Forward || len(c.groups(id, d, ph)) == 0 {
		return nil
	}
	var rules []kernel.Rule
	for _, f := range c.settings.FailSafe[d] {
		rules = append(rules, f.rule(d, kernel.Destination))
	}
	if ph == Untracked {
		for _, f := range c.settings.FailSafe[1-d] { // the answers
			rules = append(rules, f.rule(d, kernel.Source))
		}
	}
	return rules
}

// rule returns the rule that lets packets pass: f's net is at the far end, its port at
// this place.
func (f FailSafe) rule(d Direction, at kernel.Place) kernel.Rule {
	far := kernel.Source
	if d == Egress {
		far = kernel.Destination
	}
	r := kernel.Rule{Protocol: f.Protocol, Ports: []kernel.PortMatch{{Place: at, First: f.Port, Last: f.Port}}, Verdict: kernel.Accept, Comment: "fail-safe port"}
	if f.Net.IsValid() {
		r.Addrs = []kernel.AddrMatch{{Place: far, IPv6: f.Net.Addr().Is6(), Prefix: f.Net}}
	}
	return r
}

// covered returns the links of this host that a host endpoint covers.
func (c *Compiler) covered(e *Endpoint) []string {
	var hosts []*Endpoint
	for _, l := range c.locals {
		if l.endpoint.Kind == KindHost {
			hosts = append(hosts, l.endpoint)
		}
	}
	var links []string
	for _, link := range slices.Sorted(maps.Keys(c.links)) {
		if Covering(hosts, link, c.links[link]) == e {
			links = append(links, link)
		}
	}
	if e.Link != "" && e.Link != AnyLink && !slices.Contains(links, e.Link) && Covering(hosts, e.Link, nil) == e {
		links = append(links, e.Link) // it is protected before it comes
	}
	return links
}

// dispatch returns the rules that lead packets of the host's links to the chains of a
// phase; none if no host endpoint has any.
func (c *Compiler) dispatch(ph Phase, d Direction) []kernel.Rule {
	name, any := hostMaps[ph][d], ""
	if l := c.wildcard(); l != nil {
		any = l.others[ph][d]
	}
	has := c.entered(name)
	if !has && any == "" {
		return nil
	}
	var rules []kernel.Rule
	if has {
		verdict := kernel.InVerdicts
		if d == Egress {
			verdict = kernel.OutVerdicts
		}
		rules = append(rules, kernel.Rule{Verdict: verdict, Target: name})
	}
	if any != "" {
		rules = append(rules, kernel.Rule{Verdict: kernel.Goto, Target: any})
	}
	return rules
}

// entered says whether a verdict map has entries.
func (c *Compiler) entered(verdicts string) bool {
	for _, l := range c.locals {
		for _, key := range l.entries {
			if name, _, ok := kernel.ParseEntryKey(key); ok && name == verdicts {
				return true
			}
		}
	}
	return false
}

// decided lets packets pass that are not tracked: they were allowed before, by
// policies or by what protects tunnels.
func decided() kernel.Rule {
	return kernel.Rule{States: kernel.StateUntracked, Verdict: kernel.Accept, Comment: "allowed before connection tracking"}
}

// hostBases adds the base chains that only host endpoints need.
func (c *Compiler) hostBases(want map[string]kernel.Chain) {
	if rules := c.dispatch(PreDNAT, Ingress); len(rules) > 0 {
		head := []kernel.Rule{established(), decided(), {InLink: "lo", Verdict: kernel.Accept}, {InLink: podLinks, Verdict: kernel.Accept}}
		want["mangle-prerouting"] = base(kernel.HookPrerouting, priorityMangle, append(head, rules...)...)
	}
	out := c.dispatch(Untracked, Egress)
	if c.untracked > 0 {
		want[allowUntracked] = kernel.Chain{Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.NoTrack}, kernel.Rule{Verdict: kernel.Accept})}
	}
	if len(out) > 0 {
		head := []kernel.Rule{{OutLink: "lo", Verdict: kernel.Accept}, {OutLink: podLinks, Verdict: kernel.Accept}}
		want["raw-output"] = base(kernel.HookOutput, kernel.PriorityRaw, append(head, out...)...)
	}
	if rules := c.dispatch(Normal, Egress); len(rules) > 0 {
		head := []kernel.Rule{
			established(),
			{OutLink: "lo", Verdict: kernel.Accept},
			// A node reaches its own pods whatever their policies say: it starts and probes them.
			{OutLink: podLinks, Verdict: kernel.Accept},
		}
		head = append(head, c.settings.Tunnels.List()...)
		head = append(head, decided())
		head = append(head, kernel.Rule{Protocol: icmpv6, Verdict: kernel.Jump, Target: neighbours})
		// Where a destination was translated the link that it leaves by is known later.
		want["filter-output"] = base(kernel.HookOutput, kernel.PriorityFilter, slices.Concat(head,
			[]kernel.Rule{{Translated: true, Verdict: kernel.Accept, Comment: "in mangle-postrouting"}}, rules)...)
		want["mangle-postrouting"] = base(kernel.HookPostrouting, priorityMangle, slices.Concat(head,
			[]kernel.Rule{{NoInLink: true, Translated: true, Verdict: kernel.Jump, Target: "host/translated"}})...)
		want["host/translated"] = kernel.Chain{Rules: kernel.RulesOf(rules...)}
	}
}

// inPrefix asks that an address is in a range.
func inPrefix(place kernel.Place, prefix string) kernel.AddrMatch {
	p := netip.MustParsePrefix(prefix)
	return kernel.AddrMatch{Place: place, IPv6: p.Addr().Is6(), Prefix: p}
}
