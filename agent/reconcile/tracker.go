package reconcile

import (
	"math/rand/v2"
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
//
// What is known shares with what is wanted all that is the same in both. So what
// is wrong shows at the cost of what is wrong, and nothing else need be kept of
// it.
type Tracker[K, V comparable] struct {
	name  string
	table Table[K, V]
	voids []interface{ void(clean bool) }
	holds []content
	// displaced returns which of the keys that go must do so with those that are set.
	displaced func(set map[K]V, going []K) []K
	phase     time.Duration // of retries

	mu     sync.Mutex
	want   immutable.Map[K, V]
	keep   func(K, V) bool         // exempt from deletion
	known  *immutable.Editor[K, V] // the last Read, advanced by writes and events
	begun  bool                    // there was a Read
	doubt  bool                    // known is to be read again
	failed *immutable.Editor[K, *Failure]
	whole  Failure // of Read, or of a Write as a whole

	reading bool
	writing *batch[K, V] // under way; nil: nothing is
	// later holds what the world told in that time, for it may be newer than what
	// comes of the Read or Write.
	later     []func()
	disturbed map[K]struct{} // of which Observe had news since the last set
	foreign   uint64
	writes    uint64
}

// batch is what one write sets and deletes; a key is in one of the two only.
type batch[K, V comparable] struct {
	set map[K]V
	del map[K]struct{}
}

// aim returns what a write makes of a key: nil, it is gone. False: nothing.
func (b *batch[K, V]) aim(k K) (v *V, written bool) {
	if b == nil {
		return nil, false
	}
	if v, ok := b.set[k]; ok {
		return &v, true
	}
	_, written = b.del[k]
	return nil, written
}

// NewTracker returns a tracker of the table; nothing is wanted yet. The name is
// for errors.
func NewTracker[K, V comparable](name string, table Table[K, V]) *Tracker[K, V] {
	return &Tracker[K, V]{
		name: name, table: table, phase: rand.N(maxRetry), doubt: true,
		known: new(immutable.Editor[K, V]), failed: new(immutable.Editor[K, *Failure]),
		disturbed: map[K]struct{}{},
	}
}

// Voids says that a write to this table voids others, which are trackers too: a
// speaker that is started anew has no peers, and what failed on the old one may
// do on this.
func (t *Tracker[K, V]) Voids(others ...interface{ void(clean bool) }) { t.voids = others }

// Displaces says that some keys can't be beside others. Those that are not wanted are
// deleted in the very Write that sets others if displaced says so of them: in between
// there would be neither.
func (t *Tracker[K, V]) Displaces(displaced func(set map[K]V, going []K) []K) {
	t.displaced = displaced
}

// content is what is in what another table holds.
type content interface {
	void(clean bool)
	empty()
}

// Holds says that the others, which are trackers too, are of what is in what this table
// holds, such as the elements of sets: where a read finds nothing they have nothing,
// what is written anew has nothing in it, and a write that replaces something, or fails,
// puts them in doubt. Of what is deleted the content is deleted before.
func (t *Tracker[K, V]) Holds(others ...content) { t.holds = others }

// empty makes known that there is nothing.
func (t *Tracker[K, V]) empty() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.begun, t.doubt = new(immutable.Editor[K, V]), true, false
}

// void puts everything in doubt. Clean says that there is a new table for sure,
// on which nothing has failed yet.
func (t *Tracker[K, V]) void(clean bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubt = true
	if clean {
		t.failed = new(immutable.Editor[K, *Failure])
		t.whole = Failure{}
	}
}

