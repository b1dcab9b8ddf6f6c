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
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
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
	// Lacking holds the kinds of tunnel devices that this kernel does not have.
	Lacking immutable.Map[kernel.TunnelKind, bool]
	// Met holds the WireGuard peers that have shaken hands since the device was made.
	Met immutable.Map[kernel.WireGuardKey, bool]
	// Restarting says that this agent took over the routes of an earlier one; it
	// stays the same for the life of the process.
	Restarting bool
}

// State is what the node should be: complete, comparable, printable.
type State struct {
	// What protects: sets, their elements, and the chains that ask for them.
	Sets     immutable.Map[string, kernel.Set]
	Elements immutable.Map[kernel.Element, struct{}]
	Chains   immutable.Map[string, kernel.Chain]

	// Policies holds the policies in force by the names of their chains, Locals what is
	// in force for each endpoint of this node.
	Policies immutable.Map[string, *policy.Policy]
	Locals   immutable.Map[policy.ID, *policy.Enforced]

	// EndRefused says that connections which policies refuse by now are to be ended.
	EndRefused bool

	// What connects.
	Sysctls    immutable.Map[kernel.Sysctl, string]
	Tunnels    immutable.Map[string, kernel.Tunnel] // by link
	Addrs      immutable.Map[kernel.Addr, struct{}] // of tunnel devices
	Neighbours immutable.Map[kernel.Neighbour, kernel.MAC]
	Forwarding immutable.Map[kernel.Forwarding, netip.Addr]
	WireGuard  immutable.Map[kernel.WireGuardKey, kernel.WireGuardPeer]
	Routes     immutable.Map[kernel.RouteKey, kernel.Route]

	// What announces.
	Speaker immutable.Map[struct{}, bgp.Config] // empty: no speaker
	Peers   immutable.Map[netip.Addr, bgp.Peer]
	Paths   immutable.Map[netip.Prefix, bgp.Path]

	// Held holds destinations that can't be routed as wanted yet, because a tunnel's
	// other end is not known, and why. What is there for them must stay until then:
	// a change of mode loses no packet.
	Held immutable.Map[kernel.RouteKey, string]
	// Tentative says that BGP has not told everything yet since the start: routes
	// through a gateway that are in the kernel already and not wanted must stay.
	Tentative bool
	// MTU is the largest packet of a new pod, in bytes.
	MTU int

	// Uses says what this node needs each tunnel device for, by link.
	Uses immutable.Map[string, Use]

	// Origins says of each route why it is wanted.
	Origins immutable.Map[kernel.RouteKey, Origin]
	// Unused holds what was learned or is known and gives no route, and why.
	Unused immutable.Map[netip.Prefix, string]
	// PeerOrigins says of each peer where it comes from.
	PeerOrigins immutable.Map[netip.Addr, PeerOrigin]
	// Issues are the faults found in resources, ordered.
	Issues []v1.Issue
}

// Use is what a node needs a tunnel device for.
type Use struct {
	// IPv4 and IPv6 say of which families the device needs an address from IPAM.
	IPv4, IPv6 bool
	// Pools are the names of the pools whose packets it carries, the first by name
	// first, joined by blanks: addresses come from these.
	Pools string
	// Sending says that this node's routes want the device. Without, it is kept only
	// because other nodes have not taken back that they send through theirs.
	Sending bool
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
