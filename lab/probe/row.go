package probe

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// RowTimeout is how long an exchange of a row waits for its answer, unless told
// otherwise: less than TCP takes to send its first packet again, so that one that was
// dropped shows.
const RowTimeout = 900 * time.Millisecond

// Pace of an eager row: while it can't send and for a moment after, and later on.
const (
	eagerPace   = 200 * time.Microsecond
	eagerMoment = 200 * time.Millisecond
	calmPace    = 10 * time.Millisecond
)

// standstill is how late a row may be and still catch up.
const standstill = time.Second

// maxUnderWay bounds how many exchanges of a row are under way at once.
const maxUnderWay = 2000

// Steady tries the exchange again and again, one each pace, whether or not those before
// have ended, until ctx is done. It returns when the last has ended.
func (e Exchange) Steady(ctx context.Context, pace, timeout time.Duration) Tally {
	r := row{e: e, timeout: timeout}
	r.run(ctx, func() time.Duration { return pace })
	return tallyOf(r.tries, false)
}

// Eager tries the exchange from before it can be sent, when the namespace has no
// address yet, as fast as that goes; a while after it could be sent, more slowly.
// Otherwise it is as Steady.
func (e Exchange) Eager(ctx context.Context) Tally {
	r := row{e: e, timeout: RowTimeout}
	r.unsent.Store(time.Now().UnixNano())
	r.run(ctx, func() time.Duration {
		if time.Since(time.Unix(0, r.unsent.Load())) < eagerMoment {
			return eagerPace
		}
		return calmPace
	})
	return tallyOf(r.tries, true)
}

// row is exchanges under way.
type row struct {
	e        Exchange
	timeout  time.Duration
	underWay atomic.Int64
	unsent   atomic.Int64 // when one could not be sent last, in Unix nanoseconds

	mu    sync.Mutex
	tries []try // that ended
}

// run tries until ctx is done; after each it waits for pace, and catches up when it is
// late.
func (r *row) run(ctx context.Context, pace func() time.Duration) {
	var all sync.WaitGroup
	defer all.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if r.underWay.Load() < maxUnderWay {
			r.underWay.Add(1)
			all.Go(func() { r.try(ctx) })
		}
		next = next.Add(pace())
		if now := time.Now(); now.Sub(next) > standstill {
			next = now // the machine stood still: there is nothing to catch up with
		}
		timer.Reset(time.Until(next))
	}
}

// try tries once. The end of the row does not cut it short.
func (r *row) try(ctx context.Context) {
	defer r.underWay.Add(-1)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	defer cancel()
	t := try{began: time.Now()}
	_, t.err = r.e.Try(ctx)
	t.ended = time.Now()
	if t.unsent() {
		r.unsent.Store(t.ended.UnixNano())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries = append(r.tries, t)
}
