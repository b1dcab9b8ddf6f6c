package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
)

// fakeRuleset is a host's table inet cairn of nftables.
type fakeRuleset struct {
	sets     map[string]Set
	elements map[string]map[netip.Prefix]Element // of each set, by prefix
	chains   map[string]Chain
}

// Sets returns the sets in Cairn's table of nftables.
func (f *Fake) Sets() Table[string, Set] { return fakeSets{f} }

// Elements returns the elements of all sets in Cairn's table of nftables.
func (f *Fake) Elements() Table[Element, struct{}] { return fakeElements{f} }

// Chains returns the chains in Cairn's table of nftables.
func (f *Fake) Chains() Table[string, Chain] { return fakeChains{f} }

// fakeWrite calls put or drop for each key, and joins what they say. f.mu is not
// held, but while they run.
func fakeWrite[K, V comparable](ctx context.Context, f *Fake, kind string, set map[K]V, del []K, put func(K, V) error, drop func(K) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write %s: %w", kind, err)
	}
	var errs []error
	try := func(op string, k K, do func() error) {
		f.writes++
		err := f.failure(op, k)
		if err == nil {
			err = do()
		}
		if err != nil {
			errs = append(errs, &KeyError[K]{Op: op, Key: k, Err: err})
		}
	}
	for _, k := range del { // what goes makes room for what comes
		try("delete", k, func() error { return drop(k) })
	}
	for k, v := range set {
		try("set", k, func() error { return put(k, v) })
	}
	return errors.Join(errs...)
}

type fakeSets struct{ *Fake }

func (f fakeSets) Read(ctx context.Context) (map[string]Set, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "sets")); err != nil {
		return nil, fmt.Errorf("read sets: %w", err)
	}
	return copyMap(f.ruleset.sets), nil
}

func (f fakeSets) Write(ctx context.Context, set map[string]Set, del []string) error {
	return fakeWrite(ctx, f.Fake, "sets", set, del, f.putSet, f.delSet)
}

func (f *Fake) putSet(name string, s Set) error {
	if err := s.Check(name); err != nil {
		return err
	}
	switch old, exists := f.ruleset.sets[name]; {
	case exists && old == s:
		return nil
	case exists:
		if err := f.delSet(name); err != nil {
			return err
		}
	}
	f.makeSet(name, s)
	return nil
}

func (f *Fake) makeSet(name string, s Set) {
	if f.ruleset.sets == nil {
		f.ruleset.sets, f.ruleset.elements = make(map[string]Set), make(map[string]map[netip.Prefix]Element)
	}
	f.ruleset.sets[name], f.ruleset.elements[name] = s, make(map[netip.Prefix]Element)
}

// delSet deletes a set with its elements, unless a chain asks for it.
func (f *Fake) delSet(name string) error {
	for chain, c := range f.ruleset.chains {
		for _, r := range c.Rules.List() {
			if slices.Contains(r.Sets(), name) {
				return fmt.Errorf("chain %s asks for it: %w: %w", chain, ErrBusy, syscall.EBUSY)
			}
		}
	}
	delete(f.ruleset.sets, name)
	delete(f.ruleset.elements, name)
	return nil
}

type fakeElements struct{ *Fake }

func (f fakeElements) Read(ctx context.Context) (map[Element]struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "elements")); err != nil {
		return nil, fmt.Errorf("read elements: %w", err)
	}
	have := make(map[Element]struct{})
	for _, members := range f.ruleset.elements {
		for _, e := range members {
			have[e] = struct{}{}
		}
	}
	return have, nil
}

func (f fakeElements) Write(ctx context.Context, set map[Element]struct{}, del []Element) error {
	put := func(e Element, _ struct{}) error { return f.putElement(e) }
	return fakeWrite(ctx, f.Fake, "elements", set, del, put, f.delElement)
}

