package wire

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	v1 "cairn.network/cairn/api/v1"
)

// cluster returns that of n1 and n2 in one subnet and n3 in another, of which n4
// has IPv6 alone, with one pool of each mode.
func cluster(t *testing.T, more string) Cluster {
	t.Helper()
	var text strings.Builder
	for name, addrs := range map[string]string{
		"n1": "ipv4Address: 10.1.0.11/24, ipv6Address: fd00:1::11/64",
		"n2": "ipv4Address: 10.1.0.12/24, ipv6Address: fd00:1::12/64",
		"n3": "ipv4Address: 10.1.1.11/25, ipv6Address: fd00:2::11/64",
		"n4": "ipv6Address: fd00:1::14/64",
	} {
		fmt.Fprintf(&text, "---\n{apiVersion: cairn.network/v1, kind: Node, metadata: {name: %s}, spec: {bgp: {%s}}}\n", name, addrs)
	}
	for name, spec := range map[string]string{
		"plain": "cidr: 10.240.0.0/16", "plain6": "cidr: 'fd00:240::/48'",
		"ipip": "cidr: 10.241.0.0/16, ipipMode: Always", "ipip-cross": "cidr: 10.242.0.0/16, ipipMode: CrossSubnet",
		"vxlan": "cidr: 10.243.0.0/16, vxlanMode: Always", "vxlan-cross": "cidr: 10.244.0.0/16, vxlanMode: CrossSubnet",
		"vxlan6": "cidr: 'fd00:243::/48', vxlanMode: Always", "vxlan6-cross": "cidr: 'fd00:244::/48', vxlanMode: CrossSubnet, disabled: true",
	} {
		fmt.Fprintf(&text, "---\n{apiVersion: cairn.network/v1, kind: IPPool, metadata: {name: %s}, spec: {%s}}\n", name, spec)
	}
	objects, err := v1.Decode([]byte(text.String() + more))
	if err != nil {
		t.Fatal(err)
	}
	return Of(objects)
}

const configuration = "---\n{apiVersion: cairn.network/v1, kind: AgentConfiguration, metadata: {name: %s}, spec: {%s}}\n"

func TestExpect(t *testing.T) {
	all := fmt.Sprintf(configuration, "default", "wireguardEnabled: true")
	two := fmt.Sprintf(configuration, "node.n1", "wireguardEnabled: true") + fmt.Sprintf(configuration, "node.n3", "wireguardEnabled: true, wireguardListeningPort: 7")
	port := fmt.Sprintf(configuration, "default", "vxlanVNI: 77, vxlanPort: 8472")
	tests := []struct{ name, more, from, to, dst, want string }{
		{"plain", "", "n1", "n2", "10.240.0.1", "plain"},
		{"plain to another subnet", "", "n1", "n3", "10.240.0.1", "plain"},
		{"plain, IPv6", "", "n1", "n3", "fd00:240::1", "plain"},
		{"IPIP in the subnet", "", "n1", "n2", "10.241.0.1", "IPIP, protocol 4; 10.1.0.11 > 10.1.0.12"},
		{"IPIP between subnets", "", "n1", "n3", "10.242.0.1", "IPIP, protocol 4; 10.1.0.11 > 10.1.1.11"},
		{"no IPIP in the subnet", "", "n1", "n2", "10.242.0.1", "plain"},
		{"VXLAN", "", "n2", "n1", "10.243.0.1", "VXLAN 4096, UDP 4789; 10.1.0.12 > 10.1.0.11"},
		{"VXLAN between subnets", "", "n3", "n1", "10.244.0.1", "VXLAN 4096, UDP 4789; 10.1.1.11 > 10.1.0.11"},
		{"VXLAN, IPv6", "", "n1", "n2", "fd00:243::1", "VXLAN 4096, UDP 4789; fd00:1::11 > fd00:1::12"},
		{"no VXLAN in the subnet, IPv6, a disabled pool", "", "n1", "n4", "fd00:244::1", "plain"},
		{"VXLAN of other numbers", port, "n2", "n1", "10.243.0.1", "VXLAN 77, UDP 8472; 10.1.0.12 > 10.1.0.11"},
		{"WireGuard instead of IPIP", all, "n1", "n2", "10.241.0.1", "WireGuard, UDP 51820; 10.1.0.11 > 10.1.0.12"},
		{"WireGuard for IPv6 over IPv4", all, "n1", "n2", "fd00:240::1", "WireGuard, UDP 51820; 10.1.0.11 > 10.1.0.12"},
		{"WireGuard over IPv6", all, "n1", "n4", "fd00:240::1", "WireGuard, UDP 51820; fd00:1::11 > fd00:1::14"},
		{"WireGuard of two nodes, to the other's port", two, "n1", "n3", "10.240.0.1", "WireGuard, UDP 7; 10.1.0.11 > 10.1.1.11"},
		{"no WireGuard with a third", two, "n1", "n2", "10.240.0.1", "plain"},
		{"no pool", "", "n1", "n2", "10.9.0.1", "error: 10.9.0.1 lies in no pool"},
		{"no such node", "", "n1", "n9", "10.240.0.1", "error: node n9 has no address of the packets' family"},
		{"no such address", "", "n1", "n4", "10.243.0.1", "error: node n4 has no address of the packets' family"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := cluster(t, tt.more).Expect(tt.from, tt.to, netip.MustParseAddr(tt.dst))
			text := got.String()
			if got.From.IsValid() {
				text += fmt.Sprintf("; %s > %s", got.From, got.To)
			}
			if err != nil {
				text = "error: " + err.Error()
			}
			if text != tt.want {
				t.Errorf("got %s\nwant %s", text, tt.want)
			}
		})
	}
}
