package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
)

// bounded is a store that answers or fails within the time that the settings
// allow: a person waits.
type bounded struct {
	store    datastore.Store
	settings config.Datastore
}

func (b bounded) Get(ctx context.Context, key datastore.Key) (v1.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, b.settings.Etcd.DialTimeout)
	defer cancel()
	o, err := b.store.Get(ctx, key)
	return o, b.explain(ctx, err)
}

func (b bounded) List(ctx context.Context, kind string) ([]v1.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, b.settings.Etcd.DialTimeout)
	defer cancel()
	os, err := b.store.List(ctx, kind)
	return os, b.explain(ctx, err)
}

func (b bounded) Create(ctx context.Context, o v1.Object) (v1.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, b.settings.Etcd.DialTimeout)
	defer cancel()
	o, err := b.store.Create(ctx, o)
	return o, b.explain(ctx, err)
}

func (b bounded) Update(ctx context.Context, o v1.Object) (v1.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, b.settings.Etcd.DialTimeout)
	defer cancel()
	o, err := b.store.Update(ctx, o)
	return o, b.explain(ctx, err)
}

func (b bounded) Delete(ctx context.Context, key datastore.Key, revision string) error {
	ctx, cancel := context.WithTimeout(ctx, b.settings.Etcd.DialTimeout)
	defer cancel()
	return b.explain(ctx, b.store.Delete(ctx, key, revision))
}

// Watch lasts as long as it is wanted.
func (b bounded) Watch(ctx context.Context, kind string, f func(datastore.Event)) error {
	return b.store.Watch(ctx, kind, f)
}

// explain names the datastore where the error is that it can't be reached.
func (b bounded) explain(ctx context.Context, err error) error {
	where := b.settings.Type + " at " + strings.Join(b.settings.Etcd.Endpoints, ", ")
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %s does not answer within %s", datastore.ErrUnavailable, where, b.settings.Etcd.DialTimeout)
	case errors.Is(err, datastore.ErrUnavailable), errors.Is(err, datastore.ErrDenied):
		return fmt.Errorf("%s: %w", where, err)
	}
	return err
}
