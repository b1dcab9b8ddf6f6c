package kernel

import (
	"context"
	"errors"
	"fmt"
)

// Table is a kind of object in the world outside: routes, sysctls, BGP peers.
// It is the one seam between what Cairn wants and what is; every driver and
// every fake implements it.
//
// Keys and values are comparable and canonical: two values that mean the same
// are equal, so a difference is always work to do.
type Table[K, V comparable] interface {
	// Read returns every object that is Cairn's, and no others. The map belongs
	// to the caller.
	Read(ctx context.Context) (map[K]V, error)
	// Write makes the objects of set exist with these values, replacing in
	// place where they exist with others, and removes those of del. It is
	// idempotent: what is there already and what is gone already are no errors.
	// A key that fails does not stop its neighbours; the failures come back
	// joined, one *KeyError each. Any other error leaves the outcome unknown.
	Write(ctx context.Context, set map[K]V, del []K) error
}

// Sentinels of the seam, for errors.Is. Drivers wrap the kernel's errno too.
var (
	// ErrBusy says that the object can't be changed now and a later try may do.
	ErrBusy = errors.New("busy")
	// ErrUnsupported says that this kernel has no such kind of object.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrForeign says that another's object stands where ours should: it is never
	// replaced. It may go away, so it is an ErrBusy too.
	ErrForeign = fmt.Errorf("another's is there: %w", ErrBusy)
	// ErrPermission says that the process lacks a capability.
	ErrPermission = errors.New("permission denied")
)

// KeyError is the failure of one key in a Write.
type KeyError[K comparable] struct {
	Op  string // "set" or "delete"
	Key K
	Err error
}

func (e *KeyError[K]) Error() string { return fmt.Sprintf("%s %v: %v", e.Op, e.Key, e.Err) }

// Unwrap returns the cause.
func (e *KeyError[K]) Unwrap() error { return e.Err }

// FailedKey returns the key, for those who don't know its type.
func (e *KeyError[K]) FailedKey() any { return e.Key }
