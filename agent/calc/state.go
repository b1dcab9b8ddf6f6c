// Package calc computes what a node should be from what is: the datastore, the
// pods attached here, the host and the routes learned by BGP go in, one State
// comes out.
//
// It is pure and total: no I/O, no clock, no log; whatever the input, there is a
// State, and what is wrong with the input is an Issue in it. It leaves to
// agent/reconcile how the world gets there.
package calc

import (
	"net/netip"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// Inputs is everything that desired state depends on. All of it is immutable;
// parts that did not change since the last call are best passed as the same
// values, for what was computed from them is reused.
type Inputs struct {
	Node  string              // name of the own node
	Store *datastore.Snapshot // all resources, in sync
	Pods  *ipam.Assignments   // what is attached to this node
	Host  *kernel.Host        // never nil
	RIB   *bgp.RIB            // never nil
	// Restarting says that this agent took over the routes of an earlier one; it
	// stays the same for the life of the process.
	Restarting bool
}

// State is what the node should be: complete, comparable, printable.
type State struct {
	Sysctls map[kernel.Sysctl]string
	Routes  map[kernel.RouteKey]kernel.Route
	Speaker map[struct{}]bgp.Config // empty: no speaker
	Peers   map[netip.Addr]bgp.Peer
	Paths   map[netip.Prefix]bgp.Path

	// Tentative says that BGP has not told everything yet since the start: routes
	// through a gateway that are in the kernel already and not wanted must stay.
	Tentative bool
	// MTU is the largest packet of a new pod, in bytes.
	MTU int

	// Origins says of each route why it is wanted.
	Origins map[kernel.RouteKey]Origin
	// Unused holds what was learned or is known and gives no route, and why.
	Unused map[netip.Prefix]string
	// PeerOrigins says of each peer where it comes from.
	PeerOrigins map[netip.Addr]PeerOrigin
	// Issues are the faults found in resources, ordered.
	Issues []v1.Issue
}

// OriginKind says what a route is for.
type OriginKind string

// Origins of routes.
const (
	OriginPod   OriginKind = "pod"   // a pod attached here
	OriginBlock OriginKind = "block" // an own block, black-holed
	OriginNode  OriginKind = "node"  // another node's block, computed from the datastore
	OriginBGP   OriginKind = "bgp"   // learned from a peer
)

// Origin says why a route is wanted.
type Origin struct {
	Kind OriginKind
	// From is the pod (namespace/name), the pool, the node or the peer's address.
	From string
}

// PeerOrigin says where a peer comes from.
type PeerOrigin struct {
	Type string // one of v1's PeerType texts
	Name string // the node's or the BGPPeer's
}
