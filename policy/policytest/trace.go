package policytest

import (
	"fmt"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// tracking is the priority at which connection tracking looks at packets, at the hooks
// prerouting and output.
const tracking = -200

// PacketAt is a packet where rules see it.
type PacketAt struct {
	policy.Packet
	// InLink and OutLink are the links that it came by and leaves by; "": none.
	InLink, OutLink string
	// State is the connection's, one of them; 0: StateNew. Before connections are
	// tracked, rules see StateInvalid, but for StateUntracked.
	State kernel.State
	// Translated says that the destination is not the one that it was sent to.
	Translated bool
	// Fragment says that it is one of several, Later that it is not the first, so that
	// it has no ports and no type of ICMP.
	Fragment, Later bool
	// VNI is of VXLAN in UDP.
	VNI uint32
	// OverLimit says that every Limit has been used up.
	OverLimit bool
}

// RuleAt is a rule in a chain.
type RuleAt struct {
	Chain   string
	Rule    int // counted from 0
	Comment string
}

// Logged is what a rule tells listeners.
type Logged struct {
	RuleAt
	kernel.Log
}

// Outcome is what becomes of a packet at a hook, or at several.
type Outcome struct {
	Dropped bool
	// By is the rule that dropped it, or else the last that accepted it; zero: none.
	By      RuleAt
	Logs    []Logged
	Counted []RuleAt
	// NoTrack says that connection tracking leaves it alone, Masquerade that its source
	// is translated.
	NoTrack, Masquerade bool
}

// Trace returns what becomes of a packet at one hook. Base chains are called in order of
// their priority: one that accepts is over, one that drops ends all. Links that packets
// don't have at a hook are not looked at: of what has not been routed yet, or comes
// from the host itself. It returns an error for what the kernel lets pass, but can't
// be meant.
func (r *Ruleset) Trace(hook kernel.Hook, p PacketAt) (Outcome, error) {
	return r.Path(p, hook)
}

// Path returns what becomes of a packet at several hooks, one after the other.
func (r *Ruleset) Path(p PacketAt, hooks ...kernel.Hook) (Outcome, error) {
	if p.State == 0 {
		p.State = kernel.StateNew
	}
	w := walk{rules: r, whole: p}
	for _, hook := range hooks {
		for _, base := range r.base(hook) {
			if base.Type == kernel.ChainNAT && w.whole.State != kernel.StateNew {
				continue // the first packet has decided for all of the connection
			}
			v, err := w.at(base).run(base)
			if err != nil {
				return w.out, fmt.Errorf("trace %v at %s: %w", p.Packet, hook, err)
			}
			if w.out.Dropped = v == kernel.Drop; w.out.Dropped {
				return w.out, nil
			}
		}
	}
	return w.out, nil
}

// walk is a packet on its way.
type walk struct {
	rules *Ruleset
	whole PacketAt
	out   Outcome
	// base is the base chain that the packet is in, p what rules see of it there.
	base chain
	p    PacketAt
}

// at enters a base chain.
func (w *walk) at(base chain) *walk {
	w.base, w.p = base, w.whole
	switch base.Hook {
	case kernel.HookPrerouting, kernel.HookInput:
		w.p.OutLink = ""
	case kernel.HookOutput:
		w.p.InLink = ""
	}
	if w.early() {
		w.p.Translated = false
		if w.p.State != kernel.StateUntracked {
			w.p.State = kernel.StateInvalid
		}
	}
	return w
}

// early says whether connections are not known yet.
func (w *walk) early() bool {
	return w.base.Priority < tracking && (w.base.Hook == kernel.HookPrerouting || w.base.Hook == kernel.HookOutput)
}

// run takes the packet through a chain, and returns Accept or Drop, or Continue at the
// chain's end.
func (w *walk) run(c chain) (kernel.Verdict, error) {
	for i, rule := range c.rules {
		if !w.matches(rule) {
			continue
		}
		at := RuleAt{c.name, i, rule.Comment}
		if rule.Counter {
			w.out.Counted = append(w.out.Counted, at)
		}
		if rule.Limit != nil && w.p.OverLimit {
			continue
		}
		if rule.Log != nil {
			w.out.Logs = append(w.out.Logs, Logged{at, *rule.Log})
		}
		v, ended, err := w.act(rule, at)
		if err != nil || ended {
			return v, err
		}
	}
	return kernel.Continue, nil
}

// act does what a rule's verdict says, and says whether that ends the chain, with the
// verdict that is returned.
func (w *walk) act(rule kernel.Rule, at RuleAt) (v kernel.Verdict, ended bool, err error) {
	switch rule.Verdict {
	case kernel.Accept, kernel.Drop:
		w.out.By = at
		return rule.Verdict, true, nil
	case kernel.Masquerade:
		if w.base.Type != kernel.ChainNAT || w.base.Hook != kernel.HookPostrouting {
			return "", true, fmt.Errorf("chain %s masquerades at hook %s", at.Chain, w.base.Hook)
		}
		w.out.By, w.out.Masquerade = at, true
		return kernel.Accept, true, nil
	case kernel.NoTrack:
		if !w.early() {
			return "", true, fmt.Errorf("chain %s is too late for notrack", at.Chain)
		}
		w.out.NoTrack = true
		w.p.State, w.whole.State = kernel.StateUntracked, kernel.StateUntracked
		return "", false, nil
	case kernel.Continue:
		return "", false, nil
	case kernel.Return:
		return kernel.Continue, true, nil
	case kernel.Jump:
		v, err := w.run(w.rules.chains[rule.Target])
		return v, v != kernel.Continue, err
	case kernel.Goto:
		v, err := w.run(w.rules.chains[rule.Target])
		return v, true, err
	case kernel.InVerdicts, kernel.OutVerdicts:
		link := w.p.InLink
		if rule.Verdict == kernel.OutVerdicts {
			link = w.p.OutLink
		}
		to, ok := w.rules.entries[rule.Target][link]
		if !ok || link == "" {
			return "", false, nil
		}
		v, err := w.run(w.rules.chains[to])
		return v, true, err
	}
	return "", true, fmt.Errorf("unknown verdict %q", rule.Verdict)
}
