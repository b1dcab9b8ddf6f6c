package datastore_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) datastore.Store { return datastore.NewMemory() })
}

func key(name string) datastore.Key { return datastore.Key{Kind: "IPPool", Name: name} }

func pool(name string) *v1.IPPool { return storetest.Pool(name, "10.0.0.0/16") }

func TestMemoryFaults(t *testing.T) {
	lost := errors.New("the answer was lost")
	for _, row := range []struct {
		name    string
		fault   datastore.Fault
		patient time.Duration // the caller's time limit
		err     error
		there   bool // the object was created all the same
		takes   time.Duration
	}{
		{name: "none", patient: time.Second, there: true},
		{name: "before", fault: datastore.Fault{Before: datastore.ErrUnavailable}, patient: time.Second, err: datastore.ErrUnavailable},
		{name: "after", fault: datastore.Fault{After: lost}, patient: time.Second, err: lost, there: true},
		{name: "slow", fault: datastore.Fault{Delay: time.Second}, patient: 2 * time.Second, there: true, takes: time.Second},
		{name: "too slow", fault: datastore.Fault{Delay: 2 * time.Second}, patient: time.Second, err: datastore.ErrUnavailable, takes: time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := datastore.NewMemory()
				m.Inject(func(c datastore.Call) datastore.Fault {
					if c.Verb == datastore.VerbCreate && c.Key == key("a") {
						return row.fault
					}
					return datastore.Fault{}
				})
				ctx, cancel := context.WithTimeout(t.Context(), row.patient)
				defer cancel()
				start := time.Now()
				if _, err := m.Create(ctx, pool("a")); !errors.Is(err, row.err) {
					t.Errorf("create: %v, want %v", err, row.err)
				}
				if took := time.Since(start); took != row.takes {
					t.Errorf("it took %s, want %s", took, row.takes)
				}
				if _, err := m.Get(t.Context(), key("a")); (err == nil) != row.there {
					t.Errorf("get: %v, want it there: %v", err, row.there)
				}
				m.Inject(nil)
				if _, err := m.Create(t.Context(), pool("b")); err != nil {
					t.Errorf("after the faults: %v", err)
				}
			})
		})
	}
}

func TestMemoryOutage(t *testing.T) {
	m := datastore.NewMemory()
	storetest.Create(t, m, pool("a"))
	f := storetest.Follow(t, m, "IPPool")
	f.Until("all was told", func(v storetest.View) bool { return v.Alls == 1 })
	reason := errors.New("unplugged")

	m.SetDown(reason)
	v := f.Until("Down was told", func(v storetest.View) bool { return v.Down != nil })
	if !errors.Is(v.Down, reason) || !errors.Is(v.Down, datastore.ErrUnavailable) {
		t.Errorf("Down is %v", v.Down)
	}
	if _, err := m.Get(t.Context(), key("a")); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("get: %v, want ErrUnavailable", err)
	}
	m.SetDown(errors.New("still unplugged"))
	m.SetDown(nil)
	v = f.Until("Up was told", func(v storetest.View) bool { return v.Down == nil })
	if v.Alls != 1 || v.Downs != 1 || v.Objects[key("a")] == nil {
		t.Errorf("after a short outage: %+v", v)
	}

	m.SetDown(reason)
	f.Until("Down was told", func(v storetest.View) bool { return v.Down != nil })
	m.Compact()
	m.SetDown(nil)
	v = f.Until("all was told again", func(v storetest.View) bool { return v.Alls == 2 })
	if v.Down != nil || v.Objects[key("a")] == nil {
		t.Errorf("after compaction: %+v", v)
	}
}

