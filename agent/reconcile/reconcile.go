// Package reconcile makes tables of the world equal to what is wanted: one loop
// for routes, sysctls, BGP peers and whatever else can be read and written by
// key.
//
// It guarantees that additions and changes of all tables go before any deletion,
// but for what must make room for them, in the order of the tables, deletions in the
// reverse order; that a key that
// fails does not stop its neighbours and is tried again with a growing delay;
// that a pass over an unchanged world writes nothing; and that a pass which need
// not read costs what is wrong, whatever the size of the tables. It leaves to the
// caller what is wanted and when to pass. One goroutine passes; anyone may ask.
package reconcile

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Table is a kind of object in the world. See kernel.Table, which is the same.
type Table[K, V comparable] interface {
	Read(ctx context.Context) (map[K]V, error)
	Write(ctx context.Context, set map[K]V, del []K) error
}

// Step is a tracker as Pass sees it.
type Step interface {
	set(ctx context.Context) error
	del(ctx context.Context) error
	// retry returns when something is due again that failed, of those times that
	// come after start; zero: nothing is.
	retry(start time.Time) time.Time
}

// Pass makes the tables what they should be: sets in the order of the steps, of
// base first and then of top, then deletes in the reverse order. A table that
// fails as a whole ends its part, since what follows may rely on it; a failure in
// top does not hold base up. Keys that fail are kept by their tracker. Retry is
// when to pass again at the latest for what failed; zero: nothing did.
func Pass(ctx context.Context, base, top []Step) (retry time.Time, err error) {
	start := time.Now()
	err = pass(ctx, base, top)
	for _, s := range slices.Concat(base, top) {
		// What was due already and was not tried waits for a table that failed as a
		// whole, and so for that one's retry.
		if at := s.retry(start); !at.IsZero() && (retry.IsZero() || at.Before(retry)) {
			retry = at
		}
	}
	return retry, err
}

func pass(ctx context.Context, base, top []Step) error {
	if err := setAll(ctx, base); err != nil {
		return err
	}
	errTop := setAll(ctx, top)
	if errTop == nil {
		errTop = delAll(ctx, top)
	}
	return errors.Join(errTop, delAll(ctx, base))
}

func setAll(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		if err := s.set(ctx); err != nil {
			return err
		}
	}
	return nil
}

func delAll(ctx context.Context, steps []Step) error {
	for _, s := range slices.Backward(steps) {
		if err := s.del(ctx); err != nil {
			return err
		}
	}
	return nil
}
