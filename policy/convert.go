package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/selector"
)

// Convert returns the policy that an object of whichever kind of policies is, and
// what is wrong with it; nil of an object that is no policy. It asks of no tier
// whether it exists, see Place.
func Convert(o v1.Object) (*Policy, []v1.Issue) {
	var p *Policy
	switch o := o.(type) {
	case *v1.NetworkPolicy:
		p = FromNetworkPolicy(o)
	case *v1.GlobalNetworkPolicy:
		p = FromGlobalNetworkPolicy(o)
	case *v1.StagedNetworkPolicy:
		p = FromStagedNetworkPolicy(o)
	case *v1.StagedGlobalNetworkPolicy:
		p = FromStagedGlobalNetworkPolicy(o)
	case *v1.KubernetesNetworkPolicy:
		return FromKubernetesNetworkPolicy(o)
	case *v1.ClusterNetworkPolicy:
		return FromClusterNetworkPolicy(o)
	default:
		return nil, nil
	}
	return p, p.issues()
}

// issues returns what the policy's fault is to who reads the node's status.
func (p *Policy) issues() []v1.Issue {
	if p.Fault == "" {
		return nil
	}
	outcome := "it denies for the endpoints that it selects"
	switch {
	case p.Staged:
		outcome = "it is not tried"
	case p.Selector.String() == nothing().String():
		outcome = "it selects nothing"
	}
	return []v1.Issue{{Object: p.ID.String(), Reason: p.Fault + "; " + outcome}}
}

// nothing returns the selector that chooses nothing.
func nothing() *selector.Selector { return selector.Not(selector.All()) }

// Faulty returns the policy as it is with a fault: without rules, and about both
// directions.
func (p *Policy) Faulty(reason string) *Policy {
	c := *p
	c.Fault, c.Rules, c.Applies = reason, [2][]Rule{}, [2]bool{true, true}
	return &c
}

// Place returns the policy as it is among these tiers: with a fault, if its own is none
// of them.
func Place(p *Policy, tiers []Tier) (*Policy, []v1.Issue) {
	if slices.ContainsFunc(tiers, func(t Tier) bool { return t.Name == p.Tier }) {
		return p, nil
	}
	reason := fmt.Sprintf("spec.tier: there is no tier %q", p.Tier)
	c := p.Faulty(join(p.Fault, reason))
	return c, p.Faulty(reason).issues()
}

// FromNetworkPolicy returns the policy in its internal form.
func FromNetworkPolicy(o *v1.NetworkPolicy) *Policy {
	o = defaulted(o)
	p := &Policy{ID: idOf(o)}
	p.setSpec(v1.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec}, o.Namespace)
	return p.checked(o)
}

// FromGlobalNetworkPolicy returns the policy in its internal form.
func FromGlobalNetworkPolicy(o *v1.GlobalNetworkPolicy) *Policy {
	o = defaulted(o)
	p := &Policy{ID: idOf(o)}
	p.setSpec(o.Spec, "")
	return p.checked(o)
}

// FromStagedNetworkPolicy returns the policy in its internal form.
func FromStagedNetworkPolicy(o *v1.StagedNetworkPolicy) *Policy {
	o = defaulted(o)
	p := &Policy{ID: idOf(o), Staged: true}
	p.setStaged(o.Spec.StagedAction, v1.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec.NetworkPolicySpec}, o.Namespace)
	return p.checked(o)
}

// FromStagedGlobalNetworkPolicy returns the policy in its internal form.
func FromStagedGlobalNetworkPolicy(o *v1.StagedGlobalNetworkPolicy) *Policy {
	o = defaulted(o)
	p := &Policy{ID: idOf(o), Staged: true}
	p.setStaged(o.Spec.StagedAction, o.Spec.GlobalNetworkPolicySpec, "")
	return p.checked(o)
}

// defaulted returns the object with its defaults. Objects are shared, so it is a copy.
func defaulted[O v1.Object](o O) O {
	c := o.DeepCopyObject().(O)
	c.Default()
	return c
}

// idOf returns the name of a defaulted object.
func idOf(o v1.Object) ID { return ID{v1.KindOf(o), o.GetNamespace(), o.GetName()} }

