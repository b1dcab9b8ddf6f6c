package router

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

var update = flag.Bool("update", false, "write the golden file anew")

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var example = Config{
	AS: 64513, NodeAS: 64512,
	Listen: []netip.Addr{addr("10.1.0.1"), addr("fd00:1::1")},
	Sessions: []Session{
		{Node: "n1", Addr: addr("10.1.0.11"), Local: addr("10.1.0.1")},
		{Node: "n1", Addr: addr("fd00:1::11"), Local: addr("fd00:1::1")},
	},
	Announce: []netip.Prefix{prefix("198.51.100.0/24"), prefix("2001:db8:100::/48")},
}

func TestBIRD(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		golden string // empty: only that bird takes it
	}{
		{"both families", example, "bird.conf"},
		{"nothing to announce, no sessions", Config{AS: 1, NodeAS: 2, Listen: []netip.Addr{addr("10.1.0.1")}}, ""},
		{"IPv6 alone", Config{AS: 1, NodeAS: 2, Listen: []netip.Addr{addr("fd00:1::1")}, Sessions: example.Sessions[1:]}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.config.BIRD()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "bird.conf")
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("/usr/sbin/bird", "-p", "-c", path).CombinedOutput(); err != nil {
				t.Errorf("bird refuses it: %v: %s\n%s", err, out, got)
			}
			if tt.golden == "" {
				return
			}
			golden := filepath.Join("testdata", tt.golden)
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestConfigRoundTrip(t *testing.T) {
	b, err := example.JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(example, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := Parse([]byte("{")); err == nil {
		t.Error("no error for half a configuration")
	}
}

func TestRouterID(t *testing.T) {
	if got := example.routerID(); got != addr("10.1.0.1") {
		t.Errorf("got %s, want its first IPv4 address", got)
	}
	if got := (Config{Listen: []netip.Addr{addr("fd00:1::1")}}).routerID(); !got.Is4() {
		t.Errorf("got %s; without an IPv4 address there must be an ID too", got)
	}
}

func TestLearned(t *testing.T) {
	host := &kernel.Host{Addrs: map[kernel.Addr]struct{}{
		{Link: "eth-r1", Prefix: prefix("10.1.0.1/24")}:  {},
		{Link: "eth-r2", Prefix: prefix("10.2.0.1/24")}:  {},
		{Link: "eth-r1", Prefix: prefix("fd00:1::1/64")}: {},
		{Link: "lo", Prefix: prefix("198.51.100.1/32")}:  {},
	}}
	path := func(hops ...string) (ps []bgp.LearnedPath) {
		for _, h := range hops {
			ps = append(ps, bgp.LearnedPath{NextHop: addr(h)})
		}
		return ps
	}
	tests := []struct {
		name  string
		paths []bgp.LearnedPath
		want  string
	}{
		{"in one rack", path("10.1.0.11"), "via 10.1.0.11 dev eth-r1"},
		{"in two racks", path("10.2.0.11", "10.1.0.11"), "via 10.1.0.11 dev eth-r1, via 10.2.0.11 dev eth-r2"},
		{"IPv6", path("fd00:1::11"), "via fd00:1::11 dev eth-r1"},
		{"nowhere near", path("192.0.2.1"), ""},
		{"one of two nowhere near", path("192.0.2.1", "10.1.0.11"), "via 10.1.0.11 dev eth-r1"},
		{"an address of its own", path("198.51.100.1"), ""},
		{"none", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst := prefix("10.244.0.0/26")
			got := learned(&bgp.RIB{Routes: map[netip.Prefix][]bgp.LearnedPath{dst: tt.paths}}, host)
			want := map[string]string{}
			if tt.want != "" {
				want["10.244.0.0/26"] = tt.want
			}
			texts := map[string]string{}
			for k, r := range got {
				texts[k.String()] = r.String()
			}
			if d := cmp.Diff(want, texts); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
