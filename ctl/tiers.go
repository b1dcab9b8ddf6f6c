package ctl

import (
	"context"
	"fmt"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// tieredKinds are the kinds whose objects name a tier.
var tieredKinds = []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"}

// tierless refuses policies whose tier is neither there nor given with them.
func (e *env) tierless(ctx context.Context, store datastore.Store, docs []document) ([]error, error) {
	if !slices.ContainsFunc(docs, func(d document) bool { return slices.Contains(tieredKinds, d.key().Kind) }) {
		return nil, nil
	}
	there, err := e.list(ctx, store, "Tier")
	if err != nil {
		return nil, err
	}
	tiers := map[string]bool{}
	for _, o := range there {
		tiers[o.GetName()] = true
	}
	for _, d := range docs {
		if d.key().Kind == "Tier" {
			tiers[d.GetName()] = true
		}
	}
	var errs []error
	for _, d := range docs {
		if err := v1.Refusal(d.Object, v1.ValidateTier(d.Object, tiers)); err != nil {
			errs = append(errs, d.fail(err))
		}
	}
	return errs, nil
}

// empty refuses to delete tiers that have policies other than those that go with
// them. The tiers that are built in stay there without their resource.
func (e *env) empty(ctx context.Context, store datastore.Store, keys []datastore.Key) ([]error, error) {
	count := map[string]int{}
	for _, k := range keys {
		if k.Kind == "Tier" && !v1.IsBuiltinTier(k.Name) {
			count[k.Name] = 0
		}
	}
	if len(count) == 0 {
		return nil, nil
	}
	for _, kind := range tieredKinds {
		policies, err := e.list(ctx, store, kind)
		if err != nil {
			return nil, err
		}
		for _, p := range policies {
			if tier, _ := v1.PolicyTier(p); !slices.Contains(keys, datastore.KeyOf(p)) {
				count[tier]++
			}
		}
	}
	var errs []error
	for _, k := range keys {
		if n := count[k.Name]; k.Kind == "Tier" && n > 0 {
			errs = append(errs, fmt.Errorf("%s: %d policies are in it, which would deny all; --force deletes it all the same", k, n))
		}
	}
	return errs, nil
}
