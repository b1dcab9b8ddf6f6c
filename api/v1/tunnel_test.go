package v1

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNodeTunnels(t *testing.T) {
	const key = "b25lb25lb25lb25lb25lb25lb25lb25lb25lb25lb24="
	wireguard := func(fields string) string { return "spec: {wireguard: {" + fields + "}}" }
	checkAll(t, "Node", map[string]struct{ body, want string }{
		"all": {`spec:
  bgp: {ipv4Address: 192.0.2.11/24, ipv4IPIPTunnelAddr: 10.244.0.1}
  ipv4VXLANTunnelAddr: 10.244.0.2
  vxlanTunnelMACAddr: "66:01:02:03:04:05"
  ipv6VXLANTunnelAddr: "fd00::2"
  vxlanTunnelMACAddrV6: "66:01:02:03:04:06"
  wireguard: {publicKey: ` + key + `, listeningPort: 51820, interfaceIPv4Address: 10.244.0.3, interfaceIPv6Address: "fd00::3"}`, ""},
		"no address":      {"spec: {bgp: {ipv4Address: 192.0.2.11/24, ipv4IPIPTunnelAddr: tunl0}}", `spec.bgp.ipv4IPIPTunnelAddr: Invalid value: "tunl0": must be an IP address`},
		"IPIP with IPv6":  {"spec: {bgp: {ipv4Address: 192.0.2.11/24, ipv4IPIPTunnelAddr: 'fd00::1'}}", `spec.bgp.ipv4IPIPTunnelAddr: Invalid value: "fd00::1": is of the other family`},
		"other family":    {"spec: {ipv6VXLANTunnelAddr: 10.244.0.2, vxlanTunnelMACAddrV6: '66:01:02:03:04:05'}", `spec.ipv6VXLANTunnelAddr: Invalid value: "10.244.0.2": is of the other family`},
		"VXLAN, no MAC":   {"spec: {ipv4VXLANTunnelAddr: 10.244.0.2}", `spec.vxlanTunnelMACAddr: Invalid value: "": must be a unicast hardware address such as 66:01:02:03:04:05, for the device has an address`},
		"multicast MAC":   {"spec: {ipv4VXLANTunnelAddr: 10.244.0.2, vxlanTunnelMACAddr: '67:01:02:03:04:05'}", `spec.vxlanTunnelMACAddr: Invalid value: "67:01:02:03:04:05": must be a unicast hardware address such as 66:01:02:03:04:05, for the device has an address`},
		"long MAC":        {"spec: {ipv4VXLANTunnelAddr: 10.244.0.2, vxlanTunnelMACAddr: '66:01:02:03:04:05:06:07'}", `spec.vxlanTunnelMACAddr: Invalid value: "66:01:02:03:04:05:06:07": must be a unicast hardware address such as 66:01:02:03:04:05, for the device has an address`},
		"MAC, no address": {"spec: {vxlanTunnelMACAddrV6: '66:01:02:03:04:05'}", `spec.vxlanTunnelMACAddrV6: Invalid value: "66:01:02:03:04:05": must be empty, for the device has no address`},
		"short key":       {wireguard("publicKey: b25l, listeningPort: 51820"), `spec.wireguard.publicKey: Invalid value: "b25l": must be a WireGuard key: 32 bytes in base64`},
		"no key":          {wireguard("listeningPort: 51820"), `spec.wireguard.publicKey: Invalid value: "": must be a WireGuard key: 32 bytes in base64`},
		"first port":      {wireguard("listeningPort: 1, publicKey: " + key), ""},
		"last port":       {wireguard("listeningPort: 65535, publicKey: " + key), ""},
		"port 0":          {wireguard("listeningPort: 0, publicKey: " + key), "spec.wireguard.listeningPort: Invalid value: 0: must be between 1 and 65535, inclusive"},
		"port 65536":      {wireguard("listeningPort: 65536, publicKey: " + key), "spec.wireguard.listeningPort: Invalid value: 65536: must be between 1 and 65535, inclusive"},
	})
}

