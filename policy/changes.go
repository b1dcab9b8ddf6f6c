package policy

import (
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// Changes are what two tables differ by. Finding them costs what the difference does.
type Changes struct {
	is           *Table
	chains, sets map[string]bool // that differ; sets also by what is in them
	hooked       bool            // a base chain at the hooks input or forward is among them
	reach        map[string]bool // by chain: whether it or what it leads to is among them
}

// ChangesOf returns the changes from one table to another.
func ChangesOf(was, is *Table) Changes {
	c := Changes{is: is, chains: map[string]bool{}, sets: map[string]bool{}, reach: map[string]bool{}}
	for name := range immutable.Diff(was.chains, is.chains) {
		c.chains[name] = true
		for _, t := range []*Table{was, is} {
			hook := t.chains.At(name).Hook
			c.hooked = c.hooked || hook == kernel.HookInput || hook == kernel.HookForward
		}
	}
	for name := range immutable.Diff(was.sets, is.sets) {
		c.sets[name] = true
	}
	for e := range immutable.Diff(was.elements, is.elements) {
		c.sets[e.Set] = true
	}
	return c
}

// TouchPod says whether packets from or to the pod of a link may meet other rules than
// before.
func (c Changes) TouchPod(link string) bool {
	if c.hooked {
		return true
	}
	for _, verdicts := range podMaps {
		key := kernel.EntryKey(verdicts, link)
		if entry, ok := c.is.chains.Get(key); c.chains[key] || ok && c.touch(entry.To) {
			return true
		}
	}
	return false
}

// touch says whether a chain, a set that it asks or a chain that it leads to differs.
func (c Changes) touch(chain string) bool {
	touched, known := c.reach[chain]
	if known {
		return touched
	}
	touched = c.chains[chain]
	for _, r := range c.is.rules(chain) {
		touched = touched || c.asked(r)
		if r.Verdict == kernel.Jump || r.Verdict == kernel.Goto {
			touched = touched || c.touch(r.Target)
		}
	}
	c.reach[chain] = touched
	return touched
}

// asked says whether a rule asks a set that differs.
func (c Changes) asked(r kernel.Rule) bool {
	asked := c.sets[r.Src.Set] || c.sets[r.Dst.Set]
	for _, a := range r.Addrs {
		asked = asked || c.sets[a.Set]
	}
	for _, p := range r.Ports {
		asked = asked || c.sets[p.Set]
	}
	return asked
}
