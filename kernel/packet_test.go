package kernel_test

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/kernel"
)

// Headers of IP, to be followed by what is in them.
const (
	header4  = "45000040 00004000 40%%0000 0a000001 0a000002"
	header6  = "60000000 0018%%40 fd000000000000000000000000000001 fd000000000000000000000000000002"
	tcpBytes = "03e8 0050 00000001 00000002 5012 ffff 0000 0000"
	udpBytes = "03e8 0035 0008 0000"
)

// packetBytes returns the bytes of hex digits, with the protocol in the header.
func packetBytes(t testing.TB, protocol, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "%%", protocol).Replace(digits))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParsePacket(t *testing.T) {
	from4 := kernel.Packet{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Length: 64}
	from6 := kernel.Packet{Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), Length: 64}
	of := func(p kernel.Packet, protocol uint8, change func(*kernel.Packet)) kernel.Packet {
		p.Protocol = protocol
		if change != nil {
			change(&p)
		}
		return p
	}
	tcp := func(p *kernel.Packet) { p.SrcPort, p.DstPort, p.TCPFlags = 1000, 80, 0x12 }
	udp := func(p *kernel.Packet) { p.SrcPort, p.DstPort = 1000, 53 }
	fragment := func(p *kernel.Packet) { p.Fragment = true }
	first := func(p *kernel.Packet) { fragment(p); udp(p) }
	for _, tt := range []struct {
		name             string
		protocol, digits string
		want             kernel.Packet
		err              string
	}{
		{"nothing", "", "", kernel.Packet{}, "packet ends within its headers"},
		{"no IP", "", "00", kernel.Packet{}, "packet of IP version 0"},
		{"IPv4, TCP", "06", header4 + tcpBytes, of(from4, 6, tcp), ""},
		{"IPv6, TCP", "06", header6 + tcpBytes, of(from6, 6, tcp), ""},
		{"IPv4, UDP", "11", header4 + udpBytes, of(from4, 17, udp), ""},
		{"IPv6, UDP", "11", header6 + udpBytes, of(from6, 17, udp), ""},
		{"SCTP", "84", header6 + udpBytes, of(from6, 132, udp), ""},
		{"ports only", "11", header4 + "03e80035", of(from4, 17, udp), ""},
		{"less than ports", "11", header4 + "03e800", of(from4, 17, nil), "packet ends within its headers"},
		{"TCP without flags", "06", header4 + "03e80050", of(from4, 6, func(p *kernel.Packet) { p.SrcPort, p.DstPort = 1000, 80 }), "packet ends within its headers"},
		{"IPv4, echo", "01", header4 + "0800 0000 0007 0001", of(from4, 1, func(p *kernel.Packet) { p.ICMPType, p.ICMPID = 8, 7 }), ""},
		{"IPv6, echo reply", "3a", header6 + "8100 0000 0007 0001", of(from6, 58, func(p *kernel.Packet) { p.ICMPType, p.ICMPID = 129, 7 }), ""},
		{"ICMP, unreachable", "01", header4 + "0301 0000 0000 0000", of(from4, 1, func(p *kernel.Packet) { p.ICMPType, p.ICMPCode = 3, 1 }), ""},
		{"ICMP, cut", "01", header4 + "08", of(from4, 1, nil), "packet ends within its headers"},
		{"echo, cut", "01", header4 + "0800 0000", of(from4, 1, func(p *kernel.Packet) { p.ICMPType = 8 }), "packet ends within its headers"},
		{"unknown protocol", "63", header4, of(from4, 99, nil), ""},
		{"IPv4, options", "11", strings.Replace(header4, "45", "47", 1) + "01010101 01010101" + udpBytes, of(from4, 17, udp), ""},
		{"IPv4, options cut", "11", strings.Replace(header4, "45", "47", 1) + "0101", of(from4, 17, nil), "packet ends within its headers"},
		{"IPv4, too short a header", "11", strings.Replace(header4, "45", "44", 1), kernel.Packet{}, "header of IPv4 with 16 bytes"},
		{"IPv4, cut", "11", header4[:40], kernel.Packet{}, "packet ends within its headers"},
		{"IPv6, cut", "11", header6[:69], kernel.Packet{}, "packet ends within its headers"},
		{"IPv4, first fragment", "11", strings.Replace(header4, "00004000", "00002000", 1) + udpBytes, of(from4, 17, first), ""},
		{"IPv4, later fragment", "11", strings.Replace(header4, "00004000", "00000001", 1) + udpBytes, of(from4, 17, fragment), ""},
		{"IPv6, first fragment", "2c", header6 + "11000001 00000000" + udpBytes, of(from6, 17, first), ""},
		{"IPv6, later fragment", "2c", header6 + "11000008 00000000" + udpBytes, of(from6, 17, fragment), ""},
		{"IPv6, whole in a fragment's header", "2c", header6 + "06000000 00000000" + tcpBytes, of(from6, 6, func(p *kernel.Packet) { fragment(p); tcp(p) }), ""},
		{"IPv6, fragment's header cut", "2c", header6 + "11000000", of(from6, 44, nil), "packet ends within its headers"},
		{"IPv6, hop by hop, destination", "00", header6 + "3c000000 00000000" + "11010000 00000000 00000000 00000000" + udpBytes, of(from6, 17, udp), ""},
		{"IPv6, routing", "2b", header6 + "11000000 00000000" + udpBytes, of(from6, 17, udp), ""},
		{"IPv6, authentication", "33", header6 + "11040000 00000000 00000000 00000000 00000000 00000000" + udpBytes, of(from6, 17, udp), ""},
		{"IPv6, extension cut", "3c", header6 + "11", of(from6, 60, nil), "packet ends within its headers"},
		{"IPv6, long extension cut", "3c", header6 + "11ff0000", of(from6, 60, nil), "packet ends within its headers"},
		{"IPv6, no next header", "3b", header6 + udpBytes, of(from6, 59, nil), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := kernel.ParsePacket(packetBytes(t, tt.protocol, tt.digits))
			if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Errorf("packet (-want +got):\n%s", d)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != tt.err {
				t.Errorf("error %q, want %q", text, tt.err)
			}
		})
	}
}

