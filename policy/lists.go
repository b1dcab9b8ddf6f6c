package policy

import (
	"slices"

	"cairn.network/cairn/kernel"
)

// local is an endpoint of this node.
type local struct {
	endpoint *Endpoint
	lists    []*list  // that it holds
	entries  []string // that lead to them
	// others is of a host endpoint for every link: the chains for links that have no
	// other host endpoint.
	others [phases][2]string
}

// list is the chain of an ordered list of policies. Endpoints with the same list share
// it: its name stands for what is in it. It is there while somebody holds it.
type list struct {
	chain string
	refs  int
	codes []*code
	lists []*list // that it jumps to
}

// drop takes back that somebody holds a list.
func (c *Compiler) drop(l *list) {
	if l.refs--; l.refs > 0 {
		return
	}
	delete(c.lists, l.chain)
	c.chains.Delete(l.chain)
	for _, it := range l.codes {
		c.release(it)
	}
	for _, in := range l.lists {
		c.drop(in)
	}
}

// hold returns the list with this chain, made by build if nobody holds it yet.
func (c *Compiler) hold(chain string, codes []*code, lists []*list, build func() kernel.Chain) *list {
	l := c.lists[chain]
	if l != nil { // it holds its own already
		for _, it := range codes {
			c.release(it)
		}
		for _, in := range lists {
			c.drop(in)
		}
	} else {
		l = &list{chain: chain, codes: codes, lists: lists}
		c.lists[chain] = l
		c.chains.Set(chain, build())
	}
	l.refs++
	return l
}

// groups returns the policies of a phase that concern an endpoint, in order.
func (c *Compiler) groups(id ID, d Direction, ph Phase) []TierPolicies {
	byTier := map[string][]*Policy{}
	for s := range c.concern.Matches(id) {
		for _, p := range c.bySelect[s.String()] {
			if _, known := c.tiers[p.Tier]; !known {
				p = p.Faulty("there is no such tier")
			}
			if p.enforcedFor(id.Kind, d, ph) {
				byTier[p.Tier] = append(byTier[p.Tier], p)
			}
		}
	}
	var all []TierPolicies
	for name, ps := range byTier {
		t, ok := c.tiers[name]
		if !ok {
			t, ps = lostTier, nil
		}
		slices.SortFunc(ps, Compare)
		all = append(all, TierPolicies{t, ps})
	}
	slices.SortFunc(all, func(a, b TierPolicies) int { return CompareTiers(a.Tier, b.Tier) })
	return slices.CompactFunc(all, func(a, b TierPolicies) bool { return a.Tier == b.Tier })
}

// tierList returns the list of a tier's policies.
func (c *Compiler) tierList(g TierPolicies, d Direction, ph Phase) *list {
	var codes []*code
	parts := []string{string(g.Tier.Default), string('0' + rune(ph))}
	for _, p := range g.Policies {
		it := c.code(p, d, ph == Untracked)
		codes = append(codes, it)
		parts = append(parts, it.chain)
	}
	name := tierChain(g.Tier.Name, d)
	chain := versioned(name, parts...)
	return c.hold(chain, codes, nil, func() kernel.Chain {
		var rules []kernel.Rule
		for _, it := range codes {
			if it.inline {
				rules = append(rules, it.rules...)
			} else {
				rules = append(rules, kernel.Rule{Verdict: kernel.Jump, Target: it.chain})
			}
		}
		if g.Tier == lostTier || g.Tier.Default == Deny && (ph == Normal || ph == Forward) {
			rules = append(rules, c.act(kernel.Rule{}, Deny, Logged{Deny, name, -1}, false))
		}
		return kernel.Chain{Rules: kernel.RulesOf(rules...)}
	})
}

