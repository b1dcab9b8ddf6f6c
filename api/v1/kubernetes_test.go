package v1

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checkStock checks the bodies of rows: objects of another API.
func checkStock(t *testing.T, head string, rows map[string]struct{ body, want string }) {
	t.Helper()
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			objects, err := Decode([]byte("{" + head + ", " + row.body + "}"))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if errs := objects[0].Validate(); len(errs) > 0 {
				got = errs.ToAggregate().Error()
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", row.body, diff)
			}
		})
	}
}

func TestKubernetesNetworkPolicy(t *testing.T) {
	from := func(format string, args ...any) string {
		return "spec: {podSelector: {}, ingress: [{from: [" + fmt.Sprintf(format, args...) + "]}]}"
	}
	ports := func(text string) string { return "spec: {podSelector: {}, egress: [{ports: [" + text + "]}]}" }
	const peer, port = "spec.ingress[0].from[0]", "spec.egress[0].ports[0]"
	checkStock(t, "apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: b}", map[string]struct{ body, want string }{
		"empty":               {"spec: {podSelector: {}}", ""},
		"all pods":            {"spec: {podSelector: {}, ingress: [{}], egress: [{}]}", ""},
		"types":               {"spec: {podSelector: {}, policyTypes: [Egress, Ingress]}", ""},
		"unknown type":        {"spec: {podSelector: {}, policyTypes: [Both]}", `spec.policyTypes[0]: Unsupported value: "Both": supported values: "Ingress", "Egress"`},
		"bad pods":            {"spec: {podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}", "spec.podSelector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"},
		"no peer":             {from("{}"), peer + ": Required value: podSelector, namespaceSelector or ipBlock"},
		"pods and namespaces": {from("{podSelector: {}, namespaceSelector: {}}"), ""},
		"pods and block":      {from("{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}"), peer + ".ipBlock: Forbidden: may not be set together with podSelector and namespaceSelector"},
		"bad namespaces":      {from("{namespaceSelector: {matchLabels: {'a b': c}}}"), peer + `.namespaceSelector.matchLabels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`},
		"block":               {from("{ipBlock: {cidr: 10.0.0.9/8, except: [10.1.0.0/16, 10.0.0.0/9]}}"), ""},
		"IPv6 block":          {from("{ipBlock: {cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}}"), ""},
		"bad block":           {from("{ipBlock: {cidr: 10.0.0.0}}"), peer + `.ipBlock.cidr: Invalid value: "10.0.0.0": must be a range such as 10.244.0.0/16 or fd00:10:244::/48`},
		"mapped block":        {from("{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}"), peer + `.ipBlock.cidr: Invalid value: "::ffff:10.0.0.0/104": must not be an IPv4 range in the form of IPv6`},
		"except all":          {from("{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}"), peer + `.ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a smaller range inside 10.0.0.0/8`},
		"except others":       {from("{ipBlock: {cidr: 10.0.0.0/8, except: ['2001:db8::/32']}}"), peer + `.ipBlock.except[0]: Invalid value: "2001:db8::/32": must be a smaller range inside 10.0.0.0/8`},
		"ports":               {ports("{port: 80}, {port: http, protocol: UDP}, {port: 1, endPort: 65535}, {port: 80, endPort: 80}, {protocol: SCTP}, {}"), ""},
		"port 0":              {ports("{port: 0}"), port + ".port: Invalid value: 0: must be between 1 and 65535, inclusive"},
		"bad name":            {ports("{port: '-'}"), "[" + port + `.port: Invalid value: "-": must contain at least one letter (a-z), ` + port + `.port: Invalid value: "-": must not begin or end with a hyphen]`},
		"range backwards":     {ports("{port: 80, endPort: 79}"), port + ".endPort: Invalid value: 79: must not be less than port"},
		"range of names":      {ports("{port: http, endPort: 79}"), port + ".endPort: Forbidden: may not be set together with a port's name"},
		"end without start":   {ports("{endPort: 79}"), port + ".port: Required value: endPort needs it"},
		"protocol":            {ports("{protocol: ICMP}"), port + `.protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"`},
	})
}