// checked returns the policy, with a fault if there is reason to refuse what it was
// made of.
func (p *Policy) checked(o v1.Object) *Policy {
	errs := faults(o)
	if len(errs) == 0 {
		return p
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return p.Faulty(strings.Join(texts, "; "))
}

// faults returns the reasons to refuse a defaulted object. Its metadata is nothing
// that packets depend on.
func faults(o v1.Object) field.ErrorList {
	return slices.DeleteFunc(o.Validate(), func(err *field.Error) bool { return strings.HasPrefix(err.Field, "metadata.") })
}

// setStaged makes the policy what is tried.
func (p *Policy) setStaged(action v1.StagedAction, s v1.GlobalNetworkPolicySpec, namespace string) {
	if p.Delete = action == v1.StagedDelete; p.Delete {
		p.Tier, p.Order, p.Selector = s.Tier, Last, nothing()
		return
	}
	p.setSpec(s, namespace)
}

// setSpec makes the policy what s says; in no namespace, for the whole cluster.
func (p *Policy) setSpec(s v1.GlobalNetworkPolicySpec, namespace string) {
	p.Tier, p.Order = s.Tier, orderOf(s.Order)
	p.DoNotTrack, p.PreDNAT, p.ApplyOnForward = s.DoNotTrack, s.PreDNAT, s.ApplyOnForward
	p.Selector = policySelector(s, namespace)
	for dir, rules := range [2][]v1.Rule{Ingress: s.Ingress, Egress: s.Egress} {
		is := v1.PolicyIngress
		if Direction(dir) == Egress {
			is = v1.PolicyEgress
		}
		if p.Applies[dir] = slices.Contains(s.Types, is); !p.Applies[dir] {
			continue
		}
		for i := range rules {
			p.Rules[dir] = append(p.Rules[dir], numbered(i, fromRule(&rules[i], namespace))...)
		}
	}
}

func orderOf(order *float64) float64 {
	if order == nil {
		return Last
	}
	return *order
}

// policySelector returns what a policy selects; nothing if one of its selectors is
// none.
func policySelector(s v1.GlobalNetworkPolicySpec, namespace string) *selector.Selector {
	own := parse(s.Selector)
	parts := []*selector.Selector{own}
	if namespace != "" {
		parts = append(parts, selector.Equal(LabelNamespace, namespace))
	}
	if s.NamespaceSelector != "" {
		parts = append(parts, inNamespaces(parse(s.NamespaceSelector)))
	}
	if s.ServiceAccountSelector != "" {
		parts = append(parts, ofAccounts(parse(s.ServiceAccountSelector)))
	}
	return selector.And(parts...)
}

// parse returns the selector of a text. A text that is none chooses nothing: it is
// reported elsewhere.
func parse(text string) *selector.Selector {
	s, err := selector.Parse(text)
	if err != nil {
		return nothing()
	}
	return s
}

// inNamespaces returns the selector of what is in the namespaces that s chooses;
// global() stands for what is in none.
func inNamespaces(s *selector.Selector) *selector.Selector {
	inAny := selector.Has(LabelNamespace)
	if s.HasGlobal() {
		return s.Prefixed(NamespacePrefix).ReplaceGlobal(selector.Not(inAny))
	}
	return selector.And(inAny, s.Prefixed(NamespacePrefix))
}

// ofAccounts returns the selector of pods with the service accounts that s chooses.
func ofAccounts(s *selector.Selector) *selector.Selector {
	return selector.And(selector.Has(LabelServiceAccount), s.Prefixed(AccountPrefix))
}

// fromLabels returns the selector that means the same as one of Kubernetes, with
// prefix before each label. Nil chooses nothing, as there.
func fromLabels(s *metav1.LabelSelector, prefix string) *selector.Selector {
	if s == nil {
		return nothing()
	}
	var parts []*selector.Selector
	for _, label := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		parts = append(parts, selector.Equal(prefix+label, s.MatchLabels[label]))
	}
	for _, e := range s.MatchExpressions {
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			parts = append(parts, selector.In(prefix+e.Key, e.Values...))
		case metav1.LabelSelectorOpNotIn:
			parts = append(parts, selector.Not(selector.In(prefix+e.Key, e.Values...)))
		case metav1.LabelSelectorOpExists:
			parts = append(parts, selector.Has(prefix+e.Key))
		case metav1.LabelSelectorOpDoesNotExist:
			parts = append(parts, selector.Not(selector.Has(prefix+e.Key)))
		default:
			parts = append(parts, nothing())
		}
	}
	return selector.And(parts...)
}

// anyPod returns the selector of every pod.
func anyPod() *selector.Selector { return selector.Equal(LabelOrchestrator, orchestrator) }

// FromTier returns the tier in its internal form.
func FromTier(o *v1.Tier) Tier {
	o = defaulted(o)
	t := Tier{Name: o.Name, Order: orderOf(o.Spec.Order), Default: Deny}
	if o.Spec.DefaultAction == v1.ActionPass {
		t.Default = Pass
	}
	return t
}

// BuiltinTiers returns the tiers that exist without a resource, in their order.
func BuiltinTiers() []Tier {
	var all []Tier
	for _, t := range v1.BuiltinTiers() {
		all = append(all, FromTier(t))
	}
	return all
}
