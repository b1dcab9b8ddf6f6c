package policy_test

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
	"cairn.network/cairn/policy/policytest"
)

// told is a compiler that is told of changes, and all that it was told.
type told struct {
	*policy.Compiler
	links    map[string][]netip.Addr
	settings policy.Settings

	tiers      map[string]policy.Tier
	policies   map[policy.ID]*policy.Policy
	endpoints  map[policy.ID]*policy.Endpoint
	nodes      map[string]policy.Node
	namespaces map[string]map[string]string
	accounts   map[policy.ID]map[string]string
	services   map[policy.ID][]policy.ServiceEndpoint
}

func newTold() *told {
	return &told{
		Compiler: policy.NewCompiler(), tiers: map[string]policy.Tier{}, policies: map[policy.ID]*policy.Policy{}, endpoints: map[policy.ID]*policy.Endpoint{},
		nodes: map[string]policy.Node{}, namespaces: map[string]map[string]string{}, accounts: map[policy.ID]map[string]string{},
		services: map[policy.ID][]policy.ServiceEndpoint{},
	}
}

// own is the node that the compiler is for.
const own = "n1"

// setEndpoint tells of an endpoint, which has its link for itself: calc sees to that.
func (w *told) setEndpoint(e *policy.Endpoint) {
	for id, o := range w.endpoints {
		if id != e.ID && id.Kind == policy.KindPod && o.Node == e.Node && o.Link == e.Link {
			w.deleteEndpoint(id)
		}
	}
	was := w.endpoints[e.ID]
	w.endpoints[e.ID] = e
	w.SetEndpoint(e)
	switch {
	case e.Kind != policy.KindPod && e.Kind != policy.KindHost:
	case e.Node == own:
		w.SetLocal(e)
	case was != nil && was.Node == own:
		w.DeleteLocal(e.ID)
	}
}

func (w *told) deleteEndpoint(id policy.ID) {
	delete(w.endpoints, id)
	w.DeleteLocal(id)
	w.DeleteEndpoint(id)
}

// scratch compiles all that the compiler was told, from scratch.
func (w *told) scratch() policy.Output {
	all := &policy.World{
		Tiers: slices.Collect(maps.Values(w.tiers)), Policies: slices.Collect(maps.Values(w.policies)), Endpoints: slices.Collect(maps.Values(w.endpoints)),
		Nodes: slices.Collect(maps.Values(w.nodes)), Namespaces: w.namespaces, ServiceAccounts: w.accounts, Services: w.services, FailSafe: w.settings.FailSafe,
	}
	return policy.Compile(all, own, w.links, w.settings)
}

// dump writes what is compiled, and what is in force for whom.
func dump(o policy.Output) string {
	var b strings.Builder
	b.WriteString(kernel.RulesText(o.Sets.All(), o.Elements.All(), o.Chains.All()))
	locals := o.Locals.Plain()
	for _, id := range slices.SortedFunc(maps.Keys(locals), policy.ID.Compare) {
		l := locals[id]
		fmt.Fprintf(&b, "%s: links %v, entries %v\n", l.Endpoint, l.Links, slices.Sorted(slices.Values(l.Entries)))
		for d, list := range l.Policies {
			for _, p := range list {
				fmt.Fprintf(&b, "  %s: %s", policy.Direction(d), p)
			}
		}
	}
	policies := o.Policies.Plain()
	for _, chain := range slices.Sorted(maps.Keys(policies)) {
		fmt.Fprintf(&b, "%s: %s", chain, policies[chain])
	}
	return b.String()
}

// check holds that the compiler says what one says that knows nothing of the past, and
// says it again.
func (w *told) check(t *rapid.T) policy.Output {
	out := w.Compile()
	if d := gocmp.Diff(dump(w.scratch()), dump(out)); d != "" {
		t.Fatalf("from scratch, and by changes (-want +got):\n%s", d)
	}
	if again := w.Compile(); again != out {
		t.Fatal("nothing changed, and other maps come out")
	}
	return out
}

