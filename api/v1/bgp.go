package v1

import (
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DefaultName is the name of the BGPConfiguration that holds for the cluster.
const DefaultName = "default"

// DefaultAS is the cluster's autonomous system unless BGPConfiguration says
// otherwise (RFC 6996: for private use).
const DefaultAS = 64512

// defaultPort is BGP's TCP port (RFC 4271, section 8.2.1).
const defaultPort = 179

// BGPConfiguration holds what is common to the cluster's speakers. Only the
// one named default counts.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type BGPConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              BGPConfigurationSpec `json:"spec,omitzero"`
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
	metav1.ObjectMeta `json:"metadata,omitzero"`
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
	// agent restarts. Default the mesh's.
	MaxRestartTime *metav1.Duration `json:"maxRestartTime,omitempty"`
	// KeepaliveTime is the time between keepalives; the hold time is three times
	// as long. Default 30 s.
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`
	// AcceptCIDRs are ranges in which routes are taken from this peer, besides
	// the cluster's pools. A default route is taken only if its own CIDR
	// (0.0.0.0/0, ::/0) is listed, and then so is every route of its family.
	AcceptCIDRs []string `json:"acceptCIDRs,omitempty"`
}

// The most that BGP's messages can say.
const (
	// maxRestartTime is 12 bits of seconds (RFC 4724, section 3).
	maxRestartTime = 4095 * time.Second
	// maxKeepaliveTime is a third of the longest hold time, 16 bits of seconds
	// (RFC 4271, section 4.2).
	maxKeepaliveTime = 21845 * time.Second
)

// Default fills in what was left out.
func (c *BGPConfiguration) Default() {
	c.TypeMeta = typeMeta("BGPConfiguration")
	if c.Spec.NodeToNodeMeshEnabled == nil {
		c.Spec.NodeToNodeMeshEnabled = new(true)
	}
	if c.Spec.ASNumber == nil {
		c.Spec.ASNumber = new(uint32(DefaultAS))
	}
	if c.Spec.ListenPort == 0 {
		c.Spec.ListenPort = defaultPort
	}
	if c.Spec.NodeMeshMaxRestartTime == nil {
		c.Spec.NodeMeshMaxRestartTime = &metav1.Duration{Duration: 120 * time.Second}
	}
	if c.Spec.ClusterRoutes == "" {
		c.Spec.ClusterRoutes = ClusterRoutesDatastore
	}
}

// Validate returns every reason to refuse the defaulted configuration.
func (c *BGPConfiguration) Validate() field.ErrorList {
	errs := validMeta(&c.ObjectMeta, false)
	if c.Name != "" && c.Name != DefaultName {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be "+DefaultName+": the cluster has one BGPConfiguration"))
	}
	if c.Spec.ASNumber != nil {
		errs = append(errs, validAS(path("asNumber"), *c.Spec.ASNumber)...)
	}
	errs = append(errs, validPort(path("listenPort"), c.Spec.ListenPort)...)
	errs = append(errs, validSeconds(path("nodeMeshMaxRestartTime"), c.Spec.NodeMeshMaxRestartTime, maxRestartTime)...)
	return append(errs, validEnum(path("clusterRoutes"), c.Spec.ClusterRoutes, ClusterRoutesDatastore, ClusterRoutesBGP)...)
}

// Default fills in what was left out.
func (p *BGPPeer) Default() {
	p.TypeMeta = typeMeta("BGPPeer")
	if p.Spec.KeepaliveTime == nil {
		p.Spec.KeepaliveTime = &metav1.Duration{Duration: 30 * time.Second}
	}
}

// AddrPort returns the peer's address and port; the zero AddrPort if they are
// invalid.
func (p *BGPPeer) AddrPort() netip.AddrPort {
	peer, _ := validPeerIP(nil, p.Spec.PeerIP)
	return peer
}

// Validate returns every reason to refuse the defaulted peer.
func (p *BGPPeer) Validate() field.ErrorList {
	errs := validMeta(&p.ObjectMeta, false)
	if p.Spec.Node != "" {
		errs = append(errs, validName(path("node"), p.Spec.Node)...)
		if p.Spec.NodeSelector != "" {
			errs = append(errs, field.Forbidden(path("nodeSelector"), "may not be set together with node"))
		}
	}
	errs = append(errs, validSelector(path("nodeSelector"), p.Spec.NodeSelector)...)
	_, peerErrs := validPeerIP(path("peerIP"), p.Spec.PeerIP)
	errs = append(errs, peerErrs...)
	errs = append(errs, validAS(path("asNumber"), p.Spec.ASNumber)...)
	errs = append(errs, validSeconds(path("maxRestartTime"), p.Spec.MaxRestartTime, maxRestartTime)...)
	errs = append(errs, validSeconds(path("keepaliveTime"), p.Spec.KeepaliveTime, maxKeepaliveTime)...)
	seen := map[netip.Prefix]bool{}
	for i, text := range p.Spec.AcceptCIDRs {
		at := path("acceptCIDRs").Index(i)
		cidr, cidrErrs := validCIDR(at, text)
		errs = append(errs, cidrErrs...)
		if cidr.IsValid() && seen[cidr] {
			errs = append(errs, field.Duplicate(at, text))
		}
		seen[cidr] = true
	}
	return errs
}

// validPeerIP parses a peer's address, with or without a port. A loopback address
// is fine: the peer may be another daemon of the node.
func validPeerIP(at *field.Path, text string) (netip.AddrPort, field.ErrorList) {
	peer, err := netip.ParseAddrPort(text)
	if err != nil {
		addr, errs := validAddress(at, text)
		if len(errs) > 0 {
			if text != "" {
				errs[0].Detail += ", with a port if it isn't 179: 192.0.2.1:1179, [2001:db8::1]:1179"
			}
			return netip.AddrPort{}, errs
		}
		peer = netip.AddrPortFrom(addr, defaultPort)
	}
	if _, errs := validAddress(at, peer.Addr().String()); len(errs) > 0 {
		return netip.AddrPort{}, errs
	}
	if peer.Port() == 0 {
		return netip.AddrPort{}, field.ErrorList{field.Invalid(at, text, "must have a port of 1 to 65535")}
	}
	if a := peer.Addr(); !a.IsLoopback() {
		if use := special(netip.PrefixFrom(a, a.BitLen())); use != "" {
			return netip.AddrPort{}, field.ErrorList{field.Invalid(at, text, "must not be one of "+use)}
		}
	}
	return peer, nil
}
