package datastore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	v1 "cairn.network/cairn/api/v1"
)

// updateTries bounds Update. A loser of a compare-and-swap knows that another
// won, so a conflict is progress, and so many in a row for one object mean that
// something else is wrong.
const updateTries = 100

// The time that a loser of a compare-and-swap waits at most: it doubles with
// each loss, so that many writers of one object come to take turns.
const (
	firstUpdateWait = time.Millisecond
	maxUpdateWait   = 64 * time.Millisecond
)

// ErrAbort, returned by Update's function, ends it without a write and without
// an error.
var ErrAbort = errors.New("nothing to write")

// Update reads the object, lets change alter it, and writes it back if it is
// still what was read; on a conflict it starts over. This is the only
// compare-and-swap retry in Cairn. It returns what is in the store afterwards;
// after ErrAbort that is what was read, whatever change did to its copy.
// change may be called several times, each time with a fresh copy.
func Update[T v1.Object](ctx context.Context, s Store, key Key, change func(T) error) (T, error) {
	var none T
	wait := firstUpdateWait
	for range updateTries {
		read, err := s.Get(ctx, key)
		if err != nil {
			return none, err
		}
		got, ok := read.(T)
		if !ok {
			return none, fmt.Errorf("update %s: the store returned a %T", key, read)
		}
		o := got.DeepCopyObject().(T)
		if err := change(o); errors.Is(err, ErrAbort) {
			return got, nil
		} else if err != nil {
			return none, err
		}
		put, err := s.Update(ctx, o)
		if err == nil {
			return put.(T), nil
		}
		if !errors.Is(err, ErrConflict) {
			return none, err
		}
		if err := pause(ctx, rand.N(wait)); err != nil {
			return none, fmt.Errorf("update %s: %w", key, err)
		}
		wait = min(2*wait, maxUpdateWait)
	}
	return none, fmt.Errorf("update %s: %w %d times in a row", key, ErrConflict, updateTries)
}

// pause waits, or returns ctx's error when that comes first.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
