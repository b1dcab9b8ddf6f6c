package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NetworkPolicy says what its namespace's pods may receive and send. (Kubernetes has
// a kind of that name too: KubernetesNetworkPolicy.)
//
// +kubebuilder:object:root=true
type NetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              NetworkPolicySpec `json:"spec,omitzero"`
}

// NetworkPolicySpec is what a policy of either scope says.
type NetworkPolicySpec struct {
	// Tier is the policy's tier. Default default.
	Tier string `json:"tier,omitempty"`
	// Order is the policy's place in its tier, the least first; equal ones go by kind,
	// namespace and name. Default last.
	Order *float64 `json:"order,omitempty"`
	// Selector chooses the endpoints that the policy is about. Default all().
	Selector string `json:"selector,omitempty"`
	// ServiceAccountSelector leaves of these the pods of service accounts with these
	// labels.
	ServiceAccountSelector string `json:"serviceAccountSelector,omitempty"`
	// Types are the directions that the policy is about: what none of its tier's
	// policies allows there is dropped. Rules of the other direction mean nothing.
	// Default Ingress, unless there are egress rules only; and Egress if there are any.
	Types []PolicyType `json:"types,omitempty"`
	// Ingress and Egress are the rules, asked in turn until one decides: at most 1024
	// of each.
	Ingress []Rule `json:"ingress,omitempty"`
	Egress  []Rule `json:"egress,omitempty"`
	// PerformanceHints are taken from Calico; Cairn needs none.
	PerformanceHints []PerformanceHint `json:"performanceHints,omitempty"`
}

// PerformanceHint says how a policy is used.
//
// +kubebuilder:validation:Enum=AssumeNeededOnEveryNode
type PerformanceHint string

// AssumeNeededOnEveryNode is the one hint there is.
const AssumeNeededOnEveryNode PerformanceHint = "AssumeNeededOnEveryNode"

// GlobalNetworkPolicy says what pods of all namespaces, and hosts, may receive and
// send.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type GlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              GlobalNetworkPolicySpec `json:"spec,omitzero"`
}

// GlobalNetworkPolicySpec is what a policy of the whole cluster says.
type GlobalNetworkPolicySpec struct {
	NetworkPolicySpec `json:",inline"`
	// NamespaceSelector leaves of the endpoints those in namespaces with these labels.
	NamespaceSelector string `json:"namespaceSelector,omitempty"`
	// DoNotTrack enforces the policy before connections are tracked, so answers need
	// rules too. Of host endpoints only.
	DoNotTrack bool `json:"doNotTrack,omitempty"`
	// PreDNAT enforces it before a Service's address is translated. Of host endpoints
	// only, and of ingress only.
	PreDNAT bool `json:"preDNAT,omitempty"`
	// ApplyOnForward enforces it on what goes through a host as well.
	ApplyOnForward bool `json:"applyOnForward,omitempty"`
}

// DefaultTier is the tier of policies that name none.
const DefaultTier = "default"

// Default fills in what was left out.
func (p *NetworkPolicy) Default() {
	p.TypeMeta = typeMeta("NetworkPolicy")
	p.Spec.setDefaults()
}

// Default fills in what was left out.
func (p *GlobalNetworkPolicy) Default() {
	p.TypeMeta = typeMeta("GlobalNetworkPolicy")
	p.Spec.setDefaults()
}

func (s *NetworkPolicySpec) setDefaults() {
	if s.Tier == "" {
		s.Tier = DefaultTier
	}
	if s.Selector == "" {
		s.Selector = "all()"
	}
	if len(s.Types) == 0 {
		s.Types = defaultTypes(len(s.Ingress) > 0, len(s.Egress) > 0)
	}
}

// defaultTypes returns the directions of a policy that names none, by the rules that
// it has.
func defaultTypes(ingress, egress bool) []PolicyType {
	switch {
	case !egress:
		return []PolicyType{PolicyIngress}
	case !ingress:
		return []PolicyType{PolicyEgress}
	}
	return []PolicyType{PolicyIngress, PolicyEgress}
}

// Validate returns every reason to refuse the defaulted policy. Whether its tier
// exists is not asked.
func (p *NetworkPolicy) Validate() field.ErrorList {
	return append(validMeta(&p.ObjectMeta, true), p.Spec.validate(true)...)
}

// Validate returns every reason to refuse the defaulted policy. Whether its tier
// exists is not asked.
func (p *GlobalNetworkPolicy) Validate() field.ErrorList {
	return append(validMeta(&p.ObjectMeta, false), p.Spec.validate()...)
}

func (s *GlobalNetworkPolicySpec) validate() field.ErrorList {
	errs := s.NetworkPolicySpec.validate(false)
	errs = append(errs, validLabelSelector(path("namespaceSelector"), s.NamespaceSelector)...)
	forward := func(name string) {
		if !s.ApplyOnForward {
			errs = append(errs, field.Required(path("applyOnForward"), "must be true with "+name+", which sees what goes through the host as well"))
		}
	}
	switch {
	case s.DoNotTrack && s.PreDNAT:
		errs = append(errs, field.Forbidden(path("preDNAT"), "may not be set together with doNotTrack"))
	case s.DoNotTrack:
		forward("doNotTrack")
	case s.PreDNAT:
		forward("preDNAT")
	}
	if s.PreDNAT {
		for i, t := range s.Types {
			if t == PolicyEgress {
				errs = append(errs, field.Forbidden(path("types").Index(i), "Egress may not be set together with preDNAT, which sees what comes in only"))
			}
		}
		if len(s.Egress) > 0 {
			errs = append(errs, field.Forbidden(path("egress"), "may not be set together with preDNAT, which sees what comes in only"))
		}
	}
	return errs
}
