package v1

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

// check decodes one object of the kind from YAML and returns what Check says of
// it, without the object's title.
func check(t *testing.T, kind, body string) string {
	t.Helper()
	text := "apiVersion: cairn.network/v1\nkind: " + kind + "\n" + body
	if !strings.Contains(body, "metadata:") {
		text += "\nmetadata: {name: a}"
	}
	objects, err := Decode([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if err := Check(objects[0]); err != nil {
		return strings.TrimPrefix(err.Error(), title(objects[0])+": ")
	}
	return ""
}

// checkAll checks the bodies of rows: each is valid, or refused for the reason.
func checkAll(t *testing.T, kind string, rows map[string]struct{ body, want string }) {
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, check(t, kind, row.body)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", row.body, diff)
			}
		})
	}
}

func TestMeta(t *testing.T) {
	long := strings.Repeat("a", 253)
	const dns = `a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`
	checkAll(t, "Node", map[string]struct{ body, want string }{
		"dots":           {"metadata: {name: n1.example.com}", ""},
		"longest":        {"metadata: {name: " + long + "}", ""},
		"too long":       {"metadata: {name: " + long + "a}", `metadata.name: Invalid value: "` + long + `a": must be no more than 253 characters`},
		"none":           {"metadata: {}", "metadata.name: Required value: name or generateName is required"},
		"upper case":     {"metadata: {name: N1}", `metadata.name: Invalid value: "N1": ` + dns},
		"generated":      {"metadata: {name: a, generateName: b-}", "metadata.generateName: Forbidden: names are not generated; set metadata.name"},
		"in namespace":   {"metadata: {name: a, namespace: b}", "metadata.namespace: Forbidden: not allowed on this type"},
		"labels":         {"metadata: {name: a, labels: {a.b/c: D_1, e: ''}}", ""},
		"bad label":      {"metadata: {name: a, labels: {a: '-'}}", `metadata.labels: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`},
		"several faults": {"metadata: {name: a, namespace: b}\nspec: {bgp: {}}", "metadata.namespace: Forbidden: not allowed on this type; spec.bgp: Required value: ipv4Address, ipv6Address or both"},
	})
	checkAll(t, "NodeStatus", map[string]struct{ body, want string }{
		"empty":   {"", ""},
		"no name": {"metadata: {}", "metadata.name: Required value: name or generateName is required"},
	})
}

