package policy

import (
	"maps"
	"slices"

	"cairn.network/cairn/kernel"
)

// Verdict maps, by direction. What enters a host is ingress of its host endpoint.
var (
	podMaps = [2]string{Ingress: "to-pod", Egress: "from-pod"}
	// hostMaps are by phase and direction.
	hostMaps = [phases][2]string{
		Normal:    {Ingress: "host-in", Egress: "host-out"},
		Forward:   {Ingress: "host-forward-in", Egress: "host-forward-out"},
		Untracked: {Ingress: "host-untracked-in", Egress: "host-untracked-out"},
		PreDNAT:   {Ingress: "host-prednat"},
	}
)

// Chains that are there once.
const (
	// unconcerned is where packets go of a pod that no policy concerns. It is empty: the
	// base chain accepts.
	unconcerned = "pods/unconcerned"
	neighbours  = "pods/neighbours" // discovery and group membership of IPv6
)

// podLinks matches the links of pods.
const podLinks = kernel.PodLinkPrefix + "*"

const icmpv6 = 58

// PriorityTo is the priority of the base chain in which packets meet the policies
// of the endpoint that they go to: after those of the one that they come from,
// whatever accepted them there.
const priorityTo = kernel.PriorityFilter + 1

// priorityMangle is between connection tracking and the translation of destinations
// (NF_IP_PRI_MANGLE).
const priorityMangle = -150

// established lets packets of connections pass that were allowed.
func established() kernel.Rule {
	return kernel.Rule{States: kernel.StateEstablished | kernel.StateRelated, Verdict: kernel.Accept, Comment: "allowed when it began"}
}

// forgotten drops what goes on with a connection that is not known, at pods, where
// connections are ended by forgetting them: a server's packet would seem to begin it
// anew, the other way round, which policies may allow.
func (c *Compiler) forgotten(r kernel.Rule) []kernel.Rule {
	if !c.settings.EndRefused {
		return nil
	}
	r.Protocol, r.NoSYN, r.States = kernel.ProtoTCP, true, kernel.StateNew
	r.Counter, r.Verdict, r.Comment = true, kernel.Drop, "begins no connection, and none is known"
	return []kernel.Rule{r}
}

func base(hook kernel.Hook, priority int, rules ...kernel.Rule) kernel.Chain {
	return kernel.Chain{Hook: hook, Type: kernel.ChainFilter, Priority: priority, Rules: kernel.RulesOf(rules...)}
}

// sourceSet is the name of the set of the addresses from which each pod may send.
func sourceSet(v6 bool) string { return "sources" + family(v6) }

// rebase makes the base chains, and those that are there once.
func (c *Compiler) rebase() {
	want := map[string]kernel.Chain{unconcerned: {}, neighbours: neighbourChain()}
	want["raw-prerouting"] = c.rawPrerouting()
	want["filter-forward"] = c.forwardFrom()
	want["filter-forward-to"] = c.forwardTo()
	want["filter-input"] = c.input()
	if c.settings.PodsToHost == Deny {
		want["filter-input-pods"] = base(kernel.HookInput, priorityTo, established(),
			kernel.Rule{InLink: podLinks, Protocol: icmpv6, Verdict: kernel.Jump, Target: neighbours},
			kernel.Rule{InLink: podLinks, Counter: true, Verdict: kernel.Drop, Comment: "pods don't reach their host"})
	}
	if rules := c.forgotten(kernel.Rule{OutLink: podLinks}); len(rules) > 0 {
		want["filter-output-pods"] = base(kernel.HookOutput, priorityTo, append([]kernel.Rule{established()}, rules...)...)
	}
	c.hostBases(want)
	for name := range c.base {
		if _, ok := want[name]; !ok {
			c.chains.Delete(name)
		}
	}
	for name, chain := range want {
		if have, ok := c.base[name]; !ok || have != chain {
			c.chains.Set(name, chain)
		}
	}
	c.base = want
	c.remap()
}

// remap keeps the verdict maps that have entries, and those of pods, which are asked
// in any case.
func (c *Compiler) remap() {
	want := map[string]bool{podMaps[Ingress]: true, podMaps[Egress]: true}
	for _, l := range c.locals {
		for _, key := range l.entries {
			if name, _, ok := kernel.ParseEntryKey(key); ok {
				want[name] = true
			}
		}
	}
	for name := range want {
		if !c.maps[name] {
			c.sets.need(lookup{name: name, kind: kernel.Set{Keys: kernel.KeysLinks}})
		}
	}
	for name := range c.maps {
		if !want[name] {
			c.sets.unneed(name)
		}
	}
	c.maps = want
}

