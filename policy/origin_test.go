package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/policy"
	"cairn.network/cairn/selector"
)

// TestOrigins finds of every rule that counts, and of every log, what it was compiled
// from.
func TestOrigins(t *testing.T) {
	all, err := selector.Parse("all()")
	if err != nil {
		t.Fatal(err)
	}
	rules := func(actions ...policy.Action) (rs [2][]policy.Rule) {
		for _, a := range actions {
			rs[policy.Ingress] = append(rs[policy.Ingress], policy.Rule{Action: a, Protocol: 6})
		}
		return rs
	}
	both := [2]bool{true, true}
	w := &policy.World{
		Tiers: policy.BuiltinTiers(),
		Policies: []*policy.Policy{
			{ID: policy.ID{Kind: "NetworkPolicy", Namespace: "a", Name: "plain"}, Tier: "default", Order: 1, Selector: all, Applies: both, Rules: rules(policy.Log, policy.Allow)},
			{ID: policy.ID{Kind: "GlobalNetworkPolicy", Name: "passes"}, Tier: "default", Order: 2, Selector: all, Applies: both, Rules: rules(policy.Allow, policy.Pass)},
			{ID: policy.ID{Kind: "GlobalNetworkPolicy", Name: "faulty"}, Tier: "default", Order: 3, Selector: all, Applies: both, Fault: "it is"},
		},
		Endpoints: []*policy.Endpoint{{ID: policy.ID{Kind: policy.KindPod, Namespace: "a", Name: "pod-eth0"}, Node: "n1", Link: "cairn1"}},
	}
	out := policy.Compile(w, "n1", nil, policy.Settings{})
	type found struct {
		Direction policy.Direction
		Tier, Of  string
		Rule      int
		Action    policy.Action
	}
	got := map[found]bool{}
	for name, chain := range out.Chains.All() {
		for _, r := range chain.Rules.List() {
			o, ok := policy.OriginOf(name, r.Comment, out.Policies)
			if ok != (r.Counter && chain.Hook == "") {
				t.Errorf("%s: %s: found %v", name, r, ok)
			}
			if !ok {
				continue
			}
			f := found{o.Direction, o.Tier, o.Name(), o.Rule, o.Action()}
			got[f] = true
			if r.Log == nil {
				continue
			}
			l, ok := policy.ParsePrefix(r.Log.Prefix)
			logged, known := policy.OriginOfLog(l, out.Policies)
			if !ok || !known || logged != o || l.Action != o.Action() {
				t.Errorf("%s: %s: logs as %+v, counts as %+v", name, r, logged, o)
			}
		}
	}
	want := map[found]bool{}
	for _, f := range []found{
		{policy.Ingress, "default", "NetworkPolicy a/plain", 0, policy.Log},
		{policy.Ingress, "default", "NetworkPolicy a/plain", 1, policy.Allow},
		{policy.Ingress, "default", "GlobalNetworkPolicy passes", 0, policy.Allow},
		{policy.Ingress, "default", "GlobalNetworkPolicy passes", 1, policy.Pass},
		{policy.Ingress, "default", "GlobalNetworkPolicy faulty", -1, policy.Deny},
		{policy.Egress, "default", "GlobalNetworkPolicy faulty", -1, policy.Deny},
		{policy.Ingress, "default", "", -1, policy.Deny},
		{policy.Egress, "default", "", -1, policy.Deny},
	} {
		want[f] = true
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("origins (-want +got):\n%s", d)
	}
}

// TestOriginsOfOthers is about names that say little.
func TestOriginsOfOthers(t *testing.T) {
	var none immutable.Map[string, *policy.Policy]
	for _, tt := range []struct {
		name, chain, comment string
		want                 policy.Origin
		ok                   bool
		called               string
	}{
		{"a base chain", "filter-forward", "no pod of this node", policy.Origin{}, false, ""},
		{"a base chain, a number", "filter-forward", "1", policy.Origin{}, false, ""},
		{"a policy that is gone", "np/a/b/out/v1", "1", policy.Origin{Direction: policy.Egress, Chain: "np/a/b/out", Rule: 1}, true, "np/a/b/out"},
		{"an untracked one", "untracked/gnp/b/in/v1", "0", policy.Origin{Chain: "untracked/gnp/b/in"}, true, "untracked/gnp/b/in"},
		{"a tier", "tier/edge/in/v1", "-", policy.Origin{Tier: "edge", Chain: "tier/edge/in", Rule: -1}, true, ""},
		{"a pod's list", "pods/abc/in", "0", policy.Origin{}, false, ""},
		{"nothing", "", "", policy.Origin{}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, ok := policy.OriginOf(tt.chain, tt.comment, none)
			if !ok {
				o = policy.Origin{}
			}
			if o != tt.want || ok != tt.ok || ok && o.Name() != tt.called {
				t.Errorf("%+v, %v, called %q; want %+v, %v, %q", o, ok, o.Name(), tt.want, tt.ok, tt.called)
			}
		})
	}
}
