package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NodeStatus is what a node's agent says of itself. Only the agent writes it;
// its name is the node's.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type NodeStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Status            NodeStatusStatus `json:"status,omitzero"`
}

// Condition types of a NodeStatus.
const (
	// ConditionReady is true once the first full pass is in the kernel.
	ConditionReady = "Ready"
	// ConditionDatastore is true while the datastore answers.
	ConditionDatastore = "DatastoreAvailable"
	// ConditionBGP is true while the speaker runs and every peer is Established.
	ConditionBGP = "BGPEstablished"
	// ConditionProgrammed is true while everything wanted is in the kernel.
	ConditionProgrammed = "Programmed"
)

// NodeStatusStatus is the state of a node's agent at one moment.
type NodeStatusStatus struct {
	// UpdatedAt is when the agent last wrote this.
	UpdatedAt metav1.Time `json:"updatedAt,omitzero"`
	// Agent says which agent runs and since when.
	Agent AgentStatus `json:"agent,omitzero"`
	// Conditions sum it up.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// BGP is the state of the speaker and its sessions.
	BGP BGPStatus `json:"bgp,omitzero"`
	// Tunnels are the tunnel devices that the node needs.
	Tunnels []TunnelStatus `json:"tunnels,omitempty"`
	// WireGuard is the state of the WireGuard device and its peers, if there is one.
	WireGuard *WireGuardStatus `json:"wireguard,omitempty"`
	// Routes counts the kernel's routes that are Cairn's.
	Routes RouteCounts `json:"routes,omitzero"`
	// Pods is the number of pods attached to this node.
	Pods int `json:"pods"`
	// Issues are the faults found in resources, and what came of them.
	Issues []Issue `json:"issues,omitempty"`
}

// AgentStatus says which agent runs.
type AgentStatus struct {
	Version   string      `json:"version,omitempty"`
	StartedAt metav1.Time `json:"startedAt,omitzero"`
}

// BGPStatus is the state of a node's speaker.
type BGPStatus struct {
	ASNumber uint32 `json:"asNumber,omitempty"`
	RouterID string `json:"routerID,omitempty"`
	// Error says why the speaker does not run.
	Error string          `json:"error,omitempty"`
	Peers []BGPPeerStatus `json:"peers,omitempty"`
}

// Peer types, worded as calicoctl words them.
const (
	PeerTypeMesh   = "node-to-node mesh"
	PeerTypeNode   = "node specific"
	PeerTypeGlobal = "global"
)

// BGPPeerStatus is the state of one session.
type BGPPeerStatus struct {
	Address  string `json:"address"`
	ASNumber uint32 `json:"asNumber"`
	// Type is one of the PeerType texts.
	Type string `json:"type"`
	// Name is the node's (mesh) or the BGPPeer's.
	Name string `json:"name,omitempty"`
	// State is the session's state in the words of RFC 4271 8.2.2.
	State string      `json:"state"`
	Since metav1.Time `json:"since,omitzero"`
	Flaps uint64      `json:"flaps"`
	// LastError is why the session ended last or can't come up.
	LastError string       `json:"lastError,omitempty"`
	IPv4      PrefixCounts `json:"ipv4,omitzero"`
	IPv6      PrefixCounts `json:"ipv6,omitzero"`
}

// States of a tunnel device.
const (
	// TunnelUp says that the node sends and receives through the device.
	TunnelUp = "Up"
	// TunnelListening says that the node sends nothing through the device any more,
	// and keeps it for others that may.
	TunnelListening = "Listening"
	// TunnelFailing says that the device is not as it should be.
	TunnelFailing = "Failing"
)

// TunnelStatus is the state of one tunnel device.
type TunnelStatus struct {
	// Device is the link's name.
	Device string `json:"device"`
	// Addresses are the device's own, IPv4 first.
	Addresses []string `json:"addresses,omitempty"`
	// MTU is the largest packet inside, in bytes.
	MTU int `json:"mtu"`
	// RemoteNodes is the number of nodes to which packets are sent through it.
	RemoteNodes int `json:"remoteNodes"`
	// State is one of the Tunnel texts.
	State string `json:"state"`
	// Message says why it is Failing.
	Message string `json:"message,omitempty"`
}

// WireGuardStatus is the state of a node's WireGuard device.
type WireGuardStatus struct {
	// PublicKey is the device's key, base64.
	PublicKey string `json:"publicKey"`
	// ListeningPort is the UDP port.
	ListeningPort int32                 `json:"listeningPort"`
	Peers         []WireGuardPeerStatus `json:"peers,omitempty"`
}

// WireGuardPeerStatus is the state of the tunnel to one node.
type WireGuardPeerStatus struct {
	Node      string `json:"node"`
	PublicKey string `json:"publicKey"`
	// Endpoint is the node's address and UDP port.
	Endpoint string `json:"endpoint"`
	// LastHandshake is when keys were agreed on last; zero: never.
	LastHandshake metav1.Time `json:"lastHandshake,omitzero"`
	// ReceivedBytes and SentBytes count since the device was made.
	ReceivedBytes int64 `json:"receivedBytes"`
	SentBytes     int64 `json:"sentBytes"`
}

// PrefixCounts is the number of prefixes of one family in a session.
type PrefixCounts struct {
	Received   uint64 `json:"received"`
	Accepted   uint64 `json:"accepted"`
	Advertised uint64 `json:"advertised"`
}

// RouteCounts counts routes.
type RouteCounts struct {
	Wanted  int `json:"wanted"`
	Applied int `json:"applied"`
	Failed  int `json:"failed"`
}

// Issue is a fault in a resource and what came of it.
type Issue struct {
	// Object is the kind and name, such as "IPPool blue".
	Object string `json:"object"`
	// Field is the path of the field at fault, if it is one.
	Field string `json:"field,omitempty"`
	// Reason is what is wrong, and what is not done because of it.
	Reason string `json:"reason"`
}

// Default fills in what was left out.
func (s *NodeStatus) Default() { s.TypeMeta = typeMeta("NodeStatus") }

// Validate returns every reason to refuse the defaulted object. What an agent
// says of itself is not judged.
func (s *NodeStatus) Validate() field.ErrorList { return validMeta(&s.ObjectMeta, false) }
