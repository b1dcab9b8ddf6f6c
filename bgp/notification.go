package bgp

import "fmt"

// Notification is the reason for which a speaker ends a session (RFC 4271 4.5).
type Notification struct{ Code, Subcode uint8 }

// Notifications that Cairn sends or tests for.
var (
	BadPeerAS        = Notification{2, 2}
	HoldTimerExpired = Notification{4, 0}
	PeerDeconfigured = Notification{6, 3}
)

// String names it as IANA does: "Bad Peer AS (OPEN Message Error)".
func (n Notification) String() string {
	code, ok := notifications[n.Code]
	switch {
	case !ok:
		return fmt.Sprintf("error %d, subcode %d", n.Code, n.Subcode)
	case n.Subcode == 0:
		return code.name
	case int(n.Subcode) >= len(code.subcodes) || code.subcodes[n.Subcode] == "":
		return fmt.Sprintf("subcode %d (%s)", n.Subcode, code.name)
	}
	return fmt.Sprintf("%s (%s)", code.subcodes[n.Subcode], code.name)
}

// notifications holds the names of
// https://www.iana.org/assignments/bgp-parameters, by code and subcode.
var notifications = map[uint8]struct {
	name     string
	subcodes []string
}{
	1: {"Message Header Error", []string{1: "Connection Not Synchronized", 2: "Bad Message Length", 3: "Bad Message Type"}},
	2: {"OPEN Message Error", []string{
		1: "Unsupported Version Number", 2: "Bad Peer AS", 3: "Bad BGP Identifier", 4: "Unsupported Optional Parameter",
		6: "Unacceptable Hold Time", 7: "Unsupported Capability", 11: "Role Mismatch",
	}},
	3: {"UPDATE Message Error", []string{
		1: "Malformed Attribute List", 2: "Unrecognized Well-known Attribute", 3: "Missing Well-known Attribute",
		4: "Attribute Flags Error", 5: "Attribute Length Error", 6: "Invalid ORIGIN Attribute", 8: "Invalid NEXT_HOP Attribute",
		9: "Optional Attribute Error", 10: "Invalid Network Field", 11: "Malformed AS_PATH",
	}},
	4: {"Hold Timer Expired", nil},
	5: {"Finite State Machine Error", []string{
		1: "Receive Unexpected Message in OpenSent State", 2: "Receive Unexpected Message in OpenConfirm State",
		3: "Receive Unexpected Message in Established State",
	}},
	6: {"Cease", []string{
		1: "Maximum Number of Prefixes Reached", 2: "Administrative Shutdown", 3: "Peer De-configured", 4: "Administrative Reset",
		5: "Connection Rejected", 6: "Other Configuration Change", 7: "Connection Collision Resolution", 8: "Out of Resources",
		9: "Hard Reset", 10: "BFD Down",
	}},
	7: {"ROUTE-REFRESH Message Error", []string{1: "Invalid Message Length"}},
}