// listOf returns the list of all that concerns an endpoint in a phase; nil: nothing
// does. Head is what comes before.
func (c *Compiler) listOf(id ID, d Direction, ph Phase, head []kernel.Rule) *list {
	groups := c.groups(id, d, ph)
	if len(groups) == 0 && len(head) == 0 {
		return nil
	}
	var tiers []*list
	var parts []string
	for _, g := range groups {
		t := c.tierList(g, d, ph)
		tiers, parts = append(tiers, t), append(parts, t.chain)
	}
	if len(tiers) == 1 && len(head) == 0 {
		return tiers[0]
	}
	name := "pods/" + d.way()
	if id.Kind == KindHost {
		name = "host/" + d.way()
		parts = append(parts, kernel.RulesOf(head...).Identity())
	}
	return c.hold(versioned(name, parts...), nil, tiers, func() kernel.Chain {
		rules := slices.Clone(head)
		for _, t := range tiers {
			rules = append(rules, kernel.Rule{Verdict: kernel.Jump, Target: t.chain})
		}
		return kernel.Chain{Rules: kernel.RulesOf(rules...)}
	})
}

// relist makes an endpoint's lists and the entries that lead to them.
func (c *Compiler) relist(id ID) {
	l := c.locals[id]
	if l == nil {
		return
	}
	was := *l
	l.lists, l.entries, l.others = nil, nil, [phases][2]string{}
	info := &Enforced{Endpoint: l.endpoint}
	if id.Kind == KindHost {
		c.dirtyBases = true
		c.listHost(l, info)
	} else {
		c.listPod(l)
	}
	c.dirtyHost = c.dirtyHost || l.others != was.others // links that have another are kept from them
	for _, old := range was.lists {
		c.drop(old)
	}
	c.leave(id, was.entries, l.entries)
	for d := range Direction(2) {
		info.Policies[d] = c.inOrder(id, d)
	}
	info.Entries = l.entries
	c.enforced.Set(id, info)
}

// unlist takes everything back that was made for an endpoint.
func (c *Compiler) unlist(l *local) {
	c.leave(l.endpoint.ID, l.entries, nil)
	for _, held := range l.lists {
		c.drop(held)
	}
}

// lost returns the policies that select an endpoint and name a tier that does not
// exist: a list of their tier just denies.
func (c *Compiler) lost(id ID) []*Policy {
	var all []*Policy
	for s := range c.concern.Matches(id) {
		for _, p := range c.bySelect[s.String()] {
			if _, known := c.tiers[p.Tier]; !known && !p.Staged {
				all = append(all, p.Faulty("there is no tier "+p.Tier))
			}
		}
	}
	slices.SortFunc(all, Compare)
	return all
}

// inOrder returns the policies that concern an endpoint, phase by phase.
func (c *Compiler) inOrder(id ID, d Direction) []*Policy {
	all := c.lost(id)
	phases := []Phase{Normal}
	if id.Kind == KindHost {
		phases = []Phase{Untracked, PreDNAT, Normal, Forward}
	}
	for _, ph := range phases {
		for _, g := range c.groups(id, d, ph) {
			for _, p := range g.Policies {
				if !slices.Contains(all, p) {
					all = append(all, p)
				}
			}
		}
	}
	return all
}

// enter leads the packets of a link to a list.
func (c *Compiler) enter(l *local, verdicts, link, chain string) {
	key := kernel.EntryKey(verdicts, link)
	l.entries = append(l.entries, key)
	c.entries[key] = l.endpoint.ID
	c.chains.Set(key, kernel.Chain{To: chain})
}

// leave takes back the entries of an endpoint but for those that it still has. What
// another endpoint has entered by now stays: links change hands.
func (c *Compiler) leave(id ID, was, is []string) {
	for _, key := range was {
		if c.entries[key] == id && !slices.Contains(is, key) {
			delete(c.entries, key)
			c.chains.Delete(key)
		}
	}
}

// listPod makes the lists of a pod.
func (c *Compiler) listPod(l *local) {
	for d := range Direction(2) {
		chain := unconcerned
		if all := c.listOf(l.endpoint.ID, d, Normal, nil); all != nil {
			l.lists = append(l.lists, all)
			chain = all.chain
		}
		c.enter(l, podMaps[d], l.endpoint.Link, chain)
	}
}
