// Package datastore is the seam to where Cairn's resources are kept, and the
// mirror of them that an agent computes from.
//
// It guarantees compare-and-swap on every object, and that a Snapshot is a
// consistent, immutable value published only when every kind in it is in sync.
// The drivers are datastore/etcd and, later, datastore/kube; Memory behaves like
// them; storetest holds the one suite that all of them pass.
package datastore

import (
	"context"
	"errors"
	"fmt"

	v1 "cairn.network/cairn/api/v1"
)

// Sentinels of the seam, for errors.Is.
var (
	// ErrNotFound says that there is no object with the key.
	ErrNotFound = errors.New("not found")
	// ErrExists says that an object to be created is there already.
	ErrExists = errors.New("already exists")
	// ErrConflict says that the object's revision is not the one asked for.
	ErrConflict = errors.New("changed meanwhile")
	// ErrUnavailable says that the store can't be reached or does not answer; a
	// write may have happened or not.
	ErrUnavailable = errors.New("datastore unavailable")
	// ErrDenied says that the store refuses the caller (credentials, rights).
	ErrDenied = errors.New("access denied")
	// ErrBroken says that what the store holds for the key can't be read as a
	// resource. Deleting it is possible, nothing else is.
	ErrBroken = errors.New("unreadable")
)

// Key names an object.
type Key struct {
	Kind      string // such as IPPool
	Namespace string // "" for cluster-scoped kinds
	Name      string
}

func (k Key) String() string {
	if k.Namespace == "" {
		return fmt.Sprintf("%s %s", k.Kind, k.Name)
	}
	return fmt.Sprintf("%s %s/%s", k.Kind, k.Namespace, k.Name)
}

// KeyOf returns the key of a resource.
func KeyOf(o v1.Object) Key {
	return Key{Kind: v1.KindOf(o), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Store keeps resources. An object's revision is its ResourceVersion, a text
// that only the store understands. Objects handed out are the caller's; objects
// handed in are not kept. Objects come out with their defaults filled in.
//
// Stores do not validate (the doors do), but they refuse an object without kind
// or name, and keep metadata.uid, creationTimestamp and generation as
// Kubernetes does: the first two are set on creation and never change,
// generation counts changes of anything but metadata and status.
//
// Each call ends within a time that the driver bounds, with ErrUnavailable.
type Store interface {
	// Get returns the object, or ErrNotFound, or ErrBroken.
	Get(ctx context.Context, key Key) (v1.Object, error)
	// List returns every object of the kind, ordered by namespace and name. With
	// an error that is ErrBroken come all those that can be read.
	List(ctx context.Context, kind string) ([]v1.Object, error)
	// Create adds the object, or returns ErrExists. The result carries the new
	// revision; what o says of its revision, uid, creationTimestamp and
	// generation does not count.
	Create(ctx context.Context, o v1.Object) (v1.Object, error)
	// Update replaces the object if its revision is still o's ResourceVersion,
	// else it returns ErrConflict, or ErrNotFound. An empty ResourceVersion is an
	// error; another uid than the stored one is a conflict. The result carries the
	// new revision; an update that changes nothing writes nothing and returns the
	// old one.
	Update(ctx context.Context, o v1.Object) (v1.Object, error)
	// Delete removes the object if its revision is still the given one ("" for
	// any), else ErrConflict or ErrNotFound.
	Delete(ctx context.Context, key Key, revision string) error
	// Watch tells f first of all objects of the kind, then of each change, in
	// order, until ctx is done; then it returns nil. It makes good by itself every
	// loss of the connection, and when changes were missed (compaction) it tells
	// all objects again. It returns an error only if trying again can't help.
	// States in between may be skipped. f must not block; what it is given is
	// shared and must not be changed.
	Watch(ctx context.Context, kind string, f func(Event)) error
}

// Event is a message of a Watch.
type Event struct {
	// All, when not nil, is every object there is now: whatever was told before
	// is void. Of the other fields only Broken may come with it.
	All []v1.Object
	// Set is an object that was created or changed; nil when one was deleted.
	Set v1.Object
	// Deleted is the key of the deleted object.
	Deleted Key
	// Broken holds the objects that can't be read, and why: with All every one
	// there is, else one that was written just now. They count as not there; Set
	// or Deleted of the same key ends it.
	Broken map[Key]error
	// Down, when not nil, says that the store can't be reached and why; the
	// objects told so far stay what they were. The next message of another sort
	// ends it.
	Down error
	// Up says that the store is reached again after Down, and nothing else.
	Up bool
}