func TestClusterNetworkPolicy(t *testing.T) {
	const start = "spec: {tier: Admin, priority: 0, subject: {namespaces: {}}, "
	to := func(text string) string { return start + "egress: [{action: Accept, to: [" + text + "]}]}" }
	protocols := func(text string) string {
		return start + "ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [" + text + "]}]}"
	}
	const peer, protocol = "spec.egress[0].to[0]", "spec.ingress[0].protocols[0]"
	const onePeer = ": Required value: exactly one of namespaces, pods, nodes and networks"
	checkStock(t, "apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: a}", map[string]struct{ body, want string }{
		"least":              {start + "}", ""},
		"baseline":           {"spec: {tier: Baseline, priority: 1000, subject: {pods: {podSelector: {}}}}", ""},
		"tier, priority":     {"spec: {tier: admin, priority: 1001, subject: {namespaces: {}}}", `[spec.tier: Unsupported value: "admin": supported values: "Admin", "Baseline", spec.priority: Invalid value: 1001: must be 0 to 1000]`},
		"priority -1":        {"spec: {tier: Admin, priority: -1, subject: {namespaces: {}}}", "spec.priority: Invalid value: -1: must be 0 to 1000"},
		"no subject":         {"spec: {tier: Admin, priority: 1, subject: {}}", "spec.subject: Required value: exactly one of namespaces and pods"},
		"two subjects":       {"spec: {tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}", "spec.subject: Required value: exactly one of namespaces and pods"},
		"most rules":         {start + "ingress: [" + repeat("{action: Pass, from: [{namespaces: {}}]}", 25) + "]}", ""},
		"a rule too many":    {start + "ingress: [" + repeat("{action: Pass, from: [{namespaces: {}}]}", 26) + "]}", "spec.ingress: Too many: 26: must have at most 25 items"},
		"no peers":           {start + "ingress: [{action: Pass, from: []}]}", "spec.ingress[0].from: Required value: at least one"},
		"a peer too many":    {to(repeat("{namespaces: {}}", 26)), "spec.egress[0].to: Too many: 26: must have at most 25 items"},
		"action":             {start + "ingress: [{action: Allow, from: [{namespaces: {}}]}]}", `spec.ingress[0].action: Unsupported value: "Allow": supported values: "Accept", "Deny", "Pass"`},
		"name":               {start + "ingress: [{name: '" + repeat("a", 50) + "', action: Pass, from: [{namespaces: {}}]}]}", ""},
		"name too long":      {start + "ingress: [{name: '" + repeat("a", 50) + "a', action: Pass, from: [{namespaces: {}}]}]}", "spec.ingress[0].name: Too long: may not be more than 100 bytes"},
		"every peer":         {to("{namespaces: {}}, {pods: {podSelector: {}}}, {nodes: {}}, {networks: [10.0.0.1/8, '::/0']}"), ""},
		"no peer":            {to("{}"), peer + onePeer},
		"two peers in one":   {to("{nodes: {}, networks: [10.0.0.0/8]}"), peer + onePeer},
		"bad network":        {to("{networks: [10.0.0.0]}"), peer + `.networks[0]: Invalid value: "10.0.0.0": must be a range such as 10.244.0.0/16 or fd00:10:244::/48`},
		"networks too many":  {to("{networks: [" + repeat("10.0.0.0/8", 26) + "]}"), peer + ".networks: Too many: 26: must have at most 25 items"},
		"bad nodes":          {to("{nodes: {matchExpressions: [{key: a, operator: Near}]}}"), peer + `.nodes.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator`},
		"domains":            {to("{domainNames: [example.com]}"), peer + ".domainNames: Forbidden: Cairn enforces by address, and does not follow what names stand for"},
		"protocols":          {protocols("{tcp: {destinationPort: {number: 65535}}}, {udp: {destinationPort: {range: {start: 1, end: 2}}}}, {sctp: {destinationPort: {number: 1}}}, {destinationNamedPort: http}"), ""},
		"no protocol":        {protocols("{}"), protocol + ": Required value: exactly one of tcp, udp, sctp and destinationNamedPort"},
		"no port":            {protocols("{tcp: {}}"), protocol + ".tcp.destinationPort: Required value"},
		"port 65536":         {protocols("{udp: {destinationPort: {number: 65536}}}"), protocol + ".udp.destinationPort.number: Invalid value: 65536: must be between 1 and 65535, inclusive"},
		"port and range":     {protocols("{sctp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}"), protocol + ".sctp.destinationPort: Required value: exactly one of number and range"},
		"range of one":       {protocols("{tcp: {destinationPort: {range: {start: 2, end: 2}}}}"), protocol + ".tcp.destinationPort.range.end: Invalid value: 2: must be greater than start"},
		"protocols too many": {protocols(repeat("{destinationNamedPort: a}", 26)), "spec.ingress[0].protocols: Too many: 26: must have at most 25 items"},
		"names of nodes":     {start + "egress: [{action: Accept, to: [{namespaces: {}}, {nodes: {}}], protocols: [{destinationNamedPort: a}]}]}", "spec.egress[0].protocols[0].destinationNamedPort: Forbidden: may not be set together with nodes and networks, which have no names for ports"},
	})
}

