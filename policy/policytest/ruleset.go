// Package policytest is what tests of policies need: random worlds and packets that
// meet in them, and rules of nftables through which packets are walked as the kernel
// does.
//
//	world.go, policies.go  random worlds
//	packet.go              random packets
//	ruleset.go, check.go   rules, and which of them the kernel would not take
//	node.go                what the reference model expects of rules, and where they differ
//
// It guarantees that rules are refused that policy.Table does not know how to walk: one
// that passes by being ignored proves nothing. It leaves to kernel/linux whether the
// kernel takes rules as they are meant here.
package policytest

import (
	"errors"
	"fmt"
	"iter"
	"maps"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// What packets and their ways through rules are.
type (
	PacketAt = policy.PacketAt
	RuleAt   = policy.RuleAt
	Logged   = policy.LoggedAt
	Outcome  = policy.Outcome
)

// Ruleset is a table of nftables that the kernel would take, ready to trace packets
// through it.
type Ruleset struct {
	*policy.Table
	sets    map[string]kernel.Set
	members map[string]members
	chains  map[string]chain
	// entries holds the chain that each link leads to, by verdict map.
	entries map[string]map[string]string
}

// chain is a chain with its rules taken apart.
type chain struct {
	kernel.Chain
	name  string
	rules []kernel.Rule
}

// members are the elements of a set: single ones, and those that stand for several.
type members struct {
	single map[kernel.Element]bool
	ranges []kernel.Element
}

// NewRuleset returns the table that these make together, or an error for everything
// in it that the kernel would not take, or that the tracer does not know.
func NewRuleset(sets iter.Seq2[string, kernel.Set], elements iter.Seq2[kernel.Element, struct{}], chains iter.Seq2[string, kernel.Chain]) (*Ruleset, error) {
	r := &Ruleset{
		sets: maps.Collect(sets), members: make(map[string]members),
		chains: make(map[string]chain), entries: make(map[string]map[string]string),
	}
	var errs []error
	add := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	for name, s := range r.sets {
		add("set "+name, checkSet(name, s))
		r.members[name] = members{single: make(map[kernel.Element]bool)}
	}
	for e := range elements {
		add("element "+e.String(), r.addElement(e))
	}
	for key, c := range chains {
		if verdicts, link, ok := kernel.ParseEntryKey(key); ok {
			if r.entries[verdicts] == nil {
				r.entries[verdicts] = make(map[string]string)
			}
			r.entries[verdicts][link] = c.To
			add("entry "+key, checkEntry(c))
			continue
		}
		r.chains[key] = chain{c, key, c.Rules.List()}
	}
	for verdicts, links := range r.entries {
		if s, ok := r.sets[verdicts]; !ok || s.Keys != kernel.KeysLinks {
			add("entries of "+verdicts, errors.New("there is no such verdict map"))
		}
		for link, to := range links {
			add("entry "+kernel.EntryKey(verdicts, link), r.checkTarget(to))
		}
	}
	for _, c := range r.chains {
		add("chain "+c.name, r.checkChain(c))
	}
	if len(errs) == 0 {
		errs = append(errs, r.checkLoops())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("load rules: %w", err)
	}
	r.Table = policy.NewTable(r.plain())
	return r, nil
}

func (r *Ruleset) addElement(e kernel.Element) error {
	s, ok := r.sets[e.Set]
	if !ok {
		return errors.New("there is no such set")
	}
	if err := checkElement(e, s); err != nil {
		return err
	}
	m := r.members[e.Set]
	for other := range m.single {
		if overlap(e, other) {
			return fmt.Errorf("overlaps %v", other)
		}
	}
	for _, other := range m.ranges {
		if overlap(e, other) {
			return fmt.Errorf("overlaps %v", other)
		}
	}
	if e.LastPort != 0 || e.Prefix.IsValid() && !e.Prefix.IsSingleIP() {
		m.ranges = append(m.ranges, e)
	} else {
		m.single[e] = true
	}
	r.members[e.Set] = m
	return nil
}

// overlap says whether something is in both elements of a set that has ranges.
func overlap(a, b kernel.Element) bool {
	if a.Prefix.IsValid() {
		return a.Protocol == b.Protocol && a.Port == b.Port && a.Beside == b.Beside && a.Prefix.Overlaps(b.Prefix)
	}
	return a.Port <= max(b.Port, b.LastPort) && b.Port <= max(a.Port, a.LastPort)
}

// At returns the table with those of its base chains only that have one of the
// priorities.
func (r *Ruleset) At(priorities ...int) *Ruleset {
	some := *r
	some.Table = r.Table.At(priorities...)
	return &some
}

// plain returns what the ruleset was made of.
func (r *Ruleset) plain() (immutable.Map[string, kernel.Set], immutable.Map[kernel.Element, struct{}], immutable.Map[string, kernel.Chain]) {
	elements := make(map[kernel.Element]struct{})
	for _, m := range r.members {
		for e := range m.single {
			elements[e] = struct{}{}
		}
		for _, e := range m.ranges {
			elements[e] = struct{}{}
		}
	}
	chains := make(map[string]kernel.Chain)
	for name, c := range r.chains {
		chains[name] = c.Chain
	}
	for verdicts, links := range r.entries {
		for link, to := range links {
			chains[kernel.EntryKey(verdicts, link)] = kernel.Chain{To: to}
		}
	}
	return immutable.Of(r.sets), immutable.Of(elements), immutable.Of(chains)
}

// String returns the table as nft(8) writes it, for tests that fail.
func (r *Ruleset) String() string {
	sets, elements, chains := r.plain()
	return kernel.RulesText(sets.All(), elements.All(), chains.All())
}
