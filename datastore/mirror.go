package datastore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/immutable"
)

// Mirror holds what a store holds of some kinds, kept up to date by watches.
//
// It publishes nothing before every kind is in sync. After that there always is
// a snapshot, however long the store is away. Changes that come while one
// snapshot is made go into the next together. An object that did not change
// keeps its pointer from snapshot to snapshot, through re-lists too, and so does
// the Part of a kind in which nothing changed.
type Mirror struct {
	store      Store
	kinds      []string
	transforms map[string]func(v1.Object) v1.Object
	changed    chan struct{}
	wake       chan struct{}

	mu       sync.Mutex
	feeds    map[string]*feed
	snapshot *Snapshot
}

// feed is what the watch of one kind told.
type feed struct {
	pending []Event // not yet in the snapshot
	down    error
	since   time.Time
}

// Outage says that a mirror is not in touch with its store.
type Outage struct {
	Kinds []string  // the kinds that are cut off
	Since time.Time // when the first of them was
	Err   error     // why
}

func (o *Outage) Error() string {
	return fmt.Sprintf("%s (since %s)", o.Err, o.Since.Format(time.RFC3339))
}

// Unwrap returns the reason.
func (o *Outage) Unwrap() error { return o.Err }

// errNotInSync is the reason of the outage with which every mirror begins.
var errNotInSync = errors.New("not in sync yet")

// NewMirror returns a mirror of these kinds. Run fills it.
func NewMirror(store Store, kinds ...string) *Mirror {
	m := &Mirror{
		store: store, kinds: slices.Compact(slices.Sorted(slices.Values(kinds))),
		transforms: map[string]func(v1.Object) v1.Object{},
		changed:    make(chan struct{}, 1), wake: make(chan struct{}, 1),
		feeds: map[string]*feed{},
	}
	for _, kind := range m.kinds {
		m.feeds[kind] = &feed{down: errNotInSync, since: time.Now()}
	}
	return m
}

// Transform lets f decide what is kept of each object of a kind: the object, a
// smaller one made from it (f must not change what it is given), or nil for
// none. Call it before Run.
func (m *Mirror) Transform(kind string, f func(v1.Object) v1.Object) { m.transforms[kind] = f }

// Run follows the store until ctx is done; then it returns nil. It returns an
// error only if trying again can't help.
func (m *Mirror) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, kind := range m.kinds {
		g.Go(func() error {
			return m.store.Watch(ctx, kind, func(e Event) { m.receive(kind, e) })
		})
	}
	g.Go(func() error {
		m.publish(ctx)
		return nil
	})
	return g.Wait()
}

// Snapshot returns the newest snapshot; nil until every kind is in sync.
func (m *Mirror) Snapshot() *Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot
}

// Changed returns the channel that gets a value after the result of Snapshot or
// Down changed. Changes that were not received yet are one value, so there may
// be only one receiver.
func (m *Mirror) Changed() <-chan struct{} { return m.changed }

// Down returns nil while every kind is in touch with the store, else an *Outage.
func (m *Mirror) Down() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out *Outage
	for _, kind := range m.kinds {
		f := m.feeds[kind]
		if f.down == nil {
			continue
		}
		if out == nil {
			out = &Outage{Since: f.since, Err: f.down}
		}
		// What a watch met says more than that it has not met anything.
		if errors.Is(out.Err, errNotInSync) {
			out.Err = f.down
		}
		if f.since.Before(out.Since) {
			out.Since = f.since
		}
		out.Kinds = append(out.Kinds, kind)
	}
	if out == nil {
		return nil
	}
	return out
}

// receive takes what a watch tells.
func (m *Mirror) receive(kind string, e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.feeds[kind]
	switch {
	case e.Down != nil:
		if f.down == nil {
			f.since = time.Now()
		}
		f.down = e.Down
		notify(m.changed)
		return
	case f.down != nil:
		f.down = nil
		notify(m.changed)
	}
	if e.Up {
		return
	}
	if e.All != nil {
		f.pending = nil
	}
	f.pending = append(f.pending, e)
	notify(m.wake)
}

// publish makes a snapshot of what was received, again and again.
func (m *Mirror) publish(ctx context.Context) {
	state := map[string]mirrored{}
	var issues []v1.Issue // of the state
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
		changed, mended := false, false
		for kind, events := range m.take() {
			old, known := state[kind]
			next := m.apply(old, kind, events)
			changed = changed || next != old || !known
			mended = mended || next.broken != old.broken
			state[kind] = next
		}
		if mended {
			issues = issuesOf(state)
		}
		if len(state) < len(m.kinds) || !changed {
			continue
		}
		s := &Snapshot{kinds: make(map[string]*Part, len(state)), issues: issues}
		for kind, k := range state {
			if k.part != nil {
				s.kinds[kind] = k.part
			}
		}
		m.mu.Lock()
		m.snapshot = s
		m.mu.Unlock()
		notify(m.changed)
	}
}

// mirrored is the newest state of one kind. It is never changed, only replaced,
// and by another one only if something changed.
type mirrored struct {
	part   *Part
	broken immutable.Map[Key, string] // and why
}

// apply returns the state after the events.
func (m *Mirror) apply(old mirrored, kind string, events []Event) mirrored {
	changes := map[Key]v1.Object{} // what the events say of each object, added up
	broken := old.broken.Edit()
	set := func(o v1.Object) {
		key := KeyOf(o)
		broken.Delete(key)
		changes[key] = m.keep(kind, old.part.get(key), o)
	}
	remove := func(key Key) {
		broken.Delete(key)
		changes[key] = nil
	}
	for _, e := range events {
		switch {
		case e.All != nil:
			broken = new(immutable.Editor[Key, string])
			for key := range old.part.objects().All() {
				changes[key] = nil
			}
			for _, o := range e.All {
				set(o)
			}
		case e.Set != nil:
			set(e.Set)
		case e.Broken == nil:
			remove(e.Deleted)
		}
		for key, err := range e.Broken {
			remove(key)
			broken.Set(key, err.Error())
		}
	}
	return mirrored{part: old.part.with(changes), broken: immutable.Share(broken.Map(), old.broken)}
}

// keep returns what is kept of o: what is kept already if that is the same.
func (m *Mirror) keep(kind string, old, o v1.Object) v1.Object {
	if old != nil && old.GetUID() == o.GetUID() && old.GetResourceVersion() == o.GetResourceVersion() {
		return old
	}
	if f := m.transforms[kind]; f != nil {
		return f(o)
	}
	return o
}

// issuesOf returns what can't be read, ordered by object.
func issuesOf(state map[string]mirrored) []v1.Issue {
	var issues []v1.Issue
	for _, k := range state {
		for key, why := range k.broken.All() {
			issues = append(issues, v1.Issue{Object: key.String(), Reason: why + "; it counts as not there"})
		}
	}
	slices.SortFunc(issues, func(a, b v1.Issue) int { return cmp.Compare(a.Object, b.Object) })
	return issues
}

func (m *Mirror) take() map[string][]Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := map[string][]Event{}
	for kind, f := range m.feeds {
		if len(f.pending) > 0 {
			taken[kind], f.pending = f.pending, nil
		}
	}
	return taken
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
