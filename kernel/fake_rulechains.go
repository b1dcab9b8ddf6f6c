package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
)

// fakeChain is a chain, or an entry, with what its rules refer to.
type fakeChain struct {
	Chain
	asks    []Asked
	leadsTo []string
	counts  []RuleCount // of its rules with Counter, in order
}

type fakeChains struct{ *Fake }

func (f fakeChains) Read(ctx context.Context) (map[string]Chain, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "chains")); err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	have := make(map[string]Chain, len(f.ruleset.chains))
	for key, c := range f.ruleset.chains {
		have[key] = c.Chain
	}
	return have, nil
}

// Write sets before it deletes, as the kernel's transaction does: what is deleted may
// be referred to until then.
func (f fakeChains) Write(ctx context.Context, set map[string]Chain, del []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write chains: %w", err)
	}
	t := &fakeTries[string]{Fake: f.Fake}
	open := OpenChains(set)
	order, circles := ChainOrder(open)
	for _, key := range order {
		t.try("set", key, func() error { return f.ruleset.putChain(key, open[key]) })
	}
	for _, key := range circles {
		t.try("set", key, func() error { return cmp.Or(open[key].Check(key), errCircle) })
	}
	// Those that may be deleted, were it not for references.
	var going []string
	for _, key := range del {
		t.try("delete", key, func() error { going = append(going, key); return nil })
	}
	for key, err := range f.ruleset.dropChains(going) {
		t.errs = append(t.errs, &KeyError[string]{Op: "delete", Key: key, Err: err})
	}
	return errors.Join(t.errs...)
}

// errCircle refuses chains that lead to themselves, and those too deep.
var errCircle = fmt.Errorf("chains lead in a circle, or more than %d deep: %w: %w", maxDepth, syscall.ELOOP, syscall.EMLINK)

// maxDepth is how many chains may lead to each other, in a row (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// dropChains deletes all of these that are referred to by each other only, and returns
// why the others stay.
func (r *fakeRuleset) dropChains(keys []string) map[string]error {
	going := make(map[string]bool, len(keys))
	for _, key := range keys {
		if _, exists := r.chains[key]; exists {
			going[key] = true
		}
	}
	refused := make(map[string]error)
	for again := len(going) > 0; again; {
		again = false
		for key, c := range r.chains {
			for _, to := range c.leadsTo {
				if going[to] && !going[key] {
					refused[to] = fmt.Errorf("%s leads to it: %w", key, errBusy)
					delete(going, to)
					again = true // what it leads to stays as well
				}
			}
		}
	}
	for key := range going {
		delete(r.chains, key)
	}
	return refused
}

func (r *fakeRuleset) dropEntries(set string) {
	maps.DeleteFunc(r.chains, func(key string, c fakeChain) bool {
		verdicts, _, ok := ParseEntryKey(key)
		return ok && verdicts == set
	})
}

func (r *fakeRuleset) putChain(key string, c OpenChain) error {
	if err := c.Check(key); err != nil {
		return err
	}
	made := newFakeChain(c)
	for _, asked := range made.asks {
		s, exists := r.sets[asked.Name]
		if err := checkAsked(asked, s, exists); err != nil {
			return err
		}
	}
	if verdicts, _, ok := ParseEntryKey(key); ok {
		s, exists := r.sets[verdicts]
		if err := checkAsked(Asked{Name: verdicts, Keys: KeysLinks}, s, exists); err != nil {
			return err
		}
	}
	for _, to := range made.leadsTo {
		switch target, exists := r.chains[to]; {
		case !exists:
			return fmt.Errorf("chain %s: %w", to, syscall.ENOENT)
		case target.Hook != HookNone:
			return fmt.Errorf("base chain %s: %w: %w", to, ErrUnsupported, syscall.EOPNOTSUPP)
		}
	}
	old, exists := r.chains[key]
	if exists && !old.samePlace(c.Chain) {
		for user, u := range r.chains {
			if slices.Contains(u.leadsTo, key) {
				return fmt.Errorf("%s leads to it: %w", user, errBusy)
			}
		}
	}
	r.makeChain(key, made)
	if r.depth(key, make(map[string]int)) > maxDepth {
		if delete(r.chains, key); exists {
			r.chains[key] = old
		}
		return errCircle
	}
	return nil
}

// checkAsked says why a set that is asked for won't do.
func checkAsked(asked Asked, s Set, exists bool) error {
	switch {
	case !exists:
		return fmt.Errorf("set %s: %w", asked.Name, syscall.ENOENT)
	case !asked.Fits(s):
		return fmt.Errorf("set %s is of another kind: %w", asked.Name, syscall.EINVAL)
	}
	return nil
}

// samePlace says whether a chain differs in its rules only.
func (c fakeChain) samePlace(o Chain) bool {
	return c.Hook == o.Hook && c.Type == o.Type && c.Priority == o.Priority && c.Other == o.Other
}

// depth returns how many chains there are on the longest way from one on; very many
// where a way leads in a circle. Known are those that were looked at.
func (r *fakeRuleset) depth(key string, known map[string]int) int {
	if d, ok := known[key]; ok {
		return d
	}
	known[key] = 1 << 16 // whoever comes back here while this runs went round
	below := 0
	next := func(k string) { below = max(below, r.depth(k, known)) }
	c := r.chains[key]
	for _, to := range c.leadsTo {
		next(to)
	}
	for _, asked := range c.asks {
		if asked.Keys != KeysLinks {
			continue
		}
		for k := range r.chains {
			if verdicts, _, ok := ParseEntryKey(k); ok && verdicts == asked.Name {
				next(k)
			}
		}
	}
	if _, _, entry := ParseEntryKey(key); !entry {
		below++
	}
	known[key] = below
	return below
}

func newFakeChain(c OpenChain) fakeChain {
	made := fakeChain{Chain: c.Chain, leadsTo: c.leadsTo()}
	for _, rule := range c.List {
		made.asks = append(made.asks, rule.Asks()...)
		if rule.Counter {
			made.counts = append(made.counts, RuleCount{Comment: rule.Comment})
		}
	}
	return made
}

func (r *fakeRuleset) makeChain(key string, c fakeChain) {
	if r.chains == nil {
		r.chains = make(map[string]fakeChain)
	}
	r.chains[key] = c
}

// RuleCounters returns what AddCount has added. Fail("read", "counters", err) makes it
// fail.
func (f *Fake) RuleCounters(ctx context.Context) (map[string][]RuleCount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "counters")); err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	counts := make(map[string][]RuleCount)
	for name, c := range f.ruleset.chains {
		if len(c.counts) > 0 {
			counts[name] = slices.Clone(c.counts)
		}
	}
	return counts, nil
}

// AddCount has the rules of a chain with Counter and this comment count so much more.
func (f *Fake) AddCount(chain, comment string, packets, bytes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, c := range f.ruleset.chains[chain].counts {
		if c.Comment == comment {
			f.ruleset.chains[chain].counts[i] = RuleCount{comment, c.Packets + packets, c.Bytes + bytes}
		}
	}
}