func TestStockObjects(t *testing.T) {
	checkStock(t, "apiVersion: v1, kind: Namespace", map[string]struct{ body, want string }{
		"labels":       {"metadata: {name: a, labels: {b: c}}, spec: {finalizers: [kubernetes]}, status: {phase: Active}", ""},
		"in namespace": {"metadata: {name: a, namespace: b}", "metadata.namespace: Forbidden: not allowed on this type"},
	})
	checkStock(t, "apiVersion: v1, kind: ServiceAccount", map[string]struct{ body, want string }{
		"all":           {"metadata: {name: a, namespace: b}, secrets: [{name: c}], imagePullSecrets: [{name: d}], automountServiceAccountToken: true", ""},
		"no namespace":  {"metadata: {name: a}", "metadata.namespace: Required value"},
		"to be named":   {"metadata: {generateName: a-, namespace: b}", "[metadata.name: Required value: name or generateName is required, metadata.generateName: Forbidden: names are not generated; set metadata.name]"},
		"was named":     {"metadata: {generateName: a-, name: a-1, namespace: b}", ""},
		"managed field": {"metadata: {name: a, namespace: b, managedFields: [{manager: kubectl, operation: Apply, fieldsV1: {f:labels: {}}}], ownerReferences: []}", ""},
	})
	checkStock(t, "apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, namespace: b}", map[string]struct{ body, want string }{
		"IPv4":         {"addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}], ports: [{port: 80, protocol: SCTP}, {}]", ""},
		"IPv6":         {"addressType: IPv6, endpoints: [{addresses: ['fd00::1']}], ports: []", ""},
		"names":        {"addressType: FQDN, endpoints: [{addresses: [example.com]}], ports: []", ""},
		"no type":      {"endpoints: [], ports: []", `addressType: Unsupported value: "": supported values: "IPv4", "IPv6", "FQDN"`},
		"other family": {"addressType: IPv6, endpoints: [{addresses: [10.0.0.1]}], ports: []", `endpoints[0].addresses[0]: Invalid value: "10.0.0.1": is not of addressType IPv6`},
		"no address":   {"addressType: IPv4, endpoints: [{addresses: []}], ports: []", "endpoints[0].addresses: Required value"},
		"port":         {"addressType: IPv4, endpoints: [], ports: [{port: 0, protocol: ICMP}]", `[ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"]`},
	})
}
