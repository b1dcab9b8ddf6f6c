// Package policy is who may talk to whom: the language of policies as one internal
// form, the reference model that says of a packet what becomes of it and why, and the
// compiler to nftables.
//
//	model.go     the internal form
//	labels.go    what selectors see of an endpoint
//	selection.go which endpoints selectors choose, kept up to date
//	members.go   the addresses, nets and ports these have, kept up to date
//	convert*.go  resources to the internal form
//	evaluate.go  the reference model, straight from the meaning: one endpoint decides
//	match.go     which packets a rule matches
//	order.go     which policies are asked, and in which order
//	path.go      the reference model of a packet's whole way
//	memo.go      a world that remembers what it was asked
//	classes.go   which addresses policies tell apart
//	traffic.go   which packets they tell apart
//	path.go      the reference model of a packet's whole way
//	compile*.go  the internal form to sets, elements and chains
//	trace*.go    a packet's way through these
//
// It guarantees that all is pure: values in, values out; Selection and Members keep
// what came in, and do nothing else. It leaves to agent/calc where the values come
// from, and to kernel how rules get into the kernel.
package policy

import (
	"cmp"
	"math"
	"net/netip"

	"cairn.network/cairn/selector"
)

// Direction is which way packets go, as an endpoint sees it.
type Direction uint8

// Directions.
const (
	Ingress Direction = iota // to the endpoint
	Egress                   // from the endpoint
)

func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Action is what a rule, or a tier in the end, does with a packet.
type Action string

// Actions.
const (
	Allow Action = "Allow" // final, for this endpoint and direction
	Deny  Action = "Deny"  // final: dropped
	Pass  Action = "Pass"  // on to the next tier
	Log   Action = "Log"   // log, and on to the next rule
)

// ID names a resource. Policies of Kubernetes have the kinds KubernetesNetworkPolicy
// and ClusterNetworkPolicy.
type ID struct{ Kind, Namespace, Name string }

func (id ID) String() string {
	if id.Namespace == "" {
		return id.Kind + " " + id.Name
	}
	return id.Kind + " " + id.Namespace + "/" + id.Name
}

// Last is the order of what has none: behind all that have one.
var Last = math.Inf(1)

// Tier is a group of policies. Tiers are asked by (order, name).
type Tier struct {
	Name  string
	Order float64
	// Default is what becomes of a packet that policies of the tier concern and none of
	// them decides about: Deny or Pass.
	Default Action
}

// Phase is where a policy is enforced. Pods have the normal phase only.
type Phase uint8

// Phases.
const (
	// Normal is for pods; for host endpoints, traffic that ends or begins at the host.
	Normal Phase = iota
	// Forward is for host endpoints: traffic through the host.
	Forward
	// Untracked is for host endpoints: all traffic, before connection tracking, both
	// ways of a connection by rules of their own.
	Untracked
	// PreDNAT is for host endpoints: all that comes in, before a Service's address is
	// translated.
	PreDNAT
)

func (ph Phase) String() string {
	switch ph {
	case Forward:
		return "forward"
	case Untracked:
		return "untracked"
	case PreDNAT:
		return "preDNAT"
	}
	return "normal"
}

// Policy is a policy, of whichever kind. It is immutable.
type Policy struct {
	ID
	Tier  string
	Order float64
	// Selector chooses the endpoints, by their Labels.
	Selector *selector.Selector
	// Applies says which directions it is about, by Direction; an endpoint that it
	// selects is concerned in these even without rules.
	Applies [2]bool
	Rules   [2][]Rule // by Direction
	// Staged policies are evaluated and reported, never enforced. Those with Delete are
	// as if the enforced policy of that name were gone.
	Staged, Delete bool
	// Of host endpoints. At most one of DoNotTrack and PreDNAT; either implies
	// ApplyOnForward. Without any: the normal phase.
	DoNotTrack, PreDNAT, ApplyOnForward bool
	// Fault says why the policy can't be enforced as written; "" if it can. It has no
	// rules then, and denies for the endpoints that it selects, in both directions.
	Fault string
}

// Compare orders the policies of a tier: by order, kind, namespace, name. A staged one
// has the place that it would have when enforced.
func Compare(a, b *Policy) int {
	return cmp.Or(cmp.Compare(a.Order, b.Order), a.enforced().Compare(b.enforced()), a.ID.Compare(b.ID))
}