func TestIPPool(t *testing.T) {
	checkAll(t, "IPPool", map[string]struct{ body, want string }{
		"IPv4":               {"spec: {cidr: 10.244.0.0/16}", ""},
		"IPv6":               {"spec: {cidr: 'fd00::/48'}", ""},
		"everything":         {"spec: {cidr: 10.244.0.0/16, blockSize: 28, vxlanMode: CrossSubnet, natOutgoing: true, disabled: true, disableBGPExport: true, nodeSelector: \"has(a)\"}", ""},
		"no CIDR":            {"spec: {}", "spec.cidr: Required value"},
		"no prefix length":   {"spec: {cidr: 10.244.0.0}", `spec.cidr: Invalid value: "10.244.0.0": must be a range such as 10.244.0.0/16 or fd00:10:244::/48`},
		"prefix length 33":   {"spec: {cidr: 10.244.0.0/33}", `spec.cidr: Invalid value: "10.244.0.0/33": must be a range such as 10.244.0.0/16 or fd00:10:244::/48`},
		"not the first":      {"spec: {cidr: 10.244.1.2/16}", `spec.cidr: Invalid value: "10.244.1.2/16": must begin with the range's first address: 10.244.0.0/16`},
		"mapped":             {"spec: {cidr: '::ffff:10.0.0.0/104'}", `spec.cidr: Invalid value: "::ffff:10.0.0.0/104": must not be an IPv4 range in the form of IPv6`},
		"default route":      {"spec: {cidr: 0.0.0.0/0}", `spec.cidr: Invalid value: "0.0.0.0/0": must not contain unspecified addresses (0.0.0.0/8)`},
		"link-local":         {"spec: {cidr: 169.254.128.0/17}", `spec.cidr: Invalid value: "169.254.128.0/17": must not contain link-local addresses (169.254.0.0/16)`},
		"beside link-local":  {"spec: {cidr: 169.255.0.0/16}", ""},
		"around loopback":    {"spec: {cidr: 126.0.0.0/7}", `spec.cidr: Invalid value: "126.0.0.0/7": must not contain loopback addresses (127.0.0.0/8)`},
		"multicast":          {"spec: {cidr: 239.0.0.0/16}", `spec.cidr: Invalid value: "239.0.0.0/16": must not contain multicast addresses (224.0.0.0/4)`},
		"last addresses":     {"spec: {cidr: 255.255.255.0/24}", `spec.cidr: Invalid value: "255.255.255.0/24": must not contain the broadcast address (255.255.255.255/32)`},
		"IPv6 link-local":    {"spec: {cidr: 'fe80::/64'}", `spec.cidr: Invalid value: "fe80::/64": must not contain link-local addresses (fe80::/10)`},
		"IPv6 multicast":     {"spec: {cidr: 'ff05::/64'}", `spec.cidr: Invalid value: "ff05::/64": must not contain multicast addresses (ff00::/8)`},
		"IPv6 loopback":      {"spec: {cidr: '::1/128'}", `spec.cidr: Invalid value: "::1/128": must not contain the loopback address (::1/128)`},
		"blocks of 20":       {"spec: {cidr: 10.0.0.0/8, blockSize: 20}", ""},
		"blocks of 19":       {"spec: {cidr: 10.0.0.0/8, blockSize: 19}", "spec.blockSize: Invalid value: 19: must be 20 to 32"},
		"blocks of 32":       {"spec: {cidr: 10.0.0.0/8, blockSize: 32}", ""},
		"blocks of 33":       {"spec: {cidr: 10.0.0.0/8, blockSize: 33}", "spec.blockSize: Invalid value: 33: must be 20 to 32"},
		"negative blocks":    {"spec: {cidr: 10.0.0.0/8, blockSize: -1}", "spec.blockSize: Invalid value: -1: must be 20 to 32"},
		"IPv6 blocks of 116": {"spec: {cidr: 'fd00::/48', blockSize: 116}", ""},
		"IPv6 blocks of 115": {"spec: {cidr: 'fd00::/48', blockSize: 115}", "spec.blockSize: Invalid value: 115: must be 116 to 128"},
		"IPv6 blocks of 128": {"spec: {cidr: 'fd00::/48', blockSize: 128}", ""},
		"IPv6 blocks of 129": {"spec: {cidr: 'fd00::/48', blockSize: 129}", "spec.blockSize: Invalid value: 129: must be 116 to 128"},
		"IPv6 blocks of 26":  {"spec: {cidr: 'fd00::/48', blockSize: 26}", "spec.blockSize: Invalid value: 26: must be 116 to 128"},
		"one block":          {"spec: {cidr: 10.0.0.0/26, blockSize: 26}", ""},
		"less than a block":  {"spec: {cidr: 10.0.0.0/27, blockSize: 26}", "spec.blockSize: Invalid value: 26: must not be less than the pool's prefix length, 27"},
		"small pool":         {"spec: {cidr: 10.0.0.0/28}", ""},
		"small IPv6 pool":    {"spec: {cidr: 'fd00::/124'}", ""},
		"IPIP":               {"spec: {cidr: 10.0.0.0/8, ipipMode: Always}", ""},
		"IPIP for IPv6":      {"spec: {cidr: 'fd00::/48', ipipMode: Always}", `spec.ipipMode: Invalid value: "Always": must be Never: IPIP carries IPv4 only`},
		"VXLAN for IPv6":     {"spec: {cidr: 'fd00::/48', vxlanMode: Always}", ""},
		"both tunnels":       {"spec: {cidr: 10.0.0.0/8, ipipMode: Always, vxlanMode: CrossSubnet}", `spec.vxlanMode: Invalid value: "CrossSubnet": must be Never where ipipMode isn't: a packet travels in one tunnel`},
		"mode in lower case": {"spec: {cidr: 10.0.0.0/8, ipipMode: always}", `spec.ipipMode: Unsupported value: "always": supported values: "Never", "Always", "CrossSubnet"`},
		"selector":           {"spec: {cidr: 10.0.0.0/8, nodeSelector: \"rack == a\"}", `spec.nodeSelector: Invalid value: "rack == a": expected a value in quotes, found "a" at position 9`},
		"longest selector":   {"spec: {cidr: 10.0.0.0/8, nodeSelector: \"a == '" + strings.Repeat("b", maxSelector-7) + "'\"}", ""},
		"selector too long":  {"spec: {cidr: 10.0.0.0/8, nodeSelector: \"a == '" + strings.Repeat("b", maxSelector-6) + "'\"}", `spec.nodeSelector: Too long: may not be more than 1024 bytes`},
	})
}