func TestAgentConfiguration(t *testing.T) {
	spec := func(name, fields string) string { return "metadata: {name: " + name + "}\nspec: {" + fields + "}" }
	checkAll(t, "AgentConfiguration", map[string]struct{ body, want string }{
		"default":         {spec("default", ""), ""},
		"of a node":       {spec("node.n1", "wireguardEnabled: false, wireguardListeningPort: 51821, vxlanChecksumOffload: Disabled"), ""},
		"everything":      {spec("default", "wireguardEnabled: true, wireguardListeningPort: 1, vxlanVNI: 1, vxlanPort: 65535, vxlanChecksumOffload: Auto"), ""},
		"another name":    {spec("n1", ""), `metadata.name: Invalid value: "n1": must be default, or node. with a node's name`},
		"VNI of a node":   {spec("node.n1", "vxlanVNI: 5"), "spec.vxlanVNI: Forbidden: is the same on all nodes: set it in AgentConfiguration default"},
		"port of a node":  {spec("node.n1", "vxlanPort: 8472"), "spec.vxlanPort: Forbidden: is the same on all nodes: set it in AgentConfiguration default"},
		"VNI 0":           {spec("default", "vxlanVNI: 0"), "spec.vxlanVNI: Invalid value: 0: must be 1 to 16777215"},
		"greatest VNI":    {spec("default", "vxlanVNI: 16777215"), ""},
		"VNI too great":   {spec("default", "vxlanVNI: 16777216"), "spec.vxlanVNI: Invalid value: 16777216: must be 1 to 16777215"},
		"VXLAN port 0":    {spec("default", "vxlanPort: 0"), "spec.vxlanPort: Invalid value: 0: must be between 1 and 65535, inclusive"},
		"WireGuard port":  {spec("default", "wireguardListeningPort: 65536"), "spec.wireguardListeningPort: Invalid value: 65536: must be between 1 and 65535, inclusive"},
		"unknown offload": {spec("default", "vxlanChecksumOffload: Sometimes"), `spec.vxlanChecksumOffload: Unsupported value: "Sometimes": supported values: "Auto", "Enabled", "Disabled"`},
	})
}

func TestEffective(t *testing.T) {
	defaults := AgentSettings{WireGuardListeningPort: 51820, VXLANVNI: 4096, VXLANPort: 4789, VXLANChecksumOffload: ChecksumOffloadAuto,
		PolicyChange: PolicyKeep, DefaultEndpointToHostAction: EndpointToHostAccept, LogActionRateLimit: 10, LogActionBurst: 5,
		FailsafeInbound: defaultFailsafeInbound(), FailsafeOutbound: defaultFailsafeOutbound()}
	with := func(change func(*AgentSettings)) AgentSettings { s := defaults; change(&s); return s }
	cluster := &AgentConfiguration{Spec: AgentConfigurationSpec{WireGuardEnabled: new(true), VXLANVNI: new(int32(7)), WireGuardListeningPort: new(int32(1))}}
	for _, row := range []struct {
		name          string
		cluster, node *AgentConfiguration
		want          AgentSettings
	}{
		{"neither", nil, nil, defaults},
		{"empty", &AgentConfiguration{}, &AgentConfiguration{}, defaults},
		{"the cluster's", cluster, nil, with(func(s *AgentSettings) { s.WireGuardEnabled, s.VXLANVNI, s.WireGuardListeningPort = true, 7, 1 })},
		{"the node's goes before, field by field", cluster, &AgentConfiguration{Spec: AgentConfigurationSpec{WireGuardEnabled: new(false)}},
			with(func(s *AgentSettings) { s.VXLANVNI, s.WireGuardListeningPort = 7, 1 })},
		{"only the node's", nil, &AgentConfiguration{Spec: AgentConfigurationSpec{VXLANChecksumOffload: new(ChecksumOffloadDisabled)}},
			with(func(s *AgentSettings) { s.VXLANChecksumOffload = ChecksumOffloadDisabled })},
		{"of policies", cluster, &AgentConfiguration{Spec: AgentConfigurationSpec{PolicySettings: PolicySettings{
			PolicyChange: new(PolicyTerminate), DefaultEndpointToHostAction: new(EndpointToHostDrop), LogActionRateLimit: new(int32(1)), LogActionRateLimitBurst: new(int32(2)),
			FailsafeInboundHostPorts: new([]FailsafePort{}), FailsafeOutboundHostPorts: new([]FailsafePort{{Protocol: ProtocolUDP, Port: 53}}),
		}}}, with(func(s *AgentSettings) {
			s.WireGuardEnabled, s.VXLANVNI, s.WireGuardListeningPort = true, 7, 1
			s.PolicyChange, s.DefaultEndpointToHostAction, s.LogActionRateLimit, s.LogActionBurst = PolicyTerminate, EndpointToHostDrop, 1, 2
			s.FailsafeInbound, s.FailsafeOutbound = []FailsafePort{}, []FailsafePort{{Protocol: ProtocolUDP, Port: 53}}
		})},
	} {
		if diff := cmp.Diff(row.want, Effective(row.cluster, row.node)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}
