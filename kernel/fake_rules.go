package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
)

// fakeRuleset is a host's table inet cairn of nftables.
type fakeRuleset struct {
	sets     map[string]Set
	elements map[string]map[Element]struct{} // of each set
	chains   map[string]fakeChain            // and entries, by key
}

// Sets returns the sets in Cairn's table of nftables.
func (f *Fake) Sets() Table[string, Set] { return fakeSets{f} }

// Elements returns the elements of all sets in Cairn's table of nftables.
func (f *Fake) Elements() Table[Element, struct{}] { return fakeElements{f} }

// Chains returns the chains, and the entries of verdict maps, in Cairn's table of
// nftables.
func (f *Fake) Chains() Table[string, Chain] { return fakeChains{f} }

// fakeTries are what is tried in one Write.
type fakeTries[K comparable] struct {
	*Fake
	errs []error
}

// try does something for one key, unless a fault is in the way, and keeps its error.
func (t *fakeTries[K]) try(op string, k K, do func() error) {
	t.writes++
	err := t.failure(op, k)
	if err == nil {
		err = do()
	}
	if err != nil {
		t.errs = append(t.errs, &KeyError[K]{Op: op, Key: k, Err: err})
	}
}

// fakeWrite calls put or drop for each key, and joins what they say. f.mu is not
// held, but while they run.
func fakeWrite[K, V comparable](ctx context.Context, f *Fake, kind string, set map[K]V, del []K, put func(K, V) error, drop func(K) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write %s: %w", kind, err)
	}
	t := &fakeTries[K]{Fake: f}
	for _, k := range del { // what goes makes room for what comes
		t.try("delete", k, func() error { return drop(k) })
	}
	for k, v := range set {
		t.try("set", k, func() error { return put(k, v) })
	}
	return errors.Join(t.errs...)
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
	var users map[string]string // who asks for each set, once it is needed
	drop := func(name string) error {
		if users == nil {
			users = f.ruleset.users()
		}
		return f.ruleset.delSet(name, users)
	}
	put := func(name string, s Set) error {
		old, exists := f.ruleset.sets[name]
		if err := s.Check(name); err != nil || exists && old == s {
			return err
		}
		if exists {
			if err := drop(name); err != nil {
				return err
			}
		}
		f.ruleset.makeSet(name, s)
		return nil
	}
	return fakeWrite(ctx, f.Fake, "sets", set, del, put, drop)
}

func (r *fakeRuleset) makeSet(name string, s Set) {
	if r.sets == nil {
		r.sets, r.elements = make(map[string]Set), make(map[string]map[Element]struct{})
	}
	r.dropEntries(name)
	r.sets[name], r.elements[name] = s, make(map[Element]struct{})
}

// users returns a chain that asks for each of the sets.
func (r *fakeRuleset) users() map[string]string {
	users := make(map[string]string)
	for name, c := range r.chains {
		for _, asked := range c.asks {
			users[asked.Name] = name
		}
	}
	return users
}

// delSet deletes a set with its elements or entries, unless a chain asks for it.
func (r *fakeRuleset) delSet(name string, users map[string]string) error {
	if chain, used := users[name]; used && !r.sets[name].Shared {
		return fmt.Errorf("chain %s asks for it: %w", chain, errBusy)
	}
	r.dropEntries(name)
	delete(r.sets, name)
	delete(r.elements, name)
	return nil
}

var errBusy = fmt.Errorf("%w: %w", ErrBusy, syscall.EBUSY)

type fakeElements struct{ *Fake }

func (f fakeElements) Read(ctx context.Context) (map[Element]struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "elements")); err != nil {
		return nil, fmt.Errorf("read elements: %w", err)
	}
	have := make(map[Element]struct{})
	for _, members := range f.ruleset.elements {
		maps.Copy(have, members)
	}
	return have, nil
}

func (f fakeElements) Write(ctx context.Context, set map[Element]struct{}, del []Element) error {
	put := func(e Element, _ struct{}) error { return f.ruleset.putElement(e) }
	drop := func(e Element) error { delete(f.ruleset.elements[e.Set], e); return nil }
	return fakeWrite(ctx, f.Fake, "elements", set, del, put, drop)
}

func (r *fakeRuleset) putElement(e Element) error {
	s, exists := r.sets[e.Set]
	if !exists {
		return fmt.Errorf("set %s: %w", e.Set, syscall.ENOENT)
	}
	if err := e.Check(s); err != nil {
		return err
	}
	members := r.elements[e.Set]
	if _, there := members[e]; there {
		return nil
	}
	if s.Ranges {
		for other := range members {
			if other.overlaps(e) {
				return fmt.Errorf("%s overlaps it: %w", other.text(), syscall.EEXIST)
			}
		}
	}
	members[e] = struct{}{}
	return nil
}

func copyMap[K, V comparable](m map[K]V) map[K]V {
	out := make(map[K]V, len(m))
	maps.Copy(out, m)
	return out
}

// AddSet makes a set as another hand would: anything goes. It is empty, and takes
// the place of one of that name.
func (f *Fake) AddSet(name string, s Set) {
	f.byOthers(func() { f.ruleset.makeSet(name, s) })
}

// AddElement puts an element into a set, which must exist.
func (f *Fake) AddElement(e Element) {
	f.byOthers(func() {
		members, exists := f.ruleset.elements[e.Set]
		if !exists {
			panic(fmt.Sprintf("kernel.Fake: element %v of a set that does not exist", e))
		}
		members[e] = struct{}{}
	})
}

// AddChain makes a chain, or gives it other rules; or an entry in a verdict map.
func (f *Fake) AddChain(key string, c Chain) {
	f.byOthers(func() { f.ruleset.makeChain(key, newFakeChain(c.Open())) })
}

// DropElement deletes an element.
func (f *Fake) DropElement(e Element) {
	f.byOthers(func() { delete(f.ruleset.elements[e.Set], e) })
}

// DropChain deletes a chain or an entry.
func (f *Fake) DropChain(key string) {
	f.byOthers(func() { delete(f.ruleset.chains, key) })
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
