package datastore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	v1 "cairn.network/cairn/api/v1"
)

// What follows is what drivers without an API server have in common: they keep
// JSON under a key and do themselves what Kubernetes does to metadata.

// Check refuses a key that no object can have: of an unknown kind, without a
// name, in the wrong scope, or with a slash, which separates the parts of keys.
func (k Key) Check() error {
	kind, ok := kindByName(k.Kind)
	switch {
	case k.Kind == "":
		return errors.New("object without kind")
	case !ok:
		return CheckKind(k.Kind)
	case k.Name == "":
		return fmt.Errorf("%s without name", k.Kind)
	case strings.Contains(k.Name, "/"), strings.Contains(k.Namespace, "/"):
		return fmt.Errorf("%s: slash in name or namespace", k)
	case kind.Namespaced && k.Namespace == "":
		return fmt.Errorf("%s without namespace", k)
	case !kind.Namespaced && k.Namespace != "":
		return fmt.Errorf("%s: a %s has no namespace", k, k.Kind)
	}
	return nil
}

// CheckKind refuses the name of a kind that does not exist.
func CheckKind(kind string) error {
	if _, ok := kindByName(kind); !ok {
		return fmt.Errorf("unknown kind %q", kind)
	}
	return nil
}

// kindByName returns the kind with exactly this name.
func kindByName(name string) (v1.Kind, bool) {
	k, ok := v1.KindByName(name)
	return k, ok && k.Name == name
}

// Stamp returns the copy of o that a Create stores: with a new uid, created
// now, in its first generation, without a revision.
func Stamp(o v1.Object, now time.Time) v1.Object {
	c := o.DeepCopyObject().(v1.Object)
	c.SetUID(uuid.NewUUID())
	c.SetCreationTimestamp(metav1.NewTime(now.Truncate(time.Second)))
	c.SetGeneration(1)
	c.SetResourceVersion("")
	return c
}

// Amend returns the copy of o that an Update stores in the place of old,
// without a revision, and whether it differs from old at all.
func Amend(old, o v1.Object) (next v1.Object, changed bool, err error) {
	if o.GetUID() != "" && o.GetUID() != old.GetUID() {
		return nil, false, fmt.Errorf("%w: uid %s is another object's", ErrConflict, o.GetUID())
	}
	next = o.DeepCopyObject().(v1.Object)
	next.SetUID(old.GetUID())
	next.SetCreationTimestamp(old.GetCreationTimestamp())
	next.SetGeneration(old.GetGeneration())
	next.SetResourceVersion("")

	before, err := fields(old)
	if err != nil {
		return nil, false, err
	}
	after, err := fields(next)
	if err != nil {
		return nil, false, err
	}
	if maps.EqualFunc(before, after, bytes.Equal) {
		return next, false, nil
	}
	delete(before, "metadata")
	delete(after, "metadata")
	delete(before, "status")
	delete(after, "status")
	if !maps.EqualFunc(before, after, bytes.Equal) {
		next.SetGeneration(old.GetGeneration() + 1)
	}
	return next, true, nil
}

// fields returns the object's fields as they are stored.
func fields(o v1.Object) (map[string][]byte, error) {
	data, err := Encode(o)
	if err != nil {
		return nil, err
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(raw))
	for name, value := range raw {
		out[name] = value
	}
	return out, nil
}

// Encode returns the object as it is stored: JSON with defaults and without
// the revision, which the store knows.
func Encode(o v1.Object) ([]byte, error) {
	c := o.DeepCopyObject().(v1.Object)
	c.Default()
	c.SetResourceVersion("")
	return json.Marshal(c)
}

// Decode is the inverse of Encode. What isn't an object with that key is
// ErrBroken. Unknown fields are passed over: a newer version may have written
// them, and an upgrade must not stop the nodes that wait for theirs.
func Decode(key Key, revision string, data []byte) (v1.Object, error) {
	kind, ok := kindByName(key.Kind)
	if !ok {
		return nil, fmt.Errorf("%w: unknown kind", ErrBroken)
	}
	o := kind.New()
	if err := json.Unmarshal(data, o); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if gvk := o.GetObjectKind().GroupVersionKind(); gvk.GroupVersion() != kind.GroupVersionKind().GroupVersion() {
		return nil, fmt.Errorf("%w: its apiVersion is %q, not %s", ErrBroken, gvk.GroupVersion(), kind.APIVersion())
	}
	if is := KeyOf(o); is != key {
		return nil, fmt.Errorf("%w: it says that it is %s", ErrBroken, is)
	}
	o.Default()
	o.SetResourceVersion(revision)
	return o, nil
}

// SortByKey orders objects of one kind by namespace and name.
func SortByKey(objects []v1.Object) { slices.SortFunc(objects, byName[v1.Object]) }
