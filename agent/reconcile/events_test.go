package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/immutable"
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
				a.Want(immutable.Of(want), nil)
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
	a.Want(immutable.Of(map[string]int{"x": 1}), nil)
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
	a.Want(immutable.Of(map[string]int{"x": 1}), nil)
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
		a.Want(immutable.Of(map[string]int{"config": 1}), nil)
		b.Want(immutable.Of(map[string]int{"x": 1}), nil)
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
		b.Want(immutable.Of(map[string]int{"x": 2}), nil)
		pass()
		if wb.have["x"] != 2 {
			t.Error("another value was not tried at once")
		}

		wb.fail["x"] = errors.New("no")
		b.Want(immutable.Of(map[string]int{"x": 3}), nil)
		for range 10 {
			pass()
			time.Sleep(time.Until(b.Failures()["x"].Retry))
		}
		pass()
		clear(wb.fail)
		a.Want(immutable.Of(map[string]int{"config": 2}), nil)
		pass()
		if wa.have["config"] != 2 || wb.have["x"] != 3 {
			t.Error("what failed on the old table was not tried on the new one at once")
		}
	})
}

// watched is a table whose changes, our own too, are told late but in order.
type watched struct {
	*world
	queue   []func()
	deliver func() // tells some of the queue
	tracker *Tracker[string, int]
}

func (w *watched) tell(k string) {
	v, there := w.have[k]
	w.queue = append(w.queue, func() {
		if there {
			w.tracker.Observe(k, &v)
		} else {
			w.tracker.Observe(k, nil)
		}
	})
}

func (w *watched) Read(ctx context.Context) (map[string]int, error) {
	w.deliver()
	got, err := w.world.Read(ctx)
	w.deliver()
	return got, err
}

func (w *watched) Write(ctx context.Context, set map[string]int, del []string) error {
	w.deliver()
	before := maps.Clone(w.have)
	err := w.world.Write(ctx, set, del)
	for k := range set {
		if w.fail[k] == nil {
			w.tell(k)
		}
	}
	for _, k := range del {
		if _, was := before[k]; was && w.fail[k] == nil {
			w.tell(k)
		}
	}
	w.deliver()
	return err
}

// TestLateEvents holds that the table ends as it should when what happens to it is
// told late, and others change it at any moment, without any doubt or resync.
func TestLateEvents(t *testing.T) {
	for seed := range uint64(500) {
		synctest.Test(t, func(t *testing.T) {
			lateEvents(t, rand.New(rand.NewPCG(seed, 1)).IntN)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		})
	}
}

func lateEvents(t *testing.T, roll func(int) int) {
	var log []string
	w := &watched{world: &world{name: "a", log: &log, have: map[string]int{}, fail: map[string]error{}}}
	a := NewTracker("a", w)
	w.tracker = a
	key := func() string { return string(rune('a' + roll(3))) }
	w.deliver = func() {
		switch k := key(); roll(6) {
		case 0:
			w.have[k] = roll(3)
			w.tell(k)
		case 1:
			delete(w.have, k)
			w.tell(k)
		case 2: // as with a link that goes: without a word of the key
			delete(w.have, k)
			w.queue = append(w.queue, func() { a.Forget(func(o string, _ int) bool { return o == k }) })
		case 3: // what was queued is lost
			w.queue = []func(){a.Doubt}
		}
		for range roll(len(w.queue) + 1) {
			w.queue[0]()
			w.queue = w.queue[1:]
		}
	}
	var want map[string]int
	for range 1 + roll(10) {
		want = map[string]int{}
		for range roll(4) {
			want[key()] = roll(3)
		}
		a.Want(immutable.Of(want), nil)
		clear(w.fail)
		if roll(4) == 0 {
			w.fail[key()] = errors.New("fault")
		}
		Pass(t.Context(), []Step{a}, nil)
		w.deliver()
	}
	clear(w.fail)
	w.deliver = func() {
		for _, f := range w.queue {
			f()
		}
		w.queue = nil
	}
	for range 3 {
		w.deliver()
		time.Sleep(maxRetry)
		Pass(t.Context(), []Step{a}, nil)
	}
	if d := cmp.Diff(want, w.have); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(w.have, a.Known()); d != "" {
		t.Errorf("known (-there +known):\n%s", d)
	}
}

func TestRetryNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		w, a := newWorld("a", &log, map[string]int{})
		a.Want(immutable.Of(map[string]int{"x": 1, "y": 1}), nil)
		w.fail["x"] = errors.New("no")
		for range 10 {
			Pass(t.Context(), []Step{a}, nil)
			time.Sleep(maxRetry) // the bubble's clock
		}
		Pass(t.Context(), []Step{a}, nil)
		clear(w.fail)
		Pass(t.Context(), []Step{a}, nil)
		if a.Applied("x") {
			t.Error("tried again before its time")
		}
		a.RetryNow()
		if retry, err := Pass(t.Context(), []Step{a}, nil); err != nil || !retry.IsZero() || !a.Applied("x") {
			t.Errorf("Pass = %v, %v", retry, err)
		}
		w.down = errors.New("gone fishing")
		a.Doubt()
		for range 10 {
			Pass(t.Context(), []Step{a}, nil)
			time.Sleep(maxRetry)
		}
		Pass(t.Context(), []Step{a}, nil)
		w.down = nil
		if _, err := Pass(t.Context(), []Step{a}, nil); err == nil {
			t.Error("tried again before its time")
		}
		a.RetryNow()
		if _, err := Pass(t.Context(), []Step{a}, nil); err != nil {
			t.Error(err)
		}
	})
}

// TestFailInCompany holds that many keys that fail cost few tries, though they began
// to fail one after the other.
func TestFailInCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		w, a := newWorld("a", &log, map[string]int{})
		var want immutable.Editor[string, int]
		for i := range 300 {
			k := fmt.Sprint(i)
			w.fail[k] = errors.New("no")
			want.Set(k, 1)
			a.Want(want.Map(), nil)
			Pass(t.Context(), []Step{a}, nil)
			time.Sleep(37 * time.Millisecond)
		}
		time.Sleep(10 * maxRetry) // all come to wait as long as they can
		passes := 0
		for start := time.Now(); time.Since(start) < 20*maxRetry; passes++ {
			retry, err := Pass(t.Context(), []Step{a}, nil)
			if err != nil || !retry.After(time.Now()) {
				t.Fatalf("Pass = %v, %v", retry, err)
			}
			time.Sleep(time.Until(retry))
		}
		if limit := 20*4 + 20; passes > limit {
			t.Errorf("%d passes in %v, want %d at most", passes, 20*maxRetry, limit)
		}
		clear(w.fail)
		time.Sleep(maxRetry)
		if retry, err := Pass(t.Context(), []Step{a}, nil); err != nil || !retry.IsZero() || a.Status().Applied != 300 {
			t.Errorf("mended: Pass = %v, %v, %d applied", retry, err, a.Status().Applied)
		}
	})
}
