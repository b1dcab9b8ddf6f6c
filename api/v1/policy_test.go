package v1

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// inNamespace is metadata of a namespaced object.
const inNamespace = "metadata: {name: a, namespace: b}\n"

// repeat returns n times text, as a list in YAML has it.
func repeat(text string, n int) string { return strings.Repeat(text+",", n) }

func TestNetworkPolicy(t *testing.T) {
	spec := func(format string, args ...any) string {
		return inNamespace + "spec: {" + fmt.Sprintf(format, args...) + "}"
	}
	checkAll(t, "NetworkPolicy", map[string]struct{ body, want string }{
		"empty":               {inNamespace, ""},
		"no namespace":        {"spec: {}", "metadata.namespace: Required value"},
		"tier":                {spec("tier: a.b"), ""},
		"bad tier":            {spec("tier: A_"), `spec.tier: Invalid value: "A_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		"any order":           {spec("order: -1.5e300"), ""},
		"selector":            {spec("selector: a"), `spec.selector: Invalid value: "a": expected an operator behind label "a" (==, !=, in, not in, contains, starts with, ends with), found the end at position 2`},
		"longest selector":    {spec("selector: \"a == '%s'\"", strings.Repeat("b", maxSelector-7)), ""},
		"selector too long":   {spec("selector: \"a == '%s'\"", strings.Repeat("b", maxSelector-6)), "spec.selector: Too long: may not be more than 1024 bytes"},
		"global selector":     {spec("selector: has(a) || !global()"), `spec.selector: Invalid value: "has(a) || !global()": must not contain global(): only namespaceSelector of a rule's source or destination may`},
		"account selector":    {spec("serviceAccountSelector: global()"), `spec.serviceAccountSelector: Invalid value: "global()": must not contain global(): only namespaceSelector of a rule's source or destination may`},
		"both types":          {spec("types: [Ingress, Egress]"), ""},
		"unknown type":        {spec("types: [ingress]"), `spec.types[0]: Unsupported value: "ingress": supported values: "Ingress", "Egress"`},
		"type twice":          {spec("types: [Egress, Egress]"), `spec.types[1]: Duplicate value: "Egress"`},
		"types leave out":     {spec("types: [Egress], ingress: [{action: Deny}]"), ""},
		"hint":                {spec("performanceHints: [AssumeNeededOnEveryNode]"), ""},
		"unknown hint":        {spec("performanceHints: [Fast]"), `spec.performanceHints[0]: Unsupported value: "Fast": supported values: "AssumeNeededOnEveryNode"`},
		"most rules":          {spec("ingress: [%s]", repeat("{action: Deny}", maxRules)), ""},
		"a rule too many":     {spec("egress: [%s]", repeat("{action: Deny}", maxRules+1)), "spec.egress: Too many: 1025: must have at most 1024 items"},
		"no action":           {spec("ingress: [{}]"), `spec.ingress[0].action: Unsupported value: "": supported values: "Allow", "Deny", "Log", "Pass"`},
		"another action":      {spec("ingress: [{action: Allow}, {action: allow}]"), `spec.ingress[1].action: Unsupported value: "allow": supported values: "Allow", "Deny", "Log", "Pass"`},
		"HTTP":                {spec("ingress: [{action: Allow, http: {methods: [GET]}}]"), "spec.ingress[0].http: Forbidden: Cairn enforces layers 3 and 4 only, and would let through or drop all of HTTP alike"},
		"annotations":         {spec("ingress: [{action: Allow, metadata: {annotations: {a: b}}}]"), ""},
		"several rules fault": {spec("ingress: [{action: x}], egress: [{action: y}]"), `spec.ingress[0].action: Unsupported value: "x": supported values: "Allow", "Deny", "Log", "Pass"; spec.egress[0].action: Unsupported value: "y": supported values: "Allow", "Deny", "Log", "Pass"`},
	})
}

func TestRules(t *testing.T) {
	rule := func(format string, args ...any) string {
		return inNamespace + "spec: {ingress: [{action: Allow, " + fmt.Sprintf(format, args...) + "}]}"
	}
	const at = "spec.ingress[0]."
	const ports = "Forbidden: may be set together with protocol TCP, UDP, SCTP or UDPLite only"
	const icmp = "Forbidden: may be set together with protocol ICMP or ICMPv6 only"
	beside := func(names ...string) string {
		for i, n := range names {
			names[i] = at + "source." + n + ": Forbidden: may not be set together with services"
		}
		return strings.Join(names, "; ")
	}
	checkAll(t, "NetworkPolicy", map[string]struct{ body, want string }{
		"protocol":             {rule("protocol: UDPLite"), ""},
		"protocol in lower":    {rule("protocol: tcp"), at + `protocol: Invalid value: "tcp": must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number of 1 to 255`},
		"protocol 1":           {rule("protocol: 1"), ""},
		"protocol 255":         {rule("notProtocol: '255'"), ""},
		"protocol 0":           {rule("protocol: 0"), at + `protocol: Invalid value: "0": must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number of 1 to 255`},
		"protocol 256":         {rule("notProtocol: 256"), at + `notProtocol: Invalid value: "256": must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number of 1 to 255`},
		"IPv4":                 {rule("ipVersion: 4, protocol: ICMP"), ""},
		"IPv6":                 {rule("ipVersion: 6, protocol: 58"), ""},
		"IPv5":                 {rule("ipVersion: 5"), at + "ipVersion: Invalid value: 5: must be 4 or 6"},
		"ICMP over IPv6":       {rule("ipVersion: 6, protocol: ICMP"), at + "ipVersion: Invalid value: 6: must be 4 with protocol ICMP"},
		"ICMPv6 over IPv4":     {rule("ipVersion: 4, protocol: ICMPv6"), at + "ipVersion: Invalid value: 4: must be 6 with protocol ICMPv6"},
		"ICMP":                 {rule("protocol: ICMP, icmp: {type: 254, code: 255}"), ""},
		"not ICMP":             {rule("protocol: ICMPv6, notICMP: {type: 0}"), ""},
		"ICMP type 255":        {rule("protocol: ICMP, icmp: {type: 255, code: 256}"), at + "icmp.type: Invalid value: 255: must be 0 to 254; " + at + "icmp.code: Invalid value: 256: must be 0 to 255"},
		"ICMP type -1":         {rule("protocol: ICMP, icmp: {type: -1}"), at + "icmp.type: Invalid value: -1: must be 0 to 254"},
		"ICMP code only":       {rule("protocol: ICMP, notICMP: {code: 1}"), at + "notICMP.type: Required value"},
		"ICMP no protocol":     {rule("icmp: {type: 8}"), at + "icmp: " + icmp},
		"ICMP of TCP":          {rule("protocol: TCP, notICMP: {type: 8}"), at + "notICMP: " + icmp},
		"ports":                {rule("protocol: TCP, source: {ports: [1, '65535', '1:65535', http, '80:80']}"), ""},
		"ports of 132":         {rule("protocol: 132, destination: {notPorts: [80]}"), ""},
		"ports, no protocol":   {rule("destination: {ports: [80]}"), at + "destination.ports: " + ports},
		"ports of ICMP":        {rule("protocol: ICMP, source: {notPorts: [80]}"), at + "source.notPorts: " + ports},
		"ports of not TCP":     {rule("notProtocol: TCP, source: {notPorts: [80]}"), at + "source.notPorts: " + ports},
		"port 0":               {rule("protocol: TCP, source: {ports: [0]}"), at + `source.ports[0]: Invalid value: "0": must be a port of 1 to 65535, a range such as 8080:8090, or a name`},
		"port 65536":           {rule("protocol: TCP, source: {ports: [65536]}"), at + `source.ports[0]: Invalid value: "65536": must be a port of 1 to 65535, a range such as 8080:8090, or a name`},
		"range backwards":      {rule("protocol: TCP, source: {ports: [80, '90:80']}"), at + `source.ports[1]: Invalid value: "90:80": must be a port of 1 to 65535, a range such as 8080:8090, or a name`},
		"range of names":       {rule("protocol: TCP, source: {ports: ['a:b']}"), at + `source.ports[0]: Invalid value: "a:b": must be a port of 1 to 65535, a range such as 8080:8090, or a name`},
		"most ports":           {rule("protocol: TCP, source: {ports: [%s]}", repeat("80", maxPorts)), ""},
		"a port too many":      {rule("protocol: TCP, source: {notPorts: [%s]}", repeat("80", maxPorts+1)), at + "source.notPorts: Too many: 51: must have at most 50 items"},
		"nets":                 {rule("source: {nets: [0.0.0.0/0, '::/0', 192.0.2.1, '2001:db8::1']}"), ""},
		"net not masked":       {rule("source: {nets: [10.0.0.1/8]}"), at + `source.nets[0]: Invalid value: "10.0.0.1/8": must begin with the range's first address: 10.0.0.0/8`},
		"no net":               {rule("source: {notNets: [net]}"), at + `source.notNets[0]: Invalid value: "net": must be an IP address`},
		"empty net":            {rule("source: {notNets: ['']}"), at + "source.notNets[0]: Required value"},
		"most nets":            {rule("source: {nets: [%s]}", repeat("10.0.0.0/8", maxNets)), ""},
		"a net too many":       {rule("source: {notNets: [%s]}", repeat("10.0.0.0/8", maxNets+1)), at + "source.notNets: Too many: 257: must have at most 256 items"},
		"nets of the version":  {rule("ipVersion: 6, source: {nets: ['2001:db8::/32'], notNets: ['2001:db8::1']}"), ""},
		"nets of the other":    {rule("ipVersion: 6, source: {nets: [10.0.0.0/8]}"), at + `source.nets[0]: Invalid value: "10.0.0.0/8": is not of ipVersion 6`},
		"global":               {rule("source: {namespaceSelector: global() || has(a)}"), ""},
		"global endpoints":     {rule("source: {selector: global()}"), at + `source.selector: Invalid value: "global()": must not contain global(): only namespaceSelector of a rule's source or destination may`},
		"bad notSelector":      {rule("source: {notSelector: '('}"), at + `source.notSelector: Invalid value: "(": expected a label, "has(", "all()", "!" or "(", found the end at position 2`},
		"accounts":             {rule("source: {serviceAccounts: {names: [a, b.c], selector: has(x)}}"), ""},
		"any account":          {rule("source: {serviceAccounts: {}}"), ""},
		"no account's name":    {rule("source: {serviceAccounts: {names: ['']}}"), at + "source.serviceAccounts.names[0]: Required value"},
		"service":              {rule("source: {services: {name: a}}"), ""},
		"service elsewhere":    {rule("destination: {services: {name: a}}"), at + "destination.services: Forbidden: may be the destination of egress rules and the source of ingress rules only"},
		"service without name": {rule("source: {services: {namespace: a}}"), at + "source.services.name: Required value"},
		"service and all else": {rule("protocol: TCP, source: {services: {name: a}, nets: [10.0.0.0/8], notNets: [10.0.0.0/8], selector: a == 'b', notSelector: has(a), namespaceSelector: all(), serviceAccounts: {}, ports: [1], notPorts: [1]}"),
			beside("nets", "notNets", "selector", "notSelector", "namespaceSelector", "serviceAccounts", "ports", "notPorts")},
	})
}

func TestGlobalNetworkPolicy(t *testing.T) {
	checkAll(t, "GlobalNetworkPolicy", map[string]struct{ body, want string }{
		"empty":               {"", ""},
		"in namespace":        {inNamespace, "metadata.namespace: Forbidden: not allowed on this type"},
		"namespaces":          {"spec: {namespaceSelector: \"!has(a)\"}", ""},
		"global namespaces":   {"spec: {namespaceSelector: global()}", `spec.namespaceSelector: Invalid value: "global()": must not contain global(): only namespaceSelector of a rule's source or destination may`},
		"untracked":           {"spec: {doNotTrack: true, applyOnForward: true, types: [Ingress, Egress]}", ""},
		"untracked alone":     {"spec: {doNotTrack: true}", "spec.applyOnForward: Required value: must be true with doNotTrack, which sees what goes through the host as well"},
		"preDNAT":             {"spec: {preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]}", ""},
		"preDNAT alone":       {"spec: {preDNAT: true}", "spec.applyOnForward: Required value: must be true with preDNAT, which sees what goes through the host as well"},
		"both":                {"spec: {preDNAT: true, doNotTrack: true, applyOnForward: true}", "spec.preDNAT: Forbidden: may not be set together with doNotTrack"},
		"preDNAT and egress":  {"spec: {preDNAT: true, applyOnForward: true, egress: [{action: Deny}]}", "spec.types[0]: Forbidden: Egress may not be set together with preDNAT, which sees what comes in only; spec.egress: Forbidden: may not be set together with preDNAT, which sees what comes in only"},
		"forward":             {"spec: {applyOnForward: true}", ""},
		"service":             {"spec: {egress: [{action: Allow, destination: {services: {name: a, namespace: b}}}]}", ""},
		"service of nowhere":  {"spec: {egress: [{action: Allow, destination: {services: {name: a}}}]}", "spec.egress[0].destination.services.namespace: Required value"},
		"service as a source": {"spec: {egress: [{action: Allow, source: {services: {name: a, namespace: b}}}]}", "spec.egress[0].source.services: Forbidden: may be the destination of egress rules and the source of ingress rules only"},
	})
}

func TestStagedPolicies(t *testing.T) {
	const learn = `spec.stagedAction: Invalid value: "Learn": is of another product's advice on policies, which Cairn does not give: must be Set or Delete`
	checkAll(t, "StagedNetworkPolicy", map[string]struct{ body, want string }{
		"empty":           {inNamespace, ""},
		"set":             {inNamespace + "spec: {stagedAction: Set, selector: has(a), ingress: [{action: Deny}]}", ""},
		"set, bad":        {inNamespace + "spec: {ingress: [{}]}", `spec.ingress[0].action: Unsupported value: "": supported values: "Allow", "Deny", "Log", "Pass"`},
		"delete":          {inNamespace + "spec: {stagedAction: Delete, tier: a}", ""},
		"delete and more": {inNamespace + "spec: {stagedAction: Delete, order: 1, ingress: [{action: Deny}]}", "spec.order: Forbidden: may not be set together with stagedAction Delete; spec.ingress: Forbidden: may not be set together with stagedAction Delete"},
		"learn":           {inNamespace + "spec: {stagedAction: Learn}", learn},
		"unknown":         {inNamespace + "spec: {stagedAction: set}", `spec.stagedAction: Unsupported value: "set": supported values: "Set", "Delete"`},
	})
	checkAll(t, "StagedGlobalNetworkPolicy", map[string]struct{ body, want string }{
		"empty":           {"", ""},
		"set, bad":        {"spec: {doNotTrack: true}", "spec.applyOnForward: Required value: must be true with doNotTrack, which sees what goes through the host as well"},
		"delete":          {"spec: {stagedAction: Delete}", ""},
		"delete and more": {"spec: {stagedAction: Delete, preDNAT: true}", "spec.preDNAT: Forbidden: may not be set together with stagedAction Delete"},
		"learn":           {"spec: {stagedAction: Learn}", learn},
	})
}

// TestTypes holds which directions a policy is about that names none.
func TestTypes(t *testing.T) {
	for name, row := range map[string]struct{ spec, want string }{
		"no rules":     {"", "[Ingress]"},
		"ingress":      {"ingress: [{action: Deny}]", "[Ingress]"},
		"egress":       {"egress: [{action: Deny}]", "[Egress]"},
		"both":         {"egress: [{action: Deny}], ingress: [{action: Deny}]", "[Ingress Egress]"},
		"empty lists":  {"egress: [], ingress: [], types: []", "[Ingress]"},
		"empty egress": {"egress: [{action: Deny}], ingress: []", "[Egress]"},
		"named":        {"egress: [{action: Deny}], types: [Ingress]", "[Ingress]"},
	} {
		objects, err := Decode([]byte("{apiVersion: cairn.network/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {" + row.spec + "}}"))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(objects[0].(*NetworkPolicy).Spec.Types); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

func TestTier(t *testing.T) {
	named := func(name, spec string) string { return "metadata: {name: " + name + "}\nspec: {" + spec + "}" }
	checkAll(t, "Tier", map[string]struct{ body, want string }{
		"empty":              {"", ""},
		"everything":         {named("a", "order: -0.5, defaultAction: Pass"), ""},
		"default action":     {named("a", "defaultAction: Allow"), `spec.defaultAction: Unsupported value: "Allow": supported values: "Deny", "Pass"`},
		"default":            {named("default", ""), ""},
		"default as it is":   {named("default", "order: 1000000, defaultAction: Deny"), ""},
		"default elsewhere":  {named("default", "order: 5"), "spec.order: Invalid value: 5: of tier default it is 1000000: policies of Kubernetes rely on it"},
		"default passes":     {named("default", "defaultAction: Pass"), `spec.defaultAction: Invalid value: "Pass": of tier default it is Deny: policies of Kubernetes rely on it`},
		"admin":              {named("kube-admin", ""), ""},
		"admin denies":       {named("kube-admin", "defaultAction: Deny"), `spec.defaultAction: Invalid value: "Deny": of tier kube-admin it is Pass: policies of Kubernetes rely on it`},
		"baseline elsewhere": {named("kube-baseline", "order: 1"), "spec.order: Invalid value: 1: of tier kube-baseline it is 10000000: policies of Kubernetes rely on it"},
	})
	for _, order := range []float64{math.Inf(1), math.Inf(-1), math.NaN()} {
		if errs := (&Tier{Spec: TierSpec{Order: &order, DefaultAction: ActionDeny}}).Validate(); !strings.Contains(errs.ToAggregate().Error(), "must be a finite number") {
			t.Errorf("order %v: %v", order, errs)
		}
	}
}

func TestValidateTier(t *testing.T) {
	policy := func(tier string) Object { return &NetworkPolicy{Spec: NetworkPolicySpec{Tier: tier}} }
	for name, row := range map[string]struct {
		o    Object
		want string
	}{
		"there":        {policy("a"), ""},
		"built in":     {policy("kube-baseline"), ""},
		"not there":    {policy("b"), `spec.tier: Not found: "b"`},
		"global":       {&GlobalNetworkPolicy{}, `spec.tier: Not found: ""`},
		"staged":       {&StagedNetworkPolicy{}, `spec.tier: Not found: ""`},
		"staged, both": {&StagedGlobalNetworkPolicy{}, `spec.tier: Not found: ""`},
		"no policy":    {&Tier{}, ""},
		"Kubernetes'":  {&KubernetesNetworkPolicy{}, ""},
	} {
		got := ""
		if errs := ValidateTier(row.o, map[string]bool{"a": true}); errs != nil {
			got = errs.ToAggregate().Error()
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestNetworkSets(t *testing.T) {
	checkAll(t, "NetworkSet", map[string]struct{ body, want string }{
		"empty":        {inNamespace, ""},
		"no namespace": {"spec: {}", "metadata.namespace: Required value"},
		"many":         {inNamespace + "spec: {nets: [" + repeat("10.0.0.0/8", 2000) + "]}", ""},
		"not masked":   {inNamespace + "spec: {nets: [10.0.0.0/8, '2001:db8::1/32']}", `spec.nets[1]: Invalid value: "2001:db8::1/32": must begin with the range's first address: 2001:db8::/32`},
	})
	checkAll(t, "GlobalNetworkSet", map[string]struct{ body, want string }{
		"empty":  {"", ""},
		"mixed":  {"spec: {nets: [10.0.0.1, 10.0.0.0/8, '::1']}", ""},
		"mapped": {"spec: {nets: ['::ffff:1.2.3.4']}", `spec.nets[0]: Invalid value: "::ffff:1.2.3.4": must not be an IPv4 address in the form of IPv6`},
		"zone":   {"spec: {nets: ['fe80::1%eth0']}", `spec.nets[0]: Invalid value: "fe80::1%eth0": must not have a zone`},
	})
}

func TestHostEndpoint(t *testing.T) {
	checkAll(t, "HostEndpoint", map[string]struct{ body, want string }{
		"named":      {"spec: {node: n1, interfaceName: eth0}", ""},
		"all":        {"spec: {node: n1, interfaceName: '*'}", ""},
		"by address": {"spec: {node: n1, expectedIPs: [192.0.2.1, '2001:db8::1']}", ""},
		"neither":    {"spec: {node: n1}", "spec.interfaceName: Required value: interfaceName, expectedIPs or both"},
		"no node":    {"spec: {interfaceName: eth0}", "spec.node: Required value"},
		"bad link":   {"spec: {node: n1, interfaceName: eth*/}", `spec.interfaceName: Invalid value: "eth*/": must be the name of a network device: at most 15 bytes, without slash, colon or space`},
		"range":      {"spec: {node: n1, expectedIPs: [192.0.2.0/24]}", `spec.expectedIPs[0]: Invalid value: "192.0.2.0/24": must be an IP address`},
		"twice":      {"spec: {node: n1, expectedIPs: ['::1', '::1']}", `spec.expectedIPs[1]: Duplicate value: "::1"`},
		"profiles":   {"spec: {node: n1, interfaceName: eth0, profiles: [a]}", "spec.profiles: Forbidden: Cairn has no profiles: write a GlobalNetworkPolicy that selects the endpoint by its labels"},
		"ports":      {"spec: {node: n1, interfaceName: eth0, ports: [{name: a, port: 1}, {name: a, port: 1, protocol: UDP}]}", ""},
		"port twice": {"spec: {node: n1, interfaceName: eth0, ports: [{name: a, port: 1}, {name: a, port: 1, protocol: TCP}]}", `spec.ports[1]: Duplicate value: "a"`},
		"bad port":   {"spec: {node: n1, interfaceName: eth0, ports: [{name: '80', protocol: ICMP}]}", `spec.ports[0].name: Invalid value: "80": must be 1 to 128 letters, digits, '-', '_' and '.', with a letter among them; spec.ports[0].protocol: Invalid value: "ICMP": must be TCP, UDP, SCTP or UDPLite: others have no ports; spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive`},
		"no name":    {"spec: {node: n1, interfaceName: eth0, ports: [{port: 65535}]}", "spec.ports[0].name: Required value"},
	})
}

func TestWorkloadEndpointPolicyFields(t *testing.T) {
	body := func(annotation, rest string) string {
		return "metadata: {name: a, namespace: b, annotations: {" + annotation + "}}\nspec: {node: n1, pod: a, containerID: c, interfaceName: l, ipNetworks: [10.0.0.1/32], " + rest + "}"
	}
	const key = "cairn.network/allowedSourcePrefixes"
	const at = "metadata.annotations[" + key + "]"
	checkAll(t, "WorkloadEndpoint", map[string]struct{ body, want string }{
		"account, ports": {body("", "serviceAccountName: a, ports: [{name: http, port: 80}]"), ""},
		"bad account":    {body("", "serviceAccountName: a b"), `spec.serviceAccountName: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		"bad port":       {body("", "ports: [{name: http}]"), "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"},
		"sources":        {body(key+`: '["10.1.0.0/16", "2001:db8::/32"]'`, ""), ""},
		"no source":      {body(key+`: '[]'`, ""), ""},
		"no list":        {body(key+`: 10.1.0.0/16`, ""), at + `: Invalid value: "10.1.0.0/16": must be a JSON list of ranges such as ["192.0.2.0/24"]`},
		"bad source":     {body(key+`: '["10.1.0.0/16", "10.1.0.1/16"]'`, ""), at + `[1]: Invalid value: "10.1.0.1/16": must begin with the range's first address: 10.1.0.0/16`},
	})
	w := &WorkloadEndpoint{}
	w.Annotations = map[string]string{key: `["10.1.0.0/16", "x", "2001:db8::/32"]`}
	if got := fmt.Sprint(w.AllowedSourcePrefixes()); got != "[10.1.0.0/16 2001:db8::/32]" {
		t.Errorf("allowed sources %s", got)
	}
}

func TestPolicySettings(t *testing.T) {
	spec := func(text string) string { return "metadata: {name: default}\nspec: {" + text + "}" }
	checkAll(t, "AgentConfiguration", map[string]struct{ body, want string }{
		"everything":     {spec("policyChange: Terminate, failsafeInboundHostPorts: [], failsafeOutboundHostPorts: [{protocol: UDP, port: 53}, {protocol: UDP, port: 53, net: 10.0.0.0/8}], defaultEndpointToHostAction: Drop, logActionRateLimit: 1, logActionRateLimitBurst: 100000"), ""},
		"change":         {spec("policyChange: Drop"), `spec.policyChange: Unsupported value: "Drop": supported values: "Keep", "Terminate"`},
		"to host":        {spec("defaultEndpointToHostAction: Return"), `spec.defaultEndpointToHostAction: Unsupported value: "Return": supported values: "Accept", "Drop"`},
		"fail-safe":      {spec("failsafeInboundHostPorts: [{protocol: ICMP, port: 0, net: x}]"), `spec.failsafeInboundHostPorts[0].protocol: Invalid value: "ICMP": must be TCP, UDP, SCTP or UDPLite: others have no ports; spec.failsafeInboundHostPorts[0].port: Invalid value: 0: must be between 1 and 65535, inclusive; spec.failsafeInboundHostPorts[0].net: Invalid value: "x": must be an IP address`},
		"twice":          {spec("failsafeOutboundHostPorts: [{protocol: TCP, port: 1}, {protocol: TCP, port: 1}]"), "spec.failsafeOutboundHostPorts[1]: Duplicate value: 1"},
		"rate 0":         {spec("logActionRateLimit: 0, logActionRateLimitBurst: 0"), "spec.logActionRateLimit: Invalid value: 0: must be 1 to 100000; spec.logActionRateLimitBurst: Invalid value: 0: must be 1 to 100000"},
		"rate too great": {spec("logActionRateLimit: 100001"), "spec.logActionRateLimit: Invalid value: 100001: must be 1 to 100000"},
	})
}

// TestNumberOrText checks that ports and protocols survive being kept.
func TestNumberOrText(t *testing.T) {
	for text, want := range map[string]string{
		`80`: `80`, `"80"`: `80`, `"080"`: `"080"`, `"http"`: `"http"`, `"1:2"`: `"1:2"`, `""`: `""`, `65536`: `"65536"`, `-1`: `"-1"`,
	} {
		var p Port
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got, err := json.Marshal(p); err != nil || string(got) != want {
			t.Errorf("%s became %s, %v, want %s", text, got, err, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Map(rapid.IntRange(-1, 70000), func(n int) string { return fmt.Sprint(n) })).Draw(t, "text")
		text = strings.ToValidUTF8(text, "")
		var port Port
		var protocol Protocol
		for _, v := range []any{Port(text), Protocol(text)} {
			data, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := v.(Port); ok {
				err = json.Unmarshal(data, &port)
			} else {
				err = json.Unmarshal(data, &protocol)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if string(port) != text || string(protocol) != text {
			t.Errorf("%q became port %q, protocol %q", text, port, protocol)
		}
	})
}

func TestPort(t *testing.T) {
	for text, want := range map[Port]string{
		"80": "80-80", "1": "1-1", "65535": "65535-65535", "1:65535": "1-65535", "80:80": "80-80",
		"http": "http", "a-1": "a-1", "A.b_c": "A.b_c",
		"": "", "0": "", "65536": "", "80:79": "", ":80": "", "80:": "", "1:2:3": "", "+80": "", "080": "", "a b": "", "-": "",
		Port(strings.Repeat("a", maxPortName)): strings.Repeat("a", maxPortName), Port(strings.Repeat("a", maxPortName+1)): "",
	} {
		got := text.Name()
		if first, last, ok := text.Range(); ok {
			got += fmt.Sprintf("%d-%d", first, last)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}
