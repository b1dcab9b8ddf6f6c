package datastore_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// told is what a store says it holds, as a naive reader of its events sees it.
type told struct {
	objects map[string]string // their revisions
	broken  map[string]string // and why
}

// TestMirrorAnyEvents compares the mirror with the naive reader after random
// batches of events, and sees that what did not change is the same value.
func TestMirrorAnyEvents(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			s := script{events: make(chan datastore.Event)}
			m := datastore.NewMirror(s, "IPPool")
			run(t, m)
			s.events <- datastore.Event{All: []v1.Object{}}
			now := told{map[string]string{}, map[string]string{}}
			revision := 0
			for range rapid.IntRange(1, 20).Draw(rt, "batches") {
				synctest.Wait()
				before, was := m.Snapshot(), told{maps.Clone(now.objects), maps.Clone(now.broken)}
				events := rapid.IntRange(0, 5).Draw(rt, "events")
				for range events {
					revision++
					s.events <- now.next(rt, revision)
				}
				synctest.Wait()
				old, fresh := compare(rt, before, was), compare(rt, m.Snapshot(), now)
				if events > 1 {
					continue // of which there may have been snapshots in between
				}
				for name, p := range old {
					if is := fresh[name]; is != p && is != nil && is.ResourceVersion == p.ResourceVersion {
						rt.Fatalf("%s did not change, its pointer did", name)
					}
				}
				same := maps.Equal(was.objects, now.objects)
				if same != (before.Part("IPPool") == m.Snapshot().Part("IPPool")) {
					rt.Fatalf("nothing changed: %t; the Part does not say so", same)
				}
				if same && maps.Equal(was.broken, now.broken) != (before == m.Snapshot()) {
					rt.Fatal("another snapshot, though nothing changed, or the same")
				}
			}
		})
	})
}

// next returns a random event and takes it down.
func (n *told) next(rt *rapid.T, revision int) datastore.Event {
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	one := name.Draw(rt, "name")
	at := func(name, revision string) *v1.IPPool {
		p := pool(name)
		p.ResourceVersion = revision
		return p
	}
	fresh := strconv.Itoa(revision)
	switch rapid.SampledFrom([]string{"set", "delete", "break", "all"}).Draw(rt, "event") {
	case "set":
		n.objects[one] = fresh
		delete(n.broken, one)
		return datastore.Event{Set: at(one, fresh)}
	case "delete":
		delete(n.objects, one)
		delete(n.broken, one)
		return datastore.Event{Deleted: key(one)}
	case "break":
		delete(n.objects, one)
		n.broken[one] = fmt.Sprint("fault ", revision%2)
		return datastore.Event{Broken: map[datastore.Key]error{key(one): errors.New(n.broken[one])}}
	}
	e := datastore.Event{All: []v1.Object{}, Broken: map[datastore.Key]error{}}
	old := *n
	n.objects, n.broken = map[string]string{}, map[string]string{}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(rapid.SliceOf(name).Draw(rt, "all")))) {
		switch is := old.objects[name]; {
		case rapid.IntRange(0, 3).Draw(rt, "state") == 0:
			n.broken[name] = "fault 0"
			e.Broken[key(name)] = errors.New("fault 0")
		case is != "" && rapid.Bool().Draw(rt, "same"):
			n.objects[name] = is
			e.All = append(e.All, at(name, is))
		default:
			n.objects[name] = fresh
			e.All = append(e.All, at(name, fresh))
		}
	}
	return e
}

// compare sees that the snapshot holds what it should, and returns its objects.
func compare(rt *rapid.T, got *datastore.Snapshot, want told) map[string]*v1.IPPool {
	objects, revisions := map[string]*v1.IPPool{}, map[string]string{}
	for p := range datastore.All[*v1.IPPool](got) {
		objects[p.Name], revisions[p.Name] = p, p.ResourceVersion
	}
	if !maps.Equal(revisions, want.objects) || got.Part("IPPool").Len() != len(want.objects) {
		rt.Fatalf("holds %v, want %v", revisions, want.objects)
	}
	var broken, expected []string
	for _, i := range got.Issues() {
		broken = append(broken, i.Object+" "+i.Reason)
	}
	for _, name := range slices.Sorted(maps.Keys(want.broken)) {
		expected = append(expected, "IPPool "+name+" "+want.broken[name]+"; it counts as not there")
	}
	if !slices.Equal(broken, expected) {
		rt.Fatalf("issues %v, want %v", broken, expected)
	}
	return objects
}
