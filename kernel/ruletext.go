package kernel

import (
	"fmt"
	"strconv"
	"strings"
)

// ruleText puts the words of a rule together.
type ruleText struct{ words []string }

func (t *ruleText) add(format string, args ...any) {
	t.words = append(t.words, fmt.Sprintf(format, args...))
}

// String returns the rule as "nft -py list" writes it.
func (r Rule) String() string {
	if r.Other != "" {
		return "# unknown: " + r.Other
	}
	var t ruleText
	t.links(r)
	if r.Family != 0 && !r.Fragment { // which says it
		t.add("meta nfproto ipv%d", r.Family)
	}
	t.protocol(r)
	if r.VNI != 0 {
		// The header of UDP has 8 bytes, and 4 of VXLAN's come before the VNI.
		t.add("@th,96,24 %#x", r.VNI)
	}
	for _, p := range r.Ports {
		t.add("%s %sport %s", portsOf(r.Protocol), letter(p.Place), p.text())
	}
	if r.NoSYN {
		t.add("tcp flags ! syn")
	}
	t.icmp(r.Protocol, "", r.ICMP)
	t.icmp(r.Protocol, "!= ", r.NotICMP)
	t.addresses(r)
	if r.Fragment {
		t.add("exthdr frag exists")
	}
	if r.Translated {
		t.add("ct status dnat")
	}
	if r.States != 0 {
		t.add("ct state %s", r.States)
	}
	t.statements(r)
	return strings.Join(t.words, " ")
}

func (t *ruleText) links(r Rule) {
	if r.InLink != "" {
		t.add("iifname %q", r.InLink)
	}
	if r.NoInLink {
		t.add("iif 0")
	}
	if r.OutLink != "" {
		t.add("oifname %q", r.OutLink)
	}
}

// protocol adds what the rule asks of the protocol, unless what it asks of ports, flags
// or ICMP says it.
func (t *ruleText) protocol(r Rule) {
	switch {
	case r.DstPort != 0:
		t.add("%s dport %d", portsOf(r.Protocol), r.DstPort)
	case r.NotProtocol != 0:
		t.add("meta l4proto != %d", r.NotProtocol)
	case r.Protocol != 0 && len(r.Ports) == 0 && !r.NoSYN && r.ICMP == nil && r.NotICMP == nil && !r.asksServices():
		t.add("meta l4proto %d", r.Protocol)
	}
}

// asksServices says whether a set of services is asked.
func (r Rule) asksServices() bool {
	for _, a := range r.Addrs {
		if a.Keys == KeysServices {
			return true
		}
	}
	return false
}

// addresses adds what the rule asks of addresses.
func (t *ruleText) addresses(r Rule) {
	for _, s := range []struct {
		place Place
		InSet
	}{{Source, r.Src}, {Destination, r.Dst}} {
		if s.Set != "" {
			t.address(r, AddrMatch{Place: s.place, IPv6: s.IPv6, Not: s.Not, Set: s.Set})
		}
	}
	for _, a := range r.Addrs {
		t.address(r, a)
	}
}

func (t *ruleText) address(r Rule, a AddrMatch) {
	where, in := "ip", prefixText(a.Prefix)
	if a.IPv6 {
		where = "ip6"
	}
	where += " " + letter(a.Place) + "addr"
	if a.Set != "" {
		in = "@" + a.Set
	}
	switch a.Keys {
	case KeysServices:
		where += " . meta l4proto . " + portsOf(r.Protocol) + " " + letter(a.Place) + "port"
	case KeysSources:
		where = "iifname . " + where
	}
	t.add("%s %s%s", where, unless(a.Not), in)
}

// statements adds what the rule does.
func (t *ruleText) statements(r Rule) {
	if r.Counter {
		t.add("counter")
	}
	if r.Limit != nil {
		t.add("limit rate %d/second", r.Limit.Rate)
		if r.Limit.Burst != usualBurst {
			t.add("burst %d packets", r.Limit.Burst)
		}
	}
	if r.Log != nil {
		t.add("log")
		if r.Log.Prefix != "" {
			t.add("prefix %q", r.Log.Prefix)
		}
		t.add("group %d", r.Log.Group)
	}
	switch r.Verdict {
	case Jump, Goto:
		t.add("%s %s", r.Verdict, r.Target)
	case InVerdicts, OutVerdicts:
		t.add("%s @%s", r.Verdict, r.Target)
	case Continue:
	default:
		t.add("%s", r.Verdict)
	}
	if r.Comment != "" {
		t.add("comment %q", r.Comment)
	}
}

// usualBurst is the burst of a limit whose text has none.
const usualBurst = 5

// text returns the ports that p asks for.
func (p PortMatch) text() string {
	ports := strconv.Itoa(int(p.First))
	switch {
	case p.Set != "":
		ports = "@" + p.Set
	case p.Last != p.First:
		ports += "-" + strconv.Itoa(int(p.Last))
	}
	return unless(p.Not) + ports
}

func unless(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

// letter returns what the words for addresses and ports of a place begin with.
func letter(p Place) string { return string(p[:min(1, len(p))]) }

// portProtocols are the protocols that have ports, by number.
var portProtocols = map[uint8]string{
	ProtoTCP: "tcp", ProtoUDP: "udp", ProtoDCCP: "dccp", ProtoSCTP: "sctp", ProtoUDPLite: "udplite",
}

// portsOf returns the word for the header that a protocol has its ports in.
func portsOf(protocol uint8) string {
	if word := portProtocols[protocol]; word != "" {
		return word
	}
	return "th"
}

// String returns the states as nft(8) writes them.
func (s State) String() string {
	var words []string
	for _, state := range []struct {
		State
		word string
	}{{StateInvalid, "invalid"}, {StateEstablished, "established"}, {StateRelated, "related"}, {StateNew, "new"}, {StateUntracked, "untracked"}} {
		if s&state.State != 0 {
			words = append(words, state.word)
		}
	}
	return strings.Join(words, ",")
}
