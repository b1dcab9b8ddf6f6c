package wire

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func ethernet(t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: t}
}

func ipv4(src, dst string, next layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: next, SrcIP: net.ParseIP(src).To4(), DstIP: net.ParseIP(dst).To4()}
}

func ipv6(src, dst string, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func udp(port layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: 5555, DstPort: port} }

func frame(t *testing.T, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecode(t *testing.T) {
	four, six := ethernet(layers.EthernetTypeIPv4), ethernet(layers.EthernetTypeIPv6)
	inside := gopacket.Payload("hello")
	vxlan := &layers.VXLAN{ValidIDFlag: true, VNI: 4096}
	data := gopacket.Payload(append([]byte{4, 0, 0, 0}, make([]byte, 60)...))
	keepalive := gopacket.Payload(append([]byte{4, 0, 0, 0}, make([]byte, 28)...))
	handshake := gopacket.Payload(append([]byte{1, 0, 0, 0}, make([]byte, 144)...))
	addr := netip.MustParseAddr
	tunnel := func(kind Kind, vni uint32, port uint16, from, to string) Transport {
		return Transport{Kind: kind, VNI: vni, Port: port, From: addr(from), To: addr(to)}
	}
	tests := []struct {
		name  string
		frame []byte
		want  *Packet // nil: none
	}{
		{"plain", frame(t, four, ipv4("10.9.0.1", "10.9.0.2", layers.IPProtocolUDP), udp(8080), inside),
			&Packet{Transport{Kind: Plain}, addr("10.9.0.1"), addr("10.9.0.2")}},
		{"plain, IPv6, no UDP", frame(t, six, ipv6("fd00::1", "fd00::2", layers.IPProtocolTCP), inside),
			&Packet{Transport{Kind: Plain}, addr("fd00::1"), addr("fd00::2")}},
		{"IPIP", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolIPv4), ipv4("10.9.0.1", "10.9.0.2", layers.IPProtocolUDP), udp(8080), inside),
			&Packet{tunnel(IPIP, 0, 0, "10.1.0.1", "10.1.0.2"), addr("10.9.0.1"), addr("10.9.0.2")}},
		{"IPv6 in IPv4 is no IPIP", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolIPv6), ipv6("fd00::1", "fd00::2", layers.IPProtocolUDP), udp(8080), inside),
			&Packet{Transport{Kind: Plain}, addr("10.1.0.1"), addr("10.1.0.2")}},
		{"VXLAN", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolUDP), udp(4789), vxlan, four, ipv4("10.9.0.1", "10.9.0.2", layers.IPProtocolUDP), udp(8080), inside),
			&Packet{tunnel(VXLAN, 4096, 4789, "10.1.0.1", "10.1.0.2"), addr("10.9.0.1"), addr("10.9.0.2")}},
		{"VXLAN over IPv6, of another port", frame(t, six, ipv6("fd00:1::1", "fd00:1::2", layers.IPProtocolUDP), udp(8472), vxlan, six, ipv6("fd00::1", "fd00::2", layers.IPProtocolUDP), udp(8080), inside),
			&Packet{tunnel(VXLAN, 4096, 8472, "fd00:1::1", "fd00:1::2"), addr("fd00::1"), addr("fd00::2")}},
		{"VXLAN with ARP inside", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolUDP), udp(4789), vxlan, ethernet(layers.EthernetTypeARP), inside), nil},
		{"too short for VXLAN", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolUDP), udp(4789), inside), nil},
		{"WireGuard", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolUDP), udp(51820), data),
			&Packet{Transport: tunnel(WireGuard, 0, 51820, "10.1.0.1", "10.1.0.2")}},
		{"WireGuard keepalive", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolUDP), udp(51820), keepalive), nil},
		{"WireGuard handshake", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolUDP), udp(51820), handshake), nil},
		{"ARP", frame(t, ethernet(layers.EthernetTypeARP), inside), nil},
		{"half a header", frame(t, four, ipv4("10.1.0.1", "10.1.0.2", layers.IPProtocolUDP))[:20], nil},
		{"nothing", nil, nil},
	}
	ports := Ports{4789: VXLAN, 8472: VXLAN, 51820: WireGuard}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got *Packet
			if p, ok := Decode(tt.frame, ports); ok {
				got = &p
			}
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