func TestBroken(t *testing.T) {
	for _, row := range []struct{ name, data string }{
		{"no JSON", "{"},
		{"wrong type", `{"apiVersion":"cairn.network/v1","kind":"IPPool","metadata":{"name":"x"},"spec":{"cidr":5}}`},
		{"another name", `{"apiVersion":"cairn.network/v1","kind":"IPPool","metadata":{"name":"y"}}`},
		{"another kind", `{"apiVersion":"cairn.network/v1","kind":"Node","metadata":{"name":"x"}}`},
		{"another version", `{"apiVersion":"cairn.network/v9","kind":"IPPool","metadata":{"name":"x"}}`},
		{"empty", ``},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := datastore.NewMemory()
			storetest.Create(t, m, pool("good"))
			before := storetest.Follow(t, m, "IPPool")
			before.Until("all was told", func(v storetest.View) bool { return v.Alls == 1 })
			m.PutRaw(key("x"), []byte(row.data))
			after := storetest.Follow(t, m, "IPPool")
			for _, f := range []*storetest.Follower{before, after} {
				v := f.Until("x was told", func(v storetest.View) bool { return len(v.Broken) == 1 })
				if !errors.Is(v.Broken[key("x")], datastore.ErrBroken) || len(v.Objects) != 1 {
					t.Errorf("told %+v", v)
				}
			}
			if _, err := m.Get(t.Context(), key("x")); !errors.Is(err, datastore.ErrBroken) {
				t.Errorf("get: %v, want ErrBroken", err)
			}
			if got, err := m.List(t.Context(), "IPPool"); !errors.Is(err, datastore.ErrBroken) || len(got) != 1 {
				t.Errorf("list: %d objects, %v; want the other one and ErrBroken", len(got), err)
			}
			if err := m.Delete(t.Context(), key("x"), ""); err != nil {
				t.Errorf("delete: %v", err)
			}
			before.Until("it is gone", func(v storetest.View) bool { return len(v.Broken) == 0 })
		})
	}
	t.Run("unknown fields are passed over", func(t *testing.T) {
		m := datastore.NewMemory()
		m.PutRaw(key("x"), []byte(`{"apiVersion":"cairn.network/v1","kind":"IPPool","metadata":{"name":"x"},"spec":{"cidr":"10.0.0.0/8","new":1}}`))
		if _, err := m.Get(t.Context(), key("x")); err != nil {
			t.Error(err)
		}
	})
}

func TestUpdate(t *testing.T) {
	failure := errors.New("no")
	for _, row := range []struct {
		name     string
		change   func(*v1.IPPool) error
		err      error
		disabled bool // in the store and in the result
	}{
		{name: "change", change: func(p *v1.IPPool) error { p.Spec.Disabled = true; return nil }, disabled: true},
		{name: "nothing", change: func(*v1.IPPool) error { return nil }},
		{name: "abort half-way", change: func(p *v1.IPPool) error { p.Spec.Disabled = true; return datastore.ErrAbort }},
		{name: "failure", change: func(p *v1.IPPool) error { p.Spec.Disabled = true; return failure }, err: failure},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := datastore.NewMemory()
			storetest.Create(t, m, pool("a"))
			got, err := datastore.Update(t.Context(), m, key("a"), row.change)
			if !errors.Is(err, row.err) {
				t.Fatalf("%v, want %v", err, row.err)
			}
			stored, err := m.Get(t.Context(), key("a"))
			if err != nil {
				t.Fatal(err)
			}
			if is := stored.(*v1.IPPool).Spec.Disabled; is != row.disabled {
				t.Errorf("stored disabled: %v, want %v", is, row.disabled)
			}
			if row.err == nil && got.Spec.Disabled != row.disabled {
				t.Errorf("returned disabled: %v, want %v", got.Spec.Disabled, row.disabled)
			}
		})
	}
	t.Run("not found", func(t *testing.T) {
		_, err := datastore.Update(t.Context(), datastore.NewMemory(), key("a"), func(*v1.IPPool) error { return nil })
		if !errors.Is(err, datastore.ErrNotFound) {
			t.Errorf("%v, want ErrNotFound", err)
		}
	})
	t.Run("conflicts without end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := datastore.NewMemory()
			storetest.Create(t, m, pool("a"))
			m.Inject(func(c datastore.Call) datastore.Fault {
				if c.Verb == datastore.VerbUpdate {
					return datastore.Fault{Before: datastore.ErrConflict}
				}
				return datastore.Fault{}
			})
			_, err := datastore.Update(t.Context(), m, key("a"), func(p *v1.IPPool) error { p.Spec.Disabled = true; return nil })
			if !errors.Is(err, datastore.ErrConflict) {
				t.Errorf("%v, want ErrConflict", err)
			}
		})
	})
}
