package topology_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"cairn.network/cairn/lab/topology"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func parseNamed(t *testing.T, name string) *topology.Topology {
	t.Helper()
	b, err := topology.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	topo, err := topology.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

func TestPlain(t *testing.T) {
	topo := parseNamed(t, topology.Plain)
	b, err := yaml.Marshal(topo)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "plain.parsed.yaml", b)
	objects, err := topo.Objects()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "plain.objects.yaml", objects)
}

func TestNamed(t *testing.T) {
	// Whether nodes have sessions with each other, and with any.
	want := map[string][2]bool{"vxlan-nobgp": {false, false}}
	for _, name := range topology.Names() {
		topo := parseNamed(t, name)
		if topo.Name != name {
			t.Errorf("topology %s calls itself %s", name, topo.Name)
		}
		b, err := topology.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if s := topology.Summary(b); !strings.HasSuffix(s, ".") || strings.Contains(s, "\n") {
			t.Errorf("topology %s says of itself %q; want whole sentences on a line", name, s)
		}
		sessions, special := want[name]
		if !special {
			sessions = [2]bool{true, true}
		}
		if got := [2]bool{topo.HasMesh(), topo.HasSessions()}; got != sessions {
			t.Errorf("topology %s has mesh, sessions: %v; want %v", name, got, sessions)
		}
	}
	if _, err := topology.Named("nosuch"); err == nil || !strings.Contains(err.Error(), "vxlan-ipv6") {
		t.Errorf("a name that is none: %v; want the names that are", err)
	}
}

func TestHasSessions(t *testing.T) {
	const bgp = "\nresources: [{apiVersion: cairn.network/v1, kind: BGPConfiguration, metadata: {name: default}, spec: {%s}}]"
	rack := func(nodes int, speaker, spec string) string {
		return fmt.Sprintf("racks: [{name: r1, subnets: [10.1.0.0/24], nodes: %d}]\nrouters: [{name: tor, speaker: %s}]"+bgp, nodes, speaker, spec)
	}
	tests := []struct {
		name, file     string
		mesh, sessions bool
	}{
		{"one node, silent router", rack(1, "none", ""), false, false},
		{"one node", rack(1, "cairn", ""), false, true},
		{"two nodes", rack(2, "none", ""), true, true},
		{"two nodes, a mesh asked for", rack(2, "none", "nodeToNodeMeshEnabled: true"), true, true},
		{"two nodes, no mesh", rack(2, "none", "nodeToNodeMeshEnabled: false"), false, false},
		{"two nodes, no mesh, a router", rack(2, "bird", "nodeToNodeMeshEnabled: false"), false, true},
	}
	for _, tt := range tests {
		topo, err := topology.Parse([]byte(tt.file))
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]bool{topo.HasMesh(), topo.HasSessions()}; got != [2]bool{tt.mesh, tt.sessions} {
			t.Errorf("%s: mesh, sessions %v", tt.name, got)
		}
	}
}

