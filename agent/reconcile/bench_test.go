package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"cairn.network/cairn/immutable"
)

// key and value are as large as those of routes.
type key struct{ dst [40]byte }

type value [96]byte

func numbered(i int) key {
	var k key
	copy(k.dst[:], fmt.Sprint(i))
	return k
}

// sink is a table that takes everything and tells of it, as a kernel does.
type sink struct {
	have    map[key]value
	broken  map[key]bool
	tracker *Tracker[key, value]
}

func (s *sink) Read(context.Context) (map[key]value, error) { return maps.Clone(s.have), nil }

func (s *sink) Write(_ context.Context, set map[key]value, del []key) error {
	for k, v := range set {
		if s.broken[k] {
			return brokenKey{k}
		}
		s.tracker.Observe(k, &v)
	}
	for _, k := range del {
		s.tracker.Observe(k, nil)
	}
	return nil
}

type brokenKey struct{ key key }

func (brokenKey) Error() string    { return "broken" }
func (e brokenKey) FailedKey() any { return e.key }

// tracked returns a tracker that has applied n keys.
func tracked(b testing.TB, n int) (*sink, *Tracker[key, value], immutable.Map[key, value]) {
	var e immutable.Editor[key, value]
	s := &sink{have: map[key]value{}}
	for i := range n {
		e.Set(numbered(i), value{})
		s.have[numbered(i)] = value{}
	}
	want := e.Map()
	s.tracker = NewTracker[key, value]("bench", s)
	s.tracker.Want(want, nil)
	if _, err := Pass(b.Context(), []Step{s.tracker}, nil); err != nil {
		b.Fatal(err)
	}
	return s, s.tracker, want
}

var sizes = []int{100, 1_000, 10_000, 100_000}

// BenchmarkOneKey is the cost of a pass over a table in which one key changed: all
// of Want, Pass, the kernel's word for it and Status.
func BenchmarkOneKey(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			_, t, want := tracked(b, n)
			for i := 0; b.Loop(); i++ {
				want = oneKey(b, t, want, i, n)
			}
		})
		b.Run(fmt.Sprint(n, " while another fails"), func(b *testing.B) {
			b.ReportAllocs()
			s, t, want := tracked(b, n)
			s.broken = map[key]bool{numbered(n): true}
			want = want.With(numbered(n), value{1})
			for i := 0; b.Loop(); i++ {
				want = oneKey(b, t, want, i, n)
			}
		})
	}
}

// oneKey makes one of n keys another, and returns what is wanted then.
func oneKey(b testing.TB, t *Tracker[key, value], want immutable.Map[key, value], i, n int) immutable.Map[key, value] {
	want = want.With(numbered(i%n), value{1, byte(i), byte(i >> 8), byte(i >> 16)})
	t.Want(want, nil)
	if _, err := Pass(b.Context(), []Step{t}, nil); err != nil {
		b.Fatal(err)
	}
	if s := t.Status(); s.Wanted-s.Applied > 1 {
		b.Fatalf("%+v", s)
	}
	return want
}

// TestCostFollowsChange compares a pass with one changed key over a small and a
// large table: walking the large one would take a thousand times as long.
func TestCostFollowsChange(t *testing.T) {
	median := func(n int) time.Duration {
		_, tracker, want := tracked(t, n)
		var took []time.Duration
		for i := range 201 {
			start := time.Now()
			want = oneKey(t, tracker, want, i, n)
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	small, large := median(100), median(100_000)
	if large > 50*small {
		t.Errorf("one key among 100,000 takes %v, among 100 %v", large, small)
	}
}

// BenchmarkIdle is the cost of a pass over a table in which nothing changed.
func BenchmarkIdle(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, t, want := tracked(b, n)
			for steps := []Step{t}; b.Loop(); {
				t.Want(want, nil)
				if _, err := Pass(b.Context(), steps, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResync is the cost of a pass that reads the table and finds it right.
func BenchmarkResync(b *testing.B) {
	_, t, want := tracked(b, 10_000)
	for steps := []Step{t}; b.Loop(); {
		t.Want(want, nil)
		t.Doubt()
		if _, err := Pass(b.Context(), steps, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart is the cost of the first pass: 10,000 keys into an empty table.
func BenchmarkStart(b *testing.B) {
	_, _, want := tracked(b, 10_000)
	for b.Loop() {
		s := &sink{}
		s.tracker = NewTracker[key, value]("bench", s)
		s.tracker.Want(want, nil)
		if _, err := Pass(b.Context(), []Step{s.tracker}, nil); err != nil {
			b.Fatal(err)
		}
		if got := s.tracker.Status().Applied; got != want.Len() {
			b.Fatalf("%d applied", got)
		}
	}
}