func TestBGPConfiguration(t *testing.T) {
	const name = "metadata: {name: default}\n"
	checkAll(t, "BGPConfiguration", map[string]struct{ body, want string }{
		"empty":               {name, ""},
		"everything":          {name + "spec: {nodeToNodeMeshEnabled: false, asNumber: 4294967295, listenPort: 1179, nodeMeshMaxRestartTime: 4095s, clusterRoutes: BGP}", ""},
		"another name":        {"metadata: {name: other}", `metadata.name: Invalid value: "other": must be default: the cluster has one BGPConfiguration`},
		"AS 0":                {name + "spec: {asNumber: 0}", "spec.asNumber: Invalid value: 0: must be 1 to 4294967295"},
		"AS 1":                {name + "spec: {asNumber: 1}", ""},
		"AS_TRANS":            {name + "spec: {asNumber: 23456}", "spec.asNumber: Invalid value: 23456: stands for numbers of four octets (AS_TRANS, RFC 6793), and is nobody's"},
		"port 65535":          {name + "spec: {listenPort: 65535}", ""},
		"port 65536":          {name + "spec: {listenPort: 65536}", "spec.listenPort: Invalid value: 65536: must be between 1 and 65535, inclusive"},
		"port -1":             {name + "spec: {listenPort: -1}", "spec.listenPort: Invalid value: -1: must be between 1 and 65535, inclusive"},
		"restart: 1s":         {name + "spec: {nodeMeshMaxRestartTime: 1s}", ""},
		"restart: none":       {name + "spec: {nodeMeshMaxRestartTime: 0s}", `spec.nodeMeshMaxRestartTime: Invalid value: "0s": must be whole seconds, 1s to 1h8m15s`},
		"restart: 4096s":      {name + "spec: {nodeMeshMaxRestartTime: 4096s}", `spec.nodeMeshMaxRestartTime: Invalid value: "1h8m16s": must be whole seconds, 1s to 1h8m15s`},
		"restart: 1.5s":       {name + "spec: {nodeMeshMaxRestartTime: 1500ms}", `spec.nodeMeshMaxRestartTime: Invalid value: "1.5s": must be whole seconds, 1s to 1h8m15s`},
		"routes from nowhere": {name + "spec: {clusterRoutes: None}", `spec.clusterRoutes: Unsupported value: "None": supported values: "Datastore", "BGP"`},
	})
}

