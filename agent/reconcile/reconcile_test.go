package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cairn.network/cairn/immutable"
)

// world is a table in memory that notes what is written.
type world struct {
	name   string
	have   map[string]int
	fail   map[string]error
	down   error
	log    *[]string
	onRead func()
}

func (w *world) Read(context.Context) (map[string]int, error) {
	if w.log != nil {
		*w.log = append(*w.log, w.name+" read")
	}
	if w.down != nil {
		return nil, w.down
	}
	got := maps.Clone(w.have)
	if w.onRead != nil {
		w.onRead()
	}
	return got, nil
}

type keyError struct {
	key string
	err error
}

func (e keyError) Error() string  { return e.key + ": " + e.err.Error() }
func (e keyError) FailedKey() any { return e.key }

func (w *world) Write(_ context.Context, set map[string]int, del []string) error {
	if w.down != nil {
		return w.down
	}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(set)) {
		*w.log = append(*w.log, fmt.Sprintf("%s set %s=%d", w.name, k, set[k]))
		if err := w.fail[k]; err != nil {
			errs = append(errs, keyError{k, err})
			continue
		}
		w.have[k] = set[k]
	}
	slices.Sort(del)
	for _, k := range del {
		*w.log = append(*w.log, w.name+" delete "+k)
		if err := w.fail[k]; err != nil {
			errs = append(errs, fmt.Errorf("wrapped: %w", keyError{k, err}))
			continue
		}
		delete(w.have, k)
	}
	return errors.Join(errs...)
}

func newWorld(name string, log *[]string, have map[string]int) (*world, *Tracker[string, int]) {
	w := &world{name: name, have: have, fail: map[string]error{}, log: log}
	return w, NewTracker(name, w)
}

func TestPass(t *testing.T) {
	for _, test := range []struct {
		name       string
		want, have map[string]int
		did        []string
	}{
		{name: "nothing"},
		{name: "equal", want: map[string]int{"a": 1}, have: map[string]int{"a": 1}},
		{name: "new", want: map[string]int{"a": 1}, did: []string{"set a=1"}},
		{name: "changed", want: map[string]int{"a": 2}, have: map[string]int{"a": 1}, did: []string{"set a=2"}},
		{name: "gone", have: map[string]int{"a": 1}, did: []string{"delete a"}},
		{name: "zero value is a value", want: map[string]int{"a": 0}, did: []string{"set a=0"}},
		{
			name: "few of many", want: map[string]int{"a": 1, "b": 1, "c": 1}, have: map[string]int{"c": 1},
			did: []string{"set a=1", "set b=1"},
		},
		{
			name: "all sorts", want: map[string]int{"a": 1, "b": 1, "c": 1}, have: map[string]int{"b": 2, "c": 1, "d": 1},
			did: []string{"set a=1", "set b=1", "delete d"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log []string
			w, a := newWorld("a", &log, maps.Clone(test.have))
			if w.have == nil {
				w.have = map[string]int{}
			}
			a.Want(immutable.Of(test.want), nil)
			Pass(t.Context(), []Step{a}, nil)
			want := []string{"a read"}
			for _, did := range test.did {
				want = append(want, "a "+did)
			}
			if d := cmp.Diff(want, log); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if !maps.Equal(w.have, test.want) || !maps.Equal(a.Known(), test.want) {
				t.Errorf("the table holds %v, known are %v", w.have, a.Known())
			}
		})
	}
}

func TestPassOrder(t *testing.T) {
	var log []string
	_, a := newWorld("a", &log, map[string]int{"old": 1})
	_, b := newWorld("b", &log, map[string]int{"old": 1, "same": 2})
	a.Want(immutable.Of(map[string]int{"new": 1}), nil)
	b.Want(immutable.Of(map[string]int{"new": 1, "same": 2}), nil)
	if retry, err := Pass(t.Context(), []Step{a, b}, nil); err != nil || !retry.IsZero() {
		t.Fatalf("Pass = %v, %v", retry, err)
	}
	want := []string{"a read", "a set new=1", "b read", "b set new=1", "b delete old", "a delete old"}
	if d := cmp.Diff(want, log); d != "" {
		t.Errorf("first pass (-want +got):\n%s", d)
	}
	log = nil
	if _, err := Pass(t.Context(), []Step{a, b}, nil); err != nil || log != nil {
		t.Errorf("second pass: %v, did %v", err, log)
	}
}

func TestFailingKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		w, a := newWorld("a", &log, map[string]int{"stuck": 1})
		w.fail["bad"] = errors.New("no")
		w.fail["stuck"] = errors.New("busy")
		a.Want(immutable.Of(map[string]int{"bad": 1, "good": 1}), nil)
		retry, err := Pass(t.Context(), []Step{a}, nil)
		if err != nil || retry.IsZero() || retry.After(time.Now().Add(minRetry)) {
			t.Fatalf("Pass = %v, %v", time.Until(retry), err)
		}
		if !a.Applied("good") || a.Applied("bad") {
			t.Error("the neighbour of the failing key was not applied")
		}
		if got := a.Status(); got.Failed != 2 || got.Applied != 1 || got.Wanted != 2 {
			t.Errorf("Status = %+v", got)
		}
		log = nil
		if _, err := Pass(t.Context(), []Step{a}, nil); err != nil || log != nil {
			t.Errorf("a pass before the retry is due: %v, did %v", err, log)
		}
		longest := time.Duration(0)
		for range 40 {
			Pass(t.Context(), []Step{a}, nil)
			f := a.Failures()["bad"]
			longest = max(longest, time.Until(f.Retry))
			time.Sleep(time.Until(f.Retry)) // the bubble's clock
		}
		if longest < maxRetry/2 || longest > maxRetry {
			t.Errorf("the delay grew to %v", longest)
		}
		clear(w.fail)
		time.Sleep(maxRetry)
		if retry, err := Pass(t.Context(), []Step{a}, nil); err != nil || !retry.IsZero() {
			t.Errorf("Pass = %v, %v", retry, err)
		}
		if d := cmp.Diff(map[string]int{"bad": 1, "good": 1}, w.have); d != "" {
			t.Error(d)
		}
		if got := a.Failures(); len(got) != 0 {
			t.Errorf("Failures = %v", got)
		}
	})
}

func TestBrokenTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		wa, a := newWorld("a", &log, map[string]int{})
		wb, b := newWorld("b", &log, map[string]int{"old": 1})
		a.Want(immutable.Of(map[string]int{"x": 1}), nil)
		b.Want(immutable.Of(map[string]int{"x": 1}), nil)
		wa.down = errors.New("gone fishing")
		for range 3 {
			retry, err := Pass(t.Context(), []Step{a, b}, nil)
			if err == nil || retry.IsZero() {
				t.Fatalf("Pass = %v, %v", retry, err)
			}
			time.Sleep(time.Until(retry))
		}
		if len(wb.have) != 1 || a.Err() == nil {
			t.Error("the pass went on after a table failed as a whole")
		}
		wa.down = nil
		time.Sleep(maxRetry)
		if retry, err := Pass(t.Context(), []Step{a, b}, nil); err != nil || !retry.IsZero() || a.Err() != nil {
			t.Errorf("Pass = %v, %v", retry, err)
		}
		if wb.have["x"] != 1 || wb.have["old"] != 0 {
			t.Errorf("b holds %v", wb.have)
		}
	})
}

// TestBrokenWithFailingKeys holds that keys that are due, in a table that can't be
// read or behind one, do not make for a retry at once and for ever.
func TestBrokenWithFailingKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		wa, a := newWorld("a", &log, map[string]int{})
		wb, b := newWorld("b", &log, map[string]int{})
		wa.fail["x"], wb.fail["x"] = errors.New("no"), errors.New("no")
		a.Want(immutable.Of(map[string]int{"x": 1}), nil)
		b.Want(immutable.Of(map[string]int{"x": 1}), nil)
		if _, err := Pass(t.Context(), []Step{a, b}, nil); err != nil {
			t.Fatal(err)
		}
		wa.down = errors.New("gone fishing")
		passes := 0
		for start := time.Now(); time.Since(start) < 10*time.Minute; passes++ {
			retry, err := Pass(t.Context(), []Step{a, b}, nil)
			if !retry.After(time.Now()) {
				t.Fatalf("Pass = %v, %v", time.Until(retry), err)
			}
			time.Sleep(time.Until(retry))
		}
		if passes > 100 {
			t.Errorf("%d passes in ten minutes", passes)
		}
	})
}