func TestPacketString(t *testing.T) {
	for want, p := range map[string]kernel.Packet{
		"10.0.0.1:1000 > 10.0.0.2:53 protocol 17":       {Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: 17, SrcPort: 1000, DstPort: 53},
		"[fd00::1]:1000 > [fd00::2]:53 protocol 6":      {Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), Protocol: 6, SrcPort: 1000, DstPort: 53},
		"fd00::1 > fd00::2 protocol 58 type 128 code 0": {Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), Protocol: 58, ICMPType: 128},
		"10.0.0.1 > 10.0.0.2 protocol 47":               {Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: 47},
	} {
		if got := p.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzParsePacket looks for bytes that stop the parser, or that say of a packet what
// its protocol has not.
func FuzzParsePacket(f *testing.F) {
	for _, seed := range []string{
		header4 + tcpBytes, header6 + tcpBytes, header6 + "11000008 00000000" + udpBytes,
		header6 + "3c000000 00000000 11010000 00000000 00000000 00000000" + udpBytes,
	} {
		for _, protocol := range []string{"06", "11", "01", "3a", "00", "2c", "33"} {
			f.Add(packetBytes(f, protocol, seed))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := kernel.ParsePacket(b)
		if p.Src.IsValid() != p.Dst.IsValid() || err == nil && !p.Src.IsValid() || p.Src.Is4() != p.Dst.Is4() {
			t.Errorf("%+v, %v: one address without the other", p, err)
		}
		if p.TCPFlags != 0 && p.Protocol != kernel.ProtoTCP || p.ICMPType != 0 && p.SrcPort != 0 {
			t.Errorf("%+v has what its protocol has not", p)
		}
		if again, _ := kernel.ParsePacket(append(b, 0)); err == nil && again != p {
			t.Errorf("with one byte more %+v becomes %+v", p, again)
		}
	})
}
