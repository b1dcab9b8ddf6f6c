package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BlockState is the state of a node's claim to a block.
//
// +kubebuilder:validation:Enum=Pending;Confirmed;Releasing
type BlockState string

// Block states. Only confirmed blocks are advertised, routed or black-holed.
const (
	BlockPending   BlockState = "Pending"
	BlockConfirmed BlockState = "Confirmed"
	BlockReleasing BlockState = "Releasing"
)

// IPAMBlock is a piece of a pool claimed by a node, and the truth of who has
// which of its addresses. Its name is BlockName of its CIDR.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type IPAMBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPAMBlockSpec `json:"spec"`
}

// IPAMBlockSpec is the content of a block.
type IPAMBlockSpec struct {
	// CIDR is the block's range.
	CIDR string `json:"cidr"`
	// Pool is the name of the pool that the block was cut from.
	Pool string `json:"pool"`
	// Node is the name of the node that claimed the block.
	Node string `json:"node"`
	// State is the state of the claim.
	State BlockState `json:"state"`
	// Allocations are the addresses that nodes hold, in the order of addresses.
	Allocations []Allocation `json:"allocations,omitempty"`
	// Released are the addresses that were held and are free again, first freed
	// first. Those never held come before them.
	Released []Release `json:"released,omitempty"`
}

// Allocation is an address that a node holds: no other node may use it.
type Allocation struct {
	// Address is the address.
	Address string `json:"address"`
	// Node holds the address: the block's node, or one that borrows it.
	Node string `json:"node"`
	// Owner uses the address. Left out while it is only in the node's reserve.
	Owner *AllocationOwner `json:"owner,omitempty"`
}

// AllocationOwner says what uses an address.
type AllocationOwner struct {
	// ContainerID is the sandbox's ID as the container runtime gave it.
	ContainerID string `json:"containerID"`
	// Interface is the name inside the pod.
	Interface string `json:"interface"`
	// Namespace is the pod's namespace.
	Namespace string `json:"namespace,omitempty"`
	// Pod is the pod's name.
	Pod string `json:"pod,omitempty"`
}

// Release is an address that is free again.
type Release struct {
	// Address is the address.
	Address string `json:"address"`
	// At is when it was freed: it rests for the cool-down before it is used again.
	At metav1.Time `json:"at"`
}