func TestBrokenTop(t *testing.T) {
	var log []string
	wa, a := newWorld("a", &log, map[string]int{"old": 1})
	wb, b := newWorld("b", &log, map[string]int{})
	a.Want(immutable.Of(map[string]int{"new": 1}), nil)
	wb.down = errors.New("gone fishing")
	if retry, err := Pass(t.Context(), []Step{a}, []Step{b}); err == nil || retry.IsZero() {
		t.Fatalf("Pass = %v, %v", retry, err)
	}
	if d := cmp.Diff(map[string]int{"new": 1}, wa.have); d != "" {
		t.Errorf("a broken top held the base up:\n%s", d)
	}
}

func TestKeep(t *testing.T) {
	var log []string
	w, a := newWorld("a", &log, map[string]int{"kept": 7, "old": 1})
	a.Want(immutable.Map[string, int]{}, func(_ string, v int) bool { return v == 7 })
	Pass(t.Context(), []Step{a}, nil)
	if d := cmp.Diff(map[string]int{"kept": 7}, w.have); d != "" {
		t.Error(d)
	}
	a.Want(immutable.Map[string, int]{}, nil)
	Pass(t.Context(), []Step{a}, nil)
	if len(w.have) != 0 {
		t.Errorf("after keep ended: %v", w.have)
	}
}

func TestObserve(t *testing.T) {
	var log []string
	w, a := newWorld("a", &log, map[string]int{})
	a.Want(immutable.Of(map[string]int{"x": 1, "y": 1}), nil)
	Pass(t.Context(), []Step{a}, nil)
	one, two := 1, 2
	if a.Observe("x", &one) {
		t.Error("the echo of our own write was news")
	}
	delete(w.have, "x")
	w.have["z"] = 2
	if !a.Observe("x", nil) || !a.Observe("z", &two) {
		t.Error("foreign changes were no news")
	}
	log = nil
	Pass(t.Context(), []Step{a}, nil)
	if d := cmp.Diff([]string{"a set x=1", "a delete z"}, log); d != "" {
		t.Errorf("healing (-want +got):\n%s", d)
	}
	delete(w.have, "y")
	a.Forget(func(k string, _ int) bool { return k == "y" })
	Pass(t.Context(), []Step{a}, nil)
	if w.have["y"] != 1 {
		t.Error("a forgotten key was not written again")
	}
	// A change that comes while the table is read must not be lost.
	w.onRead = func() { delete(w.have, "x"); a.Observe("x", nil) }
	a.Doubt()
	log = nil
	Pass(t.Context(), []Step{a}, nil)
	if d := cmp.Diff([]string{"a read", "a set x=1"}, log); d != "" {
		t.Errorf("change while reading (-want +got):\n%s", d)
	}
}

// TestDisplaces has keys that can't be beside others go when these come, and all others
// in the end.
func TestDisplaces(t *testing.T) {
	var log []string
	_, first := newWorld("first", &log, map[string]int{"a": 1, "b": 1, "c": 1})
	_, second := newWorld("second", &log, map[string]int{})
	first.Displaces(func(set map[string]int, going []string) []string {
		slices.Sort(going)
		return slices.DeleteFunc(going, func(k string) bool { return k != "b" })
	})
	first.Want(immutable.Of(map[string]int{"a": 1, "d": 1}), nil)
	second.Want(immutable.Of(map[string]int{"e": 1}), nil)
	for range 2 {
		if _, err := Pass(t.Context(), []Step{first, second}, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"first read", "first set d=1", "first delete b", "second read", "second set e=1", "first delete c"}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Error(diff)
	}
	if s := first.Status(); s.Applied != 2 || s.Writes != 3 {
		t.Errorf("status is %+v", s)
	}
}

