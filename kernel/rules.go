package kernel

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
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
	// Shared sets, of single addresses, are many: the kernel finds a set by walking over
	// all. So they are kept together in a few. Unlike others they can be deleted while a
	// chain asks for them, and have nothing in them then. SharedName makes their names,
	// which no others have.
	Shared bool
	// Other says what else there is to a set that another hand made, such as "map".
	Other string
}

// Element is a member of a Set. A single address has a prefix of full length.
// Elements of one set never overlap (EEXIST). There are very many, so it is small.
type Element struct {
	Set    string
	Prefix netip.Prefix // masked; not of KeysPorts
	// Beside is of KeysSources: the link. Of a range that is no prefix, see To, it says
	// where that ends.
	Beside string
	// Protocol is of KeysServices.
	Protocol uint8
	// Port is of KeysServices and KeysPorts; LastPort ends a range of KeysPorts that has
	// more than one.
	Port, LastPort uint16
}

// rangeEnd is what Beside of a range that is no prefix begins with. No link has a blank
// in its name.
const rangeEnd = "to "

// To returns the range from the element's address to last, which is no prefix. Such are
// made by other hands only.
func (e Element) To(last netip.Addr) Element {
	e.Beside = rangeEnd + last.String()
	return e
}

// Last returns the last address of a range that is no prefix; an invalid one if it is
// none.
func (e Element) Last() netip.Addr {
	text, _ := strings.CutPrefix(e.Beside, rangeEnd)
	if text == e.Beside {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(text)
	return a
}

func (e Element) String() string { return e.text() + " in " + e.Set }

// text returns the element as nft(8) writes it.
func (e Element) text() string {
	switch {
	case !e.Prefix.IsValid() && e.LastPort != 0:
		return fmt.Sprintf("%d-%d", e.Port, e.LastPort)
	case !e.Prefix.IsValid():
		return strconv.Itoa(int(e.Port))
	case e.Last().IsValid():
		return e.Prefix.Addr().String() + "-" + e.Last().String()
	}
	return e.before() + prefixText(e.Prefix) + e.behind()
}

// before and behind return what a concatenated element has beside its address.
func (e Element) before() string {
	if e.Beside == "" {
		return ""
	}
	return strconv.Quote(e.Beside) + " . "
}

func (e Element) behind() string {
	if e.Protocol == 0 {
		return ""
	}
	return fmt.Sprintf(" . %d . %d", e.Protocol, e.Port)
}

// prefixText returns a prefix as nft(8) writes it: an address where it is one.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// compare orders elements by address, link, protocol and port.
func (e Element) compare(o Element) int {
	return cmp.Or(e.Prefix.Addr().Compare(o.Prefix.Addr()), cmp.Compare(e.Beside, o.Beside),
		cmp.Compare(e.Protocol, o.Protocol), cmp.Compare(e.Port, o.Port))
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
	PriorityMangle = -150 // connections are known, no address of theirs is translated yet
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
// kept among chains, for both change in one transaction. An entry is best led to a chain
// that is new or stays as it is: a packet under way may find the new entry and the old
// rules of a chain that changes with it. No chain's name has a blank.
func EntryKey(verdicts, link string) string { return verdicts + " " + link }

// ParseEntryKey returns what EntryKey was made of, and false for the name of a chain.
func ParseEntryKey(key string) (verdicts, link string, ok bool) { return strings.Cut(key, " ") }

func (c Chain) String() string {
	if c.To != "" {
		return "goto " + c.To
	}
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

// Rules is a list of rules, comparable with ==. The zero value is the empty list.
type Rules struct{ text string }

// RulesOf returns the list of rules, in this order. What can be said in several ways
// is said in one: Src, Dst and DstPort where they do, and no Family where addresses or
// ICMP imply it.
func RulesOf(rules ...Rule) Rules {
	if len(rules) == 0 {
		return Rules{}
	}
	same := make([]Rule, len(rules))
	for i, r := range rules {
		same[i] = r.canonical()
	}
	b, err := json.Marshal(same)
	if err != nil {
		panic(fmt.Sprintf("kernel: rules of texts and numbers can't be encoded: %v", err))
	}
	return Rules{string(b)}
}

// Identity returns a text that only lists of the same rules have.
func (r Rules) Identity() string { return r.text }

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
