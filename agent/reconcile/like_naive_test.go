package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cairn.network/cairn/immutable"
)

// twin is a table twice, in the same state: one under a Tracker, one under a naive
// tracker. What happens to the one happens to the other.
type twin struct {
	name    string
	w, nw   *during
	log     []string
	nlog    []string
	tracker *Tracker[string, int]
	naive   *naive
}

func newTwin(name string) *twin {
	x := &twin{name: name}
	x.w = &during{world: &world{name: name, have: map[string]int{}, fail: map[string]error{}, log: &x.log}}
	x.nw = &during{world: &world{name: name, have: map[string]int{}, fail: map[string]error{}, log: &x.nlog}}
	x.tracker = NewTracker[string, int](name, x.w)
	x.naive = &naive{table: x.nw, phase: x.tracker.phase, doubt: true, failed: map[string]Failure{}, disturbed: map[string]bool{}}
	return x
}

// side is one of a twin's tables and the tracker over it.
type side struct {
	table   *during
	observe func(string, *int) bool
	forget  func(func(string, int) bool)
	doubt   func()
}

func (x *twin) sides() [2]side {
	return [2]side{
		{x.w, x.tracker.Observe, x.tracker.Forget, x.tracker.Doubt},
		{x.nw, x.naive.observe, x.naive.forget, func() { x.naive.doubt = true }},
	}
}

func (x *twin) check(rt *rapid.T, when string) {
	fail := func(what string, d string) {
		if d != "" {
			rt.Fatalf("table %s, %s: %s (-naive +tracker):\n%s", x.name, when, what, d)
		}
	}
	known := maps.Clone(x.naive.known)
	if known == nil {
		known = map[string]int{}
	}
	a := x.tracker
	fail("done", cmp.Diff(x.nlog, x.log))
	fail("the table", cmp.Diff(x.nw.have, x.w.have))
	fail("known", cmp.Diff(known, a.Known()))
	fail("status", cmp.Diff(x.naive.status(), a.Status()))
	fail("failures", cmp.Diff(x.naive.failed, a.Failures(), cmp.Comparer(func(x, y error) bool { return x.Error() == y.Error() })))
	fail("any", cmp.Diff(x.naive.known == nil || len(known) > 0, a.Any(func(string, int) bool { return true })))
	for _, k := range keys {
		want, wanted := x.naive.want[k]
		have, there := known[k]
		got, is := a.Get(k)
		fail("get "+k, cmp.Diff([]any{have, there}, []any{got, is}))
		fail("applied "+k, cmp.Diff(wanted && there && want == have, a.Applied(k)))
	}
}

var keys = []string{"a", "b", "c", "d", "e", "f"}

// event draws something that happens to a table, told of or not. It returns
// whether it was news.
func event(rt *rapid.T) func(side) bool {
	k, v := rapid.SampledFrom(keys).Draw(rt, "key"), rapid.IntRange(0, 2).Draw(rt, "value")
	kind := rapid.SampledFrom([]string{"changed", "gone", "lost", "forgotten", "doubt", "mistaken"}).Draw(rt, "event")
	return func(s side) bool {
		switch kind {
		case "changed":
			s.table.have[k] = v
			return s.observe(k, &v)
		case "gone":
			delete(s.table.have, k)
			return s.observe(k, nil)
		case "lost": // without a word
			delete(s.table.have, k)
		case "forgotten":
			delete(s.table.have, k)
			s.forget(func(key string, have int) bool { return key == k || have == v })
		case "doubt":
			s.doubt()
		case "mistaken": // told of what is no longer so
			return s.observe(k, &v)
		}
		return false
	}
}

// want draws what is wanted, by a few edits or all of it, and what is kept.
func (x *twin) want(rt *rapid.T) {
	want := maps.Clone(x.naive.want)
	if want == nil {
		want = map[string]int{}
	}
	next := x.tracker.want.Edit()
	for range rapid.IntRange(0, 4).Draw(rt, "edits") {
		k, v := rapid.SampledFrom(keys).Draw(rt, "key"), rapid.IntRange(-1, 2).Draw(rt, "value")
		if v < 0 {
			delete(want, k)
			next.Delete(k)
		} else {
			want[k] = v
			next.Set(k, v)
		}
	}
	made := next.Map()
	if rapid.Bool().Draw(rt, "anew") {
		made = immutable.Of(want)
	}
	keep := rapid.SampledFrom([]func(string, int) bool{
		nil,
		func(k string, _ int) bool { return k < "c" },
		func(_ string, v int) bool { return v == 1 },
	}).Draw(rt, "keep")
	x.tracker.Want(made, keep)
	x.naive.setWant(want, keep)
}

// fault draws what fails from now on.
func (x *twin) fault(rt *rapid.T) {
	k := rapid.SampledFrom(keys).Draw(rt, "key")
	kind := rapid.SampledFrom([]string{"key", "mended", "down"}).Draw(rt, "fault")
	for _, s := range x.sides() {
		switch kind {
		case "key":
			s.table.fail[k] = errors.New("fault")
		case "mended":
			clear(s.table.fail)
			s.table.down = nil
		case "down":
			s.table.down = errors.New("gone fishing")
		}
	}
}

// meanwhile lets something happen in each of the twins' next Read or Write, when
// its answer is made but not returned.
func (x *twin) meanwhile(rt *rapid.T) {
	happen := event(rt)
	inRead := rapid.Bool().Draw(rt, "in a Read")
	for _, s := range x.sides() {
		f := func() {
			s.table.read, s.table.write = nil, nil
			happen(s)
		}
		if inRead {
			s.table.read = f
		} else {
			s.table.write = f
		}
	}
}

// TestLikeNaive holds that a tracker does and says just what one that walks
// everything does and says, whatever happens in whatever order.
func TestLikeNaive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newTwin("a"), newTwin("b")
			a.tracker.Voids(b.tracker)
			a.naive.voids = b.naive
			for step := range rapid.IntRange(1, 40).Draw(rt, "steps") {
				x := rapid.SampledFrom([]*twin{a, b}).Draw(rt, "table")
				op := rapid.SampledFrom([]string{"want", "want", "event", "event", "fault", "meanwhile", "pass", "pass", "pass", "retry now", "wait"}).Draw(rt, "step")
				switch op {
				case "want":
					x.want(rt)
				case "event":
					happen, sides := event(rt), x.sides()
					if news, should := happen(sides[0]), happen(sides[1]); news != should {
						rt.Fatalf("it was news: %t, should be %t", news, should)
					}
				case "fault":
					x.fault(rt)
				case "meanwhile":
					x.meanwhile(rt)
				case "retry now":
					x.tracker.RetryNow()
					x.naive.whole.Retry = time.Time{}
					for k, f := range x.naive.failed {
						f.Retry = time.Time{}
						x.naive.failed[k] = f
					}
				case "wait":
					time.Sleep(time.Duration(rapid.IntRange(1, 40_000).Draw(rt, "ms")) * time.Millisecond)
				case "pass":
					at, err := Pass(t.Context(), []Step{a.tracker, b.tracker}, nil)
					wantAt, wantErr := Pass(t.Context(), []Step{a.naive, b.naive}, nil)
					if (err == nil) != (wantErr == nil) || !at.Equal(wantAt) {
						rt.Fatalf("Pass = %v, %v, should be %v, %v", at, err, wantAt, wantErr)
					}
				}
				a.check(rt, fmt.Sprint("step ", step, ", ", op))
				b.check(rt, fmt.Sprint("step ", step, ", ", op))
			}
		})
	})
}
