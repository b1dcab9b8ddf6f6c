package kernel

import (
	"fmt"
	"net/netip"
	"strings"
)

// RulesTable is the name of Cairn's table of nftables, of the family inet. All
// that is in it is ours, nothing outside it is.
const RulesTable = "cairn"

// Set is the kind of a named set of addresses; its name is its key. Its elements
// are a table of their own, so that a change of one costs one.
type Set struct {
	IPv6 bool // addresses of IPv6, not IPv4
	// Ranges lets elements be prefixes; without it they are single addresses.
	Ranges bool
}

// Element is a member of a Set. A single address has a prefix of full length.
type Element struct {
	Set    string
	Prefix netip.Prefix // masked
}

func (e Element) String() string { return fmt.Sprintf("%s in %s", e.Prefix, e.Set) }

// Hook is where in the kernel's path of a packet a base chain is called
// (nft(8), ADDRESS FAMILIES).
type Hook string

// Hooks.
const (
	HookNone        Hook = "" // no base chain: called by others
	HookPrerouting  Hook = "prerouting"
	HookInput       Hook = "input"
	HookForward     Hook = "forward"
	HookOutput      Hook = "output"
	HookPostrouting Hook = "postrouting"
)

// ChainType is what a base chain may do (nft(8), CHAINS).
type ChainType string

// Types of base chains.
const (
	ChainFilter ChainType = "filter"
	ChainNAT    ChainType = "nat"
)

// Chain is a list of rules; its name is its key. Writing replaces all of them at
// once. A base chain accepts what none of its rules decides about.
type Chain struct {
	Hook     Hook
	Type     ChainType // of a base chain
	Priority int       // of a base chain; the lowest comes first
	Rules    Rules
}

// Verdict is what becomes of a packet that a rule matches.
type Verdict string

// Verdicts.
const (
	Accept     Verdict = "accept"
	Drop       Verdict = "drop"
	Masquerade Verdict = "masquerade" // as an address of the link by which it leaves
	NoTrack    Verdict = "notrack"    // connection tracking leaves it alone
)

// Rule matches packets for which everything it names is so. The zero value of a
// field asks for nothing.
type Rule struct {
	InLink   string // name of the link it came by; a trailing * stands for any rest
	OutLink  string // name of the link it leaves by
	Src, Dst InSet
	Protocol uint8  // above IP: 4 IPIP, 6 TCP, 17 UDP
	DstPort  uint16 // of Protocol 17 (or 6)
	VNI      uint32 // of VXLAN in UDP
	Verdict  Verdict
	// Comment says why, to those who list the rules.
	Comment string
}

// InSet asks whether an address is in a set, or not.
type InSet struct {
	Set  string // "": whatever the address
	IPv6 bool   // the set's family, so the packet's
	Not  bool
}

// Rules is a list of rules, comparable with ==. The zero value is the empty list.
type Rules struct{ text string }

// String returns the rules as nft(8) writes them, one a line.
func (r Rules) String() string { return strings.TrimSuffix(r.text, "\n") }
