package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"cairn.network/cairn/kernel"
)

// Removed counts what Cleanup removed.
type Removed struct {
	Routes, Tunnels, Chains, Sets int
}

func (r Removed) String() string {
	return fmt.Sprintf("%d routes, %d tunnel devices, %d nftables chains, %d nftables sets", r.Routes, r.Tunnels, r.Chains, r.Sets)
}

// Cleanup removes from the kernel what carries Cairn's marks and nobody else
// removes: its routes, its tunnel devices with all that hangs on them, its rules.
// Pods' links go with their pods. What fails does not stop the rest.
func Cleanup(ctx context.Context, k Kernel) (Removed, error) {
	var n Removed
	err := errors.Join(
		empty(ctx, "routes", k.Routes, &n.Routes),
		empty(ctx, "tunnel devices", k.Tunnels, &n.Tunnels),
		empty(ctx, "nftables chains", k.Chains, &n.Chains),
		empty(ctx, "nftables elements", k.Elements, new(int)),
		empty(ctx, "nftables sets", k.Sets, &n.Sets),
	)
	return n, err
}

// empty deletes all that is in a table, and counts it.
func empty[K, V comparable](ctx context.Context, name string, t kernel.Table[K, V], n *int) error {
	have, err := t.Read(ctx)
	if errors.Is(err, kernel.ErrUnsupported) { // then there is none
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(have) == 0 {
		return nil
	}
	if err := t.Write(ctx, nil, slices.Collect(maps.Keys(have))); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	*n = len(have)
	return nil
}
