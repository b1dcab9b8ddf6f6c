package immutable

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is what a map should hold.
type model map[int]int

func check(t interface{ Fatalf(string, ...any) }, m Map[int, int], want model) {
	if got := m.Plain(); !maps.Equal(got, want) || m.Len() != len(want) {
		t.Fatalf("map holds %v (Len %d), want %v", got, m.Len(), want)
	}
	for k, v := range want {
		if got, ok := m.Get(k); !ok || got != v || !m.Has(k) || m.At(k) != v {
			t.Fatalf("Get(%d) = %d, %t, want %d", k, got, ok, v)
		}
	}
}

// TestAnyEdits compares with a map of Go, and sees that earlier maps stay.
func TestAnyEdits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var history []Map[int, int]
		var models []model
		e, now := (&Editor[int, int]{}), model{}
		steps := rapid.IntRange(1, 200).Draw(t, "steps")
		for range steps {
			k, v := rapid.IntRange(0, 100).Draw(t, "key"), rapid.IntRange(0, 3).Draw(t, "value")
			switch rapid.IntRange(0, 5).Draw(t, "op") {
			case 0, 1, 2:
				e.Set(k, v)
				now[k] = v
			case 3, 4:
				e.Delete(k)
				delete(now, k)
			case 5:
				history, models = append(history, e.Map()), append(models, maps.Clone(now))
			}
			if e.Len() != len(now) {
				t.Fatalf("editor has %d keys, want %d", e.Len(), len(now))
			}
		}
		history, models = append(history, e.Map()), append(models, now)
		for i, m := range history {
			check(t, m, models[i])
			for j, o := range history {
				var want []int
				for k := range 101 {
					a, inA := models[i][k]
					b, inB := models[j][k]
					if inA != inB || a != b {
						want = append(want, k)
					}
				}
				if got := slices.Sorted(Diff(m, o)); !slices.Equal(got, want) {
					t.Fatalf("Diff = %v, want %v", got, want)
				}
				if Equal(m, o) != (len(want) == 0) {
					t.Fatalf("Equal = %t with a difference of %v", Equal(m, o), want)
				}
				shared := Share(m, o)
				check(t, shared, models[i])
				if (shared == o) != (len(want) == 0) {
					t.Fatalf("Share is the other: %t with a difference of %v", shared == o, want)
				}
				if got := slices.Sorted(Diff(shared, o)); !slices.Equal(got, want) {
					t.Fatalf("Diff after Share = %v, want %v", got, want)
				}
			}
		}
	})
}

// unshared returns how many nodes of a map the other has not.
func unshared(m, other Map[int, int]) int {
	theirs := map[*node[int, int]]bool{}
	count := 0
	var walk func(n *node[int, int], visit func(*node[int, int]))
	walk = func(n *node[int, int], visit func(*node[int, int])) {
		if n == nil {
			return
		}
		visit(n)
		for _, c := range n.children {
			walk(c, visit)
		}
	}
	walk(other.root, func(n *node[int, int]) { theirs[n] = true })
	walk(m.root, func(n *node[int, int]) {
		if !theirs[n] {
			count++
		}
	})
	return count
}

// TestShare holds that maps made by different ways have in common all but the
// paths to what differs.
func TestShare(t *testing.T) {
	const size = 20_000
	build := func(first, step int) Map[int, int] {
		var e Editor[int, int]
		for i := range 2 * size { // the odd half comes and goes again
			e.Set((first+i*step)%(2*size), i)
		}
		for i := range size {
			e.Set(2*i, i)
			e.Delete(2*i + 1)
		}
		return e.Map()
	}
	a, b := build(0, 1), build(7, 3)
	if unshared(a, b) < size/32 {
		t.Fatal("the maps have nodes in common from the start")
	}
	if Share(a, b) != b {
		t.Error("what holds the same is not the same map")
	}
	for name, other := range map[string]Map[int, int]{
		"a value differs": b.With(0, -1), "a key more": b.With(1, 1), "a key less": b.Without(0),
	} {
		shared := Share(a, other)
		if n := unshared(shared, other); !Equal(shared, a) || n == 0 || n > 6 {
			t.Errorf("%s: equal %t, %d nodes not in common", name, Equal(shared, a), n)
		}
	}
	for name, other := range map[string]Map[int, int]{"the same": a, "empty": {}} {
		if Share(a, other) != a {
			t.Errorf("%s: another map, though there is nothing to share", name)
		}
		if Share(other, a) != other {
			t.Errorf("with %s: another map, though there is nothing to share", name)
		}
	}
	// What was shared can be edited without a trace in where it came from.
	e := Share(a, b.With(0, -1)).Edit()
	for i := range 2 * size {
		e.Set(i, -2)
	}
	if !Equal(a, b) {
		t.Error("an edit of a shared map changed the original")
	}
}