// neighbourChain lets a pod find its host whatever its policies say: without, it has
// no IPv6 at all (RFC 4861), and no groups (RFC 3810).
func neighbourChain() kernel.Chain {
	var rules []kernel.Rule
	for _, kind := range []uint8{130, 131, 132, 133, 135, 136, 143} {
		rules = append(rules, kernel.Rule{Protocol: icmpv6, ICMP: &kernel.ICMP{Type: kind, AnyCode: true}, Verdict: kernel.Accept})
	}
	return kernel.Chain{Rules: kernel.RulesOf(rules...)}
}

// rawPrerouting drops what comes from a pod with an address that is not its own.
func (c *Compiler) rawPrerouting() kernel.Chain {
	rules := slices.Clone(c.spoofers())
	for _, v6 := range []bool{false, true} {
		if v6 {
			for _, p := range []string{"fe80::/10", "::/128"} {
				rules = append(rules, kernel.Rule{InLink: podLinks, Protocol: icmpv6, Addrs: []kernel.AddrMatch{inPrefix(kernel.Source, p)},
					Verdict: kernel.Accept, Comment: "finding neighbours"})
			}
		}
		rules = append(rules, kernel.Rule{
			InLink:  podLinks,
			Addrs:   []kernel.AddrMatch{{Place: kernel.Source, IPv6: v6, Not: true, Set: sourceSet(v6), Keys: kernel.KeysSources}},
			Counter: true, Verdict: kernel.Drop, Comment: "not the pod's own address",
		})
	}
	if host := c.dispatch(Untracked, Ingress); len(host) > 0 {
		rules = append(rules, kernel.Rule{InLink: podLinks, Verdict: kernel.Accept}, kernel.Rule{InLink: "lo", Verdict: kernel.Accept})
		rules = append(rules, host...)
	}
	return base(kernel.HookPrerouting, kernel.PriorityRaw, rules...)
}

// spoofers returns the rules for pods that may send from more than their addresses.
func (c *Compiler) spoofers() []kernel.Rule {
	var rules []kernel.Rule
	for _, id := range slices.SortedFunc(maps.Keys(c.locals), ID.Compare) {
		e := c.locals[id].endpoint
		for _, p := range e.Sources {
			rules = append(rules, kernel.Rule{InLink: e.Link, Addrs: []kernel.AddrMatch{{Place: kernel.Source, IPv6: p.Addr().Is6(), Prefix: p}},
				Verdict: kernel.Accept, Comment: "the pod may send from there"})
		}
	}
	return rules
}

// forwardFrom is where packets through the host meet the policies of the endpoint
// that they come from.
func (c *Compiler) forwardFrom() kernel.Chain {
	rules := append([]kernel.Rule{established()}, c.forgotten(kernel.Rule{InLink: podLinks})...)
	rules = append(rules, fromPods()...)
	return base(kernel.HookForward, kernel.PriorityFilter, append(rules, c.dispatch(Forward, Ingress)...)...)
}

// fromPods leads what comes from a pod to its policies; what comes by a link of ours
// that is no pod's is dropped.
func fromPods() []kernel.Rule {
	return []kernel.Rule{
		{Verdict: kernel.InVerdicts, Target: podMaps[Egress]},
		{InLink: podLinks, Counter: true, Verdict: kernel.Drop, Comment: "no pod of this node"},
	}
}

// forwardTo is where packets through the host meet the policies of the endpoint that
// they go to.
func (c *Compiler) forwardTo() kernel.Chain {
	rules := append([]kernel.Rule{established()}, c.forgotten(kernel.Rule{OutLink: podLinks})...)
	rules = append(rules,
		kernel.Rule{Verdict: kernel.OutVerdicts, Target: podMaps[Ingress]},
		kernel.Rule{OutLink: podLinks, Counter: true, Verdict: kernel.Drop, Comment: "no pod of this node"})
	return base(kernel.HookForward, priorityTo, append(rules, c.dispatch(Forward, Egress)...)...)
}

// input is where packets to the host meet the policies of the pod that they come
// from, or of the host endpoint.
func (c *Compiler) input() kernel.Chain {
	rules := append([]kernel.Rule{established()}, c.forgotten(kernel.Rule{InLink: podLinks})...)
	rules = append(rules, kernel.Rule{InLink: podLinks, Protocol: icmpv6, Verdict: kernel.Jump, Target: neighbours})
	rules = append(rules, fromPods()...)
	if host := c.dispatch(Normal, Ingress); len(host) > 0 {
		rules = append(rules, kernel.Rule{InLink: "lo", Verdict: kernel.Accept})
		rules = append(rules, c.settings.Tunnels.List()...)
		rules = append(rules, decided())
		rules = append(rules, kernel.Rule{Protocol: icmpv6, Verdict: kernel.Jump, Target: neighbours})
		rules = append(rules, host...)
	}
	return base(kernel.HookInput, kernel.PriorityFilter, rules...)
}
