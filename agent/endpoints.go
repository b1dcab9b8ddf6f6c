package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/agent/reconcile"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// Endpoints returns the node's pods and host endpoints, by kind and name, and what is
// in force for each.
func (a *Agent) Endpoints(context.Context) ([]localapi.Endpoint, error) {
	state := a.loop.state.Load()
	if state == nil {
		why := "the first pass is not done yet"
		if w := a.loop.waiting.Load(); w != nil {
			why = *w
		}
		return nil, errors.New("the agent is not ready: " + why)
	}
	f := programmed{
		loop: a.loop, state: state,
		chains: a.loop.chains.Failures(), sets: a.loop.sets.Failures(), elements: map[string]error{},
	}
	for e, failure := range a.loop.elements.Failures() {
		f.elements[e.Set] = failure.Err
	}
	pods := map[policy.ID]ipam.Assignment{}
	for as := range a.pods.Assignments().All() {
		if !as.IsTunnel() {
			pods[calc.EndpointID(as)] = as
		}
	}
	var all []localapi.Endpoint
	for id, e := range state.Locals.All() {
		one := f.endpoint(e)
		if as, ok := pods[id]; ok {
			one.Pod = as.Pod
			delete(pods, id)
		}
		all = append(all, one)
	}
	for _, id := range slices.SortedFunc(maps.Keys(pods), policy.ID.Compare) {
		as := pods[id]
		all = append(all, localapi.Endpoint{
			Kind: id.Kind, Namespace: id.Namespace, Name: id.Name, Pod: as.Pod, Node: a.cfg.Node,
			Links: []string{as.HostLink}, Addresses: as.Addrs(), Labels: as.Labels,
			Ingress: []localapi.EndpointPolicy{}, Egress: []localapi.EndpointPolicy{}, Reason: a.whyNot(as),
		})
	}
	slices.SortFunc(all, func(x, y localapi.Endpoint) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return all, nil
}

// programmed says what of a state is in the kernel.
type programmed struct {
	loop     *loop
	state    *calc.State
	chains   map[string]reconcile.Failure
	sets     map[string]reconcile.Failure
	elements map[string]error // by set
}

// fault is why something is not in the kernel; the zero value: it is.
type fault struct{ state, reason string }

// worse returns the fault that is to be told of two.
func (f fault) worse(o fault) fault {
	if f.state == localapi.PolicyFailing || o.state == "" {
		return f
	}
	return o
}

func (f programmed) endpoint(e *policy.Enforced) localapi.Endpoint {
	p := e.Endpoint
	out := localapi.Endpoint{
		Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Node: p.Node, Links: slices.Clone(e.Links),
		Addresses: p.Addrs, Labels: p.Labels,
	}
	if p.Kind == policy.KindPod {
		out.Links = []string{p.Link}
	}
	var worst fault
	var lists [2][]localapi.EndpointPolicy
	for d := range policy.Direction(2) {
		reached := f.reached(f.leading(e.Entries, d))
		var common fault // of what leads to the policies
		for _, name := range reached {
			if !f.state.Policies.Has(policy.Unversioned(name)) {
				common = common.worse(f.chain(name))
			}
		}
		lists[d] = []localapi.EndpointPolicy{}
		for _, one := range e.Policies[d] {
			at := f.policy(one, d, reached)
			worst = worst.worse(at)
			at = at.worse(common).worse(written(one))
			lists[d] = append(lists[d], localapi.EndpointPolicy{
				Tier: one.Tier, Policy: one.ID.String(), Phase: phaseOf(one), State: cmp.Or(at.state, localapi.PolicyInForce), Reason: at.reason,
			})
		}
		worst = worst.worse(common)
	}
	out.Ingress, out.Egress = lists[policy.Ingress], lists[policy.Egress]
	if out.InForce = worst.state == ""; !out.InForce {
		out.Reason = cmp.Or(worst.reason, "it is not written to the kernel yet")
	}
	return out
}

// written says whether a policy can be enforced as it is written.
func written(p *policy.Policy) fault {
	if p.Fault == "" {
		return fault{}
	}
	return fault{localapi.PolicyFailing, "it can't be enforced as written, so it denies: " + p.Fault}
}

func phaseOf(p *policy.Policy) string {
	switch {
	case p.DoNotTrack:
		return "untracked"
	case p.PreDNAT:
		return "preDNAT"
	case p.ApplyOnForward:
		return "forward too"
	}
	return ""
}

// ways are how the names of chains end, by direction.
var ways = [2]string{policy.Ingress: "/in", policy.Egress: "/out"}

// leading returns the entries that lead to chains of a direction; those that lead to an
// endpoint's only empty chain count for both.
func (f programmed) leading(entries []string, d policy.Direction) []string {
	return slices.DeleteFunc(slices.Clone(entries), func(key string) bool {
		return strings.HasSuffix(policy.Unversioned(f.state.Chains.At(key).To), ways[1-d])
	})
}

// reached returns the entries and the chains to which they lead, by themselves or by
// others.
func (f programmed) reached(entries []string) []string {
	all := slices.Clone(entries)
	for i := 0; i < len(all); i++ {
		chain, ok := f.state.Chains.Get(all[i])
		if !ok {
			continue
		}
		next := []string{chain.To}
		for _, r := range chain.Rules.List() {
			next = append(next, r.LeadsTo())
		}
		for _, name := range next {
			if name != "" && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// policy says whether a policy's own chains of a direction are in the kernel. One whose
// rules stand in its tier's chain has none.
func (f programmed) policy(p *policy.Policy, d policy.Direction, reached []string) fault {
	var worst fault
	for _, name := range reached {
		plain := policy.Unversioned(name)
		if of, ok := f.state.Policies.Get(plain); ok && of.ID == p.ID && strings.HasSuffix(plain, ways[d]) {
			worst = worst.worse(f.chain(name))
		}
	}
	return worst
}

// chain says whether a chain, or an entry, and the sets that it asks are in the kernel.
func (f programmed) chain(name string) fault {
	var worst fault
	if !f.loop.chains.Applied(name) {
		worst = fault{state: localapi.PolicyPending}
		if failure, failed := f.chains[name]; failed {
			worst = failing(failure.Err)
		} else if err := f.loop.chains.Err(); err != nil {
			worst = failing(err)
		}
	}
	for _, r := range f.state.Chains.At(name).Rules.List() {
		for _, set := range setsOf(r) {
			if failure, failed := f.sets[set]; failed {
				worst = worst.worse(failing(fmt.Errorf("set %s: %w", set, failure.Err)))
			}
			if err := f.elements[set]; err != nil {
				worst = worst.worse(failing(fmt.Errorf("set %s: %w", set, err)))
			}
		}
	}
	return worst
}

func failing(err error) fault { return fault{localapi.PolicyFailing, err.Error()} }

// setsOf returns the names of the sets that a rule asks.
func setsOf(r kernel.Rule) []string {
	var names []string
	for _, asked := range r.Asks() {
		names = append(names, asked.Name)
	}
	return names
}
