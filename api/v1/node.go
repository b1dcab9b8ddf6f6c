package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Node is a member of the cluster. Its labels are what node selectors match.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              NodeSpec `json:"spec,omitempty"`
}

// NodeSpec is what others must know of a node to reach it.
type NodeSpec struct {
	// BGP holds the node's addresses and its part in BGP. A node without it is
	// not a member of the mesh and has no routes.
	BGP *NodeBGP `json:"bgp,omitempty"`
}

// NodeBGP holds a node's addresses and its part in BGP.
type NodeBGP struct {
	// IPv4Address is the node's address with the prefix length of its subnet,
	// such as 192.0.2.11/24.
	IPv4Address string `json:"ipv4Address,omitempty"`
	// IPv6Address is the same for IPv6.
	IPv6Address string `json:"ipv6Address,omitempty"`
	// ASNumber is the node's autonomous system; the cluster's if left out.
	ASNumber *uint32 `json:"asNumber,omitempty"`
}