// one draws the key of one of a donor's things or of those told of.
func one[K comparable, V any](t *rapid.T, have, donor map[K]V, order func(a, b K) int) (K, bool) {
	keys := slices.Collect(maps.Keys(donor))
	for k := range have {
		if _, twice := donor[k]; !twice {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		var none K
		return none, false
	}
	slices.SortFunc(keys, order)
	return rapid.SampledFrom(keys).Draw(t, "which"), true
}

// change sets something as a donor has it, or deletes it: what the donor lacks, and
// sometimes what it has.
func change[K comparable, V any](t *rapid.T, have, donor map[K]V, order func(a, b K) int, set func(K, V), gone func(K)) {
	k, ok := one(t, have, donor, order)
	if !ok {
		return
	}
	v, there := donor[k]
	if there && rapid.IntRange(0, 3).Draw(t, "delete") > 0 {
		have[k] = v
		set(k, v)
		return
	}
	delete(have, k)
	gone(k)
}

// donor is a world, to take things from.
func donor(w *policy.World) *told {
	d := newTold()
	d.namespaces, d.accounts, d.services, d.settings.FailSafe = w.Namespaces, w.ServiceAccounts, w.Services, w.FailSafe
	for _, x := range w.Tiers {
		d.tiers[x.Name] = x
	}
	for _, x := range w.Policies {
		d.policies[x.ID] = x
	}
	for _, x := range w.Endpoints {
		d.endpoints[x.ID] = x
	}
	for _, x := range w.Nodes {
		d.nodes[x.Name] = x
	}
	return d
}

// step changes one thing.
func (w *told) step(t *rapid.T, d *told) {
	switch rapid.SampledFrom([]string{
		"policy", "policy", "policy", "endpoint", "endpoint", "endpoint", "tier", "namespace", "account", "service", "node", "links", "settings",
	}).Draw(t, "what") {
	case "policy":
		change(t, w.policies, d.policies, policy.ID.Compare, func(_ policy.ID, p *policy.Policy) { w.SetPolicy(p) }, w.DeletePolicy)
	case "endpoint":
		k, ok := one(t, w.endpoints, d.endpoints, policy.ID.Compare)
		if e := d.endpoints[k]; ok && e != nil && rapid.IntRange(0, 3).Draw(t, "delete") > 0 {
			w.setEndpoint(e)
		} else if ok {
			w.deleteEndpoint(k)
		}
	case "tier":
		change(t, w.tiers, d.tiers, cmp.Compare, func(_ string, x policy.Tier) { w.SetTier(x) }, w.DeleteTier)
	case "namespace":
		change(t, w.namespaces, d.namespaces, cmp.Compare, w.SetNamespace, w.DeleteNamespace)
	case "account":
		change(t, w.accounts, d.accounts, policy.ID.Compare,
			func(id policy.ID, l map[string]string) { w.SetServiceAccount(id.Namespace, id.Name, l) },
			func(id policy.ID) { w.SetServiceAccount(id.Namespace, id.Name, nil) })
	case "service":
		change(t, w.services, d.services, policy.ID.Compare, w.SetService, func(id policy.ID) { w.SetService(id, nil) })
	case "node":
		change(t, w.nodes, d.nodes, cmp.Compare, func(_ string, n policy.Node) { w.SetNode(n) }, w.DeleteNode)
	case "links":
		w.links = rapid.SampledFrom([]map[string][]netip.Addr{
			nil, {"eth0": nil}, {"eth0": {netip.MustParseAddr("192.0.2.1")}, "eth1": nil},
			{"eth0": nil, "eth1": {netip.MustParseAddr("192.0.2.1")}, "eth2": {netip.MustParseAddr("198.51.100.1")}},
		}).Draw(t, "links")
		w.SetLinks(w.links)
	case "settings":
		w.settings = policy.Settings{
			PodsToHost: rapid.SampledFrom([]policy.Action{policy.Allow, policy.Deny}).Draw(t, "to host"), EndRefused: rapid.Bool().Draw(t, "end"),
			LogRate: rapid.SampledFrom([]uint32{0, 10}).Draw(t, "rate"), LogBurst: 5, FailSafe: d.settings.FailSafe,
			Tunnels: kernel.RulesOf(kernel.Rule{Protocol: kernel.ProtoUDP, DstPort: rapid.SampledFrom([]uint16{4789, 4790}).Draw(t, "tunnel"), Verdict: kernel.Accept}),
		}
		w.SetSettings(w.settings)
	}
}

// TestChangesMeanWhatIs holds that what is compiled depends on what is, not on what
// was: after each of any changes it is what a compiler makes from scratch.
func TestChangesMeanWhatIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		worlds := make([]*told, 3)
		for i := range worlds {
			worlds[i] = donor(policytest.World().Draw(t, "world"))
		}
		w := newTold()
		for range rapid.IntRange(1, 8).Draw(t, "passes") {
			for range rapid.IntRange(1, 12).Draw(t, "changes") {
				w.step(t, rapid.SampledFrom(worlds).Draw(t, "donor"))
			}
			w.check(t)
		}
	})
}

