package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// agentWritten says whether only agents, or commands that ask them, write this kind.
func agentWritten(kind string) bool {
	return slices.Contains([]string{"IPAMBlock", "NodeStatus", "PacketTrace", "WorkloadEndpoint"}, kind)
}

// mayWrite refuses what only agents write.
func (w *writing) mayWrite(key datastore.Key) error {
	if agentWritten(key.Kind) && !w.force {
		return fmt.Errorf("%s: only agents write this kind; --force does it all the same", key)
	}
	return nil
}

// check returns every mistake that shows in the documents alone. It gives
// those of namespaced kinds their namespace.
func (w *writing) check(docs []document) error {
	var errs []error
	seen := map[datastore.Key]string{}
	for _, d := range docs {
		if k, ok := v1.KindByName(d.key().Kind); ok && k.Namespaced && d.GetNamespace() == "" {
			d.SetNamespace(w.scope.namespace)
		}
		if err := v1.Check(d.Object); err != nil {
			errs = append(errs, d.fail(err))
		}
		if err := w.mayWrite(d.key()); err != nil {
			errs = append(errs, d.fail(err))
		}
		if from, twice := seen[d.key()]; twice && d.GetName() != "" {
			errs = append(errs, d.fail(fmt.Errorf("%s: it was given already, in %s", d.key(), from)))
		}
		seen[d.key()] = d.from
	}
	return errors.Join(errs...)
}

// step is a document and what is to become of it.
type step struct {
	document
	outcome outcome
}

// plan returns what is to be done, in an order in which what others build on
// comes first, or every reason not to.
func (e *env) plan(ctx context.Context, store datastore.Store, docs []document, v verb) ([]step, error) {
	var steps []step
	var errs []error
	var pools []document // new ones
	for _, d := range docs {
		old, err := store.Get(ctx, d.key())
		switch {
		case errors.Is(err, datastore.ErrBroken):
			errs = append(errs, d.fail(err))
			continue
		case isNotFound(err):
			old = nil
		case err != nil:
			return nil, err
		}
		o, err := v.plan(old != nil)
		if err != nil {
			errs = append(errs, d.fail(fmt.Errorf("%s: %w", d.key(), err)))
			continue
		}
		if old != nil && o != skipped {
			if err := replaceable(old, d.Object); err != nil {
				errs = append(errs, d.fail(err))
			}
		}
		if old == nil && d.key().Kind == "IPPool" {
			pools = append(pools, d)
		}
		steps = append(steps, step{d, o})
	}
	overlaps, err := e.overlapping(ctx, store, pools)
	if err != nil {
		return nil, err
	}
	tierless, err := e.tierless(ctx, store, docs)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(steps, func(a, b step) int { return rank(a.key().Kind) - rank(b.key().Kind) })
	return steps, errors.Join(slices.Concat(errs, overlaps, tierless)...)
}

// rank is a kind's place in the order of creation.
func rank(kind string) int {
	return slices.IndexFunc(v1.Kinds(), func(k v1.Kind) bool { return k.Name == kind })
}

// overlapping refuses new pools that share addresses with another, there
// already or new too.
func (e *env) overlapping(ctx context.Context, store datastore.Store, pools []document) ([]error, error) {
	if len(pools) == 0 {
		return nil, nil
	}
	all, err := listAs[*v1.IPPool](ctx, e, store, "IPPool")
	if err != nil {
		return nil, err
	}
	for _, d := range pools {
		all = append(all, d.Object.(*v1.IPPool))
	}
	var errs []error
	for _, d := range pools {
		if err := v1.Refusal(d.Object, v1.ValidatePools(d.Object.(*v1.IPPool), all)); err != nil {
			errs = append(errs, d.fail(err))
		}
	}
	return errs, nil
}

// replaceable says why new can't take the place of old.
func replaceable(old, new v1.Object) error {
	key := datastore.KeyOf(new)
	if r := new.GetResourceVersion(); r != "" && r != old.GetResourceVersion() {
		return fmt.Errorf("%s: metadata.resourceVersion: %w; get it again, or leave this field out", key, datastore.ErrConflict)
	}
	if u := new.GetUID(); u != "" && u != old.GetUID() {
		return fmt.Errorf("%s: metadata.uid: it was deleted and made anew; leave this field out", key)
	}
	return v1.Refusal(new, v1.ValidateUpdate(old, new))
}
