package kernel

import (
	"context"
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
		for k, r := range e.Routes {
			p.change(k, r)
		}
		for _, name := range e.Down {
			if !slices.Contains(p.Down, name) {
				p.Down = append(p.Down, name)
			}
		}
		p.Rules = p.Rules || e.Rules
		p.Overrun = p.Overrun || e.Overrun
	}
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
