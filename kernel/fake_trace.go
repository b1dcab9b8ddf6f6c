package kernel

import (
	"context"
	"fmt"
)

// fakeTrace is the call of Trace that goes on.
type fakeTrace struct {
	filter  TraceFilter
	packets uint64
	pending []TraceEvent
	wake    chan struct{} // holds one token while pending is not empty
}

// TracePacket lets a packet pass the host's rules: seen has its headers, mark and
// links, and way is what rules do with it. Who traces such packets is told; Kind of
// seen, and Packet of all, are filled in.
func (f *Fake) TracePacket(seen TraceEvent, way ...TraceEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.trace
	if t == nil || !t.filter.Matches(seen.Headers, seen.Mark) {
		return
	}
	t.packets++
	seen.Kind = TraceSeen
	for _, e := range append([]TraceEvent{seen}, way...) {
		e.Packet = t.packets
		t.tell(e)
	}
}

// tell queues an event. The fake's mu is held.
func (t *fakeTrace) tell(e TraceEvent) {
	t.pending = append(t.pending, e)
	if len(t.pending) == 1 {
		t.wake <- struct{}{}
	}
}

// Trace tells about the packets of TracePacket. Fail("trace", nil, err) makes it
// fail.
func (f *Fake) Trace(ctx context.Context, filter TraceFilter, fn func(TraceEvent)) error {
	t := &fakeTrace{filter: filter, wake: make(chan struct{}, 1)}
	t.tell(TraceEvent{Kind: TraceArmed})
	if err := f.beginTrace(t); err != nil {
		return fmt.Errorf("trace packets: %w", err)
	}
	defer func() {
		f.mu.Lock()
		f.trace = nil
		f.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		f.mu.Lock()
		pending := t.pending
		t.pending = nil
		f.mu.Unlock()
		for _, e := range pending {
			fn(e)
		}
	}
}

func (f *Fake) beginTrace(t *fakeTrace) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := t.filter.Check(); err != nil {
		return err
	}
	if err := f.failure("trace", nil); err != nil {
		return err
	}
	if f.trace != nil {
		return fmt.Errorf("another trace is going on: %w", ErrBusy)
	}
	f.trace = t
	return nil
}
