package reconcile

import (
	"context"
	"fmt"
	"time"

	"cairn.network/cairn/immutable"
)

func (t *Tracker[K, V]) set(ctx context.Context) error {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.whole.Retry) {
		return fmt.Errorf("%s: %w", t.name, t.whole.Err)
	}
	for _, f := range t.failed.Map().All() {
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
	for k := range t.failed.Map().All() {
		if !t.wrong(k) {
			t.failed.Delete(k)
		}
	}
	for k := range t.disturbed {
		if t.wrong(k) {
			t.foreign++
		}
	}
	if len(t.disturbed) > 0 {
		t.disturbed = map[K]struct{}{} // cleared, it would stay as large as it was
	}
	known := t.known.Map()
	set := make(map[K]V, max(0, t.want.Len()-known.Len()))
	for k := range immutable.Diff(t.want, known) {
		if v, wanted := t.want.Get(k); wanted && t.due(k, now) {
			set[k] = v
		}
	}
	if len(set) == 0 {
		t.whole = Failure{}
		return nil
	}
	if t.displaced == nil {
		return t.write(ctx, set, nil, now)
	}
	return t.write(ctx, set, t.displaced(set, t.going(now)), now)
}

func (t *Tracker[K, V]) del(ctx context.Context) error {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.doubt { // since set: nothing goes on a mere belief
		return nil
	}
	return t.write(ctx, nil, t.going(now), now)
}

// going returns the keys that are to be deleted now.
func (t *Tracker[K, V]) going(now time.Time) []K {
	if t.known.Len() == 0 { // as at the start
		return nil
	}
	var del []K
	for k := range immutable.Diff(t.want, t.known.Map()) {
		if !t.want.Has(k) && t.wrong(k) && t.due(k, now) {
			del = append(del, k)
		}
	}
	return del
}

// wrong says whether a key is not known to be as it should.
func (t *Tracker[K, V]) wrong(k K) bool {
	want, wanted := t.want.Get(k)
	have, there := t.known.Get(k)
	if there && !wanted {
		return t.keep == nil || !t.keep(k, have)
	}
	return wanted != there || want != have
}

// due says whether a key may be tried now.
func (t *Tracker[K, V]) due(k K, now time.Time) bool {
	f, failed := t.failed.Get(k)
	return !failed || !now.Before(f.Retry)
}

// read makes known what the table holds. It lets go of the lock meanwhile, so
// that those who ask needn't wait for the world.
func (t *Tracker[K, V]) read(ctx context.Context) error {
	t.doubt, t.reading = false, true
	want := t.want
	t.mu.Unlock()
	have, err := t.table.Read(ctx)
	var known immutable.Map[K, V]
	if err == nil {
		known = like(want, have)
	}
	t.mu.Lock()
	t.reading = false
	if err != nil {
		t.doubt = true
	} else {
		t.known, t.begun = known.Edit(), true
		if len(have) == 0 && !t.doubt { // else there may be something by now
			for _, o := range t.holds {
				o.empty()
			}
		}
	}
	t.catchUp()
	return err
}

// like returns the map that holds what have holds, and shares with want what is
// the same in both.
func like[K, V comparable](want immutable.Map[K, V], have map[K]V) immutable.Map[K, V] {
	if len(have) < want.Len()/2 { // as at the start, when there is nothing yet
		return immutable.Share(immutable.Of(have), want)
	}
	edit := want.Edit()
	for k := range want.All() {
		if _, there := have[k]; !there {
			edit.Delete(k)
		}
	}
	for k, v := range have {
		edit.Set(k, v)
	}
	return edit.Map()
}

// write writes and takes down what came of it.
func (t *Tracker[K, V]) write(ctx context.Context, set map[K]V, del []K, now time.Time) error {
	if len(set)+len(del) == 0 {
		return nil
	}
	all := &batch[K, V]{set: set, del: make(map[K]struct{}, len(del))}
	for _, k := range del {
		all.del[k] = struct{}{}
	}
	t.writing = all
	wanted, replaces := t.want, t.replaces(set)
	t.mu.Unlock()
	err := t.table.Write(ctx, set, del)
	for _, o := range t.voids {
		o.void(err == nil)
	}
	if err != nil || replaces {
		for _, o := range t.holds {
			o.void(err == nil)
		}
	}
	t.mu.Lock()
	t.writing = nil
	defer func() {
		t.catchUp()
		t.share(t.want)
	}()
	failed, whole := split[K](err)
	if whole != nil {
		t.doubt = true
		return t.broken(fmt.Errorf("write: %w", whole), now)
	}
	t.whole = Failure{}
	t.writes += uint64(len(set) + len(del))
	for k, err := range failed {
		if _, written := all.aim(k); written {
			t.fail(k, err, now)
			delete(all.set, k)
			delete(all.del, k)
		}
	}
	t.settle(all, wanted)
	return nil
}

// replaces says whether any key that is to be set is there already.
func (t *Tracker[K, V]) replaces(set map[K]V) bool {
	if len(t.holds) == 0 {
		return false
	}
	for k := range set {
		if _, there := t.known.Get(k); there {
			return true
		}
	}
	return false
}

// fail takes down that a key could not be written.
func (t *Tracker[K, V]) fail(k K, err error, now time.Time) {
	var f Failure
	if old, again := t.failed.Get(k); again {
		f = *old
	}
	f = f.failed(err, now, t.phase)
	t.failed.Set(k, &f)
}

// settle takes down what was written when this was wanted. What is known is what is
// wanted then, but for what else is wrong: made so it shares most with that, at the cost
// of what was wrong.
func (t *Tracker[K, V]) settle(b *batch[K, V], wanted immutable.Map[K, V]) {
	if t.known.Len() == 0 && t.want == wanted && t.failed.Len() == 0 && len(b.set) == wanted.Len() { // as at the start
		t.known = wanted.Edit()
		return
	}
	known := t.want.Edit()
	for k := range immutable.Diff(t.want, t.known.Map()) {
		aim, written := b.aim(k)
		if !written {
			if v, there := t.known.Get(k); there {
				aim = &v
			}
		}
		if aim == nil {
			known.Delete(k)
		} else {
			known.Set(k, *aim)
		}
	}
	if t.want != wanted { // meanwhile, so what was written need not be what differs
		for k, v := range b.set {
			known.Set(k, v)
		}
		for k := range b.del {
			known.Delete(k)
		}
	}
	t.known = known
	if t.failed.Len() == 0 {
		return
	}
	for k := range t.failed.Map().All() {
		if _, written := b.aim(k); written {
			t.failed.Delete(k)
		}
	}
}

// catchUp adds what the world told meanwhile.
func (t *Tracker[K, V]) catchUp() {
	for _, f := range t.later {
		f()
	}
	t.later = nil
}

// broken takes down that the table failed as a whole.
func (t *Tracker[K, V]) broken(err error, now time.Time) error {
	t.whole = t.whole.failed(err, now, t.phase)
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
	for _, f := range t.failed.Map().All() {
		next(*f)
	}
	return at
}
