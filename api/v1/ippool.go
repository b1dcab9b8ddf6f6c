package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EncapMode says when packets for a pool's addresses travel in a tunnel.
//
// +kubebuilder:validation:Enum=Never;Always;CrossSubnet
type EncapMode string

// Encapsulation modes.
const (
	// EncapNever sends packets as they are.
	EncapNever EncapMode = "Never"
	// EncapAlways sends every packet between nodes through the tunnel.
	EncapAlways EncapMode = "Always"
	// EncapCrossSubnet sends packets as they are to nodes in the own node's
	// subnet, and through the tunnel to others.
	EncapCrossSubnet EncapMode = "CrossSubnet"
)

// IPPool is a range of addresses for pods.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPPoolSpec `json:"spec"`
}

// IPPoolSpec is what the administrator wants of a pool.
type IPPoolSpec struct {
	// CIDR is the range, such as 10.244.0.0/16. It never changes.
	CIDR string `json:"cidr"`
	// BlockSize is the prefix length of the blocks that nodes claim: 20 to 32
	// (default 26), or 116 to 128 (default 122). It never changes.
	BlockSize int `json:"blockSize,omitempty"`
	// IPIPMode says when packets travel in IPIP (IPv4 only). Default Never.
	IPIPMode EncapMode `json:"ipipMode,omitempty"`
	// VXLANMode says when packets travel in VXLAN. Default Never.
	VXLANMode EncapMode `json:"vxlanMode,omitempty"`
	// NATOutgoing masquerades what leaves all pools.
	NATOutgoing bool `json:"natOutgoing,omitempty"`
	// Disabled stops new addresses; those given stay, and stay routed.
	Disabled bool `json:"disabled,omitempty"`
	// DisableBGPExport keeps the pool's blocks from being advertised.
	DisableBGPExport bool `json:"disableBGPExport,omitempty"`
	// NodeSelector chooses the nodes that may claim blocks. Default all().
	NodeSelector string `json:"nodeSelector,omitempty"`
}
