package reconcile

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"cairn.network/cairn/immutable"
)

// Status counts the keys of a table.
type Status struct {
	Wanted  int
	Applied int // wanted, and known to be so
	Failed  int
	Writes  uint64 // keys written or deleted so far
	Foreign uint64 // keys that Observe told of and that had to be put right, so far
}

// Tracker follows one table: what is wanted in it, what is known of it, what
// failed.
type Tracker[K, V comparable] struct {
	name  string
	table Table[K, V]
	voids []interface{ void(clean bool) }

	mu     sync.Mutex
	want   immutable.Map[K, V]
	keep   func(K, V) bool // exempt from deletion
	known  map[K]V         // the last Read, advanced by writes and events
	doubt  bool            // known is to be read again
	failed map[K]Failure
	whole  Failure // of Read, or of a Write as a whole

	reading bool
	writing map[K]*V // under way; nil for a key that is being deleted
	// later holds what the world told in that time, for it may be newer than what
	// comes of the Read or Write.
	later     []func()
	disturbed map[K]struct{} // of which Observe had news since the last set
	foreign   uint64
	writes    uint64
}

// NewTracker returns a tracker of the table; nothing is wanted yet. The name is
// for errors.
func NewTracker[K, V comparable](name string, table Table[K, V]) *Tracker[K, V] {
	return &Tracker[K, V]{name: name, table: table, doubt: true, failed: map[K]Failure{}, disturbed: map[K]struct{}{}}
}

// Voids says that a write to this table voids others, which are trackers too: a
// speaker that is started anew has no peers, and what failed on the old one may
// do on this.
func (t *Tracker[K, V]) Voids(others ...interface{ void(clean bool) }) { t.voids = others }

// void puts everything in doubt. Clean says that there is a new table for sure,
// on which nothing has failed yet.
func (t *Tracker[K, V]) void(clean bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubt = true
	if clean {
		clear(t.failed)
		t.whole = Failure{}
	}
}

// Want sets what the table should hold. What is there and not wanted is deleted
// unless keep, which may be nil, says true.
func (t *Tracker[K, V]) Want(want immutable.Map[K, V], keep func(K, V) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// What failed need not wait for its next try when that is another one.
	maps.DeleteFunc(t.failed, func(k K, _ Failure) bool {
		old, was := t.want.Get(k)
		now, is := want.Get(k)
		return was != is || old != now
	})
	t.want, t.keep = want, keep
}

// Observe takes the world's word for one key: its value now, or nil if it is
// gone. It says whether that was news, so that another pass is needed.
func (t *Tracker[K, V]) Observe(k K, v *V) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reading || t.writing != nil {
		t.later = append(t.later, func() { t.note(k, v) })
	}
	news := t.note(k, v)
	if written, busy := t.writing[k]; busy { // the echo of our own write is none
		news = (v == nil) != (written == nil) || v != nil && *v != *written
	}
	if !news || t.doubt || t.reading { // the latter two look for themselves
		return false
	}
	t.disturbed[k] = struct{}{}
	return true
}

// note makes known what a key is, and says whether it was not.
func (t *Tracker[K, V]) note(k K, v *V) bool {
	old, there := t.known[k]
	switch {
	case v == nil && there:
		delete(t.known, k)
	case v != nil && (!there || old != *v) && t.known != nil:
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
	forget := func() { maps.DeleteFunc(t.known, f) }
	forget()
	if t.reading || t.writing != nil {
		t.later = append(t.later, forget)
	}
}

// Doubt makes the next pass read the table. Until then what is known stands.
func (t *Tracker[K, V]) Doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubt = true
}

// RetryNow lets what failed be tried again at once: its cause may be gone.
func (t *Tracker[K, V]) RetryNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.whole.Retry = time.Time{}
	for k, f := range t.failed {
		f.Retry = time.Time{}
		t.failed[k] = f
	}
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
	want, wanted := t.want.Get(k)
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
	s := Status{Wanted: t.want.Len(), Failed: len(t.failed), Writes: t.writes, Foreign: t.foreign}
	for k, v := range t.want.All() {
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
			t.doubt = true // what a failed write left is anyone's guess
			break
		}
	}
	if t.doubt {
		if err := t.read(ctx); err != nil {
			return t.broken(fmt.Errorf("read: %w", err), now)
		}
	}
	maps.DeleteFunc(t.failed, func(k K, _ Failure) bool { return !t.wrong(k) })
	for k := range t.disturbed {
		if t.wrong(k) {
			t.foreign++
		}
	}
	clear(t.disturbed)
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
	if t.doubt { // since set: nothing goes on a mere belief
		return nil
	}
	var del []K
	for k := range t.known {
		if !t.want.Has(k) && t.wrong(k) && !now.Before(t.failed[k].Retry) {
			del = append(del, k)
		}
	}
	return t.write(ctx, nil, del, now)
}

// wrong says whether a key is not known to be as it should.
func (t *Tracker[K, V]) wrong(k K) bool {
	want, wanted := t.want.Get(k)
	have, there := t.known[k]
	if there && !wanted {
		return t.keep == nil || !t.keep(k, have)
	}
	return wanted != there || want != have
}

// read makes known what the table holds. It lets go of the lock meanwhile, so
// that those who ask needn't wait for the world.
func (t *Tracker[K, V]) read(ctx context.Context) error {
	t.doubt, t.reading = false, true
	t.mu.Unlock()
	known, err := t.table.Read(ctx)
	t.mu.Lock()
	t.reading = false
	if err != nil {
		t.doubt = true
	} else if t.known = known; known == nil {
		t.known = map[K]V{}
	}
	t.catchUp()
	return err
}

// write writes and takes down what came of it. Either set or del is empty.
func (t *Tracker[K, V]) write(ctx context.Context, set map[K]V, del []K, now time.Time) error {
	if len(set)+len(del) == 0 {
		return nil
	}
	t.writing = make(map[K]*V, len(set)+len(del))
	for k, v := range set {
		t.writing[k] = &v
	}
	for _, k := range del {
		t.writing[k] = nil
	}
	t.mu.Unlock()
	err := t.table.Write(ctx, set, del)
	for _, o := range t.voids {
		o.void(err == nil)
	}
	t.mu.Lock()
	t.writing = nil
	defer t.catchUp()
	failed, whole := split[K](err)
	if whole != nil {
		t.doubt = true
		return t.broken(fmt.Errorf("write: %w", whole), now)
	}
	t.whole = Failure{}
	for k, v := range set {
		t.settle(k, failed[k], now)
		if failed[k] == nil {
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

// catchUp adds what the world told meanwhile.
func (t *Tracker[K, V]) catchUp() {
	for _, f := range t.later {
		f()
	}
	t.later = nil
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