// Rule matches packets for which everything it names is so.
type Rule struct {
	Action Action
	// IPVersion is 4 or 6; 0: both.
	IPVersion uint8
	// Protocol and NotProtocol are numbers (iana.org/assignments/protocol-numbers); 0:
	// not asked for.
	Protocol, NotProtocol uint8
	ICMP, NotICMP         *ICMP // of Protocol 1 or 58
	Source, Destination   Peer
	// Number says from which rule of the resource it was made, counted from 1 in its
	// direction: of Kubernetes' policies several may come from one. 0: from none.
	Number int
}

// ICMP is a type of ICMP or ICMPv6, and a code unless AnyCode.
type ICMP struct {
	Type, Code uint8
	AnyCode    bool
}

// Peer is what a rule asks of one end of a packet: everything that is set. What is
// given in one family only (Nets, an address of a Service) leaves the other out.
type Peer struct {
	// Selector asks that the address is of an endpoint or network set that it chooses
	// by Labels; nil: any address. NotSelector asks that it is of none such.
	Selector, NotSelector *selector.Selector
	// Nodes asks that the address is of a node that it chooses by the node's own labels.
	Nodes *selector.Selector
	// Nets asks that one of them holds the address, unless it is empty; NotNets, that
	// none does. Masked.
	Nets, NotNets []netip.Prefix
	// Ports asks that one of them is the port, unless it is empty; NotPorts, that none
	// is. The rule's Protocol has ports then.
	Ports, NotPorts []Port
	// Service asks for the addresses of a Service's endpoints; as a destination, each
	// with its protocol and port. It has a Namespace and Name; zero: not asked for.
	Service ID
}

// Port is a range of ports, or a name that endpoints give to one of theirs (Endpoint,
// Ports) of the rule's protocol.
type Port struct {
	First, Last uint16
	Name        string // "": the range
}

// Kinds of endpoints.
const (
	KindPod    = "WorkloadEndpoint"
	KindHost   = "HostEndpoint"
	KindSet    = "NetworkSet"
	KindGlobal = "GlobalNetworkSet"
)

// Endpoint is what rules select: a pod's interface, an interface of a host, or a
// network set, which is a peer only. It is immutable.
type Endpoint struct {
	ID
	Labels         map[string]string // its own
	ServiceAccount string            // name, of a pod
	Node           string            // that it is on; "" of network sets
	// Link is the link on its node; of a host endpoint it may be "*": every link that
	// has no host endpoint of its own.
	Link  string
	Addrs []netip.Addr
	Nets  []netip.Prefix // of network sets; they may overlap
	Ports []NamedPort
	// Sources are ranges from which a pod may send besides its addresses.
	Sources []netip.Prefix
}

// NamedPort is a port that an endpoint has a name for.
type NamedPort struct {
	Name     string
	Protocol uint8
	Port     uint16
}

// Node is a node as peer of rules that select nodes.
type Node struct {
	Name   string
	Labels map[string]string
	Addrs  []netip.Addr
}

// ServiceEndpoint is one address behind a Service.
type ServiceEndpoint struct {
	Addr     netip.Addr
	Protocol uint8  // 0: no port
	Port     uint16 // 0: every port of the protocol
}

// World is everything that a verdict depends on.
type World struct {
	Tiers     []Tier
	Policies  []*Policy
	Endpoints []*Endpoint
	Nodes     []Node
	// Namespaces holds the labels of namespaces, ServiceAccounts those of service
	// accounts, by ID without kind.
	Namespaces      map[string]map[string]string
	ServiceAccounts map[ID]map[string]string
	// Services holds what is behind each Service, by ID without kind.
	Services map[ID][]ServiceEndpoint
	// FailSafe, by Direction, is what policies can't deny at host endpoints.
	FailSafe [2][]FailSafe

	memo memo // see Remembering
}

// FailSafe are connections with a port that stay possible at host endpoints whatever
// their policies: those that come in to the port, or go out to it. Forwarded traffic is
// none of it.
type FailSafe struct {
	Protocol uint8
	// Net holds the address at the other end; the zero Prefix: any address.
	Net  netip.Prefix
	Port uint16 // of the end that the connection goes to
}
