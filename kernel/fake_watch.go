package kernel

import (
	"context"
	"maps"
	"slices"
)

// fakeWatch is one call of Watch: what it has yet to be told.
type fakeWatch struct {
	pending *Event
	wake    chan struct{} // holds one token while pending is not nil
}

// change notes that the route at k is now r, or gone.
func (e *Event) change(k RouteKey, r *Route) {
	if e.Routes == nil {
		e.Routes = make(map[RouteKey]*Route)
	}
	e.Routes[k] = r
}

// tell queues e for everyone who watches, merged with what they have not seen
// yet. hostChanged says that the snapshot is out of date. f.mu is held.
func (f *Fake) tell(e Event, hostChanged bool) {
	if hostChanged {
		f.host = nil
	}
	for w := range f.watches {
		if w.pending == nil {
			w.pending = &Event{}
			w.wake <- struct{}{}
		}
		p := w.pending
		p.merge(e)
	}
}

// merge adds a later event to e.
func (e *Event) merge(later Event) {
	e.Routes = together(e.Routes, later.Routes)
	e.Neighbours = together(e.Neighbours, later.Neighbours)
	e.Forwarding = together(e.Forwarding, later.Forwarding)
	e.Tunnels = union(e.Tunnels, later.Tunnels)
	e.Down = union(e.Down, later.Down)
	e.Rules = e.Rules || later.Rules
	e.Overrun = e.Overrun || later.Overrun
}

// together returns the last word on each key. It may change m.
func together[K comparable, V any](m, later map[K]V) map[K]V {
	if m == nil {
		return maps.Clone(later)
	}
	maps.Copy(m, later)
	return m
}

func union(names, more []string) []string {
	for _, name := range more {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Overrun makes watchers believe that events were lost.
func (f *Fake) Overrun() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(Event{Overrun: true}, false)
}

// Watch tells about every change, those by f's own tables included. Changes made
// while fn runs are told together. Fail("watch", nil, err) ends it at the next
// change.
func (f *Fake) Watch(ctx context.Context, fn func(Event)) error {
	w := &fakeWatch{wake: make(chan struct{}, 1)}
	f.mu.Lock()
	f.watches[w] = struct{}{}
	f.tellFirst(w)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watches, w)
		f.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		f.mu.Lock()
		e, err := *w.pending, f.failure("watch", nil)
		e.Host = f.snapshot()
		w.pending = nil
		f.mu.Unlock()
		if err != nil {
			return err
		}
		fn(e)
	}
}

// tellFirst queues the host as it is for a new watch.
func (f *Fake) tellFirst(w *fakeWatch) {
	w.pending = &Event{}
	w.wake <- struct{}{}
}