// FuzzEdits drives an editor by bytes: an operation and a key each, with earlier
// maps taken now and then.
func FuzzEdits(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add([]byte{1, 2, 3, 0x82, 1, 0x81, 0x83}, uint8(1))
	f.Add([]byte("the quick brown fox jumps over the lazy dog"), uint8(7))
	f.Fuzz(func(t *testing.T, ops []byte, spread uint8) {
		var e Editor[int, int]
		now := model{}
		var taken []Map[int, int]
		var models []model
		for i, op := range ops {
			k := int(op&0x7f) << (spread % 32)
			if op&0x80 == 0 {
				e.Set(k, i%3)
				now[k] = i % 3
			} else {
				e.Delete(k)
				delete(now, k)
			}
			if i%5 == 0 && len(taken) < 10 {
				taken, models = append(taken, e.Map()), append(models, maps.Clone(now))
			}
		}
		taken, models = append(taken, e.Map()), append(models, now)
		last := taken[len(taken)-1]
		for i, m := range taken {
			check(t, m, models[i])
			shared := Share(m, last)
			check(t, shared, models[i])
			if Equal(m, last) != (shared == last) || Equal(m, last) != maps.Equal(models[i], now) {
				t.Fatalf("map %d: Equal %t, shared is the last: %t", i, Equal(m, last), shared == last)
			}
		}
	})
}

// TestNoChangeIsTheSameMap: == must tell that nothing changed.
func TestNoChangeIsTheSameMap(t *testing.T) {
	m := Of(map[int]int{1: 1, 2: 2, 3: 3})
	for name, other := range map[string]Map[int, int]{
		"equal value": m.With(2, 2), "absent key": m.Without(9), "no edit": m.Edit().Map(),
	} {
		if other != m {
			t.Errorf("%s: another map", name)
		}
	}
	if m.With(2, 3) == m || m.Without(2) == m {
		t.Error("a change gave the same map")
	}
	if (Map[int, int]{}) != m.Without(1).Without(2).Without(3) {
		t.Error("a map that was emptied is not the zero Map")
	}
}

// TestCollisions drives the trie with hashes that differ late or not at all.
func TestCollisions(t *testing.T) {
	same := func(int) uint64 { return 42 }
	late := func(k int) uint64 { return uint64(k) << 58 }
	for name, h := range map[string]func(int) uint64{"same": same, "late": late} {
		t.Run(name, func(t *testing.T) {
			o := new(owner)
			var n *node[int, int]
			// Entries that move down are hashed anew, so all go in below the levels that
			// the real hash tells apart.
			level := levels
			for k := range 10 {
				n, _ = n.set(o, k, k, h(k), level)
			}
			for k := range 10 {
				if v, ok := n.get(k, h(k), level); !ok || v != k {
					t.Errorf("get(%d) = %d, %t", k, v, ok)
				}
			}
			other, removed := n.remove(new(owner), 3, h(3), level)
			if !removed {
				t.Error("3 was not removed")
			}
			if _, ok := n.get(3, h(3), level); !ok {
				t.Error("3 vanished from the node that was not the editor's")
			}
			var got []int
			diff(n, other, level, func(k int) bool { got = append(got, k); return true })
			if !slices.Equal(got, []int{3}) {
				t.Errorf("diff = %v, want 3", got)
			}
			got = nil
			diff(other, n, level, func(k int) bool { got = append(got, k); return true })
			if !slices.Equal(got, []int{3}) {
				t.Errorf("diff the other way = %v, want 3", got)
			}
			if share(other, n) != other {
				t.Error("nodes that differ were shared")
			}
			back, _ := other.set(new(owner), 3, 3, h(3), level)
			got = nil
			diff(n, back, level, func(k int) bool { got = append(got, k); return true })
			if got != nil {
				t.Errorf("diff of the same in another order = %v", got)
			}
			if again, _ := n.set(new(owner), 3, 3, h(3), level); again != n {
				t.Error("a set that changes nothing made another node")
			}
		})
	}
}

// TestBuildCollisions builds from hashes that differ early, late or not at all, with keys
// that are there twice.
func TestBuildCollisions(t *testing.T) {
	for name, h := range map[string]func(int) uint64{
		"early": func(k int) uint64 { return uint64(k) }, "late": func(k int) uint64 { return uint64(k) << 58 },
		"same": func(int) uint64 { return 42 },
	} {
		t.Run(name, func(t *testing.T) {
			b := builder[int, int]{owner: new(owner)}
			var pairs []pair[int, int]
			for k := range 100 {
				pairs = append(pairs, pair[int, int]{h(k % 60), entry[int, int]{k % 60, k}})
			}
			n := b.node(pairs, make([]pair[int, int], len(pairs)), 0)
			if b.size != 60 {
				t.Errorf("%d keys, want 60", b.size)
			}
			for k := range 60 {
				want := k
				if k < 40 {
					want = k + 60 // set later
				}
				if v, ok := n.get(k, h(k), 0); !ok || v != want {
					t.Errorf("get(%d) = %d, %t, want %d", k, v, ok, want)
				}
			}
		})
	}
}

// TestDiffStops: a consumer that has seen enough gets no more.
func TestDiffStops(t *testing.T) {
	a, b := Map[int, int]{}, Map[int, int]{}
	for k := range 1000 {
		b = b.With(k, k)
	}
	n := 0
	for range Diff(a, b) {
		if n++; n == 3 {
			break
		}
	}
	for range b.All() {
		if n++; n == 6 {
			break
		}
	}
	if n != 6 {
		t.Errorf("%d steps, want 6", n)
	}
}

func BenchmarkOneChange(b *testing.B) {
	for _, size := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			plain := map[string]int{}
			for i := range size {
				plain[fmt.Sprint(i)] = i
			}
			m := Of(plain)
			for i := 0; b.Loop(); i++ {
				next := m.With("0", i)
				for range Diff(m, next) {
				}
				m = next
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		var e Editor[int, int]
		for i := range 10_000 {
			e.Set(i, i)
		}
		e.Map()
	}
}
