package policytest

import (
	"errors"
	"fmt"
	"slices"

	"cairn.network/cairn/kernel"
)

// maxJumps is how many jumps deep the kernel lets chains call each other
// (NFT_JUMP_STACK_SIZE).
const maxJumps = 16

// Numbers of protocols (iana.org/assignments/protocol-numbers).
const (
	icmp   = 1
	icmpv6 = 58
)

// hasPorts says whether ports of a protocol can be asked for: of TCP, UDP, DCCP, SCTP
// and UDP-Lite.
func hasPorts(protocol uint8) bool {
	return slices.Contains([]uint8{6, 17, 33, 132, 136}, protocol)
}

func checkSet(name string, s kernel.Set) error {
	is6, _, shared := kernel.ParseSharedName(name)
	if shared != s.Shared || shared && s != (kernel.Set{Shared: true, IPv6: is6}) {
		return errors.New("it has the name of another kind of set")
	}
	switch s.Keys {
	case kernel.KeysAddresses, kernel.KeysPorts:
	case kernel.KeysServices, kernel.KeysSources, kernel.KeysLinks:
		if s.Ranges {
			return fmt.Errorf("sets of %s have no ranges", s.Keys)
		}
	default:
		return fmt.Errorf("unknown keys %q", s.Keys)
	}
	if s.Other != "" {
		return fmt.Errorf("unknown kind %s", s.Other)
	}
	return nil
}

func checkElement(e kernel.Element, s kernel.Set) error {
	addressed := s.Keys == kernel.KeysAddresses || s.Keys == kernel.KeysServices || s.Keys == kernel.KeysSources
	single := !e.Prefix.IsValid() || e.Prefix.IsSingleIP()
	switch {
	case s.Keys == kernel.KeysLinks:
		return errors.New("a verdict map has entries, not elements")
	case e.Last().IsValid():
		return errors.New("unknown range")
	case e.Prefix.IsValid() != addressed, addressed && (e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is6() != s.IPv6):
		return fmt.Errorf("%v is no address of the set", e.Prefix)
	case (!single || e.LastPort != 0) && !s.Ranges:
		return errors.New("the set has no ranges")
	case e.LastPort != 0 && e.LastPort <= e.Port:
		return errors.New("the range ends before it begins")
	case e.Beside != "" && s.Keys != kernel.KeysSources,
		e.Protocol != 0 && s.Keys != kernel.KeysServices,
		e.Port != 0 && s.Keys != kernel.KeysServices && s.Keys != kernel.KeysPorts,
		e.LastPort != 0 && s.Keys != kernel.KeysPorts:
		return errors.New("it has what the set's elements don't")
	}
	return nil
}

// checkEntry checks that a verdict map's entry is nothing else.
func checkEntry(c kernel.Chain) error {
	if c != (kernel.Chain{To: c.To}) {
		return errors.New("it is a chain, too")
	}
	return nil
}

// checkTarget checks that a chain can be jumped to.
func (r *Ruleset) checkTarget(name string) error {
	switch c, ok := r.chains[name]; {
	case !ok:
		return fmt.Errorf("there is no chain %q", name)
	case c.Hook != kernel.HookNone:
		return fmt.Errorf("chain %s is a base chain", name)
	}
	return nil
}

func (r *Ruleset) checkChain(c chain) error {
	switch c.Hook {
	case kernel.HookNone:
		if c.Type != "" || c.Priority != 0 {
			return errors.New("type and priority are of base chains")
		}
	case kernel.HookPrerouting, kernel.HookInput, kernel.HookForward, kernel.HookOutput, kernel.HookPostrouting:
		if c.Type != kernel.ChainFilter && c.Type != kernel.ChainNAT {
			return fmt.Errorf("unknown type %q", c.Type)
		}
	default:
		return fmt.Errorf("unknown hook %q", c.Hook)
	}
	if c.To != "" || c.Other != "" {
		return errors.New("unknown kind of chain")
	}
	for i, rule := range c.rules {
		for _, check := range []func(kernel.Rule) error{r.checkVerdict, r.checkSets, checkMatches} {
			if err := check(rule); err != nil {
				return fmt.Errorf("rule %d (%s): %w", i, rule.Comment, err)
			}
		}
	}
	return nil
}

func (r *Ruleset) checkVerdict(rule kernel.Rule) error {
	switch rule.Verdict {
	case kernel.Jump, kernel.Goto:
		return r.checkTarget(rule.Target)
	case kernel.InVerdicts, kernel.OutVerdicts:
		if s, ok := r.sets[rule.Target]; !ok || s.Keys != kernel.KeysLinks {
			return fmt.Errorf("there is no verdict map %q", rule.Target)
		}
		return nil
	case kernel.Accept, kernel.Drop, kernel.Masquerade, kernel.NoTrack, kernel.Return, kernel.Continue:
		if rule.Target != "" {
			return fmt.Errorf("%s has no target", rule.Verdict)
		}
		return nil
	}
	return fmt.Errorf("unknown verdict %q", rule.Verdict)
}

