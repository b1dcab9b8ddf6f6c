package gobgp

import (
	"net/netip"
	"testing"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"cairn.network/cairn/bgp"
)

func message(t testing.TB, m *packet.BGPMessage) []byte {
	t.Helper()
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestScanner cuts streams of messages into pieces of every size.
func TestScanner(t *testing.T) {
	open, err := packet.NewBGPOpenMessage(64512, 90, netip.MustParseAddr("10.0.0.1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	keepalive := message(t, packet.NewBGPKeepAliveMessage())
	cease := message(t, packet.NewBGPNotificationMessage(6, 2, []byte("\x03bye")))
	for _, c := range []struct {
		name   string
		stream []byte
		want   bgp.Notification
	}{
		{"nothing", nil, bgp.Notification{}},
		{"no notification", append(message(t, open), keepalive...), bgp.Notification{}},
		{"at once", message(t, packet.NewBGPNotificationMessage(2, 2, nil)), bgp.BadPeerAS},
		{"with data, after others", append(append(message(t, open), keepalive...), cease...), bgp.Notification{Code: 6, Subcode: 2}},
		{"followed by another", append(append([]byte{}, cease...), keepalive...), bgp.Notification{Code: 6, Subcode: 2}},
		{"cut off", cease[:20], bgp.Notification{}},
	} {
		for size := 1; size <= len(c.stream)+1; size++ {
			var s scanner
			var got bgp.Notification
			for rest := c.stream; len(rest) > 0; {
				n := min(size, len(rest))
				if note, ok := s.scan(rest[:n]); ok {
					got = note
				}
				rest = rest[n:]
			}
			if got != c.want {
				t.Errorf("%s in pieces of %d: got %v, want %v", c.name, size, got, c.want)
			}
		}
	}
}

// FuzzScanner feeds what a peer may send: it must neither fail nor depend on how
// the stream is cut.
func FuzzScanner(f *testing.F) {
	f.Add([]byte("0123456789abcdef\x00\x17\x03\x06\x02xx"), 3)
	f.Add([]byte("0123456789abcdef\x00\x00\x03\x06\x02xx"), 1)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if size < 1 {
			return
		}
		var whole, cut scanner
		var notes [2][]bgp.Notification
		for i := range stream {
			if n, ok := whole.scan(stream[i : i+1]); ok {
				notes[0] = append(notes[0], n)
			}
		}
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			if note, ok := cut.scan(rest[:n]); ok {
				notes[1] = append(notes[1], note)
			}
			rest = rest[n:]
		}
		if whole != cut {
			t.Errorf("byte by byte %+v, in pieces of %d %+v", whole, size, cut)
		}
		if len(notes[0]) > 0 != (len(notes[1]) > 0) {
			t.Errorf("byte by byte %v, in pieces %v", notes[0], notes[1])
		}
	})
}

// TestPolicies counts statements: one per distinct Import and family.
func TestPolicies(t *testing.T) {
	set := func(ps ...string) bgp.PrefixSet {
		var out []netip.Prefix
		for _, p := range ps {
			out = append(out, netip.MustParsePrefix(p))
		}
		return bgp.Prefixes(out...)
	}
	addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	for _, c := range []struct {
		name    string
		imports []bgp.PrefixSet
		want    int // besides that for own paths
	}{
		{"no peers", nil, 0},
		{"nothing let in", []bgp.PrefixSet{set()}, 0},
		{"one family", []bgp.PrefixSet{set("10.1.0.0/16", "10.2.0.0/16")}, 1},
		{"both families", []bgp.PrefixSet{set("10.1.0.0/16", "fd00::/16")}, 2},
		{"equal but distinct", []bgp.PrefixSet{set("10.1.0.0/16", "fd00::/16"), set("fd00::/16", "10.1.0.9/16")}, 2},
		{"two", []bgp.PrefixSet{set("10.1.0.0/16"), set("10.2.0.0/16"), set()}, 2},
	} {
		peers := map[netip.Addr]bgp.Peer{}
		for i, p := range c.imports {
			peers[addr(byte(i+1))] = bgp.Peer{Local: addr(100), Import: p, IPv4: true}
		}
		if got := len(policies(peers).Policies[0].Statements) - 1; got != c.want {
			t.Errorf("%s: %d statements, want %d", c.name, got, c.want)
		}
	}
}