func TestVoids(t *testing.T) {
	var log []string
	_, a := newWorld("a", &log, map[string]int{})
	wb, b := newWorld("b", &log, map[string]int{})
	a.Voids(b)
	a.Want(immutable.Of(map[string]int{"config": 1}), nil)
	b.Want(immutable.Of(map[string]int{"peer": 1}), nil)
	Pass(t.Context(), []Step{a, b}, nil)
	a.Want(immutable.Of(map[string]int{"config": 2}), nil)
	clear(wb.have) // a new speaker has no peers
	Pass(t.Context(), []Step{a, b}, nil)
	if wb.have["peer"] != 1 {
		t.Error("the peer was not written to the new speaker")
	}
}

// TestHolds holds when what is in what a table holds is read again, and when it is known
// to be nothing.
func TestHolds(t *testing.T) {
	for _, test := range []struct {
		name       string
		have, want map[string]int // of what holds
		first      []string       // of what is in it
		then       map[string]int
		fails      bool
		second     []string
	}{
		{name: "nothing there", want: map[string]int{"s": 1}, first: []string{"in set e=1"}},
		{name: "something there", have: map[string]int{"s": 1}, want: map[string]int{"s": 1}, first: []string{"in read", "in set e=1"}},
		{name: "one more", want: map[string]int{"s": 1}, then: map[string]int{"s": 1, "t": 1}, first: []string{"in set e=1"}},
		{name: "another in its place", want: map[string]int{"s": 1}, then: map[string]int{"s": 2}, first: []string{"in set e=1"}, second: []string{"in read"}},
		{name: "one more fails", want: map[string]int{"s": 1}, then: map[string]int{"t": 1}, fails: true, first: []string{"in set e=1"}, second: []string{"in read"}},
		{name: "one less", want: map[string]int{"s": 1, "t": 1}, then: map[string]int{"s": 1}, first: []string{"in set e=1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log, inLog []string
			outer, out := newWorld("out", &log, maps.Clone(test.have))
			if outer.have == nil {
				outer.have = map[string]int{}
			}
			_, in := newWorld("in", &inLog, map[string]int{})
			out.Holds(in)
			out.Want(immutable.Of(test.want), nil)
			in.Want(immutable.Of(map[string]int{"e": 1}), nil)
			Pass(t.Context(), []Step{out, in}, nil)
			if d := cmp.Diff(test.first, inLog); d != "" {
				t.Errorf("first (-want +got):\n%s", d)
			}
			if test.then == nil {
				return
			}
			inLog = nil
			if test.fails {
				outer.fail["t"] = errors.New("no")
			}
			out.Want(immutable.Of(test.then), nil)
			Pass(t.Context(), []Step{out, in}, nil)
			if d := cmp.Diff(test.second, inLog); d != "" {
				t.Errorf("second (-want +got):\n%s", d)
			}
		})
	}
}

// TestAnyOrder walks through random wants, foreign changes, doubts and faults:
// once the faults end the world is what is wanted, and a second pass is idle.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			var log []string
			w, a := newWorld("a", &log, map[string]int{})
			key := rapid.SampledFrom([]string{"a", "b", "c", "d"})
			objects := rapid.MapOf(key, rapid.IntRange(0, 2))
			want := map[string]int{}
			for range rapid.IntRange(1, 20).Draw(rt, "steps") {
				switch rapid.IntRange(0, 5).Draw(rt, "step") {
				case 0:
					want = objects.Draw(rt, "want")
					a.Want(immutable.Of(want), nil)
				case 1:
					k, v := key.Draw(rt, "key"), rapid.IntRange(0, 2).Draw(rt, "value")
					w.have[k] = v
					a.Observe(k, &v)
				case 2:
					k := key.Draw(rt, "key")
					delete(w.have, k)
					a.Observe(k, nil)
				case 3:
					w.fail[key.Draw(rt, "key")] = errors.New("fault")
				case 4:
					a.Doubt()
				}
				Pass(t.Context(), []Step{a}, nil)
			}
			clear(w.fail)
			time.Sleep(maxRetry)
			Pass(t.Context(), []Step{a}, nil)
			if d := cmp.Diff(want, w.have); d != "" {
				rt.Fatalf("(-want +got):\n%s", d)
			}
			log = nil
			if retry, err := Pass(t.Context(), []Step{a}, nil); err != nil || !retry.IsZero() || log != nil {
				rt.Fatalf("second pass: %v, %v, did %v", retry, err, log)
			}
		})
	})
}