func (f *Fake) putElement(e Element) error {
	s, exists := f.ruleset.sets[e.Set]
	if !exists {
		return fmt.Errorf("set %s: %w", e.Set, syscall.ENOENT)
	}
	if err := e.Check(s); err != nil {
		return err
	}
	members := f.ruleset.elements[e.Set]
	if members[e.Prefix] == e {
		return nil
	}
	if s.Ranges {
		for _, other := range members {
			if other.overlaps(e) {
				return fmt.Errorf("%s overlaps it: %w", other.text(), syscall.EEXIST)
			}
		}
	}
	members[e.Prefix] = e
	return nil
}

// overlaps says whether an address is in both elements. o is a prefix.
func (e Element) overlaps(o Element) bool {
	if !e.Last.IsValid() {
		return e.Prefix.Overlaps(o.Prefix)
	}
	first := e.Prefix.Addr()
	return o.Prefix.Contains(first) || o.Prefix.Contains(e.Last) ||
		first.Less(o.Prefix.Addr()) && o.Prefix.Addr().Less(e.Last)
}

func (f *Fake) delElement(e Element) error {
	if f.ruleset.elements[e.Set][e.Prefix] == e {
		delete(f.ruleset.elements[e.Set], e.Prefix)
	}
	return nil
}

type fakeChains struct{ *Fake }

func (f fakeChains) Read(ctx context.Context) (map[string]Chain, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "chains")); err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	return copyMap(f.ruleset.chains), nil
}

func (f fakeChains) Write(ctx context.Context, set map[string]Chain, del []string) error {
	drop := func(name string) error { delete(f.ruleset.chains, name); return nil }
	return fakeWrite(ctx, f.Fake, "chains", set, del, f.putChain, drop)
}

func (f *Fake) putChain(name string, c Chain) error {
	if err := c.Check(name); err != nil {
		return err
	}
	for _, r := range c.Rules.List() {
		for _, asked := range []InSet{r.Src, r.Dst} {
			s, exists := f.ruleset.sets[asked.Set]
			switch {
			case asked.Set == "":
			case !exists:
				return fmt.Errorf("set %s: %w", asked.Set, syscall.ENOENT)
			case s.IPv6 != asked.IPv6:
				return fmt.Errorf("set %s is of the other family: %w", asked.Set, syscall.EINVAL)
			}
		}
	}
	f.makeChain(name, c)
	return nil
}

func (f *Fake) makeChain(name string, c Chain) {
	if f.ruleset.chains == nil {
		f.ruleset.chains = make(map[string]Chain)
	}
	f.ruleset.chains[name] = c
}

func copyMap[K, V comparable](m map[K]V) map[K]V {
	out := make(map[K]V, len(m))
	maps.Copy(out, m)
	return out
}

// AddSet makes a set as another hand would: anything goes. It is empty, and takes
// the place of one of that name.
func (f *Fake) AddSet(name string, s Set) {
	f.byOthers(func() { f.makeSet(name, s) })
}

// AddElement puts an element into a set, which must exist.
func (f *Fake) AddElement(e Element) {
	f.byOthers(func() {
		members, exists := f.ruleset.elements[e.Set]
		if !exists {
			panic(fmt.Sprintf("kernel.Fake: element %v of a set that does not exist", e))
		}
		members[e.Prefix] = e
	})
}

// AddChain makes a chain, or gives it other rules.
func (f *Fake) AddChain(name string, c Chain) {
	f.byOthers(func() { f.makeChain(name, c) })
}

// DropElement deletes an element.
func (f *Fake) DropElement(e Element) {
	f.byOthers(func() { delete(f.ruleset.elements[e.Set], e.Prefix) })
}

// DropChain deletes a chain.
func (f *Fake) DropChain(name string) {
	f.byOthers(func() { delete(f.ruleset.chains, name) })
}

// FlushRuleset does what "nft flush ruleset" does.
func (f *Fake) FlushRuleset() {
	f.byOthers(func() { f.ruleset = fakeRuleset{} })
}

// byOthers changes Cairn's table of nftables by another hand than Cairn's.
func (f *Fake) byOthers(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.tell(Event{Rules: true}, false)
}
