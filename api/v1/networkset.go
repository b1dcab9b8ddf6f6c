package v1

import (
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NetworkSet is a set of addresses that rules select by the set's labels, as if it
// were a pod of its namespace.
//
// +kubebuilder:object:root=true
type NetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              NetworkSetSpec `json:"spec,omitzero"`
}

// GlobalNetworkSet is such a set in no namespace.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type GlobalNetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              NetworkSetSpec `json:"spec,omitzero"`
}

// NetworkSetSpec is which addresses are in a set.
type NetworkSetSpec struct {
	// Nets are ranges and addresses. They may overlap.
	Nets []string `json:"nets,omitempty"`
}

// IsZero says whether the set is empty, in whatever words: then it is kept as nothing.
func (s NetworkSetSpec) IsZero() bool { return len(s.Nets) == 0 }

// Prefixes returns the valid ones of the set's ranges and addresses, as ranges.
func (s *NetworkSetSpec) Prefixes() []netip.Prefix { return ParseNets(s.Nets) }

// Default fills in what was left out.
func (n *NetworkSet) Default() { n.TypeMeta = typeMeta("NetworkSet") }

// Default fills in what was left out.
func (n *GlobalNetworkSet) Default() { n.TypeMeta = typeMeta("GlobalNetworkSet") }

// Validate returns every reason to refuse the defaulted set.
func (n *NetworkSet) Validate() field.ErrorList {
	return append(validMeta(&n.ObjectMeta, true), validNets(path("nets"), n.Spec.Nets, len(n.Spec.Nets), nil)...)
}

// Validate returns every reason to refuse the defaulted set.
func (n *GlobalNetworkSet) Validate() field.ErrorList {
	return append(validMeta(&n.ObjectMeta, false), validNets(path("nets"), n.Spec.Nets, len(n.Spec.Nets), nil)...)
}
