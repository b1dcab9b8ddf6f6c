package kernel

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// RulesTable is the name of Cairn's table of nftables, of the family inet. All
// that is in it is ours, nothing outside it is.
const RulesTable = "cairn"

// Keys is what the elements of a set are.
type Keys string

// Kinds of elements. Concatenated ones are written with a dot in between
// (nft(8), SETS).
const (
	KeysAddresses Keys = ""         // addresses
	KeysPorts     Keys = "ports"    // ports, whatever the protocol
	KeysServices  Keys = "services" // address . protocol . port
	KeysSources   Keys = "sources"  // link . address
	KeysLinks     Keys = "links"    // links; the set is a verdict map, see EntryKey
)

// Set is the kind of a named set; its name is its key. Its elements are a table of
// their own, so that a change of one costs one. A set that a chain asks for can be
// neither deleted nor given another kind (EBUSY): another kind is best given another
// name.
type Set struct {
	Keys Keys
	IPv6 bool // addresses of IPv6, not IPv4
	// Ranges lets elements be prefixes, or ranges of ports; without it they are single
	// ones. Only KeysAddresses and KeysPorts have ranges.
	Ranges bool
	// Other says what else there is to a set that another hand made, such as "map".
	Other string
}

// Element is a member of a Set. A single address has a prefix of full length.
// Elements of one set never overlap (EEXIST).
type Element struct {
	Set    string
	Prefix netip.Prefix // masked; not of KeysPorts
	// Link is of KeysSources.
	Link string
	// Protocol is of KeysServices.
	Protocol uint8
	// Port is of KeysServices and KeysPorts; LastPort ends a range of KeysPorts that has
	// more than one.
	Port, LastPort uint16
	// Last ends a range that begins with Prefix, which is a single address then, and
	// is no prefix itself. Such are made by other hands only.
	Last netip.Addr
}

func (e Element) String() string { return e.text() + " in " + e.Set }

// text returns the element as nft(8) writes it.
func (e Element) text() string {
	switch {
	case e.Last.IsValid():
		return e.Prefix.Addr().String() + "-" + e.Last.String()
	case e.Prefix.IsSingleIP():
		return e.Prefix.Addr().String()
	}
	return e.Prefix.String()
}

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

// Priorities of base chains that the kernel's own work is ordered by (nft(8),
// CHAINS).
const (
	PriorityRaw    = -300 // before connection tracking, after fragments are put together
	PriorityFilter = 0
	PriorityNAT    = 100 // of sources, in HookPostrouting (srcnat)
)

// Chain is a list of rules; its name is its key. Writing replaces all of them at
// once: every packet meets the old ones or the new ones. A base chain accepts
// what none of its rules decides about.
type Chain struct {
	Hook     Hook
	Type     ChainType // of a base chain
	Priority int       // of a base chain; the lowest comes first
	Rules    Rules
	// To is of an entry in a verdict map, whose key is made by EntryKey and which has
	// nothing else: the chain that packets of the link go to.
	To string
	// Other says what else there is to a chain that another hand made, such as
	// "policy drop".
	Other string
}

// EntryKey is the key of an entry in a verdict map, a set of KeysLinks. Entries are
// kept among chains, for both change in one transaction: every packet meets all of
// the old or all of the new. No chain's name has a blank.
func EntryKey(verdicts, link string) string { return verdicts + " " + link }

// ParseEntryKey returns what EntryKey was made of, and false for the name of a chain.
func ParseEntryKey(key string) (verdicts, link string, ok bool) { return strings.Cut(key, " ") }

func (c Chain) String() string {
	var b strings.Builder
	if c.Hook != HookNone {
		fmt.Fprintf(&b, "type %s hook %s priority %d; policy accept;\n", c.Type, c.Hook, c.Priority)
	}
	if c.Other != "" {
		fmt.Fprintf(&b, "# %s\n", c.Other)
	}
	b.WriteString(c.Rules.String())
	return strings.TrimSuffix(b.String(), "\n")
}

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
	// is asked.
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
	// KeysServices protocol and destination port are looked up with the address, with
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

// match returns what asks for the packet's address at place (saddr or daddr), as
// nft(8) writes it.
func (s InSet) match(place string) string {
	family, not := "ip", ""
	if s.IPv6 {
		family = "ip6"
	}
	if s.Not {
		not = "!= "
	}
	return family + " " + place + " " + not + "@" + s.Set
}

// Numbers of protocols (iana.org/assignments/protocol-numbers) that rules name.
const (
	ProtoIPIP = 4
	ProtoTCP  = 6
	ProtoUDP  = 17
)

// String returns the rule as "nft -p list" writes it.
func (r Rule) String() string {
	if r.Other != "" {
		return "# unknown: " + r.Other
	}
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if r.InLink != "" {
		add("iifname %q", r.InLink)
	}
	if r.OutLink != "" {
		add("oifname %q", r.OutLink)
	}
	switch {
	case r.DstPort != 0 && r.Protocol == ProtoUDP:
		add("udp dport %d", r.DstPort)
	case r.DstPort != 0:
		add("tcp dport %d", r.DstPort)
	case r.Protocol != 0:
		add("meta l4proto %d", r.Protocol)
	}
	if r.VNI != 0 {
		// The header of UDP has 8 bytes, and 4 of VXLAN's come before the VNI.
		add("@th,96,24 %#x", r.VNI)
	}
	if r.Src.Set != "" {
		add("%s", r.Src.match("saddr"))
	}
	if r.Dst.Set != "" {
		add("%s", r.Dst.match("daddr"))
	}
	if r.Fragment {
		add("exthdr frag exists")
	}
	if r.Translated {
		add("ct status dnat")
	}
	add("%s", r.Verdict)
	if r.Comment != "" {
		add("comment %q", r.Comment)
	}
	return strings.Join(parts, " ")
}

// Sets returns the names of the sets that the rule asks.
func (r Rule) Sets() []string {
	var names []string
	for _, s := range []InSet{r.Src, r.Dst} {
		if s.Set != "" {
			names = append(names, s.Set)
		}
	}
	return names
}

// Rules is a list of rules, comparable with ==. The zero value is the empty list.
type Rules struct{ text string }

// RulesOf returns the list of rules, in this order.
func RulesOf(rules ...Rule) Rules {
	if len(rules) == 0 {
		return Rules{}
	}
	b, err := json.Marshal(rules)
	if err != nil {
		panic(fmt.Sprintf("kernel: rules of texts and numbers can't be encoded: %v", err))
	}
	return Rules{string(b)}
}

// List returns the rules in order.
func (r Rules) List() []Rule {
	if r.text == "" {
		return nil
	}
	var rules []Rule
	if err := json.Unmarshal([]byte(r.text), &rules); err != nil {
		panic(fmt.Sprintf("kernel: what RulesOf wrote can't be decoded: %v", err))
	}
	return rules
}

// String returns the rules as "nft -p list" writes them, one a line.
func (r Rules) String() string {
	var lines []string
	for _, rule := range r.List() {
		lines = append(lines, rule.String())
	}
	return strings.Join(lines, "\n")
}