func TestBGPPeer(t *testing.T) {
	const ok = "asNumber: 65001, peerIP: 192.0.2.1"
	checkAll(t, "BGPPeer", map[string]struct{ body, want string }{
		"global":           {"spec: {" + ok + "}", ""},
		"one node's":       {"spec: {node: n1, " + ok + "}", ""},
		"everything":       {"spec: {nodeSelector: has(a), asNumber: 1, peerIP: '[2001:db8::1]:1179', maxRestartTime: 1s, keepaliveTime: 21845s, acceptCIDRs: [0.0.0.0/0, '2001:db8::/32']}", ""},
		"nothing":          {"spec: {}", "spec.peerIP: Required value; spec.asNumber: Invalid value: 0: must be 1 to 4294967295"},
		"node, selector":   {"spec: {node: n1, nodeSelector: all(), " + ok + "}", "spec.nodeSelector: Forbidden: may not be set together with node"},
		"bad selector":     {"spec: {nodeSelector: a, " + ok + "}", `spec.nodeSelector: Invalid value: "a": expected an operator behind label "a" (==, !=, in, not in, contains, starts with, ends with), found the end at position 2`},
		"bad node":         {"spec: {node: -, " + ok + "}", `spec.node: Invalid value: "-": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		"IPv6":             {"spec: {asNumber: 1, peerIP: '2001:db8::1'}", ""},
		"port":             {"spec: {asNumber: 1, peerIP: '192.0.2.1:65535'}", ""},
		"port 0":           {"spec: {asNumber: 1, peerIP: '192.0.2.1:0'}", `spec.peerIP: Invalid value: "192.0.2.1:0": must have a port of 1 to 65535`},
		"port 65536":       {"spec: {asNumber: 1, peerIP: '192.0.2.1:65536'}", `spec.peerIP: Invalid value: "192.0.2.1:65536": must be an IP address, with a port if it isn't 179: 192.0.2.1:1179, [2001:db8::1]:1179`},
		"name":             {"spec: {asNumber: 1, peerIP: router}", `spec.peerIP: Invalid value: "router": must be an IP address, with a port if it isn't 179: 192.0.2.1:1179, [2001:db8::1]:1179`},
		"zone":             {"spec: {asNumber: 1, peerIP: 'fe80::1%eth0'}", `spec.peerIP: Invalid value: "fe80::1%eth0": must not have a zone, with a port if it isn't 179: 192.0.2.1:1179, [2001:db8::1]:1179`},
		"zone and port":    {"spec: {asNumber: 1, peerIP: '[fe80::1%eth0]:179'}", `spec.peerIP: Invalid value: "fe80::1%eth0": must not have a zone`},
		"mapped":           {"spec: {asNumber: 1, peerIP: '::ffff:192.0.2.1'}", `spec.peerIP: Invalid value: "::ffff:192.0.2.1": must not be an IPv4 address in the form of IPv6, with a port if it isn't 179: 192.0.2.1:1179, [2001:db8::1]:1179`},
		"loopback":         {"spec: {asNumber: 1, peerIP: 127.0.0.1}", ""},
		"link-local":       {"spec: {asNumber: 1, peerIP: 'fe80::1'}", `spec.peerIP: Invalid value: "fe80::1": must not be one of link-local addresses (fe80::/10)`},
		"multicast":        {"spec: {asNumber: 1, peerIP: 224.0.0.1}", `spec.peerIP: Invalid value: "224.0.0.1": must not be one of multicast addresses (224.0.0.0/4)`},
		"unspecified":      {"spec: {asNumber: 1, peerIP: '::'}", `spec.peerIP: Invalid value: "::": must not be one of the unspecified address (::/128)`},
		"keepalive 21846s": {"spec: {keepaliveTime: 21846s, " + ok + "}", `spec.keepaliveTime: Invalid value: "6h4m6s": must be whole seconds, 1s to 6h4m5s`},
		"accepts nonsense": {"spec: {acceptCIDRs: [10.0.0.0/8, 10.0.0.1/8, x, 10.0.0.0/8], " + ok + "}", `spec.acceptCIDRs[1]: Invalid value: "10.0.0.1/8": must begin with the range's first address: 10.0.0.0/8; spec.acceptCIDRs[2]: Invalid value: "x": must be a range such as 10.244.0.0/16 or fd00:10:244::/48; spec.acceptCIDRs[3]: Duplicate value: "10.0.0.0/8"`},
	})
}

func TestNode(t *testing.T) {
	node4 := func(a string) string { return "spec: {bgp: {ipv4Address: '" + a + "'}}" }
	node6 := func(a string) string { return "spec: {bgp: {ipv6Address: '" + a + "'}}" }
	checkAll(t, "Node", map[string]struct{ body, want string }{
		"no member":         {"", ""},
		"dual":              {"spec: {bgp: {ipv4Address: 192.0.2.11/24, ipv6Address: '2001:db8::11/64', asNumber: 65001}}", ""},
		"no address":        {"spec: {bgp: {asNumber: 65001}}", "spec.bgp: Required value: ipv4Address, ipv6Address or both"},
		"AS_TRANS":          {"spec: {bgp: {ipv4Address: 192.0.2.11/24, asNumber: 23456}}", "spec.bgp.asNumber: Invalid value: 23456: stands for numbers of four octets (AS_TRANS, RFC 6793), and is nobody's"},
		"no length":         {node4("192.0.2.11"), `spec.bgp.ipv4Address: Invalid value: "192.0.2.11": must be an IPv4 address with the prefix length of its subnet, such as 192.0.2.11/24`},
		"IPv6 no length":    {node6("2001:db8::11"), `spec.bgp.ipv6Address: Invalid value: "2001:db8::11": must be an IPv6 address with the prefix length of its subnet, such as 2001:db8::11/64`},
		"other family":      {node4("2001:db8::11/64"), `spec.bgp.ipv4Address: Invalid value: "2001:db8::11/64": must be an IPv4 address`},
		"IPv6 other family": {node6("192.0.2.11/24"), `spec.bgp.ipv6Address: Invalid value: "192.0.2.11/24": must be an IPv6 address`},
		"mapped":            {node6("::ffff:192.0.2.11/120"), `spec.bgp.ipv6Address: Invalid value: "::ffff:192.0.2.11/120": must be an IPv6 address`},
		"loopback":          {node4("127.0.0.1/8"), `spec.bgp.ipv4Address: Invalid value: "127.0.0.1/8": must not be one of loopback addresses (127.0.0.0/8)`},
		"link-local":        {node6("fe80::1/64"), `spec.bgp.ipv6Address: Invalid value: "fe80::1/64": must not be one of link-local addresses (fe80::/10)`},
		"the subnet":        {node4("192.0.2.0/24"), `spec.bgp.ipv4Address: Invalid value: "192.0.2.0/24": must be the node's own address in the subnet, such as 192.0.2.11/24`},
		"the IPv6 subnet":   {node6("2001:db8::/64"), `spec.bgp.ipv6Address: Invalid value: "2001:db8::/64": must be the node's own address in the subnet, such as 2001:db8::11/64`},
		"point to point":    {node4("192.0.2.0/31"), ""},
		"alone":             {node4("192.0.2.0/32"), ""},
		"IPv6 alone":        {node6("2001:db8::/128"), ""},
	})
}

func TestWorkloadEndpoint(t *testing.T) {
	const head = "metadata: {name: web-eth0, namespace: default}\n"
	const rest = "node: n1, pod: web, containerID: c1, interfaceName: cairn0123456789"
	checkAll(t, "WorkloadEndpoint", map[string]struct{ body, want string }{
		"IPv4":          {head + "spec: {ipNetworks: [10.0.0.1/32], " + rest + "}", ""},
		"dual":          {head + "spec: {ipNetworks: [10.0.0.1/32, 'fd00::1/128'], endpoint: net1, " + rest + "}", ""},
		"nothing":       {head, "spec.node: Required value; spec.pod: Required value; spec.containerID: Required value; spec.interfaceName: Required value; spec.ipNetworks: Required value"},
		"no namespace":  {"metadata: {name: web-eth0}\nspec: {ipNetworks: [10.0.0.1/32], " + rest + "}", "metadata.namespace: Required value"},
		"no length":     {head + "spec: {ipNetworks: [10.0.0.1], " + rest + "}", `spec.ipNetworks[0]: Invalid value: "10.0.0.1": must be a range such as 10.244.0.0/16 or fd00:10:244::/48`},
		"a range":       {head + "spec: {ipNetworks: [10.0.0.0/24], " + rest + "}", `spec.ipNetworks[0]: Invalid value: "10.0.0.0/24": must be one address: prefix length 32 for IPv4, 128 for IPv6`},
		"twice":         {head + "spec: {ipNetworks: [10.0.0.1/32, 10.0.0.1/32], " + rest + "}", `spec.ipNetworks[1]: Duplicate value: "10.0.0.1/32"`},
		"name too long": {head + "spec: {ipNetworks: [10.0.0.1/32], node: n1, pod: web, containerID: c1, interfaceName: cairn01234567890}", `spec.interfaceName: Invalid value: "cairn01234567890": must be the name of a network device: at most 15 bytes, without slash, colon or space`},
		"bad endpoint":  {head + "spec: {ipNetworks: [10.0.0.1/32], endpoint: a b, " + rest + "}", `spec.endpoint: Invalid value: "a b": must be the name of a network device: at most 15 bytes, without slash, colon or space`},
	})
}

func TestIPAMBlock(t *testing.T) {
	block := func(rest string) string {
		return "metadata: {name: 10-0-0-0-26}\nspec: {cidr: 10.0.0.0/26, pool: p, node: n, state: Confirmed" + rest + "}"
	}
	checkAll(t, "IPAMBlock", map[string]struct{ body, want string }{
		"empty":          {block(""), ""},
		"IPv6":           {"metadata: {name: fd00-0000-0000-0000-0000-0000-0000-0000-122}\nspec: {cidr: 'fd00::/122', pool: p, node: n, state: Pending}", ""},
		"used":           {block(", allocations: [{address: 10.0.0.0, node: n}, {address: 10.0.0.63, node: m, owner: {containerID: c, interface: eth0}}], released: [{address: 10.0.0.7, at: '2026-01-01T00:00:00Z'}]"), ""},
		"nothing":        {"", "spec.cidr: Required value; spec.pool: Required value; spec.node: Required value; spec.state: Unsupported value: \"\": supported values: \"Pending\", \"Confirmed\", \"Releasing\""},
		"wrong name":     {"metadata: {name: b}\nspec: {cidr: 10.0.0.0/26, pool: p, node: n, state: Confirmed}", `metadata.name: Invalid value: "b": must be 10-0-0-0-26, after spec.cidr`},
		"too large":      {"metadata: {name: 10-0-0-0-19}\nspec: {cidr: 10.0.0.0/19, pool: p, node: n, state: Confirmed}", `spec.cidr: Invalid value: "10.0.0.0/19": prefix length must be 20 to 32`},
		"outside":        {block(", allocations: [{address: 10.0.0.64, node: n}]"), `spec.allocations[0].address: Invalid value: "10.0.0.64": must be in the block, 10.0.0.0/26`},
		"not in order":   {block(", allocations: [{address: 10.0.0.2, node: n}, {address: 10.0.0.1, node: n}]"), `spec.allocations[1].address: Invalid value: "10.0.0.1": must come before 10.0.0.2: addresses are in order, each once`},
		"twice":          {block(", allocations: [{address: 10.0.0.2, node: n}, {address: 10.0.0.2, node: n}]"), `spec.allocations[1].address: Invalid value: "10.0.0.2": must come before 10.0.0.2: addresses are in order, each once`},
		"nobody's":       {block(", allocations: [{address: 10.0.0.2, owner: {}}]"), "spec.allocations[0].node: Required value; spec.allocations[0].owner.containerID: Required value; spec.allocations[0].owner.interface: Required value"},
		"held and free":  {block(", allocations: [{address: 10.0.0.2, node: n}], released: [{address: 10.0.0.2, at: '2026-01-01T00:00:00Z'}]"), `spec.released[0].address: Duplicate value: "10.0.0.2"`},
		"freed twice":    {block(", released: [{address: 10.0.0.2, at: '2026-01-01T00:00:00Z'}, {address: 10.0.0.2, at: '2026-01-01T00:00:00Z'}]"), `spec.released[1].address: Duplicate value: "10.0.0.2"`},
		"freed sometime": {block(", released: [{address: 10.0.0.2}]"), "spec.released[0].at: Required value"},
	})
}

func pool(name, cidr string) *IPPool {
	p := &IPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: IPPoolSpec{CIDR: cidr}}
	p.Default()
	return p
}

