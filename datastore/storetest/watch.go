package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

func testWatchAll(t *testing.T, s datastore.Store) {
	empty := Follow(t, s, "IPPool").Until("all was told", func(v View) bool { return v.Alls > 0 })
	if e := empty.Events[0]; e.All == nil || len(e.All) != 0 || e.Set != nil || e.Down != nil {
		t.Errorf("of nothing it first told %+v", e)
	}
	a, b := Create(t, s, Pool("a", "10.1.0.0/16")), Create(t, s, Pool("b", "10.2.0.0/16"))
	view := Follow(t, s, "IPPool").Until("all was told", func(v View) bool { return v.Alls > 0 })
	if diff := cmp.Diff([]v1.Object{a, b}, view.Events[0].All); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
}

func testWatchOrder(t *testing.T, s datastore.Store) {
	f := Follow(t, s, "IPPool")
	f.Until("all was told", func(v View) bool { return v.Alls > 0 })
	var want []string
	note := func(o v1.Object, err error) v1.Object {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, "set "+o.GetName()+" "+o.GetResourceVersion())
		return o
	}
	for range 3 {
		for _, name := range []string{"a", "b"} {
			o := note(s.Create(t.Context(), Pool(name, "10.1.0.0/16")))
			o.(*v1.IPPool).Spec.Disabled = true
			o = note(s.Update(t.Context(), o))
			if _, err := s.Update(t.Context(), o); err != nil { // nothing changes, nothing is told
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), poolKey(name), ""); err != nil {
				t.Fatal(err)
			}
			want = append(want, "deleted "+name)
		}
	}
	last := Create(t, s, Pool("z", "10.9.0.0/16"))
	v := f.Until("the last object was told", func(v View) bool { return v.Objects[poolKey("z")] != nil })
	if diff := cmp.Diff(v1.Object(last), v.Objects[poolKey("z")]); diff != "" {
		t.Errorf("the last object (-created +told):\n%s", diff)
	}
	var got []string
	for _, e := range v.Events[1 : len(v.Events)-1] {
		if e.Set != nil {
			got = append(got, "set "+e.Set.GetName()+" "+e.Set.GetResourceVersion())
		} else {
			got = append(got, "deleted "+e.Deleted.Name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func testWatchKind(t *testing.T, s datastore.Store) {
	f := Follow(t, s, "Node")
	f.Until("all was told", func(v View) bool { return v.Alls > 0 })
	Create(t, s, nodeStatus("n1"))
	Create(t, s, Pool("n1", "10.1.0.0/16"))
	Create(t, s, Endpoint("n1", "n1"))
	want := Create(t, s, node("n2"))
	v := f.Until("the node was told", func(v View) bool { return len(v.Events) > 1 })
	if diff := cmp.Diff(v1.Object(want), v.Events[1].Set); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// testWatchFinal lets many write at once and then compares what each watch
// holds, those that began in the middle too, with what is there.
func testWatchFinal(t *testing.T, s datastore.Store) {
	follow := []*Follower{Follow(t, s, "WorkloadEndpoint"), Follow(t, s, "WorkloadEndpoint")}
	late := make(chan *Follower, 1)
	errs := contend(8, func(i int) error {
		for n := range 25 {
			if i == 0 && n == 12 {
				late <- Follow(t, s, "WorkloadEndpoint")
			}
			o := Endpoint("red", fmt.Sprintf("w%d", n%5))
			key := datastore.KeyOf(o)
			var err error
			switch n % 4 {
			case 0, 1:
				_, err = s.Create(t.Context(), o)
			case 2:
				_, err = datastore.Update(t.Context(), s, key, func(o *v1.WorkloadEndpoint) error {
					o.Spec.ContainerID = fmt.Sprintf("%d-%d", i, n)
					return nil
				})
			default:
				err = s.Delete(t.Context(), key, "")
			}
			if err != nil && !errors.Is(err, datastore.ErrExists) && !errors.Is(err, datastore.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	last := datastore.KeyOf(Create(t, s, Endpoint("red", "last")))
	want := map[datastore.Key]v1.Object{}
	objects, err := s.List(t.Context(), "WorkloadEndpoint")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		want[datastore.KeyOf(o)] = o
	}
	for _, f := range append(follow, <-late) {
		v := f.Until("the last object was told", func(v View) bool { return v.Objects[last] != nil })
		if diff := cmp.Diff(want, v.Objects); diff != "" {
			t.Errorf("final state (-want +got):\n%s", diff)
		}
	}
}

func testWatchEnds(t *testing.T, s datastore.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	// To cancel from inside must work: Watch returns after f does.
	if err := s.Watch(ctx, "IPPool", func(datastore.Event) { cancel() }); err != nil {
		t.Errorf("cancelled while running: %v", err)
	}
	if err := s.Watch(ctx, "IPPool", func(datastore.Event) { t.Error("it told something") }); err != nil {
		t.Errorf("cancelled before: %v", err)
	}
	if err := s.Watch(t.Context(), "Dragon", func(datastore.Event) {}); err == nil {
		t.Error("watch of an unknown kind is not refused")
	}
}
