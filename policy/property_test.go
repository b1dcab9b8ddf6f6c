package policy_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cairn.network/cairn/policy"
	"cairn.network/cairn/policy/policytest"
)

// TestVerdicts checks of random worlds what must be so of every verdict.
func TestVerdicts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := policytest.World().Draw(t, "world")
		p := policytest.Packet(w).Draw(t, "packet")
		v := w.Evaluate(p)
		same := func(why string, w *policy.World) {
			if diff := cmp.Diff(checks(v), checks(w.Evaluate(p))); diff != "" {
				t.Errorf("%s: %s", why, diff)
			}
		}

		shuffled := *w
		shuffled.Tiers, shuffled.Policies = slices.Clone(w.Tiers), slices.Clone(w.Policies)
		shuffled.Endpoints = slices.Clone(w.Endpoints)
		slices.Reverse(shuffled.Tiers)
		slices.Reverse(shuffled.Policies)
		slices.Reverse(shuffled.Endpoints)
		same("in another order", &shuffled)

		enforced := *w
		enforced.Policies = slices.DeleteFunc(slices.Clone(w.Policies), func(p *policy.Policy) bool { return p.Staged })
		same("without staged policies", &enforced)
		if (v.Staged != nil) != (len(enforced.Policies) < len(w.Policies)) {
			t.Errorf("a verdict of staged policies: %v", v.Staged)
		}

		idle := *w
		idle.Policies = append([]*policy.Policy{with(of("idle", -10, do(policy.Deny)), func(p *policy.Policy) { p.Selector = sel("!all()") })}, w.Policies...)
		same("with a policy that selects nothing", &idle)

		for _, c := range v.Checks {
			checkDecision(t, w, c)
		}
	})
}

// checkDecision checks that a decision and its reason belong together.
func checkDecision(t *rapid.T, w *policy.World, c policy.Check) {
	var last policy.Step
	if len(c.Steps) > 0 {
		last = c.Steps[len(c.Steps)-1]
	}
	passes := policy.Allow // what happens when nothing decides
	if c.Phase == policy.Untracked || c.Phase == policy.PreDNAT {
		passes = policy.Pass
	}
	switch c.Reason {
	case policy.ReasonRule, policy.ReasonFault:
		i := slices.IndexFunc(w.Policies, func(p *policy.Policy) bool { return p.ID == c.Policy })
		if i < 0 || last.RuleID != c.RuleID || last.Action != c.Action {
			t.Errorf("%+v: not by the last step", c.Decision)
			return
		}
		if p := w.Policies[i]; c.Reason == policy.ReasonRule && p.Rules[c.Direction][c.Rule].Action != c.Action {
			t.Errorf("%+v: the rule says otherwise", c.Decision)
		}
		if (c.Fault != "") != (c.Reason == policy.ReasonFault) {
			t.Errorf("%+v: fault or none", c.Decision)
		}
	case policy.ReasonDefault:
		if c.Action != policy.Deny || last.RuleID != c.RuleID || c.Policy != (policy.ID{}) {
			t.Errorf("%+v: not by a tier's default action", c.Decision)
		}
	default:
		if c.Action != passes || c.Tier != "" || c.Rule != -1 {
			t.Errorf("%+v: decided, and nothing did", c.Decision)
		}
	}
}