// Want sets what the table should hold. What is there and not wanted is deleted
// unless keep, which may be nil, says true; it is asked anew in each pass, of such
// keys only, and must not ask this tracker anything. It is best to make want from
// the one before: the cost is that of what they differ by.
func (t *Tracker[K, V]) Want(want immutable.Map[K, V], keep func(K, V) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed.Len() > 0 {
		// What failed need not wait for its next try when that is another one.
		for k := range immutable.Diff(t.want, want) {
			if _, failed := t.failed.Get(k); failed {
				t.failed.Delete(k)
				t.doubt = true // what a failed write left is anyone's guess
			}
		}
	}
	if t.known.Map() != t.want { // else it has as much in common with want as t.want has
		t.share(want)
	}
	t.want, t.keep = want, keep
}

// share lets what is known have in common with want what is the same in both.
func (t *Tracker[K, V]) share(want immutable.Map[K, V]) {
	t.known = immutable.Share(t.known.Map(), want).Edit()
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
	if aim, written := t.writing.aim(k); written { // the echo of our own write is none
		news = (v == nil) != (aim == nil) || v != nil && *v != *aim
	}
	if !news || t.doubt || t.reading { // the latter two look for themselves
		return false
	}
	t.disturbed[k] = struct{}{}
	return true
}

// note makes known what a key is, and says whether it was not.
func (t *Tracker[K, V]) note(k K, v *V) bool {
	old, there := t.known.Get(k)
	switch {
	case v == nil && there:
		t.known.Delete(k)
	case v != nil && (!there || old != *v) && t.begun:
		t.known.Set(k, *v)
	default:
		return false
	}
	return true
}

// Forget puts those keys in doubt for which f says true: they are written again
// if wanted. It asks f of every key that is known; f must not ask this tracker
// anything.
func (t *Tracker[K, V]) Forget(f func(K, V) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	forget := func() {
		for k, v := range t.known.Map().All() {
			if f(k, v) {
				t.known.Delete(k)
			}
		}
	}
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
	for k, f := range t.failed.Map().All() {
		again := *f
		again.Retry = time.Time{}
		t.failed.Set(k, &again)
	}
}

// Known returns a copy of what is known to be in the table.
func (t *Tracker[K, V]) Known() map[K]V {
	t.mu.Lock()
	known := t.known.Map()
	t.mu.Unlock()
	return known.Plain()
}

// Get returns what is known to be in the table for a key, and whether anything is.
func (t *Tracker[K, V]) Get(k K) (V, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known.Get(k)
}

// Any says whether f says true of any key that is known to be in the table.
// Before the first Read, when anything may be in it, it says true.
func (t *Tracker[K, V]) Any(f func(K, V) bool) bool {
	t.mu.Lock()
	known, begun := t.known.Map(), t.begun
	t.mu.Unlock()
	if !begun {
		return true
	}
	for k, v := range known.All() {
		if f(k, v) {
			return true
		}
	}
	return false
}

// Applied says whether the key is wanted and known to be as wanted.
func (t *Tracker[K, V]) Applied(k K) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	want, wanted := t.want.Get(k)
	have, there := t.known.Get(k)
	return wanted && there && want == have
}

// Failures returns a copy of the keys that failed last time.
func (t *Tracker[K, V]) Failures() map[K]Failure {
	failed := t.Failed()
	failures := make(map[K]Failure, failed.Len())
	for k, f := range failed.All() {
		failures[k] = *f
	}
	return failures
}

// Failed returns the keys that failed last time, without a copy. Diff of two such
// maps tells which keys failed, failed again, or no longer do.
func (t *Tracker[K, V]) Failed() immutable.Map[K, *Failure] {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed.Map()
}

// Err returns why the table as a whole could not be read or written, or nil.
func (t *Tracker[K, V]) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.whole.Err
}

// Status counts, at the cost of what is wrong.
func (t *Tracker[K, V]) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Status{Wanted: t.want.Len(), Failed: t.failed.Len(), Writes: t.writes, Foreign: t.foreign}
	if !t.begun {
		return s
	}
	s.Applied = s.Wanted
	for k := range immutable.Diff(t.want, t.known.Map()) {
		if t.want.Has(k) {
			s.Applied--
		}
	}
	return s
}