func TestValidatePools(t *testing.T) {
	others := []*IPPool{pool("red", "10.0.0.0/8"), pool("bad", "x"), pool("six", "fd00::/48"), pool("self", "192.168.0.0/16")}
	for name, row := range map[string]struct{ cidr, want string }{
		"apart":        {"11.0.0.0/8", ""},
		"itself":       {"192.168.128.0/17", ""},
		"inside":       {"10.1.0.0/16", `IPPool self: spec.cidr: Invalid value: "10.1.0.0/16": overlaps IPPool red (10.0.0.0/8)`},
		"around":       {"10.0.0.0/7", `IPPool self: spec.cidr: Invalid value: "10.0.0.0/7": overlaps IPPool red (10.0.0.0/8)`},
		"equal":        {"10.0.0.0/8", `IPPool self: spec.cidr: Invalid value: "10.0.0.0/8": overlaps IPPool red (10.0.0.0/8)`},
		"IPv6 inside":  {"fd00:0:0:1::/64", `IPPool self: spec.cidr: Invalid value: "fd00:0:0:1::/64": overlaps IPPool six (fd00::/48)`},
		"IPv6 apart":   {"fd00:0:1::/48", ""},
		"itself wrong": {"y", ""},
	} {
		p := pool("self", row.cidr)
		got := ""
		if err := Refusal(p, ValidatePools(p, others)); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

func TestValidateUpdate(t *testing.T) {
	changed := func(change func(*IPPool)) *IPPool {
		p := pool("a", "fd00::/48")
		change(p)
		return p
	}
	for name, row := range map[string]struct {
		old, new Object
		want     string
	}{
		"the same":        {pool("a", "fd00::/48"), pool("a", "fd00::/48"), ""},
		"other spelling":  {pool("a", "fd00::/48"), changed(func(p *IPPool) { p.Spec.CIDR = "FD00:0::/48" }), ""},
		"what may change": {pool("a", "fd00::/48"), changed(func(p *IPPool) { p.Spec.Disabled, p.Spec.VXLANMode = true, EncapAlways }), ""},
		"cidr":            {pool("a", "fd00::/48"), changed(func(p *IPPool) { p.Spec.CIDR = "fd01::/48" }), `IPPool a: spec.cidr: Invalid value: "fd01::/48": is fd00::/48 and never changes, for addresses were given from it; delete the pool and make another`},
		"blockSize":       {pool("a", "fd00::/48"), changed(func(p *IPPool) { p.Spec.BlockSize = 120 }), `IPPool a: spec.blockSize: Invalid value: 120: is 122 and never changes, for addresses were given from it; delete the pool and make another`},
		"block":           {&IPAMBlock{Spec: IPAMBlockSpec{CIDR: "10.0.0.0/26"}}, &IPAMBlock{TypeMeta: typeMeta("IPAMBlock"), Spec: IPAMBlockSpec{CIDR: "10.0.0.64/26"}}, `IPAMBlock: spec.cidr: Invalid value: "10.0.0.64/26": never changes, was 10.0.0.0/26`},
		"nothing forbids": {&Node{}, &Node{Spec: NodeSpec{BGP: &NodeBGP{}}}, ""},
		"of another kind": {&Node{}, pool("a", "fd00::/48"), ""},
	} {
		got := ""
		if err := Refusal(row.new, ValidateUpdate(row.old, row.new)); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

// TestDefault shows that defaults keep what was given and change nothing twice.
func TestDefault(t *testing.T) {
	for _, o := range []Object{
		pool("small", "10.0.0.0/28"), pool("bad", "x"),
		&BGPConfiguration{Spec: BGPConfigurationSpec{NodeToNodeMeshEnabled: new(false), NodeMeshMaxRestartTime: &metav1.Duration{Duration: time.Second}}},
		&BGPPeer{Spec: BGPPeerSpec{KeepaliveTime: &metav1.Duration{Duration: time.Second}}},
		&Node{}, &IPAMBlock{}, &NodeStatus{}, &WorkloadEndpoint{Spec: WorkloadEndpointSpec{Endpoint: "net1"}},
	} {
		o.Default()
		once := o.DeepCopyObject()
		o.Default()
		if diff := cmp.Diff(once, o.DeepCopyObject()); diff != "" {
			t.Errorf("%s: the second Default changed:\n%s", title(o), diff)
		}
		switch o := o.(type) {
		case *BGPConfiguration:
			if *o.Spec.NodeToNodeMeshEnabled || o.Spec.NodeMeshMaxRestartTime.Duration != time.Second {
				t.Errorf("Default overwrote %+v", o.Spec)
			}
		case *BGPPeer:
			if o.Spec.KeepaliveTime.Duration != time.Second {
				t.Errorf("Default overwrote %+v", o.Spec)
			}
		case *WorkloadEndpoint:
			if o.Spec.Endpoint != "net1" {
				t.Errorf("Default overwrote %+v", o.Spec)
			}
		}
	}
	if size := pool("small", "10.0.0.0/28").Spec.BlockSize; size != 28 {
		t.Errorf("blocks of a pool of 16 addresses have prefix length %d, want 28", size)
	}
}

func TestAccessors(t *testing.T) {
	n := &Node{Spec: NodeSpec{BGP: &NodeBGP{IPv4Address: "192.0.2.11/24", IPv6Address: "2001:db8::11/64"}}}
	p4, p6 := netip.MustParsePrefix("192.0.2.11/24"), netip.MustParsePrefix("2001:db8::11/64")
	if n.Address(false) != p4 || n.Address(true) != p6 {
		t.Errorf("addresses %v, %v", n.Address(false), n.Address(true))
	}
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff([]netip.Prefix{p4, p6}, n.Addresses(), same); diff != "" {
		t.Error(diff)
	}
	n.Spec.BGP.IPv4Address = "192.0.2.11"
	if diff := cmp.Diff([]netip.Prefix{p6}, n.Addresses(), same); diff != "" {
		t.Error(diff)
	}
	if got := (&Node{}).Addresses(); got != nil {
		t.Errorf("a node without BGP has %v", got)
	}
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:179", "192.0.2.1:1179": "192.0.2.1:1179", "2001:db8::1": "[2001:db8::1]:179", "[2001:db8::1]:1179": "[2001:db8::1]:1179",
		"": "invalid AddrPort", "x": "invalid AddrPort", "[2001:db8::1]": "invalid AddrPort",
	} {
		if got := (&BGPPeer{Spec: BGPPeerSpec{PeerIP: text}}).AddrPort().String(); got != want {
			t.Errorf("peerIP %q is %s, want %s", text, got, want)
		}
	}
	w := &WorkloadEndpoint{Spec: WorkloadEndpointSpec{IPNetworks: []string{"10.0.0.1/32", "x", "10.0.0.0/24", "fd00::1/128"}}}
	if got := w.Addrs(); len(got) != 2 || got[0].String() != "10.0.0.1" || got[1].String() != "fd00::1" {
		t.Errorf("addresses %v", got)
	}
	if got := (&IPAMBlock{Spec: IPAMBlockSpec{CIDR: "10.0.0.1/26"}}).Prefix(); got.IsValid() {
		t.Errorf("an unmasked block has the range %v", got)
	}
}

func TestBlockName(t *testing.T) {
	for cidr, want := range map[string]string{
		"10.244.1.64/26": "10-244-1-64-26", "0.0.0.0/0": "0-0-0-0-0", "255.255.255.255/32": "255-255-255-255-32",
		"fd00:10:244::40/122": "fd00-0010-0244-0000-0000-0000-0000-0040-122", "::/128": "0000-0000-0000-0000-0000-0000-0000-0000-128",
	} {
		p := netip.MustParsePrefix(cidr)
		if got := BlockName(p); got != want {
			t.Errorf("name of %s is %s, want %s", cidr, got, want)
		}
	}
	for _, name := range []string{"", "a", "10-244-1-64", "10-244-1-64-33", "010-244-1-64-26", "10-244-1-64-26-", "10.244.1.64-26", "fd00-10-244-0-0-0-0-40-122", "FD00-0010-0244-0000-0000-0000-0000-0040-122", "-"} {
		if p, err := ParseBlockName(name); err == nil {
			t.Errorf("%q is taken for the name of %s", name, p)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{4, 16}).Draw(t, "length")
		a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "address"))
		if a.Is4In6() {
			t.Skip("no block has such an address")
		}
		p := netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
		if got, err := ParseBlockName(BlockName(p)); err != nil || got != p {
			t.Errorf("%s: name %s, back %s, %v", p, BlockName(p), got, err)
		}
	})
}
