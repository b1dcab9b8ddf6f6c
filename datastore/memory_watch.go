package datastore

import (
	"context"
	"fmt"

	v1 "cairn.network/cairn/api/v1"
)

// watch is a running Watch of a Memory.
type watch struct {
	kind   string
	relist bool    // tell all objects next
	queue  []Event // what happened since it was last told
	down   bool    // it was told that the store is down
	wake   chan struct{}
}

func (w *watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch implements Store.
func (m *Memory) Watch(ctx context.Context, kind string, f func(Event)) error {
	if err := CheckKind(kind); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	w := &watch{kind: kind, relist: true, wake: make(chan struct{}, 1)}
	m.mu.Lock()
	m.watches[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watches, w)
		m.mu.Unlock()
	}()
	for {
		for _, e := range m.take(w) {
			if ctx.Err() != nil {
				return nil
			}
			f(e)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
	}
}

// tell queues an event for every watch of the kind.
func (m *Memory) tell(kind string, e Event) {
	for w := range m.watches {
		if w.kind == kind && !w.relist {
			w.queue = append(w.queue, e)
			w.signal()
		}
	}
}

// take returns what the watch has to be told now. While the store is down,
// changes (of objects put raw) wait in the queue, as in a real store's history.
func (m *Memory) take(w *watch) []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		if w.down {
			return nil
		}
		w.down = true
		return []Event{{Down: fmt.Errorf("%w: %w", ErrUnavailable, m.down)}}
	}
	var events []Event
	switch {
	case w.relist:
		events = []Event{m.all(w.kind)}
	case w.down:
		events = append([]Event{{Up: true}}, w.queue...)
	default:
		events = w.queue
	}
	w.relist, w.down, w.queue = false, false, nil
	return events
}

func (m *Memory) all(kind string) Event {
	e := Event{All: []v1.Object{}}
	for key, entry := range m.entries {
		switch {
		case key.Kind != kind:
		case entry.broken != nil:
			if e.Broken == nil {
				e.Broken = map[Key]error{}
			}
			e.Broken[key] = entry.broken
		default:
			e.All = append(e.All, entry.object)
		}
	}
	SortByKey(e.All)
	return e
}
