package wire

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	addr := netip.MustParseAddr
	pods := func(from, to, src, dst string, apart bool) Flow {
		return Flow{From: from, To: to, Src: addr(src), Dst: addr(dst), Apart: apart}
	}
	in := func(t Transport, f Flow) Packet { return Packet{t, f.Src, f.Dst} }
	same := pods("n1", "n2", "10.244.0.1", "10.244.0.65", false)
	apart := pods("n1", "n3", "10.244.0.1", "10.244.0.129", true)
	plain := Transport{Kind: Plain}
	vxlan := Transport{VXLAN, 4096, 4789, addr("10.1.0.11"), addr("10.1.1.11")}
	elsewhere := Transport{VXLAN, 4096, 4789, addr("10.1.0.11"), addr("10.1.1.12")}
	wg := Transport{WireGuard, 0, 51820, addr("10.1.0.11"), addr("10.1.1.11")}
	encrypted := `---
{apiVersion: cairn.network/v1, kind: AgentConfiguration, metadata: {name: default}, spec: {wireguardEnabled: true}}
`
	type seen struct {
		at Place
		p  Packet
	}
	tests := []struct {
		name, more string
		flow       Flow
		seen       []seen
		ways       string // seen
		fault      string // empty: none
	}{
		{"as expected in a rack", "", same, []seen{{Fabric, in(plain, same)}}, "plain", ""},
		{"as expected between racks", "", apart, []seen{{Fabric, in(vxlan, apart)}, {Router, in(vxlan, apart)}}, "VXLAN 4096, UDP 4789", ""},
		{"nothing", "", same, nil, "", "was not seen as expected"},
		{"others' packets alone", "", same, []seen{{Fabric, in(plain, apart)}}, "", "was not seen as expected"},
		{"not at the router", "", apart, []seen{{Fabric, in(vxlan, apart)}}, "VXLAN 4096, UDP 4789", "was not seen as expected"},
		{"in a rack, but by the router", "", same, []seen{{Router, in(plain, same)}}, "plain", "was not seen as expected"},
		{"otherwise", "", apart, []seen{{Router, in(plain, apart)}}, "plain", "was seen as plain"},
		{"otherwise too", "", apart, []seen{{Router, in(plain, apart)}, {Router, in(vxlan, apart)}}, "VXLAN 4096, UDP 4789; plain", "was seen as plain"},
		{"to another node", "", apart, []seen{{Router, in(elsewhere, apart)}, {Router, in(vxlan, apart)}},
			"VXLAN 4096, UDP 4789; VXLAN 4096, UDP 4789 from 10.1.0.11 to 10.1.1.12", "was seen as VXLAN 4096, UDP 4789 from 10.1.0.11 to 10.1.1.12"},
		{"encrypted", encrypted, apart, []seen{{Fabric, Packet{Transport: wg}}, {Router, Packet{Transport: wg}}}, "WireGuard, UDP 51820", ""},
		{"encrypted, and a leak in the fabric", encrypted, apart, []seen{{Router, Packet{Transport: wg}}, {Fabric, in(plain, apart)}}, "WireGuard, UDP 51820; plain", "was seen as plain"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := &Log{}
			for _, s := range tt.seen {
				l.Add(s.at, s.p)
			}
			r, err := Judge(cluster(t, tt.more), []Flow{tt.flow}, l)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Rows) != 1 {
				t.Fatalf("rows: %+v", r.Rows)
			}
			if d := cmp.Diff(tt.ways, strings.Join(r.Rows[0].Seen, "; ")); d != "" {
				t.Errorf("seen (-want +got):\n%s", d)
			}
			if got := r.Rows[0].Error; (got == "") != (tt.fault == "") || !strings.Contains(got, tt.fault) {
				t.Errorf("error %q, want %q", got, tt.fault)
			}
			if (len(r.Failed()) > 0) != (tt.fault != "") {
				t.Errorf("failed: %+v", r.Failed())
			}
		})
	}
	if _, err := Judge(cluster(t, ""), []Flow{pods("n1", "n2", "10.9.0.1", "10.9.0.2", false)}, &Log{}); err == nil {
		t.Error("a flow outside of all pools: no error")
	}
}

func TestWrite(t *testing.T) {
	r := &Report{Rows: []Row{
		{From: "n1", To: "n2", Pool: "p", Expected: "plain", Seen: []string{"plain"}},
		{From: "n2", To: "n1", Pool: "p", Expected: "plain", Error: "a > b was not seen as expected"},
	}}
	var got strings.Builder
	if err := r.Write(&got); err != nil {
		t.Fatal(err)
	}
	want := `FROM  TO  POOL  EXPECTED  SEEN     
n1    n2  p     plain     plain    ✓
n2    n1  p     plain     nothing  WRONG

n2 to n1, pool p: a > b was not seen as expected
failed: 1 of 2 ways
`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
