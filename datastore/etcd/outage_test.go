package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/etcd"
	"cairn.network/cairn/datastore/etcd/etcdtest"
	"cairn.network/cairn/datastore/storetest"
)

func pool(name string) *v1.IPPool { return storetest.Pool(name, "10.0.0.0/16") }

func key(name string) datastore.Key { return datastore.Key{Kind: "IPPool", Name: name} }

func listed(v storetest.View) bool { return v.Alls > 0 }
func down(v storetest.View) bool   { return v.Down != nil }
func up(v storetest.View) bool     { return v.Down == nil }

func has(name string) func(storetest.View) bool {
	return func(v storetest.View) bool { return v.Objects[key(name)] != nil }
}

// create creates a pool as soon as the cluster lets it.
func create(t *testing.T, s datastore.Store, name string) {
	t.Helper()
	storetest.Poll(t, "the store takes "+name, func() bool {
		_, err := s.Create(t.Context(), pool(name))
		if err != nil && !errors.Is(err, datastore.ErrUnavailable) && !errors.Is(err, datastore.ErrExists) {
			t.Fatal(err)
		}
		return err == nil || errors.Is(err, datastore.ErrExists)
	})
}

func TestRestart(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := c.Open()
	storetest.Create(t, s, pool("a"))
	f := storetest.Follow(t, s, "IPPool")
	f.Until("all was told", listed)

	c.Stop()
	v := f.Until("Down was told", down)
	if !errors.Is(v.Down, datastore.ErrUnavailable) {
		t.Errorf("Down is %v", v.Down)
	}
	for verb, call := range map[string]func() error{
		"get":    func() error { _, err := s.Get(t.Context(), key("a")); return err },
		"list":   func() error { _, err := s.List(t.Context(), "IPPool"); return err },
		"create": func() error { _, err := s.Create(t.Context(), pool("b")); return err },
		"delete": func() error { return s.Delete(t.Context(), key("a"), "") },
		"check":  func() error { return s.Check(t.Context()) },
	} {
		if err := call(); !errors.Is(err, datastore.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", verb, err)
		}
	}
	c.Start()
	f.Until("Up was told", up)
	create(t, s, "b")
	v = f.Until("b was told", has("b"))
	if v.Alls != 1 || v.Downs != 1 || v.Objects[key("a")] == nil {
		t.Errorf("told All %d and Down %d times, objects %v; want 1, 1, both", v.Alls, v.Downs, v.Objects)
	}
}

// While the watch is cut off another client changes things and history is
// forgotten: what was missed can only come by another list.
func TestCompactionWhileCutOff(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, c.Endpoints()[0])
	conf := c.Config()
	conf.Endpoints = []string{p.url()}
	cut, other := c.OpenWith(conf), c.Open()
	for _, name := range []string{"stays", "goes", "anew"} {
		storetest.Create(t, other, pool(name))
	}
	f := storetest.Follow(t, cut, "IPPool")
	f.Until("all was told", listed)

	p.cut()
	f.Until("Down was told", down)
	for _, name := range []string{"goes", "anew"} {
		if err := other.Delete(t.Context(), key(name), ""); err != nil {
			t.Fatal(err)
		}
	}
	storetest.Create(t, other, pool("anew"))
	storetest.Create(t, other, pool("new"))
	c.Compact()
	p.mend()
	v := f.Until("all was told again", func(v storetest.View) bool { return v.Alls == 2 })
	want, err := other.List(t.Context(), "IPPool")
	if err != nil {
		t.Fatal(err)
	}
	var got []v1.Object
	for _, o := range v.Objects {
		got = append(got, o)
	}
	datastore.SortByKey(got)
	if diff := cmp.Diff(want, got); diff != "" || v.Down != nil {
		t.Errorf("afterwards (-want +got):\n%sdown: %v", diff, v.Down)
	}
	// Compaction does not touch a watch that is up to date.
	c.Compact()
	storetest.Create(t, other, pool("last"))
	if v := f.Until("the last was told", has("last")); v.Alls != 2 {
		t.Errorf("all was told %d times", v.Alls)
	}
}

// A short cut without compaction costs no list: the watch goes on where it was.
func TestCutIsResumed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, c.Endpoints()[0])
	conf := c.Config()
	conf.Endpoints = []string{p.url()}
	cut, other := c.OpenWith(conf), c.Open()
	storetest.Create(t, other, pool("goes"))
	f := storetest.Follow(t, cut, "IPPool")
	f.Until("all was told", listed)
	p.cut()
	f.Until("Down was told", down)
	storetest.Create(t, other, pool("new"))
	if err := other.Delete(t.Context(), key("goes"), ""); err != nil {
		t.Fatal(err)
	}
	p.mend()
	v := f.Until("the changes were told", func(v storetest.View) bool { return len(v.Objects) == 1 && has("new")(v) })
	if v.Alls != 1 || v.Down != nil {
		t.Errorf("all was told %d times, down is %v", v.Alls, v.Down)
	}
}

