package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// tracking is the priority at which connection tracking looks at packets, at the hooks
// prerouting and output.
const tracking = -200

// PacketAt is a packet where rules see it.
type PacketAt struct {
	Packet
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
	// MidStream says that it is of TCP and does not begin a connection.
	MidStream bool
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

// LoggedAt is what a rule tells listeners.
type LoggedAt struct {
	RuleAt
	kernel.Log
}

// Outcome is what becomes of a packet at a hook, or at several.
type Outcome struct {
	Dropped bool
	// By is the rule that dropped it, or else the last that accepted it; zero: none.
	By      RuleAt
	Logs    []LoggedAt
	Counted []RuleAt
	// NoTrack says that connection tracking leaves it alone, Masquerade that its source
	// is translated.
	NoTrack, Masquerade bool
}

// Table is compiled rules, ready to walk packets through them. It costs little to
// make: what packets meet is looked up when they do. It is for one goroutine.
type Table struct {
	sets     immutable.Map[string, kernel.Set]
	elements immutable.Map[kernel.Element, struct{}]
	chains   immutable.Map[string, kernel.Chain]

	bases  map[kernel.Hook][]tracedChain // in the order in which they are called
	parsed map[string][]kernel.Rule      // by chain
	ranges map[string][]kernel.Element   // of ports, by set; nil: not looked for yet
}

// tracedChain is a chain with its name.
type tracedChain struct {
	kernel.Chain
	name string
}

// NewTable returns the table that these make together.
func NewTable(sets immutable.Map[string, kernel.Set], elements immutable.Map[kernel.Element, struct{}], chains immutable.Map[string, kernel.Chain]) *Table {
	t := &Table{
		sets: sets, elements: elements, chains: chains,
		bases: map[kernel.Hook][]tracedChain{}, parsed: map[string][]kernel.Rule{},
	}
	for name, c := range chains.All() {
		if c.Hook != kernel.HookNone {
			t.bases[c.Hook] = append(t.bases[c.Hook], tracedChain{c, name})
		}
	}
	for _, list := range t.bases {
		slices.SortFunc(list, func(a, b tracedChain) int {
			return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.name, b.name))
		})
	}
	return t
}

// At returns the table with those of its base chains only that have one of the
// priorities: what is decided at one hook in several phases can be traced apart.
func (t *Table) At(priorities ...int) *Table {
	some := *t
	some.bases = map[kernel.Hook][]tracedChain{}
	for hook, list := range t.bases {
		for _, c := range list {
			if slices.Contains(priorities, c.Priority) {
				some.bases[hook] = append(some.bases[hook], c)
			}
		}
	}
	return &some
}

// rules returns the rules of a chain.
func (t *Table) rules(chain string) []kernel.Rule {
	list, ok := t.parsed[chain]
	if !ok {
		list = t.chains.At(chain).Rules.List()
		t.parsed[chain] = list
	}
	return list
}

// has says whether a set has a member: a single one, or one of its ranges.
func (t *Table) has(e kernel.Element) bool {
	if t.elements.Has(e) {
		return true
	}
	switch s := t.sets.At(e.Set); {
	case !s.Ranges:
		return false
	case s.Keys == kernel.KeysPorts:
		return slices.ContainsFunc(t.portRanges(e.Set), func(r kernel.Element) bool { return r.Port <= e.Port && e.Port <= r.LastPort })
	}
	for bits := e.Prefix.Bits() - 1; bits >= 0; bits-- {
		if wide, err := e.Prefix.Addr().Prefix(bits); err == nil && t.elements.Has(kernel.Element{Set: e.Set, Prefix: wide}) {
			return true
		}
	}
	return false
}

// portRanges returns the ranges of ports in a set.
func (t *Table) portRanges(set string) []kernel.Element {
	if t.ranges == nil {
		t.ranges = map[string][]kernel.Element{}
		for e := range t.elements.All() {
			if e.LastPort != 0 {
				t.ranges[e.Set] = append(t.ranges[e.Set], e)
			}
		}
	}
	return t.ranges[set]
}

// Trace returns what becomes of a packet at one hook. Base chains are called in order of
// their priority: one that accepts is over, one that drops ends all. Links that packets
// don't have at a hook are not looked at: of what has not been routed yet, or comes
// from the host itself. It returns an error for what the kernel lets pass, but can't
// be meant.
func (t *Table) Trace(hook kernel.Hook, p PacketAt) (Outcome, error) {
	return t.Path(p, hook)
}

// Path returns what becomes of a packet at several hooks, one after the other.
func (t *Table) Path(p PacketAt, hooks ...kernel.Hook) (Outcome, error) {
	w := t.tracing(p)
	for _, hook := range hooks {
		for _, base := range t.bases[hook] {
			if base.Type == kernel.ChainNAT && w.whole.State != kernel.StateNew {
				continue // the first packet has decided for all of the connection
			}
			v, err := w.at(base).run(base.name)
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

// Pod returns what becomes of a packet at the pod of a link: as what comes from the pod
// (Egress) or goes to it (Ingress). Known is false if no pod has the link.
func (t *Table) Pod(d Direction, link string, p PacketAt) (out Outcome, known bool, err error) {
	entry, known := t.chains.Get(kernel.EntryKey(podMaps[d], link))
	if !known {
		return Outcome{}, false, nil
	}
	w := t.tracing(p)
	w.p = w.whole
	v, err := w.run(entry.To)
	if err != nil {
		return w.out, true, fmt.Errorf("trace %v at %s, %s: %w", p.Packet, link, d, err)
	}
	w.out.Dropped = v == kernel.Drop
	return w.out, true, nil
}

// tracing is a packet on its way.
type tracing struct {
	table *Table
	whole PacketAt
	out   Outcome
	// base is the base chain that the packet is in, p what rules see of it there.
	base tracedChain
	p    PacketAt
}

func (t *Table) tracing(p PacketAt) *tracing {
	if p.State == 0 {
		p.State = kernel.StateNew
	}
	return &tracing{table: t, whole: p}
}

// at enters a base chain.
func (w *tracing) at(base tracedChain) *tracing {
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
func (w *tracing) early() bool {
	return w.base.Priority < tracking && (w.base.Hook == kernel.HookPrerouting || w.base.Hook == kernel.HookOutput)
}

// run takes the packet through a chain, and returns Accept or Drop, or Continue at the
// chain's end.
func (w *tracing) run(chain string) (kernel.Verdict, error) {
	for i, rule := range w.table.rules(chain) {
		if !w.matches(rule) {
			continue
		}
		at := RuleAt{chain, i, rule.Comment}
		if rule.Counter {
			w.out.Counted = append(w.out.Counted, at)
		}
		if rule.Limit != nil && w.p.OverLimit {
			continue
		}
		if rule.Log != nil {
			w.out.Logs = append(w.out.Logs, LoggedAt{at, *rule.Log})
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
func (w *tracing) act(rule kernel.Rule, at RuleAt) (v kernel.Verdict, ended bool, err error) {
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
		v, err := w.run(rule.Target)
		return v, v != kernel.Continue, err
	case kernel.Goto:
		v, err := w.run(rule.Target)
		return v, true, err
	case kernel.InVerdicts, kernel.OutVerdicts:
		link := w.p.InLink
		if rule.Verdict == kernel.OutVerdicts {
			link = w.p.OutLink
		}
		entry, ok := w.table.chains.Get(kernel.EntryKey(rule.Target, link))
		if !ok || link == "" {
			return "", false, nil
		}
		v, err := w.run(entry.To)
		return v, true, err
	}
	return "", true, fmt.Errorf("unknown verdict %q", rule.Verdict)
}
