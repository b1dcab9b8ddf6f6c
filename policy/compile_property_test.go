package policy_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"cairn.network/cairn/policy"
	"cairn.network/cairn/policy/policytest"
)

// TestCompileMeansWhatItSays holds that the compiled rules do with every packet what the
// reference model says.
func TestCompileMeansWhatItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := policytest.World().Draw(t, "world")
		links := map[string][]netip.Addr{"eth0": {netip.MustParseAddr("192.0.2.1")}, "eth1": nil}
		out := policy.Compile(w, "n1", links, policy.Settings{PodsToHost: policy.Allow})
		for name, c := range out.Chains.All() {
			if err := c.Check(name); err != nil {
				t.Fatalf("no kernel takes chain %s: %v", name, err)
			}
		}
		r, err := policytest.NewRuleset(out.Sets.All(), out.Elements.All(), out.Chains.All())
		if err != nil {
			t.Fatal(err)
		}
		policytest.Node{World: w, Name: "n1", Links: links}.Agree(t, r)
	})
}
