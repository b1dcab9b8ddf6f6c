//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"

	"cairn.network/cairn/kernel"
)

// pipeline is a series of requests, each for a key.
type pipeline[K comparable] struct {
	keys     []K
	requests []netlink.Message
}

// add returns what takes the request for k, or the reason why there is none.
func (p *pipeline[K]) add(k K) func(netlink.Message, error) error {
	return func(m netlink.Message, err error) error {
		if err == nil {
			p.keys = append(p.keys, k)
			p.requests = append(p.requests, m)
		}
		return err
	}
}

// run sends the requests, as batch does, and calls answer with what the kernel says
// to each.
func (p *pipeline[K]) run(ctx context.Context, conn *netlink.Conn, answer func(K, error)) error {
	return batch(ctx, conn, p.requests, func(i int, err error) { answer(p.keys[i], err) })
}

// failures are those of one call of Write.
type failures[K comparable] []error

func (f *failures[K]) fail(op string, k K, err error) {
	*f = append(*f, &kernel.KeyError[K]{Op: op, Key: k, Err: err})
}

// try does something for one key, unless ctx is done.
func (f *failures[K]) try(ctx context.Context, op string, k K, do func() error) {
	if ctx.Err() != nil {
		return
	}
	if err := do(); err != nil {
		f.fail(op, k, err)
	}
}

// join returns what Write returns: the failures, and that it came to no end.
func (f failures[K]) join(ctx context.Context, noun string) error {
	if err := ctx.Err(); err != nil {
		f = append(f, fmt.Errorf("write %s: %w", noun, err))
	}
	return errors.Join(f...)
}
