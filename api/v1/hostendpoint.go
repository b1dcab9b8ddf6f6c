package v1

import (
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// HostEndpoint is a link of a node that policies protect.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type HostEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              HostEndpointSpec `json:"spec"`
}

// HostEndpointSpec is which link it is, and what rules know of it.
type HostEndpointSpec struct {
	// Node is the node.
	Node string `json:"node"`
	// InterfaceName is the link's name, or AllInterfaces. One of it and ExpectedIPs is
	// needed.
	InterfaceName string `json:"interfaceName,omitempty"`
	// ExpectedIPs are the link's addresses: what rules take for this endpoint's, and,
	// without InterfaceName, how the link is found, by any of them.
	ExpectedIPs []string `json:"expectedIPs,omitempty"`
	// Profiles is refused: Cairn has no profiles.
	Profiles []string `json:"profiles,omitempty"`
	// Ports are ports that rules may call by name.
	Ports []NamedPort `json:"ports,omitempty"`
}

// AllInterfaces stands for every link of the node that has no host endpoint of its
// own.
const AllInterfaces = "*"

// Default fills in what was left out.
func (h *HostEndpoint) Default() {
	h.TypeMeta = typeMeta("HostEndpoint")
	defaultPorts(h.Spec.Ports)
}

// Addrs returns the valid ones of the expected addresses.
func (h *HostEndpoint) Addrs() []netip.Addr {
	var all []netip.Addr
	for _, text := range h.Spec.ExpectedIPs {
		if a, errs := validAddress(nil, text); len(errs) == 0 {
			all = append(all, a)
		}
	}
	return all
}

// Validate returns every reason to refuse the defaulted endpoint.
func (h *HostEndpoint) Validate() field.ErrorList {
	errs := validMeta(&h.ObjectMeta, false)
	errs = append(errs, validName(path("node"), h.Spec.Node)...)
	switch {
	case h.Spec.InterfaceName == "" && len(h.Spec.ExpectedIPs) == 0:
		errs = append(errs, field.Required(path("interfaceName"), "interfaceName, expectedIPs or both"))
	case h.Spec.InterfaceName != "" && h.Spec.InterfaceName != AllInterfaces:
		errs = append(errs, validLink(path("interfaceName"), h.Spec.InterfaceName)...)
	}
	seen := map[netip.Addr]bool{}
	for i, text := range h.Spec.ExpectedIPs {
		at := path("expectedIPs").Index(i)
		a, addrErrs := validAddress(at, text)
		errs = append(errs, addrErrs...)
		if a.IsValid() && seen[a] {
			errs = append(errs, field.Duplicate(at, text))
		}
		seen[a] = true
	}
	if len(h.Spec.Profiles) > 0 {
		errs = append(errs, field.Forbidden(path("profiles"), "Cairn has no profiles: write a GlobalNetworkPolicy that selects the endpoint by its labels"))
	}
	return append(errs, validPorts(path("ports"), h.Spec.Ports)...)
}
