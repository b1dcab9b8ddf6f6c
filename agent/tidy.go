package agent

import "time"

// What a change of this many objects took of memory is given back to the system when
// nothing has changed for a while, or after this long time if something always does: the
// runtime by itself would keep much of it for good where little changes from then on.
const (
	tidyObjects = 1000
	tidyWait    = 2 * time.Second
	tidyMost    = time.Minute
)

// tidying says when memory is to be given back.
type tidying struct {
	changed uint64    // objects by the last time that it was
	by      time.Time // when it is to be at the latest; zero: it need not be
}

// wait returns how long to wait for more, now that so many objects have changed since the
// start; false if too few have since memory was given back.
func (t *tidying) wait(changed uint64, now time.Time) (time.Duration, bool) {
	switch {
	case changed < t.changed+tidyObjects:
		return 0, false
	case t.by.IsZero():
		t.by = now.Add(tidyMost)
	}
	return min(tidyWait, max(time.Millisecond, t.by.Sub(now))), true
}

// done notes that memory is given back.
func (t *tidying) done(changed uint64) { *t = tidying{changed: changed} }

// changes counts the objects that have changed; the start counts as much as it found.
func (l *loop) changes() uint64 {
	state := l.state.Load()
	if state == nil {
		return 0
	}
	changed := uint64(state.Routes.Len())
	l.each(func(t table) { changed += t.Status().Writes })
	return changed
}