// checkSets checks that the sets that a rule asks are of the kinds that it takes them
// for.
func (r *Ruleset) checkSets(rule kernel.Rule) error {
	want := make(map[string]kernel.Set)
	add := func(name string, s kernel.Set) error {
		if name == "" {
			return nil
		}
		have, ok := r.sets[name]
		have.Ranges, have.Shared = false, false // which rules need not know
		if old, twice := want[name]; !ok || have != s || twice && old != s {
			return fmt.Errorf("there is no set %s of %+v", name, s)
		}
		want[name] = s
		return nil
	}
	var errs []error
	for _, s := range []kernel.InSet{rule.Src, rule.Dst} {
		errs = append(errs, add(s.Set, kernel.Set{IPv6: s.IPv6}))
	}
	for _, a := range rule.Addrs {
		errs = append(errs, add(a.Set, kernel.Set{Keys: a.Keys, IPv6: a.IPv6}))
	}
	for _, p := range rule.Ports {
		errs = append(errs, add(p.Set, kernel.Set{Keys: kernel.KeysPorts}))
	}
	return errors.Join(errs...)
}

// checkMatches checks that what a rule asks for makes sense together.
func checkMatches(rule kernel.Rule) error {
	const states = kernel.StateInvalid | kernel.StateEstablished | kernel.StateRelated | kernel.StateNew | kernel.StateUntracked
	ports := hasPorts(rule.Protocol)
	switch {
	case rule.Other != "":
		return fmt.Errorf("unknown rule: %s", rule.Other)
	case (rule.DstPort != 0 || len(rule.Ports) > 0) && !ports:
		return fmt.Errorf("protocol %d has no ports", rule.Protocol)
	case rule.VNI != 0 && rule.Protocol != kernel.ProtoUDP:
		return errors.New("a VNI without UDP")
	case rule.NoSYN && rule.Protocol != kernel.ProtoTCP:
		return errors.New("flags without TCP")
	case (rule.ICMP != nil || rule.NotICMP != nil) && rule.Protocol != icmp && rule.Protocol != icmpv6:
		return fmt.Errorf("protocol %d has no types of ICMP", rule.Protocol)
	case rule.States&^states != 0:
		return fmt.Errorf("unknown states %#x", uint8(rule.States&^states))
	case rule.Family != 0 && rule.Family != 4 && rule.Family != 6:
		return fmt.Errorf("unknown family %d", rule.Family)
	case rule.NoInLink && rule.InLink != "":
		return errors.New("a link, and none")
	}
	for _, a := range rule.Addrs {
		switch {
		case a.Place != kernel.Source && a.Place != kernel.Destination:
			return fmt.Errorf("unknown place %q", a.Place)
		case (a.Set == "") != a.Prefix.IsValid(), a.Prefix.IsValid() && (a.Keys != "" || a.Prefix.Addr().Is6() != a.IPv6 || a.Prefix != a.Prefix.Masked()):
			return fmt.Errorf("unknown match of addresses %+v", a)
		case a.Keys != kernel.KeysAddresses && a.Keys != kernel.KeysServices && a.Keys != kernel.KeysSources:
			return fmt.Errorf("addresses in a set of %s", a.Keys)
		}
	}
	for _, p := range rule.Ports {
		switch {
		case p.Place != kernel.Source && p.Place != kernel.Destination:
			return fmt.Errorf("unknown place %q", p.Place)
		case p.Set != "" && (p.First != 0 || p.Last != 0), p.First > p.Last:
			return fmt.Errorf("unknown match of ports %+v", p)
		}
	}
	return nil
}

// checkLoops checks that chains don't lead back to themselves, nor jump too deep.
func (r *Ruleset) checkLoops() error {
	deepest := make(map[string]int) // jumps from a chain on
	open := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		if _, done := deepest[name]; done {
			return nil
		}
		if open[name] {
			return fmt.Errorf("chain %s leads back to itself", name)
		}
		open[name] = true
		depth := 0
		for _, rule := range r.chains[name].rules {
			for _, target := range r.targets(rule) {
				if err := visit(target); err != nil {
					return err
				}
				more := deepest[target]
				if rule.Verdict == kernel.Jump {
					more++
				}
				depth = max(depth, more)
			}
		}
		deepest[name] = depth
		if depth > maxJumps {
			return fmt.Errorf("chain %s jumps %d deep", name, depth)
		}
		return nil
	}
	for name := range r.chains {
		if err := visit(name); err != nil {
			return err
		}
	}
	return nil
}

// targets returns the chains that a rule may lead to.
func (r *Ruleset) targets(rule kernel.Rule) (names []string) {
	switch rule.Verdict {
	case kernel.Jump, kernel.Goto:
		return []string{rule.Target}
	case kernel.InVerdicts, kernel.OutVerdicts:
		for _, to := range r.entries[rule.Target] {
			names = append(names, to)
		}
	}
	return names
}
