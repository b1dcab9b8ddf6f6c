package reconcile

import (
	"errors"
	"math/rand/v2"
	"time"
)

// Delays between tries of what failed.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second
)

// Failure is a key that could not be made what it should be.
type Failure struct {
	Err   error
	Since time.Time // of the first failure in a row
	Tries int       // in a row
	Retry time.Time // not before
}

// failed returns the failure after one more try.
func (f Failure) failed(err error, now time.Time) Failure {
	if f.Tries == 0 {
		f.Since = now
	}
	delay := min(minRetry<<min(f.Tries, 16), maxRetry)
	f.Err, f.Tries, f.Retry = err, f.Tries+1, now.Add(delay/2+rand.N(delay/2))
	return f
}

// split sorts a Write's error into those of keys and the first that is no key's.
func split[K comparable](err error) (keys map[K]error, whole error) {
	keys = map[K]error{}
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
			return
		}
		var of interface{ FailedKey() any }
		if errors.As(err, &of) {
			if k, ok := of.FailedKey().(K); ok {
				keys[k] = err
				return
			}
		}
		if whole == nil {
			whole = err
		}
	}
	walk(err)
	return keys, whole
}