// A server that no longer answers, though its connection stands.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, c.Endpoints()[0])
	conf := c.Config()
	conf.Endpoints, conf.RequestTimeout = []string{p.url()}, time.Second
	cut, other := c.OpenWith(conf), c.Open()
	f := storetest.Follow(t, cut, "IPPool")
	f.Until("all was told", listed)
	p.silence()
	if _, err := cut.Get(t.Context(), key("a")); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("get: %v, want ErrUnavailable", err)
	}
	f.Until("Down was told", down)
	storetest.Create(t, other, pool("new"))
	p.mend()
	f.Until("the change was told", has("new"))
}

func TestLeaderChange(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{Members: 3})
	s := c.Open()
	storetest.Create(t, s, pool("a"))
	f := storetest.Follow(t, s, "IPPool")
	f.Until("all was told", listed)
	for round, end := range []func(...int){c.Kill, c.Stop, c.Kill} {
		leader := c.Leader()
		end(leader)
		name := fmt.Sprint("without leader ", round)
		create(t, s, name)
		f.Until("it was told", has(name))
		c.Start(leader)
	}
	if v := f.View(); v.Alls != 1 || v.Objects[key("a")] == nil {
		t.Errorf("all was told %d times, objects %v", v.Alls, v.Objects)
	}
}

// The majority is lost: nothing can be written or known for certain, and the
// member that is left says so instead of telling old things.
func TestMajorityLost(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{Members: 3})
	s := c.Open()
	storetest.Create(t, s, pool("a"))
	f := storetest.Follow(t, s, "IPPool")
	f.Until("all was told", listed)
	c.Kill(0, 1)
	f.Until("Down was told", down)
	if _, err := s.Create(t.Context(), pool("b")); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("create: %v, want ErrUnavailable", err)
	}
	c.Start(0, 1)
	f.Until("Up was told", up)
	create(t, s, "c")
	f.Until("c was told", has("c"))
}

// A mirror and writers through a long outage with everything at once: etcd is
// stopped until every part has noticed, restarted, its history forgotten.
func TestMirrorThroughOutages(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := c.Open()
	for i := range 1200 { // several pages
		storetest.Create(t, s, storetest.Endpoint("red", fmt.Sprintf("w%04d", i)))
	}
	m := datastore.NewMirror(s, "IPPool", "WorkloadEndpoint", "Node")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	storetest.Eventually(t, "in sync", m.Changed(), func() bool { return m.Snapshot() != nil && m.Down() == nil })
	first := m.Snapshot()
	if n := first.Part("WorkloadEndpoint").Len(); n != 1200 {
		t.Fatalf("%d endpoints in the first snapshot", n)
	}
	for round := range 2 {
		c.Stop()
		storetest.Eventually(t, "every kind is down", m.Changed(), func() bool {
			var out *datastore.Outage
			return errors.As(m.Down(), &out) && len(out.Kinds) == 3
		})
		if m.Snapshot() == nil || m.Snapshot().Part("WorkloadEndpoint") != first.Part("WorkloadEndpoint") {
			t.Error("the outage changed the snapshot")
		}
		c.Start()
		name := fmt.Sprint("p", round)
		create(t, s, name)
		if round == 1 {
			c.Compact()
		}
		storetest.Eventually(t, name+" is mirrored", m.Changed(), func() bool {
			_, ok := datastore.Get[*v1.IPPool](m.Snapshot(), "", name)
			return ok && m.Down() == nil
		})
	}
	if m.Snapshot().Part("WorkloadEndpoint") != first.Part("WorkloadEndpoint") {
		t.Error("endpoints did not change, their Part did")
	}
}

// A cluster that came back empty, or from a backup, has another history.
func TestAnotherHistory(t *testing.T) {
	t.Parallel()
	full, empty := etcdtest.Start(t, etcdtest.Options{}), etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, full.Endpoints()[0])
	conf := etcd.Config{Endpoints: []string{p.url()}}
	s := full.OpenWith(conf)
	for i := range 5 {
		storetest.Create(t, s, pool(fmt.Sprint("p", i)))
	}
	storetest.Create(t, empty.Open(), pool("other"))
	f := storetest.Follow(t, s, "IPPool")
	f.Until("all was told", listed)
	p.cut()
	f.Until("Down was told", down)
	p.target(empty.Endpoints()[0])
	p.mend()
	f.Until("only the other is there", func(v storetest.View) bool { return len(v.Objects) == 1 && has("other")(v) })
}
