package datastore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/storetest"
)

func node(name string) *v1.Node {
	return &v1.Node{TypeMeta: metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// run lets the mirror run until the test ends. Call it inside a bubble.
func run(t *testing.T, m *datastore.Mirror) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	synctest.Wait()
}

func names(s *datastore.Snapshot) []string {
	var out []string
	for _, p := range datastore.Sorted[*v1.IPPool](s) {
		out = append(out, p.Name)
	}
	return out
}

func changed(m *datastore.Mirror) bool {
	select {
	case <-m.Changed():
		return true
	default:
		return false
	}
}

func TestMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := datastore.NewMemory()
		a := storetest.Create(t, s, pool("a"))
		storetest.Create(t, s, node("n1"))
		m := datastore.NewMirror(s, "IPPool", "Node", "WorkloadEndpoint", "IPPool")
		run(t, m)
		first := m.Snapshot()
		if first == nil || !changed(m) {
			t.Fatal("in sync, there is no snapshot")
		}
		got, ok := datastore.Get[*v1.IPPool](first, "", "a")
		if diff := cmp.Diff(a, got); diff != "" || !ok {
			t.Errorf("a (-want +got):\n%s", diff)
		}
		if first.Part("WorkloadEndpoint") != nil || first.Part("IPPool").Len() != 1 {
			t.Error("parts have the wrong size")
		}

		storetest.Create(t, s, pool("b"))
		synctest.Wait()
		second := m.Snapshot()
		if !changed(m) || changed(m) {
			t.Error("one change is not one value in Changed")
		}
		if diff := cmp.Diff([]string{"a", "b"}, names(second)); diff != "" {
			t.Errorf("after b (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"a"}, names(first)); diff != "" {
			t.Errorf("the first snapshot changed (-want +got):\n%s", diff)
		}
		if still, _ := datastore.Get[*v1.IPPool](second, "", "a"); still != got {
			t.Error("a did not change, its pointer did")
		}
		if first.Part("Node") != second.Part("Node") || first.Part("IPPool") == second.Part("IPPool") {
			t.Error("Part identity does not tell what changed")
		}

		for _, name := range []string{"a", "b"} {
			if err := s.Delete(t.Context(), key(name), ""); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if p := m.Snapshot().Part("IPPool"); p != nil {
			t.Errorf("all deleted, %d are left", p.Len())
		}
	})
}

// A kind that can't be listed keeps everything back.
func TestMirrorBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := datastore.NewMemory()
		storetest.Create(t, s, pool("a"))
		m := datastore.NewMirror(barred{s, "Node", make(chan struct{})}, "IPPool", "Node")
		if m.Down() == nil {
			t.Error("before Run it is in touch with the store")
		}
		bar := make(chan struct{})
		m = datastore.NewMirror(barred{s, "Node", bar}, "IPPool", "Node")
		run(t, m)
		if m.Snapshot() != nil {
			t.Error("a snapshot though Node is not in sync")
		}
		var out *datastore.Outage
		if !errors.As(m.Down(), &out) || !slices.Equal(out.Kinds, []string{"Node"}) {
			t.Errorf("Down is %v", m.Down())
		}
		close(bar)
		synctest.Wait()
		if m.Snapshot() == nil || m.Down() != nil {
			t.Errorf("snapshot %v, down %v after Node is in sync", m.Snapshot(), m.Down())
		}
	})
}

type barred struct {
	datastore.Store
	kind string
	open chan struct{}
}

func (b barred) Watch(ctx context.Context, kind string, f func(datastore.Event)) error {
	if kind == b.kind {
		select {
		case <-b.open:
		case <-ctx.Done():
			return nil
		}
	}
	return b.Store.Watch(ctx, kind, f)
}

func TestMirrorRelist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := datastore.NewMemory()
		for _, name := range []string{"a", "b", "c"} {
			storetest.Create(t, s, pool(name))
		}
		m := datastore.NewMirror(s, "IPPool")
		run(t, m)
		first := m.Snapshot()
		changed(m)

		s.Compact()
		synctest.Wait()
		if m.Snapshot() != first || changed(m) {
			t.Error("a re-list without changes made another snapshot")
		}

		s.SetDown(errors.New("unplugged"))
		synctest.Wait()
		s.Compact()
		s.SetDown(nil)
		// What happens between Compact and the re-list is in the list.
		if err := s.Delete(t.Context(), key("b"), ""); err != nil {
			t.Fatal(err)
		}
		storetest.Create(t, s, pool("d"))
		if err := s.Delete(t.Context(), key("c"), ""); err != nil {
			t.Fatal(err)
		}
		storetest.Create(t, s, pool("c")) // equal, but another object
		synctest.Wait()
		second := m.Snapshot()
		if diff := cmp.Diff([]string{"a", "c", "d"}, names(second)); diff != "" {
			t.Errorf("after the re-list (-want +got):\n%s", diff)
		}
		for name, same := range map[string]bool{"a": true, "c": false} {
			before, _ := datastore.Get[*v1.IPPool](first, "", name)
			after, _ := datastore.Get[*v1.IPPool](second, "", name)
			if (before == after) != same {
				t.Errorf("%s: same pointer %v, want %v", name, before == after, same)
			}
		}
	})
}

func TestMirrorDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := datastore.NewMemory()
		m := datastore.NewMirror(s, "IPPool", "Node")
		run(t, m)
		if !changed(m) || m.Down() != nil {
			t.Fatalf("in sync, it is down: %v", m.Down())
		}
		first := m.Snapshot()
		time.Sleep(time.Hour)
		since := time.Now()
		reason := errors.New("unplugged")
		s.SetDown(reason)
		synctest.Wait()
		if !changed(m) {
			t.Error("an outage is not in Changed")
		}
		time.Sleep(time.Hour)
		var out *datastore.Outage
		if err := m.Down(); !errors.As(err, &out) || !errors.Is(err, reason) || !errors.Is(err, datastore.ErrUnavailable) {
			t.Fatalf("down is %v", err)
		}
		if !out.Since.Equal(since) || !slices.Equal(out.Kinds, []string{"IPPool", "Node"}) {
			t.Errorf("outage is %+v, want since %s of both", out, since)
		}
		if m.Snapshot() != first {
			t.Error("the outage made another snapshot")
		}
		s.SetDown(nil)
		synctest.Wait()
		if m.Down() != nil || !changed(m) {
			t.Errorf("down is %v after the outage", m.Down())
		}
	})
}

func TestMirrorBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := datastore.NewMemory()
		storetest.Create(t, s, pool("a"))
		storetest.Create(t, s, pool("b"))
		s.PutRaw(key("c"), []byte("{"))
		m := datastore.NewMirror(s, "IPPool")
		run(t, m)
		check := func(when string, objects []string, issues ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, i := range m.Snapshot().Issues() {
				got = append(got, i.Object)
			}
			if diff := cmp.Diff(objects, names(m.Snapshot())); diff != "" {
				t.Errorf("%s, objects (-want +got):\n%s", when, diff)
			}
			if diff := cmp.Diff(issues, got); diff != "" {
				t.Errorf("%s, issues (-want +got):\n%s", when, diff)
			}
		}
		check("at first", []string{"a", "b"}, "IPPool c")
		before := m.Snapshot()
		s.PutRaw(key("b"), []byte("null"))
		check("b broken", []string{"a"}, "IPPool b", "IPPool c")
		s.Compact()
		check("re-list", []string{"a"}, "IPPool b", "IPPool c")
		if len(before.Issues()) != 1 {
			t.Error("an older snapshot changed")
		}
		if err := s.Delete(t.Context(), key("c"), ""); err != nil {
			t.Fatal(err)
		}
		check("c deleted", []string{"a"}, "IPPool b")
		s.PutRaw(key("b"), []byte(`{"apiVersion":"cairn.network/v1","kind":"IPPool","metadata":{"name":"b"}}`))
		check("b mended", []string{"a", "b"})
	})
}

func TestMirrorTransform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := datastore.NewMemory()
		m := datastore.NewMirror(s, "IPPool")
		m.Transform("IPPool", func(o v1.Object) v1.Object {
			if o.(*v1.IPPool).Spec.Disabled {
				return nil
			}
			small := o.(*v1.IPPool).DeepCopy()
			small.Labels = nil
			return small
		})
		p := pool("a")
		p.Labels = map[string]string{"large": "label"}
		a := storetest.Create(t, s, p)
		run(t, m)
		got, ok := datastore.Get[*v1.IPPool](m.Snapshot(), "", "a")
		if !ok || got.Labels != nil {
			t.Errorf("kept %v", got)
		}
		first := m.Snapshot()
		s.Compact()
		synctest.Wait()
		if m.Snapshot() != first {
			t.Error("a re-list of transformed objects made another snapshot")
		}
		a.Spec.Disabled = true
		if _, err := s.Update(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := names(m.Snapshot()); len(got) != 0 {
			t.Errorf("kept %v", got)
		}
	})
}

func TestMirrorFails(t *testing.T) {
	if err := datastore.NewMirror(datastore.NewMemory(), "IPPool", "Dragon").Run(t.Context()); err == nil {
		t.Error("an unknown kind is no error")
	}
}

// mirrored runs a mirror of n pools until the test ends. It returns what changes
// the i-th of them and waits for the snapshot that holds it.
func mirrored(t testing.TB, n int) (set func(i int)) {
	objects := make([]v1.Object, n)
	for i := range objects {
		p := pool(fmt.Sprintf("p%d", i))
		p.ResourceVersion = "0"
		objects[i] = p
	}
	s := script{events: make(chan datastore.Event)}
	m := datastore.NewMirror(s, "IPPool")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	s.events <- datastore.Event{All: objects}
	for m.Snapshot() == nil {
		<-m.Changed()
	}
	revision := 0
	return func(i int) {
		revision++
		p := pool(fmt.Sprintf("p%d", i%n))
		p.ResourceVersion = fmt.Sprint(revision)
		s.events <- datastore.Event{Set: p}
		for {
			<-m.Changed()
			if got, _ := datastore.Get[*v1.IPPool](m.Snapshot(), "", p.Name); got == p {
				return
			}
		}
	}
}

// BenchmarkMirror measures a change of one of n objects, from the event to the
// snapshot that holds it.
func BenchmarkMirror(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			set := mirrored(b, n)
			for i := 0; b.Loop(); i++ {
				set(i)
			}
		})
	}
}

// TestMirrorCost compares a change of one object among few and among many: copying
// the many would take a thousand times as long.
func TestMirrorCost(t *testing.T) {
	median := func(n int) time.Duration {
		set := mirrored(t, n)
		var took []time.Duration
		for i := range 201 {
			start := time.Now()
			set(i)
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	few, many := median(50), median(50_000)
	if many > 50*few {
		t.Errorf("one object among 50,000 takes %v, among 50 %v", many, few)
	}
}

// script is a store whose watch tells what it is given.
type script struct {
	datastore.Store
	events chan datastore.Event
}

func (s script) Watch(ctx context.Context, _ string, f func(datastore.Event)) error {
	for {
		select {
		case e := <-s.events:
			f(e)
		case <-ctx.Done():
			return nil
		}
	}
}
