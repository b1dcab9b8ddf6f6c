package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// StagedNetworkPolicy is a NetworkPolicy that is tried: evaluated and reported, never
// enforced.
//
// +kubebuilder:object:root=true
type StagedNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              StagedNetworkPolicySpec `json:"spec,omitzero"`
}

// StagedNetworkPolicySpec is what such a policy says.
type StagedNetworkPolicySpec struct {
	// StagedAction says what is tried. Default Set.
	StagedAction      StagedAction `json:"stagedAction,omitempty"`
	NetworkPolicySpec `json:",inline"`
}

// StagedGlobalNetworkPolicy is a GlobalNetworkPolicy that is tried: evaluated and
// reported, never enforced.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type StagedGlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              StagedGlobalNetworkPolicySpec `json:"spec,omitzero"`
}

// StagedGlobalNetworkPolicySpec is what such a policy says.
type StagedGlobalNetworkPolicySpec struct {
	// StagedAction says what is tried. Default Set.
	StagedAction            StagedAction `json:"stagedAction,omitempty"`
	GlobalNetworkPolicySpec `json:",inline"`
}

// StagedAction is what is tried of a policy.
//
// +kubebuilder:validation:Enum=Set;Delete
type StagedAction string

// What can be tried.
const (
	// StagedSet tries the policy, in place of the enforced one of that name if there is
	// one.
	StagedSet StagedAction = "Set"
	// StagedDelete tries how it is without the enforced policy of that name.
	StagedDelete StagedAction = "Delete"
)

// Default fills in what was left out.
func (p *StagedNetworkPolicy) Default() {
	p.TypeMeta = typeMeta("StagedNetworkPolicy")
	p.Spec.StagedAction.defaults(&p.Spec.NetworkPolicySpec)
}

// Default fills in what was left out.
func (p *StagedGlobalNetworkPolicy) Default() {
	p.TypeMeta = typeMeta("StagedGlobalNetworkPolicy")
	p.Spec.StagedAction.defaults(&p.Spec.NetworkPolicySpec)
}

// defaults fills in the action, and the policy as far as the action wants one.
func (a *StagedAction) defaults(s *NetworkPolicySpec) {
	if *a == "" {
		*a = StagedSet
	}
	if *a != StagedDelete {
		s.setDefaults()
	} else if s.Tier == "" {
		s.Tier = DefaultTier
	}
}

// Validate returns every reason to refuse the defaulted policy. Whether its tier
// exists is not asked.
func (p *StagedNetworkPolicy) Validate() field.ErrorList {
	errs := append(validMeta(&p.ObjectMeta, true), p.Spec.StagedAction.validate()...)
	if p.Spec.StagedAction == StagedDelete {
		return append(errs, GlobalNetworkPolicySpec{NetworkPolicySpec: p.Spec.NetworkPolicySpec}.validDelete()...)
	}
	return append(errs, p.Spec.NetworkPolicySpec.validate(true)...)
}

// Validate returns every reason to refuse the defaulted policy. Whether its tier
// exists is not asked.
func (p *StagedGlobalNetworkPolicy) Validate() field.ErrorList {
	errs := append(validMeta(&p.ObjectMeta, false), p.Spec.StagedAction.validate()...)
	if p.Spec.StagedAction == StagedDelete {
		return append(errs, p.Spec.validDelete()...)
	}
	return append(errs, p.Spec.GlobalNetworkPolicySpec.validate()...)
}

func (a StagedAction) validate() field.ErrorList {
	at := path("stagedAction")
	switch a {
	case "Learn", "Ignore":
		return field.ErrorList{field.Invalid(at, string(a), "is of another product's advice on policies, which Cairn does not give: must be Set or Delete")}
	}
	return validEnum(at, a, StagedSet, StagedDelete)
}

// validDelete checks that a policy that is to go says nothing but its tier.
func (s GlobalNetworkPolicySpec) validDelete() field.ErrorList {
	errs := validName(path("tier"), s.Tier)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"order", s.Order != nil}, {"selector", s.Selector != ""}, {"serviceAccountSelector", s.ServiceAccountSelector != ""},
		{"namespaceSelector", s.NamespaceSelector != ""}, {"types", len(s.Types) > 0}, {"ingress", len(s.Ingress) > 0},
		{"egress", len(s.Egress) > 0}, {"performanceHints", len(s.PerformanceHints) > 0}, {"doNotTrack", s.DoNotTrack},
		{"preDNAT", s.PreDNAT}, {"applyOnForward", s.ApplyOnForward},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(path(f.name), "may not be set together with stagedAction Delete"))
		}
	}
	return errs
}
