package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
)

func (e *env) delete() *cobra.Command {
	var w writing
	cmd := &cobra.Command{
		Use:   "delete KIND NAME… | -f FILE|FOLDER|-…",
		Short: "Delete resources",
		Long: `Delete resources, by name or those of documents. If one of them is not there,
nothing is deleted.

A pool of which pods have addresses is deleted with --force only. To empty one,
set spec.disabled and restart its pods. A tier that has policies is deleted with
--force only, or with them.

` + onlyAgents,
		Example: `  cairn ctl delete ippool blue
  cairn ctl delete bgppeer tor1 tor2 --skip-not-exists
  cairn ctl delete -f manifests/ -R`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(w.files) > 0 && len(args) > 0:
				return misuse("%s takes either names or -f, not both", cmd.CommandPath())
			case len(w.files) == 0 && len(args) < 2:
				return misuse("%s wants a kind and a name, or -f", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: completeKind,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := e.keysToDelete(&w, args)
			if err != nil {
				return err
			}
			return e.remove(cmd.Context(), &w, keys)
		},
	}
	w.addFlags(cmd)
	w.addSkip(cmd, "skip-not-exists", "pass over what is not there")
	return cmd
}

// keysToDelete names what is to go: of documents, what others build on last.
func (e *env) keysToDelete(w *writing, args []string) ([]datastore.Key, error) {
	var keys []datastore.Key
	if len(w.files) == 0 {
		kind, err := kindOf(args[0])
		if err != nil {
			return nil, err
		}
		for _, name := range args[1:] {
			keys = append(keys, w.scope.key(kind, name))
		}
	} else {
		docs, err := readDocuments(w.files, w.recursive, e.In)
		if err != nil {
			return nil, nothing("deleted", err)
		}
		for _, d := range docs {
			k := d.key()
			if kind, ok := v1.KindByName(k.Kind); ok && k.Namespace == "" {
				k = w.scope.key(kind, k.Name)
			}
			keys = append(keys, k)
		}
		slices.SortStableFunc(keys, func(a, b datastore.Key) int { return rank(b.Kind) - rank(a.Kind) })
	}
	var once []datastore.Key
	for _, k := range keys {
		if !slices.Contains(once, k) {
			once = append(once, k)
		}
	}
	return once, nil
}

// remove deletes the objects, or none if there is a reason against one.
func (e *env) remove(ctx context.Context, w *writing, keys []datastore.Key) error {
	store, err := e.open()
	if err != nil {
		return err
	}
	var there []datastore.Key
	var errs []error
	for _, key := range keys {
		_, err := store.Get(ctx, key)
		switch {
		case isNotFound(err) && w.skip:
			continue
		case isNotFound(err):
			errs = append(errs, notFound(key))
		case err != nil && !errors.Is(err, datastore.ErrBroken): // deleting mends that
			return err
		}
		errs = append(errs, w.mayWrite(key))
		if !w.force && key.Kind == "IPPool" {
			errs = append(errs, e.unused(ctx, store, key.Name))
		}
		there = append(there, key)
	}
	if !w.force {
		full, err := e.empty(ctx, store, there)
		if err != nil {
			return err
		}
		errs = append(errs, full...)
	}
	if err := errors.Join(errs...); err != nil {
		return nothing("deleted", err)
	}
	for i, key := range there {
		if !w.dryRun {
			// Gone meanwhile is as good.
			if err := store.Delete(ctx, key, ""); err != nil && !isNotFound(err) {
				return fmt.Errorf("%w; %d of %d objects were deleted", err, i, len(there))
			}
		}
		e.report(key, deleted, w.dryRun)
	}
	return nil
}

// unused refuses to delete a pool of which pods have addresses.
func (e *env) unused(ctx context.Context, store datastore.Store, pool string) error {
	usage, err := e.poolUsage(ctx, store)
	if err != nil {
		return err
	}
	for _, p := range usage {
		// Nodes take the addresses of their tunnel devices from another pool then.
		if pods := p.Used - p.Tunnels; p.Name == pool && pods > 0 {
			return fmt.Errorf("IPPool %s: %d of its addresses are in use; --force deletes it all the same", pool, pods)
		}
	}
	return nil
}

// poolUsage counts every pool's addresses.
func (e *env) poolUsage(ctx context.Context, store datastore.Store) ([]ipam.PoolUsage, error) {
	pools, blocks, err := e.poolsAndBlocks(ctx, store)
	if err != nil {
		return nil, err
	}
	return ipam.Summarize(pools, blocks), nil
}

// poolsAndBlocks returns every pool and block.
func (e *env) poolsAndBlocks(ctx context.Context, store datastore.Store) ([]*v1.IPPool, []*v1.IPAMBlock, error) {
	pools, err := listAs[*v1.IPPool](ctx, e, store, "IPPool")
	if err != nil {
		return nil, nil, err
	}
	blocks, err := listAs[*v1.IPAMBlock](ctx, e, store, "IPAMBlock")
	return pools, blocks, err
}
