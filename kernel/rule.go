package kernel

import "net/netip"

// Verdict is what becomes of a packet that a rule matches, as nft(8) writes it.
type Verdict string

// Verdicts.
const (
	Accept Verdict = "accept"
	Drop   Verdict = "drop"
	// Masquerade sends it as an address of the link by which it leaves, from a port
	// that is chosen at random: two that choose at once seldom choose the same.
	Masquerade Verdict = "masquerade fully-random"
	NoTrack    Verdict = "notrack" // connection tracking leaves it alone
	Return     Verdict = "return"  // the calling chain goes on; of a base chain: accept
	Jump       Verdict = "jump"    // to the chain Target, and on here when that returns
	Goto       Verdict = "goto"    // to the chain Target, for good
	// InVerdicts and OutVerdicts look the link that the packet came by, or leaves by, up
	// in the verdict map Target, and go where the entry leads; without one the next rule
	// is asked. That should drop: kernels before 6.17 may find none in the moment when an
	// entry is replaced.
	InVerdicts  Verdict = "iifname vmap"
	OutVerdicts Verdict = "oifname vmap"
	// Continue asks the next rule: of rules that count or log only.
	Continue Verdict = "continue"
)

// Place is where in a packet an address or a port is.
type Place string

// Places.
const (
	Source      Place = "source"
	Destination Place = "destination"
)

// AddrMatch asks for one of a packet's addresses.
type AddrMatch struct {
	Place Place `json:",omitempty"`
	IPv6  bool  `json:",omitempty"` // the family, so the packet's
	Not   bool  `json:",omitempty"`
	// Set is looked up, or the address is in Prefix. Keys are the set's: with
	// KeysServices protocol and the port at that place are looked up with the address, with
	// KeysSources the link that the packet came by.
	Set    string       `json:",omitempty"`
	Keys   Keys         `json:",omitempty"`
	Prefix netip.Prefix `json:",omitzero"`
}

// PortMatch asks for one of a packet's ports; Protocol must be one that has ports.
type PortMatch struct {
	Place Place `json:",omitempty"`
	Not   bool  `json:",omitempty"`
	// Set, of KeysPorts, is looked up, or the port is from First to Last.
	Set         string `json:",omitempty"`
	First, Last uint16 `json:",omitempty"`
}

// ICMP is a type of ICMP or ICMPv6, whichever Protocol says, and a code.
type ICMP struct {
	Type    uint8
	Code    uint8 `json:",omitempty"`
	AnyCode bool  `json:",omitempty"` // Code says nothing
}

// Log tells listeners of a group about the packet (NFLOG). It costs next to nothing
// while nobody listens.
type Log struct {
	Group  uint16
	Prefix string // up to 127 bytes, no quotes
}

// Limit lets a rule match no more often than this.
type Limit struct {
	Rate  uint32 // packets a second
	Burst uint32 // packets above it
}

// State is a set of states of a connection (nft(8), CONNTRACK EXPRESSIONS).
type State uint8

// States.
const (
	StateInvalid     State = 1 << 0
	StateEstablished State = 1 << 1
	StateRelated     State = 1 << 2
	StateNew         State = 1 << 3
	StateUntracked   State = 1 << 6
)

// Rule matches packets for which everything it names is so. The zero value of a
// field asks for nothing.
type Rule struct {
	InLink   string `json:",omitempty"` // name of the link it came by; a trailing * stands for any rest
	OutLink  string `json:",omitempty"` // name of the link it leaves by, likewise
	Src, Dst InSet  `json:",omitzero"`
	Protocol uint8  `json:",omitempty"` // above IP, behind extension headers: 4 IPIP, 6 TCP, 17 UDP
	DstPort  uint16 `json:",omitempty"` // of Protocol 17 or 6
	VNI      uint32 `json:",omitempty"` // of VXLAN in UDP
	// NoSYN asks for TCP other than what begins a connection (RFC 9293, section 3.5).
	NoSYN bool `json:",omitempty"`
	// Fragment asks for one of several fragments of an IPv6 packet; what is asked of
	// its ports holds for the first only.
	Fragment bool `json:",omitempty"`
	// Translated asks that the destination is not the one it was sent to, as with a
	// Service's. A rule that asks has the kernel track connections.
	Translated bool `json:",omitempty"`
	// States asks for a connection in any of these; 0: whatever its state.
	States State `json:",omitempty"`
	// Family is 4 or 6: IPv4 or IPv6; 0: both. What is asked of addresses implies it.
	Family uint8 `json:",omitempty"`
	// NotProtocol asks for any other protocol; 0 for nothing.
	NotProtocol uint8 `json:",omitempty"`
	// NoInLink asks for packets that came by no link: the host's own.
	NoInLink bool        `json:",omitempty"`
	Addrs    []AddrMatch `json:",omitempty"` // all of these
	Ports    []PortMatch `json:",omitempty"` // all of these
	ICMP     *ICMP       `json:",omitempty"`
	NotICMP  *ICMP       `json:",omitempty"`

	// What a rule that matches does before its verdict, in this order.
	Counter bool   `json:",omitempty"` // counts packets and bytes
	Limit   *Limit `json:",omitempty"`
	Log     *Log   `json:",omitempty"`

	Verdict Verdict `json:",omitempty"`
	Target  string  `json:",omitempty"` // of Jump, Goto: a chain; of InVerdicts, OutVerdicts: a verdict map
	// Comment says why, to those who list the rules: up to 128 bytes, no quotes.
	Comment string `json:",omitempty"`
	// Other describes a rule that another hand made and that can't be said in these
	// words; the other fields are empty then.
	Other string `json:",omitempty"`
}

// InSet asks whether an address is in a set, or not.
type InSet struct {
	Set  string `json:",omitempty"` // "": whatever the address
	IPv6 bool   `json:",omitempty"` // the set's family, so the packet's
	Not  bool   `json:",omitempty"`
}

// Numbers of protocols (iana.org/assignments/protocol-numbers) that rules name.
const (
	ProtoICMP    = 1
	ProtoIPIP    = 4
	ProtoTCP     = 6
	ProtoUDP     = 17
	ProtoDCCP    = 33
	ProtoICMPv6  = 58
	ProtoSCTP    = 132
	ProtoUDPLite = 136
)
