package reconcile

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// during is a table that lets something happen in the middle of a Read, when its
// answer is made but not yet returned, or of a Write, when all is written.
type during struct {
	*world
	read, write func()
}

func (d *during) Read(ctx context.Context) (map[string]int, error) {
	got, err := d.world.Read(ctx)
	if d.read != nil {
		d.read()
	}
	return got, err
}

func (d *during) Write(ctx context.Context, set map[string]int, del []string) error {
	err := d.world.Write(ctx, set, del)
	if d.write != nil {
		d.write()
	}
	return err
}

// TestEventsMeanwhile holds that what the world tells while its table is read or
// written is not lost: the passes that follow make the table what is wanted.
func TestEventsMeanwhile(t *testing.T) {
	isX := func(k string, _ int) bool { return k == "x" }
	two := 2
	for _, test := range []struct {
		name   string
		happen func(*world, *Tracker[string, int]) (news bool)
		news   bool // so another pass must follow
	}{
		{"nothing", func(*world, *Tracker[string, int]) bool { return false }, false},
		{"a key is gone", func(w *world, a *Tracker[string, int]) bool {
			delete(w.have, "x")
			return a.Observe("x", nil)
		}, true},
		{"a key is changed", func(w *world, a *Tracker[string, int]) bool {
			w.have["x"] = 2
			return a.Observe("x", &two)
		}, true},
		{"a deleted key is back", func(w *world, a *Tracker[string, int]) bool {
			w.have["old"] = 2
			return a.Observe("old", &two)
		}, true},
		{"a key is gone without a word", func(w *world, a *Tracker[string, int]) bool {
			delete(w.have, "x")
			a.Forget(isX)
			return true // whoever says Forget knows
		}, true},
		{"events are lost", func(w *world, a *Tracker[string, int]) bool {
			delete(w.have, "x")
			a.Doubt()
			return true
		}, true},
	} {
		want := map[string]int{"x": 1, "y": 1}
		for _, when := range []string{"read", "write"} {
			t.Run(test.name+" in a "+when, func(t *testing.T) {
				var log []string
				w := &during{world: &world{name: "a", log: &log, fail: map[string]error{}, have: map[string]int{"old": 1}}}
				if when == "read" {
					w.have = map[string]int{"x": 1, "old": 1}
				}
				a := NewTracker("a", w)
				a.Want(want, nil)
				news := false
				happen := func() {
					w.read, w.write = nil, nil
					news = test.happen(w.world, a)
				}
				if when == "read" {
					w.read = happen
				} else {
					w.write = happen
				}
				pass := func() {
					if _, err := Pass(t.Context(), []Step{a}, nil); err != nil {
						t.Fatal(err)
					}
				}
				if test.name == "a deleted key is back" && when == "write" {
					// Not in the write of what is set, but of what is deleted.
					w.write = func() { w.write = happen }
				}
				pass()
				if when == "write" && news != test.news {
					t.Errorf("news = %v", news)
				}
				pass()
				if d := cmp.Diff(want, w.have); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				log = nil
				pass()
				if log != nil {
					t.Errorf("a further pass did %v", log)
				}
			})
		}
	}
}

// TestEchoWhileWriting holds that the world's word for our own write is no news,
// though it comes before the write returns.
func TestEchoWhileWriting(t *testing.T) {
	var log []string
	w := &during{world: &world{name: "a", log: &log, have: map[string]int{"old": 1}}}
	a := NewTracker("a", w)
	a.Want(map[string]int{"x": 1}, nil)
	one := 1
	w.write = func() {
		if w.have["x"] == 1 && a.Observe("x", &one) {
			t.Error("the echo of a key set was news")
		}
		if _, there := w.have["old"]; !there && a.Observe("old", nil) {
			t.Error("the echo of a key deleted was news")
		}
	}
	Pass(t.Context(), []Step{a}, nil)
	if d := cmp.Diff(map[string]int{"x": 1}, a.Known()); d != "" {
		t.Errorf("known (-want +got):\n%s", d)
	}
}

// TestAppliedInDoubt holds that doubt makes nobody believe that what was applied
// is not.
func TestAppliedInDoubt(t *testing.T) {
	var log []string
	w := &during{world: &world{name: "a", log: &log, have: map[string]int{}}}
	a := NewTracker("a", w)
	a.Want(map[string]int{"x": 1}, nil)
	Pass(t.Context(), []Step{a}, nil)
	look := func() {
		if got := a.Status().Applied; got != 1 || !a.Applied("x") || !maps.Equal(a.Known(), w.have) {
			t.Errorf("in doubt %d applied, %v known", got, a.Known())
		}
	}
	a.Doubt()
	look()
	w.read = look
	Pass(t.Context(), []Step{a}, nil)
	w.down = errors.New("gone fishing")
	a.Doubt()
	Pass(t.Context(), []Step{a}, nil)
	look()
}

// TestRetryOfAnother holds that a key waits for its next try only as long as the
// try would be the same.
func TestRetryOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		wa, a := newWorld("a", &log, map[string]int{})
		wb, b := newWorld("b", &log, map[string]int{})
		a.Voids(b)
		wb.fail["x"] = errors.New("no")
		a.Want(map[string]int{"config": 1}, nil)
		b.Want(map[string]int{"x": 1}, nil)
		pass := func() { Pass(t.Context(), []Step{a, b}, nil) }
		for range 10 {
			pass()
			time.Sleep(time.Until(b.Failures()["x"].Retry))
		}
		pass()
		clear(wb.fail)
		pass()
		if len(wb.have) != 0 {
			t.Fatal("the same was tried before its time")
		}
		b.Want(map[string]int{"x": 2}, nil)
		pass()
		if wb.have["x"] != 2 {
			t.Error("another value was not tried at once")
		}

		wb.fail["x"] = errors.New("no")
		b.Want(map[string]int{"x": 3}, nil)
		for range 10 {
			pass()
			time.Sleep(time.Until(b.Failures()["x"].Retry))
		}
		pass()
		clear(wb.fail)
		a.Want(map[string]int{"config": 2}, nil)
		pass()
		if wa.have["config"] != 2 || wb.have["x"] != 3 {
			t.Error("what failed on the old table was not tried on the new one at once")
		}
	})
}
