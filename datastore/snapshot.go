package datastore

import (
	"cmp"
	"iter"
	"maps"
	"reflect"
	"slices"

	v1 "cairn.network/cairn/api/v1"
)

// Snapshot is all mirrored resources at one moment, every kind in sync. It is
// immutable: neither it nor the objects in it may be changed.
type Snapshot struct {
	kinds  map[string]*Part
	issues []v1.Issue
}

// NewSnapshot returns the snapshot that holds these objects.
func NewSnapshot(objects ...v1.Object) *Snapshot {
	changes := map[string]map[Key]v1.Object{}
	for _, o := range objects {
		k := KeyOf(o)
		if changes[k.Kind] == nil {
			changes[k.Kind] = map[Key]v1.Object{}
		}
		changes[k.Kind][k] = o
	}
	s := &Snapshot{kinds: map[string]*Part{}}
	for kind, c := range changes {
		s.kinds[kind] = (*Part)(nil).with(c)
	}
	return s
}

// Part returns the objects of a kind; nil if there are none.
func (s *Snapshot) Part(kind string) *Part { return s.kinds[kind] }

// Issues returns what the store holds and nobody can read, ordered by object.
func (s *Snapshot) Issues() []v1.Issue { return s.issues }

// Get returns an object, such as Get[*v1.Node](s, "", "n1").
func Get[T v1.Object](s *Snapshot, namespace, name string) (T, bool) {
	kind := kindOf[T]()
	o, ok := s.kinds[kind].get(Key{Kind: kind, Namespace: namespace, Name: name}).(T)
	return o, ok
}

// All returns the objects of a type, such as All[*v1.Node](s), in no order.
func All[T v1.Object](s *Snapshot) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, o := range s.kinds[kindOf[T]()].all() {
			if t, ok := o.(T); ok && !yield(t) {
				return
			}
		}
	}
}

// Sorted returns the objects of a type ordered by namespace and name.
func Sorted[T v1.Object](s *Snapshot) []T { return slices.SortedFunc(All[T](s), byName[T]) }

func byName[T v1.Object](a, b T) int {
	return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

// kindOf returns the kind of a resource type: by convention the type's name.
func kindOf[T v1.Object]() string { return reflect.TypeFor[T]().Elem().Name() }

// shards is how many maps a Part is spread over, so that a change to one object
// copies only a small one of them.
const shards = 256

// Part is all objects of one kind in a Snapshot. The same pointer means that no
// object of the kind changed. The nil Part is empty.
type Part struct {
	shards [shards]map[Key]v1.Object
	len    int
}

// Len returns the number of objects.
func (p *Part) Len() int {
	if p == nil {
		return 0
	}
	return p.len
}

func (p *Part) get(k Key) v1.Object {
	if p == nil {
		return nil
	}
	return p.shards[shardOf(k)][k]
}

func (p *Part) all() iter.Seq2[Key, v1.Object] {
	return func(yield func(Key, v1.Object) bool) {
		if p == nil {
			return
		}
		for _, shard := range p.shards {
			for k, o := range shard {
				if !yield(k, o) {
					return
				}
			}
		}
	}
}

// with returns the part in which these objects are set or, when nil, deleted:
// p itself when that changes nothing, nil when no object is left.
func (p *Part) with(changes map[Key]v1.Object) *Part {
	next := p
	var copied [shards]bool
	for k, o := range changes {
		old := p.get(k)
		if old == o {
			continue
		}
		if next == p {
			next = &Part{}
			if p != nil {
				*next = *p
			}
		}
		i := shardOf(k)
		if !copied[i] {
			copied[i] = true
			if next.shards[i] = maps.Clone(next.shards[i]); next.shards[i] == nil {
				next.shards[i] = map[Key]v1.Object{}
			}
		}
		switch {
		case o == nil:
			delete(next.shards[i], k)
			next.len--
		default:
			next.shards[i][k] = o
			if old == nil {
				next.len++
			}
		}
	}
	if next.Len() == 0 {
		return nil
	}
	return next
}

// shardOf returns the index of the map that holds k: FNV-1a of its names.
func shardOf(k Key) uint8 {
	h := uint32(2166136261)
	for _, s := range [...]string{k.Namespace, k.Name} {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
	}
	return uint8(h ^ h>>8 ^ h>>16 ^ h>>24)
}
