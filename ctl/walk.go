package ctl

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"cairn.network/cairn/policy"
)

// Verdicts to people.
const (
	verdictAllowed = "allowed"
	verdictDenied  = "denied"
	verdictGoesOn  = "goes on" // to what comes after the phase
)

// explainedCheck is a place where it is decided about packets.
type explainedCheck struct {
	// At is the pod or host endpoint, of which Kind it is.
	At        string `json:"at"`
	Kind      string `json:"kind"`
	Direction string `json:"direction"`
	// Phase is "normal" or, of host endpoints, "forward", "untracked" or "preDNAT".
	Phase   string `json:"phase"`
	Verdict string `json:"verdict"`
	// Reason is what it rests on; Tier, Policy and Rule, from 1, are what decided.
	Reason string `json:"reason"`
	Tier   string `json:"tier,omitempty"`
	Policy string `json:"policy,omitempty"`
	Rule   int    `json:"rule,omitempty"`
	Fault  string `json:"fault,omitempty"`
	// Walk is every policy that concerns the endpoint, in the order in which they are
	// asked.
	Walk []walkStep `json:"walk,omitempty"`
}

// walkStep is what a policy, or a tier in the end, does.
type walkStep struct {
	Tier string `json:"tier"`
	// Policy is "" for the tier's default action.
	Policy string `json:"policy,omitempty"`
	Does   string `json:"does"`
	// Rule is the one that does it, from 1, with its Text; 0: none.
	Rule int    `json:"rule,omitempty"`
	Text string `json:"text,omitempty"`
}

// answerOf returns a verdict of a world.
func (c *cluster) answerOf(w *policy.World, v policy.Verdict) answer {
	out := answer{Verdict: verdictOf(v.Action), Checks: []explainedCheck{}}
	for _, one := range v.Checks {
		out.Checks = append(out.Checks, c.checkOf(w, one))
	}
	return out
}

func verdictOf(a policy.Action) string {
	switch a {
	case policy.Deny:
		return verdictDenied
	case policy.Pass:
		return verdictGoesOn
	}
	return verdictAllowed
}

// nameOf returns what people call an endpoint.
func (c *cluster) nameOf(e *policy.Endpoint) (name, kind string) {
	if e.Kind == policy.KindHost {
		return "hep/" + e.Name, "host endpoint"
	}
	for _, w := range c.pods {
		if w.Namespace == e.Namespace && w.Name == e.Name {
			if len(podsNamed(c.pods, w.Namespace, podName(w))) == 1 {
				return podEnd(w).name, "pod"
			}
		}
	}
	return e.Namespace + "/" + e.Name, "pod"
}

func (c *cluster) checkOf(w *policy.World, k policy.Check) explainedCheck {
	x := explainedCheck{
		Direction: k.Direction.String(), Phase: k.Phase.String(), Verdict: verdictOf(k.Action),
		Reason: string(k.Reason), Tier: k.Tier, Fault: k.Fault,
	}
	x.At, x.Kind = c.nameOf(k.Endpoint)
	if k.Policy != (policy.ID{}) {
		x.Policy = k.Policy.String()
		x.Rule, _ = ruleAt(w, k.RuleID, k.Direction)
	}
	if k.Reason != policy.ReasonOwnNode && k.Reason != policy.ReasonFailSafe {
		x.Walk = walk(w, k)
	}
	return x
}

// ruleAt returns a rule's number in the resource and its text.
func ruleAt(w *policy.World, id policy.RuleID, d policy.Direction) (int, string) {
	i := slices.IndexFunc(w.Policies, func(p *policy.Policy) bool { return p.ID == id.Policy })
	if i < 0 || id.Rule < 0 || id.Rule >= len(w.Policies[i].Rules[d]) {
		return 0, ""
	}
	return w.Policies[i].Number(d, id.Rule), ruleText(w.Policies[i].Rules[d][id.Rule])
}

// onlyPods is what selectors made of Kubernetes' policies say besides what people wrote.
const onlyPods = policy.LabelOrchestrator + ` == "k8s"`

// ruleText writes a rule for people.
func ruleText(r policy.Rule) string {
	text := strings.ReplaceAll(r.String(), onlyPods+" && ", "")
	return strings.ReplaceAll(text, " && "+onlyPods, "")
}

// walk lists what each policy that concerns an endpoint does.
func walk(w *policy.World, k policy.Check) []walkStep {
	var all []walkStep
	steps := k.Steps
	over := false // something was final
	for _, t := range w.Concerning(k.Endpoint, k.Direction, k.Phase) {
		passed := false
		for _, p := range t.Policies {
			switch {
			case over:
				all = append(all, walkStep{Tier: t.Tier.Name, Policy: p.ID.String(), Does: "is not asked any more"})
				continue
			case passed:
				all = append(all, walkStep{Tier: t.Tier.Name, Policy: p.ID.String(), Does: "is passed over"})
				continue
			}
			for len(steps) > 0 && steps[0].Policy == p.ID {
				step := policyStep(w, k.Direction, p, steps[0])
				step.Tier = t.Tier.Name
				all = append(all, step)
				done := steps[0].Action
				steps = steps[1:]
				over, passed = done == policy.Allow || done == policy.Deny, done == policy.Pass
				if done != policy.Log {
					break
				}
			}
		}
		if len(steps) > 0 && steps[0].Policy == (policy.ID{}) && steps[0].Tier == t.Tier.Name && !over {
			does := "denies what no rule matched"
			if steps[0].Action == policy.Pass {
				does = "passes on what no rule matched"
			}
			all = append(all, walkStep{Tier: t.Tier.Name, Does: does})
			over, steps = steps[0].Action == policy.Deny, steps[1:]
		}
	}
	return all
}

// policyStep returns what a policy did.
func policyStep(w *policy.World, d policy.Direction, p *policy.Policy, s policy.Step) walkStep {
	x := walkStep{Policy: p.ID.String()}
	x.Rule, x.Text = ruleAt(w, s.RuleID, d)
	switch {
	case p.Fault != "":
		x.Does = "denies all, for it can't be enforced as written: " + p.Fault
	case s.Action == "" && len(p.Rules[d]) == 0:
		x.Does = "has no rules for it"
	case s.Action == "":
		x.Does = "no rule matches"
	default:
		x.Does = fmt.Sprintf("%s by rule %d", map[policy.Action]string{
			policy.Allow: "allows", policy.Deny: "denies", policy.Pass: "passes on", policy.Log: "logs",
		}[s.Action], x.Rule)
	}
	return x
}

// equal says whether two answers, or parts of them, say the same.
func equal[T any](a, b T) bool { return reflect.DeepEqual(a, b) }

// decidedBy says what decided at a check, in words that follow its verdict.
func (x explainedCheck) decidedBy() string {
	of := ""
	if x.Tier != "" {
		of = " (tier " + x.Tier + ")"
	}
	switch policy.Reason(x.Reason) {
	case policy.ReasonRule:
		return fmt.Sprintf("rule %d of %s%s", x.Rule, x.Policy, of)
	case policy.ReasonFault:
		return x.Policy + of + ", which can't be enforced as written"
	case policy.ReasonDefault:
		return "the default action of tier " + x.Tier
	case policy.ReasonPassed:
		return "default, for every tier passes it on"
	case policy.ReasonFailSafe:
		return "a fail-safe port, which no policy closes"
	case policy.ReasonOwnNode:
		return "default: a node always reaches its own pods"
	}
	return "default: no policy concerns it"
}
