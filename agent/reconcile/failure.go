package reconcile

import (
	"errors"
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

// failed returns the failure after one more try. The next one waits for the
// delay or up to a quarter less, so that it comes at one of few moments: what
// fails often fails in company, and is tried again in company. The phase shifts
// these moments, so that tables and nodes don't share theirs.
func (f Failure) failed(err error, now time.Time, phase time.Duration) Failure {
	if f.Tries == 0 {
		f.Since = now
	}
	delay := min(minRetry<<min(f.Tries, 16), maxRetry)
	quarter := int64(delay / 4)
	early := (now.UnixNano() + int64(delay-phase)) % quarter
	f.Err, f.Tries, f.Retry = err, f.Tries+1, now.Add(delay-time.Duration(early))
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
