package datastore

import (
	"context"
	"errors"
	"fmt"

	v1 "cairn.network/cairn/api/v1"
)

// updateTries bounds Update. A loser of a compare-and-swap knows that another
// won, so a conflict is progress, and so many in a row for one object mean that
// something else is wrong.
const updateTries = 100

// ErrAbort, returned by Update's function, ends it without a write and without
// an error.
var ErrAbort = errors.New("nothing to write")

// Update reads the object, lets change alter it, and writes it back if it is
// still what was read; on a conflict it starts over. This is the only
// compare-and-swap retry in Cairn. It returns what is in the store afterwards.
// change may be called several times, each time with a fresh copy.
func Update[T v1.Object](ctx context.Context, s Store, key Key, change func(T) error) (T, error) {
	var none T
	for range updateTries {
		got, err := s.Get(ctx, key)
		if err != nil {
			return none, err
		}
		o, ok := got.(T)
		if !ok {
			return none, fmt.Errorf("update %s: the store returned a %T", key, got)
		}
		if err := change(o); errors.Is(err, ErrAbort) {
			return o, nil
		} else if err != nil {
			return none, err
		}
		put, err := s.Update(ctx, o)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return none, err
		}
		return put.(T), nil
	}
	return none, fmt.Errorf("update %s: %w %d times in a row", key, ErrConflict, updateTries)
}
