package reconcile

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Status counts the keys of a table.
type Status struct {
	Wanted  int
	Applied int // wanted, and known to be so
	Failed  int
	Writes  uint64 // keys written or deleted so far
}

// Tracker follows one table: what is wanted in it, what is known of it, what
// failed.
type Tracker[K, V comparable] struct {
	name  string
	table Table[K, V]
	voids []interface{ Doubt() }

	mu     sync.Mutex
	want   map[K]V         // the caller's; never changed
	keep   func(K, V) bool // exempt from deletion
	known  map[K]V         // the last Read, advanced by writes and events; nil: in doubt
	failed map[K]Failure
	missed map[K]*V // told by Observe while known was being read; nil: none is
	whole  Failure  // of Read, or of a Write as a whole
	writes uint64
}

// NewTracker returns a tracker of the table; nothing is wanted yet. The name is
// for errors.
func NewTracker[K, V comparable](name string, table Table[K, V]) *Tracker[K, V] {
	return &Tracker[K, V]{name: name, table: table, failed: map[K]Failure{}}
}

// Voids says that a write to this table puts others in doubt: a speaker that is
// started anew has no peers.
func (t *Tracker[K, V]) Voids(others ...interface{ Doubt() }) { t.voids = others }

// Want sets what the table should hold. What is there and not wanted is deleted
// unless keep, which may be nil, says true. The map must not be changed
// afterwards.
func (t *Tracker[K, V]) Want(want map[K]V, keep func(K, V) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.want, t.keep = want, keep
}

// Observe takes the world's word for one key: its value now, or nil if it is
// gone. It says whether that was news.
func (t *Tracker[K, V]) Observe(k K, v *V) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		if t.missed != nil {
			t.missed[k] = v
		}
		return false
	}
	old, there := t.known[k]
	switch {
	case v == nil && there:
		delete(t.known, k)
	case v != nil && (!there || old != *v):
		t.known[k] = *v
	default:
		return false
	}
	return true
}

// Forget puts those keys in doubt for which f says true: they are written again
// if wanted.
func (t *Tracker[K, V]) Forget(f func(K, V) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.known, f)
}

// Doubt drops what is known: the next pass reads the table.
func (t *Tracker[K, V]) Doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known = nil
}

// Known returns a copy of what is known to be in the table.
func (t *Tracker[K, V]) Known() map[K]V {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.known)
}

// Applied says whether the key is wanted and known to be as wanted.
func (t *Tracker[K, V]) Applied(k K) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	want, wanted := t.want[k]
	have, there := t.known[k]
	return wanted && there && want == have
}

// Failures returns a copy of the keys that failed last time.
func (t *Tracker[K, V]) Failures() map[K]Failure {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.failed)
}

// Err returns why the table as a whole could not be read or written, or nil.
func (t *Tracker[K, V]) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.whole.Err
}

// Status counts.
func (t *Tracker[K, V]) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Status{Wanted: len(t.want), Failed: len(t.failed), Writes: t.writes}
	for k, v := range t.want {
		if have, ok := t.known[k]; ok && have == v {
			s.Applied++
		}
	}
	return s
}

func (t *Tracker[K, V]) set(ctx context.Context) error {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.whole.Retry) {
		return fmt.Errorf("%s: %w", t.name, t.whole.Err)
	}
	for _, f := range t.failed {
		if !now.Before(f.Retry) {
			t.known = nil // what a failed write left is anyone's guess
			break
		}
	}
	if t.known == nil {
		if err := t.read(ctx); err != nil {
			return t.broken(fmt.Errorf("read: %w", err), now)
		}
	}
	maps.DeleteFunc(t.failed, func(k K, _ Failure) bool {
		want, wanted := t.want[k]
		have, there := t.known[k]
		return wanted == there && want == have
	})
	set, _ := Diff(t.want, t.known)
	maps.DeleteFunc(set, func(k K, _ V) bool { return now.Before(t.failed[k].Retry) })
	if len(set) == 0 {
		t.whole = Failure{}
	}
	return t.write(ctx, set, nil, now)
}

func (t *Tracker[K, V]) del(ctx context.Context) error {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	var del []K
	for k, v := range t.known {
		if _, ok := t.want[k]; ok || now.Before(t.failed[k].Retry) || t.keep != nil && t.keep(k, v) {
			continue
		}
		del = append(del, k)
	}
	return t.write(ctx, nil, del, now)
}

// read makes known what the table holds. It lets go of the lock meanwhile, so
// that those who ask needn't wait for the world; what the world tells in that
// time may be missing from the answer and is added to it.
func (t *Tracker[K, V]) read(ctx context.Context) error {
	t.missed = map[K]*V{}
	t.mu.Unlock()
	known, err := t.table.Read(ctx)
	t.mu.Lock()
	missed := t.missed
	t.missed = nil
	if err != nil {
		return err
	}
	if known == nil {
		known = map[K]V{}
	}
	for k, v := range missed {
		if v == nil {
			delete(known, k)
		} else {
			known[k] = *v
		}
	}
	t.known = known
	return nil
}

// write writes and takes down what came of it. Either set or del is empty.
func (t *Tracker[K, V]) write(ctx context.Context, set map[K]V, del []K, now time.Time) error {
	if len(set)+len(del) == 0 {
		return nil
	}
	t.mu.Unlock()
	err := t.table.Write(ctx, set, del)
	for _, o := range t.voids {
		o.Doubt()
	}
	t.mu.Lock()
	failed, whole := split[K](err)
	if whole != nil {
		t.known = nil
		return t.broken(fmt.Errorf("write: %w", whole), now)
	}
	t.whole = Failure{}
	for k, v := range set {
		t.settle(k, failed[k], now)
		if t.known != nil && failed[k] == nil {
			t.known[k] = v
		}
	}
	for _, k := range del {
		t.settle(k, failed[k], now)
		if failed[k] == nil {
			delete(t.known, k)
		}
	}
	return nil
}

// settle takes down what came of writing a key.
func (t *Tracker[K, V]) settle(k K, err error, now time.Time) {
	t.writes++
	if err == nil {
		delete(t.failed, k)
		return
	}
	t.failed[k] = t.failed[k].failed(err, now)
}

// broken takes down that the table failed as a whole.
func (t *Tracker[K, V]) broken(err error, now time.Time) error {
	t.whole = t.whole.failed(err, now)
	return fmt.Errorf("%s: %w", t.name, err)
}

func (t *Tracker[K, V]) retry(start time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	var at time.Time
	next := func(f Failure) {
		if f.Retry.After(start) && (at.IsZero() || f.Retry.Before(at)) {
			at = f.Retry
		}
	}
	next(t.whole)
	for _, f := range t.failed {
		next(f)
	}
	return at
}
