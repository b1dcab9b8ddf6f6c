package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DefaultName is the name of the BGPConfiguration that holds for the cluster.
const DefaultName = "default"

// DefaultAS is the cluster's autonomous system unless BGPConfiguration says
// otherwise (RFC 6996: for private use).
const DefaultAS = 64512

// BGPConfiguration holds what is common to the cluster's speakers. Only the
// one named default counts.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type BGPConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BGPConfigurationSpec `json:"spec,omitempty"`
}

// BGPConfigurationSpec is what the administrator wants of BGP.
type BGPConfigurationSpec struct {
	// NodeToNodeMeshEnabled gives every pair of nodes a session. Default true.
	NodeToNodeMeshEnabled *bool `json:"nodeToNodeMeshEnabled,omitempty"`
	// ASNumber is the nodes' autonomous system. Default 64512.
	ASNumber *uint32 `json:"asNumber,omitempty"`
	// ListenPort is the TCP port of the nodes' speakers. Default 179.
	ListenPort int32 `json:"listenPort,omitempty"`
	// NodeMeshMaxRestartTime is how long the others keep a node's routes while its
	// agent restarts (RFC 4724), in whole seconds up to 4095 s. Default 120 s.
	NodeMeshMaxRestartTime *metav1.Duration `json:"nodeMeshMaxRestartTime,omitempty"`
	// ClusterRoutes says where routes to other nodes' blocks come from. Default
	// Datastore.
	ClusterRoutes ClusterRoutes `json:"clusterRoutes,omitempty"`
}

// ClusterRoutes says where routes to other nodes' blocks come from.
//
// +kubebuilder:validation:Enum=Datastore;BGP
type ClusterRoutes string

// Sources of routes inside the cluster.
const (
	// ClusterRoutesDatastore computes a route wherever the datastore is enough (a
	// node in the same subnet, or behind a tunnel), and takes the others from BGP.
	ClusterRoutesDatastore ClusterRoutes = "Datastore"
	// ClusterRoutesBGP takes every route from BGP.
	ClusterRoutesBGP ClusterRoutes = "BGP"
)

// BGPPeer is a router that nodes have sessions with.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BGPPeerSpec `json:"spec"`
}

// BGPPeerSpec is what the administrator wants of a peer. Without node and
// nodeSelector it is every node's.
type BGPPeerSpec struct {
	// Node is the one node that has this peer.
	Node string `json:"node,omitempty"`
	// NodeSelector chooses the nodes that have this peer. Not with node.
	NodeSelector string `json:"nodeSelector,omitempty"`
	// PeerIP is the peer's address, with a port if it isn't 179: 192.0.2.1,
	// 192.0.2.1:1179, 2001:db8::1, [2001:db8::1]:1179.
	PeerIP string `json:"peerIP"`
	// ASNumber is the peer's autonomous system.
	ASNumber uint32 `json:"asNumber"`
	// MaxRestartTime is how long the peer is asked to keep our routes while the
	// agent restarts. The speaker has one such time: the longest of all counts.
	MaxRestartTime *metav1.Duration `json:"maxRestartTime,omitempty"`
	// KeepaliveTime is the time between keepalives; the hold time is three times
	// as long. Default 30 s.
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`
	// AcceptCIDRs are ranges in which routes are taken from this peer, besides
	// the cluster's pools. A default route is taken only if its own CIDR
	// (0.0.0.0/0, ::/0) is listed, and then so is every route of its family.
	AcceptCIDRs []string `json:"acceptCIDRs,omitempty"`
}
