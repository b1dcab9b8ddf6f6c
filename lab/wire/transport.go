// Package wire says how packets travel between nodes: how they should, as the
// resources have it, and how they do, as captured on the way.
//
// It guarantees that what should be follows from pools, settings and nodes'
// addresses alone: nothing that an agent computed goes into it.
package wire

import (
	"fmt"
	"net/netip"
)

// Kind is a way of packets between nodes.
type Kind string

// Kinds.
const (
	Plain     Kind = "plain"     // as they are
	IPIP      Kind = "IPIP"      // RFC 2003: IP protocol 4
	VXLAN     Kind = "VXLAN"     // RFC 7348
	WireGuard Kind = "WireGuard" // encrypted
)

// Transport is how packets travel from one node to another.
type Transport struct {
	Kind Kind
	VNI  uint32 // of VXLAN
	Port uint16 // UDP, of VXLAN and WireGuard: that of the receiver
	// From and To are the nodes' addresses that a tunnel's packets bear outside;
	// invalid for Plain.
	From, To netip.Addr
}

// String returns all but the addresses.
func (t Transport) String() string {
	switch t.Kind {
	case VXLAN:
		return fmt.Sprintf("VXLAN %d, UDP %d", t.VNI, t.Port)
	case WireGuard:
		return fmt.Sprintf("WireGuard, UDP %d", t.Port)
	case IPIP:
		return "IPIP, protocol 4"
	}
	return string(t.Kind)
}
