// Package topology holds what a lab consists of: racks of nodes, the routers
// between them, the datastore's host, and what the datastore is filled with.
//
// It guarantees that a parsed Topology is complete and possible: every host has
// its addresses, names are fit for links and files, subnets don't overlap. It
// builds nothing.
package topology

import (
	"encoding/json"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
)

// Names of the hosts that every lab has.
const (
	// Etcd is the host that runs the datastore, in the control subnet.
	Etcd = "etcd"
	// Fabric is the host that holds each subnet's bridge. It has no addresses.
	Fabric = "fabric"
)

// Control is the name of the segment between the routers and the datastore.
const Control = "control"

// RackLabel is the label of a node that names its rack.
const RackLabel = "rack"

// EtcdPort is the TCP port on which the datastore answers clients.
const EtcdPort = 2379

// Speaker says what speaks BGP on a router.
type Speaker string

// Speakers of a router.
const (
	SpeakerCairn Speaker = "cairn" // the package bgp/gobgp, which the agent uses too
	SpeakerBIRD  Speaker = "bird"  // the program bird, version 2
	SpeakerNone  Speaker = "none"  // it forwards between the subnets, and that is all
)

// Topology is what a lab consists of.
type Topology struct {
	Name     string    `json:"name"`
	ASNumber uint32    `json:"asNumber"` // of the nodes
	Segments []Segment `json:"segments"` // the racks in their order, then Control
	Nodes    []Host    `json:"nodes"`
	Routers  []Router  `json:"routers"`
	Etcd     Host      `json:"etcd"`
	Pools    []Pool    `json:"pools"`
	// Resources are put into the datastore besides the pools, the nodes' labels
	// and the peers that follow from the routers.
	Resources []json.RawMessage `json:"resources,omitempty"`
	Agent     Agent             `json:"agent"`
}

// Segment is a subnet of each family on one bridge.
type Segment struct {
	Name    string         `json:"name"`
	Subnets []netip.Prefix `json:"subnets"` // one of a family at most
}

// Host is a member of one segment.
type Host struct {
	Name    string         `json:"name"`
	Segment string         `json:"segment"`
	Addrs   []netip.Prefix `json:"addrs"`   // with the segment's prefix lengths, in the order of its subnets
	Gateway [][]netip.Addr `json:"gateway"` // for each of Addrs, the routers that the default route leads to
}

// Router is a member of every segment.
type Router struct {
	Name     string  `json:"name"`
	Speaker  Speaker `json:"speaker"`
	ASNumber uint32  `json:"asNumber,omitempty"`
	// Announce are prefixes that it tells the nodes of; it answers on the first
	// address of each.
	Announce []netip.Prefix `json:"announce,omitempty"`
	// AcceptCIDRs are what the nodes take from it besides routes in pools.
	AcceptCIDRs []string `json:"acceptCIDRs,omitempty"`
	Ports       []Port   `json:"ports"`
}

// Port is a router's interface in a segment.
type Port struct {
	Segment string         `json:"segment"`
	Link    string         `json:"link"` // name of the interface
	Addrs   []netip.Prefix `json:"addrs"`
}

// Pool is an IPPool by name.
type Pool struct {
	Name          string `json:"name"`
	v1.IPPoolSpec `json:",inline"`
}

// Agent is what the nodes' agents are given besides their node's settings.
type Agent struct {
	Args []string          `json:"args,omitempty"`
	Env  map[string]string `json:"env,omitempty"`
}

// Node returns the node of that name.
func (t *Topology) Node(name string) (Host, bool) {
	for _, n := range t.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Host{}, false
}

// Router returns the router of that name.
func (t *Topology) Router(name string) (Router, bool) {
	for _, r := range t.Routers {
		if r.Name == name {
			return r, true
		}
	}
	return Router{}, false
}

// HasSessions says whether nodes have BGP sessions: with each other, unless the
// topology's own BGP configuration has no mesh, or with a router.
func (t *Topology) HasSessions() bool {
	return t.HasMesh() || slices.ContainsFunc(t.Routers, func(r Router) bool { return r.Speaker != SpeakerNone })
}

// HasMesh says whether nodes have BGP sessions with each other.
func (t *Topology) HasMesh() bool {
	if len(t.Nodes) < 2 {
		return false
	}
	own, ok := t.own("BGPConfiguration", v1.DefaultName)
	if !ok {
		return true
	}
	var c v1.BGPConfiguration
	return json.Unmarshal(own, &c) != nil || c.Spec.NodeToNodeMeshEnabled == nil || *c.Spec.NodeToNodeMeshEnabled
}

// Hosts returns the names of everything that has a namespace of its own, the
// fabric first.
func (t *Topology) Hosts() []string {
	names := []string{Fabric, Etcd}
	for _, r := range t.Routers {
		names = append(names, r.Name)
	}
	for _, n := range t.Nodes {
		names = append(names, n.Name)
	}
	return names
}
