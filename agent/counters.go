package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// Counters returns what the rules of policies on this node have counted: by tier, kind,
// namespace, name, direction and rule, then what no policy is about.
func (a *Agent) Counters(ctx context.Context) ([]localapi.Counter, error) {
	counts, err := a.drv.Packets.Counters.RuleCounters(ctx)
	if err != nil {
		return nil, fmt.Errorf("read counters of rules: %w", err)
	}
	state := a.loop.state.Load()
	if state == nil {
		state = &calc.State{}
	}
	return sumCounts(counts, state.Policies), nil
}

// counted are the sums of a counter.
type counted struct{ packets, bytes uint64 }

// sumCounts sums up what rules of the kernel have counted: a policy's rule may be
// several of these, in several chains.
func sumCounts(counts map[string][]kernel.RuleCount, policies immutable.Map[string, *policy.Policy]) []localapi.Counter {
	sums := map[localapi.Counter]counted{}
	for chain, rules := range counts {
		for _, r := range rules {
			k := counterOf(chain, r.Comment, policies)
			sums[k] = counted{sums[k].packets + r.Packets, sums[k].bytes + r.Bytes}
		}
	}
	all := slices.SortedFunc(maps.Keys(sums), func(a, b localapi.Counter) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace),
			cmp.Compare(a.Name, b.Name), -cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Rule, b.Rule))
	})
	for i, k := range all {
		all[i].Packets, all[i].Bytes = sums[k].packets, sums[k].bytes
	}
	return all
}

// counterOf returns whose counter a rule's is.
func counterOf(chain, comment string, policies immutable.Map[string, *policy.Policy]) localapi.Counter {
	o, ok := policy.OriginOf(chain, comment, policies)
	if !ok {
		return localapi.Counter{Reason: cmp.Or(comment, chain)}
	}
	c := localapi.Counter{Tier: o.Tier, Direction: o.Direction.String(), Rule: o.Number(), Action: string(o.Action())}
	if o.Policy != nil {
		c.Kind, c.Namespace, c.Name = o.Policy.Kind, o.Policy.Namespace, o.Policy.ID.Name
	} else {
		c.Name = o.Name()
	}
	return c
}
