package v1

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func readExamples(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/examples.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestExamples shows what becomes of examples of every kind: they are valid, get
// their defaults, and survive being kept.
func TestExamples(t *testing.T) {
	objects, err := Decode(readExamples(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var out bytes.Buffer
	for _, o := range objects {
		if err := Check(o); err != nil {
			t.Error(err)
		}
		data, err := Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		kind := KindOf(o)
		seen[kind] = true
		back, err := DecodeJSON(kind, data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(o, back); diff != "" {
			t.Errorf("%s differs after Encode and DecodeJSON:\n%s", title(o), diff)
		}
		if diff := cmp.Diff(o, o.DeepCopyObject()); diff != "" {
			t.Errorf("%s differs from its copy:\n%s", title(o), diff)
		}
		if err := json.Indent(&out, data, "", "  "); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	for _, k := range Kinds() {
		if !seen[k.Name] {
			t.Errorf("no example of %s", k.Name)
		}
	}
	golden(t, "examples.json", out.Bytes())
}

// cairnKinds are the kinds of Cairn's own API, as errors list them.
const cairnKinds = "BGPConfiguration, AgentConfiguration, BGPPeer, IPPool, Node, IPAMBlock, Tier, NetworkSet, GlobalNetworkSet, " +
	"NetworkPolicy, GlobalNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy, HostEndpoint, WorkloadEndpoint, PacketTrace, NodeStatus"

func TestDecode(t *testing.T) {
	const head = "apiVersion: cairn.network/v1\nkind: IPPool\nmetadata: {name: blue}\n"
	for name, row := range map[string]struct {
		text string
		want string // titles of the objects
		errs string // lines
	}{
		"nothing":         {"", "", ""},
		"white space":     {" \n", "", ""},
		"comments only":   {"# a\n---\n# b\n", "", ""},
		"one":             {head, "IPPool blue", ""},
		"two":             {head + "---\n" + strings.Replace(head, "blue", "red", 1), "IPPool blue, IPPool red", ""},
		"marked start":    {"--- # first\n" + head + "...\n", "IPPool blue", ""},
		"inline start":    {"--- {apiVersion: cairn.network/v1, kind: IPPool, metadata: {name: blue}}", "IPPool blue", ""},
		"dashes in text":  {head + "spec:\n  nodeSelector: |-\n    has(a)\n     ---\n", "IPPool blue", ""},
		"JSON with tabs":  {"{\n\t\"apiVersion\": \"cairn.network/v1\",\n\t\"kind\": \"IPPool\"\n}\n", "IPPool", ""},
		"JSON, two texts": {`{"apiVersion":"cairn.network/v1","kind":"Node"} {"apiVersion":"cairn.network/v1","kind":"IPPool"}`, "Node, IPPool", ""},
		"namespaced":      {"{apiVersion: cairn.network/v1, kind: WorkloadEndpoint, metadata: {name: a, namespace: b}}", "WorkloadEndpoint b/a", ""},
		"a node named n":  {"{apiVersion: cairn.network/v1, kind: BGPPeer, metadata: {name: n, labels: {on: no, day: 2026-01-01}}, spec: {node: n}}", "BGPPeer n", ""},
		"anchors":         {"a: &a {apiVersion: cairn.network/v1}\n", "", "document 1, object: kind: Required value"},
		"merged":          {"items: [&a {apiVersion: cairn.network/v1, kind: Node, metadata: {name: a}}, {<<: *a, kind: IPPool}]\nkind: List\napiVersion: v1\n", "Node a, IPPool a", ""},
		"empty list":      {"apiVersion: v1\nkind: List\nitems: []\n", "", ""},
		"kind's list":     {"{apiVersion: cairn.network/v1, kind: NodeList, metadata: {resourceVersion: '7'}, items: [{apiVersion: cairn.network/v1, kind: Node, metadata: {name: a}}]}", "Node a", ""},

		"unknown field":      {head + "spec: {blokSize: 26}", "", `document 1, IPPool blue: unknown field "spec.blokSize"`},
		"other case":         {head + "spec: {blocksize: 26}", "", `document 1, IPPool blue: unknown field "spec.blocksize"`},
		"unknown in a list":  {"{apiVersion: cairn.network/v1, kind: IPAMBlock, metadata: {name: b}, spec: {allocations: [{}, {owner: {x: 1}}]}}", "", `document 1, IPAMBlock b: unknown field "spec.allocations[1].owner.x"`},
		"unknown metadata":   {"{apiVersion: cairn.network/v1, kind: Node, metadata: {name: b, label: {}}}", "", `document 1, Node b: unknown field "metadata.label"`},
		"duplicate in YAML":  {head + "spec:\n  cidr: 10.0.0.0/8\n  cidr: 10.0.0.0/8\n", "", `document 1: line 6: mapping key "cidr" already defined at line 5`},
		"duplicate in JSON":  {`{"apiVersion":"cairn.network/v1","kind":"Node","metadata":{"name":"a","name":"b"}}`, "", `document 1, Node b: duplicate field "metadata.name"`},
		"every fault counts": {head + "spec: {a: 1, b: 2}\n---\n" + head + "---\nkind: Node", "", "document 1, IPPool blue: unknown field \"spec.a\"\ndocument 1, IPPool blue: unknown field \"spec.b\"\ndocument 3, Node: apiVersion: must be cairn.network/v1, not \"\""},
		"Kubernetes' own":    {"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: b}, spec: {podSelector: {}}}", "KubernetesNetworkPolicy b/a", ""},
		"the same of ours":   {"{apiVersion: cairn.network/v1, kind: NetworkPolicy, metadata: {name: a, namespace: b}}", "NetworkPolicy b/a", ""},
		"neither's":          {"{apiVersion: v1, kind: NetworkPolicy, metadata: {name: a}}", "", `document 1, NetworkPolicy a: apiVersion: must be cairn.network/v1 or networking.k8s.io/v1, not "v1"`},
		"by Cairn's name":    {"{apiVersion: cairn.network/v1, kind: KubernetesNetworkPolicy, metadata: {name: a}}", "", `document 1, KubernetesNetworkPolicy a: kind: must be one of ` + cairnKinds},
		"not read":           {"{apiVersion: v1, kind: Service, metadata: {name: a}}", "", `document 1, Service a: kind: must be one of Namespace, ServiceAccount`},
		"Kubernetes' list":   {"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, items: [{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: b}, spec: {podSelector: {}}}]}", "KubernetesNetworkPolicy b/a", ""},
		"unknown of theirs":  {"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {podSelektor: {}}}", "", `document 1, NetworkPolicy a: unknown field "spec.podSelektor"`},
		"embedded":           {"{apiVersion: cairn.network/v1, kind: GlobalNetworkPolicy, metadata: {name: a}, spec: {order: first}}", "", `document 1, GlobalNetworkPolicy a: spec.order: must be a number, not string`},
		"embedded, in rules": {"{apiVersion: cairn.network/v1, kind: StagedGlobalNetworkPolicy, metadata: {name: a}, spec: {ingress: [{action: Allow}, {source: {nets: x}}]}}", "", `document 1, StagedGlobalNetworkPolicy a: spec.ingress.source.nets: must be a list, not string`},
		"port no number":     {"{apiVersion: cairn.network/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {ingress: [{destination: {ports: [80, 1.5]}}]}}", "", `document 1, NetworkPolicy a: spec.ingress[0].destination.ports[1]: must be a port, a range such as 8080:8090 or a name, not 1.5`},
		"protocol no name":   {"{apiVersion: cairn.network/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {egress: [{protocol: true}]}}", "", `document 1, NetworkPolicy a: spec.egress[0].protocol: must be a protocol's name or number, not true`},
		"Calico's":           {"{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: a}}", "", `document 1, IPPool a: apiVersion: must be cairn.network/v1, not "projectcalico.org/v3"`},
		"no kind":            {"apiVersion: cairn.network/v1", "", `document 1, object: kind: Required value`},
		"unknown kind":       {"{apiVersion: cairn.network/v1, kind: Pool, metadata: {name: a}}", "", `document 1, Pool a: kind: must be one of ` + cairnKinds},
		"kind in other case": {"{apiVersion: cairn.network/v1, kind: ippool}", "", `document 1, ippool: kind: must be one of ` + cairnKinds},
		"no map":             {"hello", "", `document 1, object: must be a map with apiVersion, kind and metadata`},
		"a bare list":        {"[1]", "", `document 1, object: must be a map with apiVersion, kind and metadata`},
		"wrong type":         {head + "spec: {blockSize: big}", "", `document 1, IPPool blue: spec.blockSize: must be a whole number, not string`},
		"quoted number":      {head + "spec: {blockSize: '26'}", "", `document 1, IPPool blue: spec.blockSize: must be a whole number, not string`},
		"fraction":           {head + "spec: {blockSize: 26.5}", "", `document 1, IPPool blue: spec.blockSize: must be a whole number, not number 26.5`},
		"too large":          {"{apiVersion: cairn.network/v1, kind: BGPPeer, metadata: {name: a}, spec: {asNumber: 4294967296}}", "", `document 1, BGPPeer a: spec.asNumber: must be a whole number from 0 to 4294967295, not number 4294967296`},
		"negative":           {"{apiVersion: cairn.network/v1, kind: BGPPeer, metadata: {name: a}, spec: {asNumber: -1}}", "", `document 1, BGPPeer a: spec.asNumber: must be a whole number from 0 to 4294967295, not number -1`},
		"text for a map":     {head + "spec: x", "", `document 1, IPPool blue: spec: must be a map, not string`},
		"map for a text":     {head + "spec: {cidr: {a: b}}", "", `document 1, IPPool blue: spec.cidr: must be a string, not object`},
		"label no text":      {"{apiVersion: cairn.network/v1, kind: Node, metadata: {name: a, labels: {1: 2}}}", "", `document 1, Node a: metadata.labels: must be a string, not number`},
		"no duration":        {"{apiVersion: cairn.network/v1, kind: BGPPeer, metadata: {name: a}, spec: {keepaliveTime: 30}}", "", `document 1, BGPPeer a: spec.keepaliveTime: must be a string, not number`},
		"bad duration":       {"{apiVersion: cairn.network/v1, kind: BGPPeer, metadata: {name: a}, spec: {keepaliveTime: 30x}}", "", `document 1, BGPPeer a: spec.keepaliveTime: time: unknown unit "x" in duration "30x"`},
		"bad time":           {"{apiVersion: cairn.network/v1, kind: IPAMBlock, metadata: {name: a}, spec: {released: [{address: a}, {at: noon}]}}", "", `document 1, IPAMBlock a: spec.released[1].at: parsing time "noon" as "2006-01-02T15:04:05Z07:00": cannot parse "noon" as "2006"`},
		"bad YAML":           {head + "---\n" + "a: [\n", "", `document 2: line 5: did not find expected node content`},
		"bad JSON":           {`{"apiVersion": "cairn.network/v1",}}`, "", "document 1, object: kind: Required value\ndocument 2: did not find expected <document start>"},
		"no number":          {head + "spec: {blockSize: .nan}", "", `document 1: json: unsupported value: NaN`},
		"list: bad version":  {"{apiVersion: v2, kind: List, items: []}", "", `document 1, List: apiVersion: must be cairn.network/v1, not "v2"`},
		"list: bad field":    {"{apiVersion: v1, kind: List, item: []}", "", `document 1, List: unknown field "item"`},
		"list: no list":      {"{apiVersion: v1, kind: List, items: {}}", "", `document 1, List: json: cannot unmarshal object into Go struct field list.items of type []json.RawMessage`},
		"list: bad item":     {"{apiVersion: v1, kind: List, items: [{}, {apiVersion: cairn.network/v1, kind: Node, metadata: {name: a}, spek: {}}]}", "", "document 1, item 1, object: kind: Required value\ndocument 1, item 2, Node a: unknown field \"spek\""},
		"list in a list":     {"{apiVersion: v1, kind: List, items: [{apiVersion: cairn.network/v1, kind: List}]}", "", `document 1, item 1, List: kind: must be one of ` + cairnKinds},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := Decode([]byte(row.text))
			var errs string
			if err != nil {
				errs = err.Error()
			}
			if diff := cmp.Diff(row.errs, errs); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			for _, o := range objects {
				if day := o.GetLabels()["day"]; day != "" && day != "2026-01-01" {
					t.Errorf("label became %q", day)
				}
			}
			var titles []string
			for _, o := range objects {
				titles = append(titles, title(o))
			}
			if diff := cmp.Diff(row.want, strings.Join(titles, ", ")); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeJSON(t *testing.T) {
	for name, row := range map[string]struct{ kind, text, want string }{
		"unknown fields are passed over": {"Node", `{"apiVersion":"cairn.network/v1","kind":"Node","x":1,"spec":{"y":2}}`, ""},
		"another kind":                   {"IPPool", `{"apiVersion":"cairn.network/v1","kind":"Node"}`, "decode IPPool: it is a cairn.network/v1, Kind=Node"},
		"Kubernetes' own":                {"KubernetesNetworkPolicy", `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy"}`, ""},
		"ours for Kubernetes' own":       {"KubernetesNetworkPolicy", `{"apiVersion":"cairn.network/v1","kind":"NetworkPolicy"}`, "decode KubernetesNetworkPolicy: it is a cairn.network/v1, Kind=NetworkPolicy"},
		"another version":                {"Node", `{"apiVersion":"cairn.network/v2","kind":"Node"}`, "decode Node: it is a cairn.network/v2, Kind=Node"},
		"unknown kind":                   {"Pool", `{}`, `no such kind: "Pool"`},
		"no JSON":                        {"Node", `{`, "decode Node: unexpected end of JSON input"},
	} {
		o, err := DecodeJSON(row.kind, []byte(row.text))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != row.want || (err == nil) != (o != nil) {
			t.Errorf("%s: error %q, object %v; want error %q", name, got, o, row.want)
		}
	}
}

func TestKindByName(t *testing.T) {
	for name, want := range map[string]string{
		"IPPool": "IPPool", "ippool": "IPPool", "ippools": "IPPool", "IPPOOLS": "IPPool",
		"node": "Node", "nodes": "Node", "nodestatus": "NodeStatus", "nodestatuses": "NodeStatus",
		"bgpconfig": "BGPConfiguration", "bgppeer": "BGPPeer", "wep": "WorkloadEndpoint", "ipamblock": "IPAMBlock",
		"networkpolicy": "NetworkPolicy", "np": "NetworkPolicy", "knp": "KubernetesNetworkPolicy", "KubernetesNetworkPolicy": "KubernetesNetworkPolicy",
		"networkpolicies.networking.k8s.io": "KubernetesNetworkPolicy", "cnp": "ClusterNetworkPolicy", "ns": "Namespace",
		"": "", "pod": "", "ippoolss": "",
	} {
		k, ok := KindByName(name)
		if k.Name != want || ok != (want != "") {
			t.Errorf("KindByName(%q) = %q, want %q", name, k.Name, want)
		}
	}
	names := map[string]string{}
	for _, k := range Kinds() {
		for _, n := range append([]string{strings.ToLower(k.Name), k.Plural}, k.ShortNames...) {
			if other := names[n]; other != "" {
				t.Errorf("%q names both %s and %s", n, other, k.Name)
			}
			names[n] = k.Name
			if n != strings.ToLower(n) {
				t.Errorf("%q can't be found: it is not in lower case", n)
			}
		}
		o := k.New()
		o.Default()
		if got := o.GetObjectKind().GroupVersionKind(); got != k.GroupVersionKind() || KindOf(o) != k.Name {
			t.Errorf("New of %s makes a %s", k.Name, got)
		}
	}
}

// FuzzDecode checks that whatever decodes can be validated and kept.
func FuzzDecode(f *testing.F) {
	f.Add(readExamples(f))
	for _, doc := range bytes.Split(readExamples(f), []byte("---\n")) {
		f.Add(doc)
	}
	f.Add([]byte(`{"apiVersion":"cairn.network/v1","kind":"Node","metadata":{"name":"a"},"spec":{"bgp":{"ipv4Address":"::ffff:1.2.3.4/1"}}}`))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [null, 1]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := Decode(data)
		if err != nil {
			if len(objects) > 0 {
				t.Fatal("both objects and an error")
			}
			return
		}
		for _, o := range objects {
			first := Check(o)
			kept, err := Encode(o)
			if err != nil {
				t.Fatal(err)
			}
			back, err := DecodeJSON(KindOf(o), kept)
			if err != nil {
				t.Fatalf("%s\n%v", kept, err)
			}
			if second := Check(back); (first == nil) != (second == nil) {
				t.Fatalf("judged differently once kept: %v, then %v", first, second)
			}
			again, err := Encode(back)
			if err != nil || !bytes.Equal(kept, again) {
				t.Fatalf("kept as\n%s\nthen as\n%s\n%v", kept, again, err)
			}
		}
	})
}
