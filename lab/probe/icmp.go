package probe

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Protocol numbers (iana.org/assignments/protocol-numbers).
const (
	numberICMP   = 1
	numberICMPv6 = 58
	numberSCTP   = 132
)

// icmpReplies are the types that are requests, and that of the reply to each. They are
// those which connection tracking knows as such.
var (
	icmp4Replies = [...][2]uint8{{8, 0}, {13, 14}, {15, 16}, {17, 18}}
	icmp6Replies = [...][2]uint8{{128, 129}, {139, 140}}
)

// Marks in the content of a request, and of the server's reply, where the address that
// it saw is behind it. The first is as long as the timestamps that a request for these
// has (RFC 792).
const (
	icmpAsks    = "cairn-lab: ?"
	icmpAnswers = "cairn-lab: ="
)

// ICMPTypes returns the types of ICMP or ICMPv6 that are answered, in the family of
// the address.
func ICMPTypes(a netip.Addr) []uint8 {
	var types []uint8
	for _, r := range icmpReplies(a.Is6()) {
		types = append(types, r[0])
	}
	return types
}

func icmpReplies(is6 bool) [][2]uint8 {
	if is6 {
		return icmp6Replies[:]
	}
	return icmp4Replies[:]
}

// icmpReply returns the type of the reply to a request; false if it is none.
func icmpReply(is6 bool, request uint8) (uint8, bool) {
	replies := icmpReplies(is6)
	i := slices.IndexFunc(replies, func(r [2]uint8) bool { return r[0] == request })
	if i < 0 {
		return 0, false
	}
	return replies[i][1], true
}

// echoType returns the type of an echo request in the family of the address.
func echoType(a netip.Addr) uint8 { return ICMPTypes(a)[0] }

// request is an ICMP request.
type request struct {
	is6       bool
	kind      uint8
	code      uint8
	id, count uint16
}

func newRequest(e Exchange) *request {
	return &request{is6: e.Addr.Addr().Is6(), kind: e.Type, code: e.Code, id: uint16(rand.Uint32()), count: uint16(rand.Uint32())}
}

func (q *request) number() int {
	if q.is6 {
		return numberICMPv6
	}
	return numberICMP
}

func (q *request) packet() []byte { return icmpPacket(q.is6, q.kind, q.code, q.id, q.count, icmpAsks) }

func (q *request) answers(packet []byte) (saw netip.Addr, refused, ok bool) {
	reply, known := icmpReply(q.is6, q.kind)
	// The kernel's own answer has code 0, whatever the request's.
	if !known || len(packet) < 8 || packet[0] != reply ||
		binary.BigEndian.Uint16(packet[4:]) != q.id || binary.BigEndian.Uint16(packet[6:]) != q.count {
		return saw, false, false
	}
	if text, found := cutPrefix(packet[8:], icmpAnswers); found {
		saw, _ = netip.ParseAddr(text)
	}
	return saw, false, true
}

// icmpPacket returns a packet in the form of an echo. The kernel fills in the checksum
// of ICMPv6.
func icmpPacket(is6 bool, kind, code uint8, id, count uint16, text string) []byte {
	m := icmp.Message{Type: ipv4.ICMPType(kind), Code: int(code), Body: &icmp.Echo{ID: int(id), Seq: int(count), Data: []byte(text)}}
	if is6 {
		m.Type = ipv6.ICMPType(kind)
	}
	b, err := m.Marshal(nil)
	if err != nil {
		panic(err) // an echo's fields have no value that can't be
	}
	return b
}

// answerICMP returns the answer to a request of ours that the kernel leaves alone, or
// answers with another code; nil: none.
func answerICMP(packet []byte, from netip.Addr) []byte {
	if len(packet) < 8 {
		return nil
	}
	kind, code := packet[0], packet[1]
	reply, known := icmpReply(from.Is6(), kind)
	text, ours := cutPrefix(packet[8:], icmpAsks)
	byKernel := code == 0 && (kind == echoType(from) || from.Is4() && kind == uint8(ipv4.ICMPTypeTimestamp))
	if !known || !ours || text != "" || byKernel {
		return nil
	}
	id, count := binary.BigEndian.Uint16(packet[4:]), binary.BigEndian.Uint16(packet[6:])
	return icmpPacket(from.Is6(), reply, code, id, count, icmpAnswers+from.String())
}

func cutPrefix(b []byte, prefix string) (string, bool) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return "", false
	}
	return string(b[len(prefix):]), true
}
