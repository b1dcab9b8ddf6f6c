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
type Snapshot struct{ kinds map[string]*Part }

// Part is all objects of one kind in a Snapshot. The same pointer means that no
// object of the kind changed.
type Part struct{ objects map[Key]v1.Object }

// NewSnapshot returns the snapshot that holds these objects.
func NewSnapshot(objects ...v1.Object) *Snapshot {
	s := &Snapshot{kinds: map[string]*Part{}}
	for _, o := range objects {
		k := KeyOf(o)
		if s.kinds[k.Kind] == nil {
			s.kinds[k.Kind] = &Part{objects: map[Key]v1.Object{}}
		}
		s.kinds[k.Kind].objects[k] = o
	}
	return s
}

// Part returns the objects of a kind; nil if there are none.
func (s *Snapshot) Part(kind string) *Part { return s.kinds[kind] }

// Get returns an object, such as Get[*v1.Node](s, "", "n1").
func Get[T v1.Object](s *Snapshot, namespace, name string) (T, bool) {
	var none T
	kind := kindOf[T]()
	p := s.kinds[kind]
	if p == nil {
		return none, false
	}
	o, ok := p.objects[Key{Kind: kind, Namespace: namespace, Name: name}].(T)
	return o, ok
}

// All returns the objects of a type, such as All[*v1.Node](s), in no order.
func All[T v1.Object](s *Snapshot) iter.Seq[T] {
	return func(yield func(T) bool) {
		p := s.kinds[kindOf[T]()]
		if p == nil {
			return
		}
		for _, o := range p.objects {
			if t, ok := o.(T); ok && !yield(t) {
				return
			}
		}
	}
}

// Sorted returns the objects of a type ordered by namespace and name.
func Sorted[T v1.Object](s *Snapshot) []T {
	return slices.SortedFunc(All[T](s), func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// with returns the snapshot in which one object is set or, when nil, deleted.
func (s *Snapshot) with(key Key, o v1.Object) *Snapshot {
	part := &Part{objects: map[Key]v1.Object{}}
	if old := s.kinds[key.Kind]; old != nil {
		part.objects = maps.Clone(old.objects)
	}
	if o == nil {
		delete(part.objects, key)
	} else {
		part.objects[key] = o
	}
	next := &Snapshot{kinds: maps.Clone(s.kinds)}
	next.kinds[key.Kind] = part
	return next
}

// kindOf returns the kind of a resource type: by convention the type's name.
func kindOf[T v1.Object]() string { return reflect.TypeFor[T]().Elem().Name() }