// TestNothingStays holds that nothing is left when all was taken back.
func TestNothingStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := donor(policytest.World().Draw(t, "world"))
		w := newTold()
		for range 40 {
			w.step(t, d)
		}
		w.Compile()
		for id := range w.policies {
			w.DeletePolicy(id)
		}
		if rapid.Bool().Draw(t, "a pass in between") {
			w.Compile()
		}
		for id := range w.endpoints {
			w.deleteEndpoint(id)
		}
		for name := range w.nodes {
			w.DeleteNode(name)
		}
		for name := range w.namespaces {
			w.DeleteNamespace(name)
		}
		for id := range w.accounts {
			w.SetServiceAccount(id.Namespace, id.Name, nil)
		}
		for id := range w.services {
			w.SetService(id, nil)
		}
		for name := range w.tiers {
			w.DeleteTier(name)
		}
		w.SetLinks(nil)
		w.SetSettings(policy.Settings{})
		if d := gocmp.Diff(dump(policy.NewCompiler().Compile()), dump(w.Compile())); d != "" {
			t.Fatalf("there are left (-want +got):\n%s", d)
		}
		if kept := w.Kept(); kept != "" {
			t.Fatalf("kept:\n%s", kept)
		}
	})
}

// TestSameAgain holds that what is told again changes nothing in the kernel's tables.
func TestSameAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := donor(policytest.World().Draw(t, "world"))
		w := newTold()
		for range 30 {
			w.step(t, d)
		}
		before := w.Compile()
		for _, p := range w.policies {
			same := *p
			w.SetPolicy(&same)
		}
		for _, e := range w.endpoints {
			same := *e
			w.setEndpoint(&same)
		}
		for _, x := range w.tiers {
			w.SetTier(x)
		}
		for _, n := range w.nodes {
			w.SetNode(n)
		}
		for name, labels := range w.namespaces {
			w.SetNamespace(name, maps.Clone(labels))
		}
		for id, labels := range w.accounts {
			w.SetServiceAccount(id.Namespace, id.Name, maps.Clone(labels))
		}
		for id, behind := range w.services {
			w.SetService(id, slices.Clone(behind))
		}
		w.SetLinks(maps.Clone(w.links))
		w.SetSettings(w.settings)
		after := w.Compile()
		for name, same := range map[string]bool{
			"sets": before.Sets == after.Sets, "elements": before.Elements == after.Elements, "chains": before.Chains == after.Chains,
		} {
			if !same {
				t.Errorf("other %s", name)
			}
		}
		for key := range immutable.Diff(before.Chains, after.Chains) {
			t.Errorf("%s:\n%s\nis now\n%s", key, before.Chains.At(key), after.Chains.At(key))
		}
	})
}
