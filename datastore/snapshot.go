package datastore

import (
	"cmp"
	"iter"
	"reflect"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/immutable"
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
func (s *Snapshot) Issues() []v1.Issue { return slices.Clip(s.issues) }

// Get returns an object, such as Get[*v1.Node](s, "", "n1").
func Get[T v1.Object](s *Snapshot, namespace, name string) (T, bool) {
	kind := KindOf[T]()
	o, ok := s.kinds[kind].get(Key{Kind: kind, Namespace: namespace, Name: name}).(T)
	return o, ok
}

// All returns the objects of a type, such as All[*v1.Node](s), in no order.
func All[T v1.Object](s *Snapshot) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, o := range s.kinds[KindOf[T]()].objects().All() {
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

// KindOf returns the kind of a resource type: by convention the type's name.
func KindOf[T v1.Object]() string { return reflect.TypeFor[T]().Elem().Name() }

// Changed returns what differs between two parts of one kind: each object as it
// was in old (nil: it was not there) and as it is in new (nil: it is gone), in no
// order. What the parts share, because the one came from the other by changes, is
// not looked at. Both must be of type T.
func Changed[T v1.Object](old, new *Part) iter.Seq2[T, T] {
	return func(yield func(was, is T) bool) {
		for k := range immutable.Diff(old.objects(), new.objects()) {
			was, _ := old.get(k).(T)
			is, _ := new.get(k).(T)
			if !yield(was, is) {
				return
			}
		}
	}
}

// Part is all objects of one kind in a Snapshot. The same pointer means that no
// object of the kind changed. The nil Part is empty.
type Part struct {
	held immutable.Map[Key, v1.Object]
}

// Len returns the number of objects.
func (p *Part) Len() int { return p.objects().Len() }

func (p *Part) objects() immutable.Map[Key, v1.Object] {
	if p == nil {
		return immutable.Map[Key, v1.Object]{}
	}
	return p.held
}

func (p *Part) get(k Key) v1.Object { return p.objects().At(k) }

// with returns the part in which these objects are set or, when nil, deleted:
// p itself when that changes nothing, nil when no object is left.
func (p *Part) with(changes map[Key]v1.Object) *Part {
	edit := p.objects().Edit()
	for k, o := range changes {
		if o == nil {
			edit.Delete(k)
		} else {
			edit.Set(k, o)
		}
	}
	switch next := edit.Map(); {
	case next.Len() == 0:
		return nil
	case next == p.objects():
		return p
	default:
		return &Part{held: next}
	}
}
