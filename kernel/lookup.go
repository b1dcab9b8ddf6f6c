package kernel

import (
	"context"
	"net/netip"
)

// RouteQuery describes a packet whose way is asked for.
type RouteQuery struct {
	Dst netip.Addr
	Src netip.Addr // invalid: the host chooses
	// InLink is the link that it came by; "": the host itself sends it.
	InLink string
	// Protocol and ports choose among several next hops, and among rules that ask for
	// them; 0: not known. Ports are of TCP and UDP.
	Protocol         uint8
	SrcPort, DstPort uint16
	Mark             uint32
}

// DecisionType is what the host's routing does with a packet.
type DecisionType string

// Types of decisions.
const (
	DecidedUnicast     DecisionType = "unicast"     // it is sent on
	DecidedLocal       DecisionType = "local"       // the host is its destination
	DecidedBroadcast   DecisionType = "broadcast"   // for all on the link
	DecidedMulticast   DecisionType = "multicast"   // for a group
	DecidedAnycast     DecisionType = "anycast"     // for any of several, the host among them
	DecidedBlackhole   DecisionType = "blackhole"   // a route drops it
	DecidedUnreachable DecisionType = "unreachable" // a route answers that the host is unreachable; or packets aren't forwarded
	DecidedProhibit    DecisionType = "prohibit"    // a route answers that it is forbidden
	DecidedNone        DecisionType = "none"        // there is no route
	// DecidedRefused: a packet with this source does not come by this link
	// (rp_filter), or the source is the host's own.
	DecidedRefused DecisionType = "refused"
)

// LocalTable is the routing table of the host's own addresses (RT_TABLE_LOCAL).
const LocalTable = 255

// Decision is what routing does with a packet, and by which route.
type Decision struct {
	Type    DecisionType
	Gateway netip.Addr // invalid: the destination is on the link itself
	Link    string     // by which it leaves; "" where it doesn't
	Src     netip.Addr // the packet's; that of the host's choice where none was given
	Table   uint32     // of the route; 0: there is none
}

// Lookup asks the host's routing.
type Lookup interface {
	// Route returns what becomes of a packet, by all rules and tables as they are now.
	// An unknown link is an error.
	Route(ctx context.Context, q RouteQuery) (Decision, error)
}
