package probe

import (
	"net/netip"
	"testing"
)

// TestSCTPPackets holds that only the whole answer to the own INIT is one.
func TestSCTPPackets(t *testing.T) {
	from := netip.MustParseAddr("fd00::1")
	q := newInit(Exchange{Protocol: SCTP, Addr: netip.MustParseAddrPort("10.0.0.1:80")})
	ask := q.packet()
	ack := answerSCTP(ask, from, map[uint16]bool{80: true})
	abort := answerSCTP(ask, from, nil)
	with := func(b []byte, i int, v byte) []byte {
		b = append([]byte(nil), b...)
		b[i] = v
		return b
	}
	for _, tt := range []struct {
		name        string
		packet      []byte
		ok, refused bool
		saw         netip.Addr
	}{
		{"INIT ACK", ack, true, false, from},
		{"ABORT", abort, true, true, netip.Addr{}},
		{"nothing", nil, false, false, netip.Addr{}},
		{"the INIT itself", ask, false, false, netip.Addr{}},
		{"cut in the header", ack[:11], false, false, netip.Addr{}},
		{"cut in the cookie", ack[:40], false, false, netip.Addr{}},
		{"chunk of no length", with(ack, 15, 0), false, false, netip.Addr{}},
		{"cookie of no length", with(ack, 35, 0), true, false, netip.Addr{}},
		{"cookie beyond the end", with(ack, 34, 1), true, false, netip.Addr{}},
		{"another port", with(ack, 1, ack[1]+1), false, false, netip.Addr{}},
		{"another tag", with(ack, 4, ack[4]+1), false, false, netip.Addr{}},
		{"another chunk", with(ack, 12, 9), false, false, netip.Addr{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			saw, refused, ok := q.answers(tt.packet)
			if saw != tt.saw || refused != tt.refused || ok != tt.ok {
				t.Errorf("saw %v, refused %v, answer %v", saw, refused, ok)
			}
		})
	}
	for _, packet := range [][]byte{nil, ask[:12], ask[:20], ack, abort} {
		if got := answerSCTP(packet, from, map[uint16]bool{80: true}); got != nil {
			t.Errorf("answer %x to %x", got, packet)
		}
	}
}

// TestAnswerICMP holds that the server leaves to the kernel what the kernel answers,
// and to others what is not asked of it.
func TestAnswerICMP(t *testing.T) {
	from4, from6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	for _, tt := range []struct {
		name   string
		from   netip.Addr
		packet []byte
		reply  int // -1: none
	}{
		{"echo", from4, icmpPacket(false, 8, 0, 1, 2, icmpAsks), -1},
		{"echo with a code", from4, icmpPacket(false, 8, 1, 1, 2, icmpAsks), 0},
		{"timestamp", from4, icmpPacket(false, 13, 0, 1, 2, icmpAsks), -1},
		{"timestamp with a code", from4, icmpPacket(false, 13, 3, 1, 2, icmpAsks), 14},
		{"mask", from4, icmpPacket(false, 17, 0, 1, 2, icmpAsks), 18},
		{"mask, of others", from4, icmpPacket(false, 17, 0, 1, 2, "mask?"), -1},
		{"unreachable", from4, icmpPacket(false, 3, 0, 1, 2, icmpAsks), -1},
		{"our own answer", from4, icmpPacket(false, 17, 0, 1, 2, icmpAnswers), -1},
		{"nothing", from4, nil, -1},
		{"IPv6 echo", from6, icmpPacket(true, 128, 0, 1, 2, icmpAsks), -1},
		{"IPv6 echo with a code", from6, icmpPacket(true, 128, 1, 1, 2, icmpAsks), 129},
		{"IPv6 node information", from6, icmpPacket(true, 139, 0, 1, 2, icmpAsks), 140},
		{"IPv6 type 13", from6, icmpPacket(true, 13, 1, 1, 2, icmpAsks), -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := answerICMP(tt.packet, tt.from)
			if (got == nil) != (tt.reply < 0) || got != nil && int(got[0]) != tt.reply {
				t.Fatalf("got %x, want type %d", got, tt.reply)
			}
			if got == nil {
				return
			}
			q := request{is6: tt.from.Is6(), kind: tt.packet[0], code: tt.packet[1], id: 1, count: 2}
			if saw, _, ok := q.answers(got); !ok || saw != tt.from || got[1] != q.code {
				t.Errorf("%x is no answer that saw %s: %v, %v", got, tt.from, saw, ok)
			}
		})
	}
}
