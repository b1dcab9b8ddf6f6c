package reconcile

import (
	"context"
	"maps"
	"slices"
	"time"
)

// naive is a tracker that walks everything each time, and so is easily seen to be
// right.
type naive struct {
	table     Table[string, int]
	voids     *naive
	phase     time.Duration
	want      map[string]int
	keep      func(string, int) bool
	known     map[string]int // nil: never read
	doubt     bool
	failed    map[string]Failure
	whole     Failure
	reading   bool
	writing   map[string]*int
	later     []func()
	disturbed map[string]bool
	foreign   uint64
	writes    uint64
}

func (n *naive) setWant(want map[string]int, keep func(string, int) bool) {
	for k := range n.failed {
		old, was := n.want[k]
		now, is := want[k]
		if was != is || old != now {
			delete(n.failed, k)
			n.doubt = true
		}
	}
	n.want, n.keep = want, keep
}

func (n *naive) note(k string, v *int) bool {
	old, there := n.known[k]
	switch {
	case v == nil && there:
		delete(n.known, k)
	case v != nil && (!there || old != *v) && n.known != nil:
		n.known[k] = *v
	default:
		return false
	}
	return true
}

func (n *naive) observe(k string, v *int) bool {
	if n.reading || n.writing != nil {
		n.later = append(n.later, func() { n.note(k, v) })
	}
	news := n.note(k, v)
	if written, busy := n.writing[k]; busy {
		news = (v == nil) != (written == nil) || v != nil && *v != *written
	}
	if !news || n.doubt || n.reading {
		return false
	}
	n.disturbed[k] = true
	return true
}

func (n *naive) forget(f func(string, int) bool) {
	maps.DeleteFunc(n.known, f)
	if n.reading || n.writing != nil {
		n.later = append(n.later, func() { maps.DeleteFunc(n.known, f) })
	}
}

func (n *naive) wrong(k string) bool {
	want, wanted := n.want[k]
	have, there := n.known[k]
	if there && !wanted {
		return n.keep == nil || !n.keep(k, have)
	}
	return wanted != there || want != have
}

// wrongs returns the keys that are wrong and may be tried, wanted ones or others.
func (n *naive) wrongs(wanted bool, now time.Time) map[string]*int {
	keys := map[string]*int{}
	for _, m := range []map[string]int{n.want, n.known} {
		for k := range m {
			v, want := n.want[k]
			switch {
			case want != wanted || !n.wrong(k) || now.Before(n.failed[k].Retry):
			case want:
				keys[k] = &v
			default:
				keys[k] = nil
			}
		}
	}
	return keys
}

func (n *naive) set(ctx context.Context) error {
	now := time.Now()
	if now.Before(n.whole.Retry) {
		return n.whole.Err
	}
	for _, f := range n.failed {
		n.doubt = n.doubt || !now.Before(f.Retry)
	}
	if n.doubt {
		n.doubt, n.reading = false, true
		known, err := n.table.Read(ctx)
		n.reading = false
		if err != nil {
			n.doubt = true
		} else {
			n.known = known
		}
		n.catchUp()
		if err != nil {
			n.whole = n.whole.failed(err, now, n.phase)
			return err
		}
	}
	maps.DeleteFunc(n.failed, func(k string, _ Failure) bool { return !n.wrong(k) })
	for k := range n.disturbed {
		if n.wrong(k) {
			n.foreign++
		}
	}
	clear(n.disturbed)
	aims := n.wrongs(true, now)
	if len(aims) == 0 {
		n.whole = Failure{}
	}
	return n.write(ctx, aims, now)
}

func (n *naive) del(ctx context.Context) error {
	if n.doubt {
		return nil
	}
	return n.write(ctx, n.wrongs(false, time.Now()), time.Now())
}

func (n *naive) write(ctx context.Context, aims map[string]*int, now time.Time) error {
	if len(aims) == 0 {
		return nil
	}
	set, del := map[string]int{}, []string{}
	for k, v := range aims {
		if v == nil {
			del = append(del, k)
		} else {
			set[k] = *v
		}
	}
	n.writing = aims
	err := n.table.Write(ctx, set, del)
	if n.voids != nil {
		n.voids.doubt = true
		if err == nil {
			clear(n.voids.failed)
			n.voids.whole = Failure{}
		}
	}
	n.writing = nil
	defer n.catchUp()
	failed, whole := split[string](err)
	if whole != nil {
		n.doubt = true
		n.whole = n.whole.failed(whole, now, n.phase)
		return whole
	}
	n.whole = Failure{}
	for k, v := range aims {
		n.writes++
		switch {
		case failed[k] != nil:
			n.failed[k] = n.failed[k].failed(failed[k], now, n.phase)
			continue
		case v == nil:
			delete(n.known, k)
		default:
			n.known[k] = *v
		}
		delete(n.failed, k)
	}
	return nil
}

func (n *naive) catchUp() {
	for _, f := range n.later {
		f()
	}
	n.later = nil
}

func (n *naive) status() Status {
	s := Status{Wanted: len(n.want), Failed: len(n.failed), Writes: n.writes, Foreign: n.foreign}
	for k, v := range n.want {
		if have, ok := n.known[k]; ok && have == v {
			s.Applied++
		}
	}
	return s
}

func (n *naive) retry(start time.Time) time.Time {
	var at time.Time
	for _, f := range slices.AppendSeq([]Failure{n.whole}, maps.Values(n.failed)) {
		if f.Retry.After(start) && (at.IsZero() || f.Retry.Before(at)) {
			at = f.Retry
		}
	}
	return at
}