func TestDefaults(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"one rack, one family", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: 1}]`,
			"etcd 10.101.0.10/24; n1 10.1.0.11/24; pools 10.244.0.0/16"},
		{"IPv6 alone", `racks: [{name: r1, subnets: ["fd00:1::/64"], nodes: 1}]`,
			"etcd fd00:101::10/64; n1 fd00:1::11/64; pools fd00:10:244::/48"},
		{"counted through racks", `racks: [{name: a, subnets: [10.1.0.0/24], nodes: 2}, {name: b, subnets: [10.2.0.0/24], nodes: [x]}, {name: c, subnets: [10.3.0.0/24], nodes: 1}]`,
			"etcd 10.101.0.10/24; n1 10.1.0.11/24; n2 10.1.0.12/24; x 10.2.0.11/24; n4 10.3.0.11/24; pools 10.244.0.0/16"},
		{"no pools at all", `{pools: [], racks: [{name: r1, subnets: [10.1.0.0/28], nodes: 1}], control: {subnets: [10.9.0.0/24]}}`,
			"etcd 10.9.0.10/24; n1 10.1.0.11/28; pools"},
		{"smallest subnet for four nodes", `racks: [{name: r1, subnets: [10.1.0.0/28], nodes: 4}]`,
			"etcd 10.101.0.10/24; n1 10.1.0.11/28; n2 10.1.0.12/28; n3 10.1.0.13/28; n4 10.1.0.14/28; pools 10.244.0.0/16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			topo, err := topology.Parse([]byte(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			var parts []string
			for _, h := range append([]topology.Host{topo.Etcd}, topo.Nodes...) {
				parts = append(parts, h.Name+" "+strings.Trim(fmt.Sprint(h.Addrs), "[]"))
			}
			pools := []string{"pools"}
			for _, p := range topo.Pools {
				pools = append(pools, p.CIDR)
			}
			got := strings.Join(append(parts, strings.Join(pools, " ")), "; ")
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		topo, err := topology.Parse(b)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if _, err := topo.Objects(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestRefused(t *testing.T) {
	const rack = `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: 1}]`
	tests := []struct{ name, file, want string }{
		{"nothing", ``, `racks: Required value`},
		{"unknown field", rack + "\nrouter: []", `unknown field "router"`},
		{"not YAML", `racks: [`, `read topology`},
		{"bad lab name", rack + "\nname: A/b", `name: Invalid value: "A/b"`},
		{"rack name too long", `racks: [{name: abcdefghijkl, subnets: [10.1.0.0/24], nodes: 1}]`, `racks[0].name: Invalid value: "abcdefghijkl": must have at most 11 characters`},
		{"node name too long", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: [abcdefghijklmnop]}]`, `racks[0].nodes[0]: Invalid value: "abcdefghijklmnop": must have at most 15 characters`},
		{"two nodes of one name", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: [a, a]}]`, `racks[0].nodes[1]: Invalid value: "a": is the name of racks[0].nodes[0] already`},
		{"node named as a router", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: [tor]}]`, `is the name of routers[0].name already`},
		{"node named etcd", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: [etcd]}]`, `the lab itself uses this name`},
		{"two racks of one name", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: 1}, {name: r1, subnets: [10.2.0.0/24], nodes: 1}]`, `racks[1].name: Invalid value: "r1"`},
		{"no nodes", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: 0}]`, `a rack has between 1 and 200 nodes`},
		{"nodes of neither form", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: {a: b}}]`, `want a list of names, or how many`},
		{"no subnet", `racks: [{name: r1, nodes: 1}]`, `racks[0].subnets: Required value`},
		{"not a subnet", `racks: [{name: r1, subnets: [10.1.0.0], nodes: 1}]`, `racks[0].subnets[0]: Invalid value: "10.1.0.0": must be an address and a prefix length`},
		{"host bits", `racks: [{name: r1, subnets: [10.1.0.1/24], nodes: 1}]`, `has host bits; the prefix is 10.1.0.0/24`},
		{"two subnets of a family", `racks: [{name: r1, subnets: [10.1.0.0/24, 10.2.0.0/24], nodes: 1}]`, `racks[0].subnets[1]`},
		{"overlapping racks", `racks: [{name: r1, subnets: [10.1.0.0/16], nodes: 1}, {name: r2, subnets: [10.1.2.0/24], nodes: 1}]`, `racks[1].subnets[0]: Invalid value: "10.1.2.0/24": overlaps 10.1.0.0/16 of racks[0].subnets[0]`},
		{"families differ", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: 1}, {name: r2, subnets: ["fd00:1::/64"], nodes: 1}]`, `must be of the same families`},
		{"subnet too small", `racks: [{name: r1, subnets: [10.1.0.0/28], nodes: 5}]`, `racks[0].nodes[4]: Invalid value: "n5": has no address: subnet 10.1.0.0/28 is too small`},
		{"pool overlaps a rack", rack + "\npools: [{name: p, cidr: 10.1.0.0/16}]", `pools[0].cidr: Invalid value: "10.1.0.0/16": overlaps 10.1.0.0/24 of racks[0].subnets[0]`},
		{"unknown field of a pool", rack + "\npools: [{name: p, cidr: 10.2.0.0/16, blocksize: 26}]", `unknown field`},
		{"bad block size", rack + "\npools: [{name: p, cidr: 10.2.0.0/16, blockSize: 9}]", `IPPool p: spec.blockSize: Invalid value: 9`},
		{"unknown field of a resource", rack + "\nresources: [{apiVersion: cairn.network/v1, kind: IPPool, metadata: {name: p}, spec: {cidrs: 1}}]", `IPPool p: unknown field "spec.cidrs"`},
		{"bad resource", rack + "\nresources: [{apiVersion: cairn.network/v1, kind: IPPool, metadata: {name: p}, spec: {cidr: x}}]", `IPPool p: spec.cidr`},
		{"router that nodes can't accept from", rack + "\nrouters: [{name: tor, acceptCIDRs: [192.0.2.1/24]}]", `routers[0].acceptCIDRs[0]`},
		{"unknown speaker", rack + "\nrouters: [{name: tor, speaker: frr}]", `routers[0].speaker: Unsupported value: "frr"`},
		{"announces without a speaker", rack + "\nrouters: [{name: tor, speaker: none, announce: [192.0.2.0/24]}]", `need a speaker`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			topo, err := topology.Parse([]byte(tt.file))
			if err == nil {
				t.Fatalf("accepted: %+v", topo)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q\nwant a part %q", err, tt.want)
			}
		})
	}
}
