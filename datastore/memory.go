package datastore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	v1 "cairn.network/cairn/api/v1"
)

// Memory is a Store in memory. It behaves like the real ones, down to what their
// encoding does to objects, and can be made to fail like them.
type Memory struct {
	mu       sync.Mutex
	revision int64
	entries  map[Key]entry
	watches  map[*watch]struct{}
	down     error
	inject   func(Call) Fault
}

// entry is what is kept of an object. It is never changed, only replaced.
type entry struct {
	revision int64
	object   v1.Object // nil when broken
	broken   error
}

// Verb is what a Call does.
type Verb string

// The verbs.
const (
	VerbGet    Verb = "get"
	VerbList   Verb = "list"
	VerbCreate Verb = "create"
	VerbUpdate Verb = "update"
	VerbDelete Verb = "delete"
)

// Call is one call of a Memory. A list has only the key's kind.
type Call struct {
	Verb Verb
	Key  Key
}

// Fault is what goes wrong with a Call. The zero value is nothing.
type Fault struct {
	// Delay is how long the call takes.
	Delay time.Duration
	// Before is returned instead of doing anything.
	Before error
	// After is returned instead of the result: what the call does has happened.
	After error
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{entries: map[Key]entry{}, watches: map[*watch]struct{}{}}
}

// Inject lets f decide the fault of each call from now on; nil ends it. f may be
// called by several goroutines at once.
func (m *Memory) Inject(f func(Call) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inject = f
}

// SetDown makes the store unavailable for that reason, nil available again.
func (m *Memory) SetDown(reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = reason
	for w := range m.watches {
		w.signal()
	}
}

// Compact forgets all history: every watch tells all objects anew.
func (m *Memory) Compact() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.watches {
		w.relist, w.queue = true, nil
		w.signal()
	}
}

// PutRaw stores bytes as another program might, readable or not.
func (m *Memory) PutRaw(key Key, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, data)
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key Key) (v1.Object, error) {
	return m.one(ctx, Call{VerbGet, key}, func() (v1.Object, error) {
		e, err := m.read(key)
		return e.object, err
	})
}

// List implements Store.
func (m *Memory) List(ctx context.Context, kind string) ([]v1.Object, error) {
	var objects []v1.Object
	var broken []error
	err := m.call(ctx, Call{VerbList, Key{Kind: kind}}, func() error {
		for key, e := range m.entries {
			switch {
			case key.Kind != kind:
			case e.broken != nil:
				broken = append(broken, fmt.Errorf("%s: %w", key, e.broken))
			default:
				objects = append(objects, e.object.DeepCopyObject().(v1.Object))
			}
		}
		return CheckKind(kind)
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	SortByKey(objects)
	return objects, errors.Join(broken...)
}

// Create implements Store.
func (m *Memory) Create(ctx context.Context, o v1.Object) (v1.Object, error) {
	key := KeyOf(o)
	return m.one(ctx, Call{VerbCreate, key}, func() (v1.Object, error) {
		if err := key.Check(); err != nil {
			return nil, err
		}
		if _, ok := m.entries[key]; ok {
			return nil, ErrExists
		}
		return m.write(key, Stamp(o, time.Now()))
	})
}

// Update implements Store.
func (m *Memory) Update(ctx context.Context, o v1.Object) (v1.Object, error) {
	key := KeyOf(o)
	return m.one(ctx, Call{VerbUpdate, key}, func() (v1.Object, error) {
		if o.GetResourceVersion() == "" {
			return nil, errors.New("resourceVersion is empty")
		}
		e, err := m.read(key)
		if err != nil {
			return nil, err
		}
		if o.GetResourceVersion() != e.object.GetResourceVersion() {
			return nil, ErrConflict
		}
		next, changed, err := Amend(e.object, o)
		if err != nil || !changed {
			return e.object, err
		}
		return m.write(key, next)
	})
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, key Key, revision string) error {
	err := m.call(ctx, Call{VerbDelete, key}, func() error {
		if err := key.Check(); err != nil {
			return err
		}
		e, ok := m.entries[key]
		if !ok {
			return ErrNotFound
		}
		if revision != "" && revision != strconv.FormatInt(e.revision, 10) {
			return ErrConflict
		}
		m.revision++
		delete(m.entries, key)
		m.tell(key.Kind, Event{Deleted: key})
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// one does a call whose result is a copy of one object.
func (m *Memory) one(ctx context.Context, c Call, do func() (v1.Object, error)) (v1.Object, error) {
	var o v1.Object
	err := m.call(ctx, c, func() (err error) {
		o, err = do()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", c.Verb, c.Key, err)
	}
	return o.DeepCopyObject().(v1.Object), nil
}

// call does a call under the lock, with its faults.
func (m *Memory) call(ctx context.Context, c Call, do func() error) error {
	m.mu.Lock()
	inject := m.inject
	m.mu.Unlock()
	var fault Fault
	if inject != nil {
		fault = inject(c)
	}
	if err := cmp.Or(pause(ctx, fault.Delay), ctx.Err()); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if fault.Before != nil {
		return fault.Before
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, m.down)
	}
	if err := do(); err != nil {
		return err
	}
	return fault.After
}

func (m *Memory) read(key Key) (entry, error) {
	if err := key.Check(); err != nil {
		return entry{}, err
	}
	e, ok := m.entries[key]
	if !ok {
		return entry{}, ErrNotFound
	}
	return e, e.broken
}

func (m *Memory) write(key Key, o v1.Object) (v1.Object, error) {
	data, err := Encode(o)
	if err != nil {
		return nil, err
	}
	e := m.put(key, data)
	return e.object, e.broken
}

func (m *Memory) put(key Key, data []byte) entry {
	m.revision++
	e := entry{revision: m.revision}
	e.object, e.broken = Decode(key, strconv.FormatInt(m.revision, 10), data)
	m.entries[key] = e
	if e.broken != nil {
		m.tell(key.Kind, Event{Broken: map[Key]error{key: e.broken}})
	} else {
		m.tell(key.Kind, Event{Set: e.object})
	}
	return e
}
