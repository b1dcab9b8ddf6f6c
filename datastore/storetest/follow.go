package storetest

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// Eventually waits until ready is true, asking again after each change.
func Eventually[T any](t testing.TB, what string, changed <-chan T, ready func() bool) {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for !ready() {
		select {
		case <-changed:
		case <-late.C:
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
	}
}

// Poll is Eventually for what tells nobody that it changed.
func Poll(t testing.TB, what string, ready func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	Eventually(t, what, tick.C, ready)
}

// Follower is a running watch and all that it was told.
type Follower struct {
	t       testing.TB
	changed chan struct{}
	cancel  context.CancelFunc
	done    chan error

	mu   sync.Mutex
	view View
}

// View is what a Follower knows at one moment.
type View struct {
	Events  []datastore.Event           // all that was told
	Objects map[datastore.Key]v1.Object // what there is by them
	Broken  map[datastore.Key]error     // what there is and can't be read
	Down    error                       // the store is away
	Alls    int                         // how often all was told
	Downs   int                         // how often Down was told
}

// Follow starts a watch; the end of the test ends it.
func Follow(t testing.TB, s datastore.Store, kind string) *Follower {
	ctx, cancel := context.WithCancel(context.Background())
	f := &Follower{t: t, changed: make(chan struct{}, 1), cancel: cancel, done: make(chan error, 1)}
	go func() { f.done <- s.Watch(ctx, kind, f.receive) }()
	t.Cleanup(f.Stop)
	return f
}

// Stop ends the watch, which must return nil.
func (f *Follower) Stop() {
	f.cancel()
	select {
	case err := <-f.done:
		if err != nil {
			f.t.Errorf("watch: %v", err)
		}
		f.done <- nil
	case <-time.After(patience):
		f.t.Errorf("the watch goes on after its context is done")
	}
}

// Until waits until what the watch told makes ready true.
func (f *Follower) Until(what string, ready func(View) bool) View {
	f.t.Helper()
	var v View
	Eventually(f.t, what, f.changed, func() bool {
		v = f.View()
		return ready(v)
	})
	return v
}

// View returns what the watch told so far.
func (f *Follower) View() View {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.view
	v.Objects, v.Broken = maps.Clone(v.Objects), maps.Clone(v.Broken)
	return v
}

func (f *Follower) receive(e datastore.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &f.view
	v.Events = append(v.Events, e)
	if e.Down != nil {
		v.Down, v.Downs = e.Down, v.Downs+1
	} else {
		v.Down = nil
	}
	switch {
	case e.Down != nil, e.Up:
	case e.All != nil:
		v.Objects, v.Broken, v.Alls = map[datastore.Key]v1.Object{}, map[datastore.Key]error{}, v.Alls+1
		for _, o := range e.All {
			v.Objects[datastore.KeyOf(o)] = o
		}
	case e.Set != nil:
		v.Objects[datastore.KeyOf(e.Set)] = e.Set
		delete(v.Broken, datastore.KeyOf(e.Set))
	case e.Broken == nil:
		delete(v.Objects, e.Deleted)
		delete(v.Broken, e.Deleted)
	}
	for key, err := range e.Broken {
		delete(v.Objects, key)
		v.Broken[key] = err
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}
