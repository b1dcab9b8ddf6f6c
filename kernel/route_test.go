package kernel_test

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cairn.network/cairn/kernel"
)

func hop(gateway, link string, weight uint8, onlink bool) kernel.NextHop {
	h := kernel.NextHop{Link: link, Weight: weight, OnLink: onlink}
	if gateway != "" {
		h.Gateway = netip.MustParseAddr(gateway)
	}
	return h
}

func TestNextHopsAreCanonical(t *testing.T) {
	a, b, c := hop("10.0.0.1", "eth0", 1, false), hop("10.0.0.2", "eth1", 1, false), hop("fe80::1", "eth0", 1, false)
	for _, tt := range []struct {
		name string
		in   []kernel.NextHop
		want []kernel.NextHop
	}{
		{"none", nil, nil},
		{"empty", []kernel.NextHop{}, nil},
		{"one", []kernel.NextHop{a}, []kernel.NextHop{a}},
		{"two", []kernel.NextHop{a, b}, []kernel.NextHop{a, b}},
		{"two in the other order", []kernel.NextHop{b, a}, []kernel.NextHop{a, b}},
		{"equal but distinct", []kernel.NextHop{a, b, hop("10.0.0.1", "eth0", 1, false)}, []kernel.NextHop{a, b}},
		{"weight 0 is 1", []kernel.NextHop{hop("10.0.0.1", "eth0", 0, false), b}, []kernel.NextHop{a, b}},
		{"greatest weight", []kernel.NextHop{hop("10.0.0.1", "eth0", 255, false), b}, []kernel.NextHop{hop("10.0.0.1", "eth0", 255, false), b}},
		{"a lone hop has no weight", []kernel.NextHop{hop("10.0.0.1", "eth0", 7, false)}, []kernel.NextHop{a}},
		{"nor do two that go the same way", []kernel.NextHop{hop("10.0.0.1", "eth0", 7, false), hop("10.0.0.1", "eth0", 9, false)}, []kernel.NextHop{a}},
		{"the same way with two weights", []kernel.NextHop{hop("10.0.0.1", "eth0", 7, false), b, hop("10.0.0.1", "eth0", 9, false)},
			[]kernel.NextHop{hop("10.0.0.1", "eth0", 9, false), b}},
		{"the same way, onlink once", []kernel.NextHop{hop("10.0.0.1", "eth0", 1, true), a}, []kernel.NextHop{hop("10.0.0.1", "eth0", 1, true)}},
		{"the same gateway on two links", []kernel.NextHop{hop("10.0.0.1", "eth1", 1, false), a}, []kernel.NextHop{a, hop("10.0.0.1", "eth1", 1, false)}},
		{"onlink needs a gateway", []kernel.NextHop{hop("", "eth0", 1, true)}, []kernel.NextHop{hop("", "eth0", 1, false)}},
		{"mapped address", []kernel.NextHop{hop("::ffff:10.0.0.1", "eth0", 1, false)}, []kernel.NextHop{a}},
		{"both families", []kernel.NextHop{c, a}, []kernel.NextHop{a, c}},
		{"zone", []kernel.NextHop{hop("fe80::1%eth0", "eth0", 1, false)}, []kernel.NextHop{c}},
	} {
		got := kernel.Hops(tt.in...)
		if diff := cmp.Diff(tt.want, got.List(), cmp.Comparer(func(a, b kernel.NextHop) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if again := kernel.Hops(got.List()...); again != got {
			t.Errorf("%s: Hops of its list is %v, want %v", tt.name, again, got)
		}
		if got.Len() != len(tt.want) {
			t.Errorf("%s: Len is %d, want %d", tt.name, got.Len(), len(tt.want))
		}
		if (got == kernel.NextHops{}) != (len(tt.want) == 0) {
			t.Errorf("%s: compares wrongly to the empty set", tt.name)
		}
	}
}

// TestNextHopsIgnoreOrder checks that equal sets are equal values however they
// were put together.
func TestNextHopsIgnoreOrder(t *testing.T) {
	gateways := []string{"", "10.0.0.1", "10.0.0.2", "fe80::1"}
	links := []string{"eth0", "eth1", "true"}
	rapid.Check(t, func(t *rapid.T) {
		hops := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) kernel.NextHop {
			return hop(rapid.SampledFrom(gateways).Draw(t, "gateway"), rapid.SampledFrom(links).Draw(t, "link"),
				rapid.Uint8().Draw(t, "weight"), rapid.Bool().Draw(t, "onlink"))
		}), 0, 6).Draw(t, "hops")
		set := kernel.Hops(hops...)
		if shuffled := kernel.Hops(rapid.Permutation(hops).Draw(t, "shuffled")...); shuffled != set {
			t.Fatalf("%v and %v differ", set, shuffled)
		}
		if twice := kernel.Hops(append(slices.Clone(hops), hops...)...); twice != set {
			t.Fatalf("%v and %v differ", set, twice)
		}
		for _, link := range append(links, "eth", "eth00", "1", "-") {
			want := slices.ContainsFunc(hops, func(h kernel.NextHop) bool { return h.Link == link })
			if set.Uses(link) != want {
				t.Fatalf("%v uses %s: %v, want %v", set, link, !want, want)
			}
		}
	})
}

func TestRoutesInWords(t *testing.T) {
	gw := hop("10.0.0.1", "eth0", 1, true)
	for _, tt := range []struct {
		value interface{ String() string }
		want  string
	}{
		{kernel.Route{}, ""},
		{kernel.Route{Type: kernel.Blackhole}, "blackhole"},
		{kernel.Route{Type: 7}, "type 7"},
		{kernel.Route{Hops: kernel.Hops(gw)}, "via 10.0.0.1 dev eth0 onlink"},
		{kernel.Route{Hops: kernel.Hops(hop("", "eth0", 1, false)), Source: netip.MustParseAddr("10.0.0.9"), MTU: 1400}, "dev eth0 src 10.0.0.9 mtu 1400"},
		{kernel.Route{Hops: kernel.Hops(hop("fe80::2", "eth1", 3, false), gw)}, "via 10.0.0.1 dev eth0 onlink, via fe80::2 dev eth1 weight 3"},
		{kernel.Unicast, "unicast"},
		{kernel.HostRoute(netip.MustParseAddr("10.0.0.1")), "10.0.0.1/32"},
		{kernel.HostRoute(netip.MustParseAddr("fd00::1")), "fd00::1/128"},
		{kernel.RouteKey{Table: 7, Dst: netip.MustParsePrefix("10.0.0.0/8"), Priority: 5}, "10.0.0.0/8 table 7 metric 5"},
	} {
		if got := tt.value.String(); got != tt.want {
			t.Errorf("%#v is %q, want %q", tt.value, got, tt.want)
		}
	}
}

func TestCheckRoute(t *testing.T) {
	v4, v6 := kernel.HostRoute(netip.MustParseAddr("10.0.0.1")), kernel.HostRoute(netip.MustParseAddr("fd00::1"))
	dev := kernel.Route{Hops: kernel.Hops(hop("", "eth0", 1, false))}
	with := func(k kernel.RouteKey, change func(*kernel.RouteKey)) kernel.RouteKey { change(&k); return k }
	for _, tt := range []struct {
		name string
		key  kernel.RouteKey
		r    kernel.Route
		ok   bool
	}{
		{"to a link", v4, dev, true},
		{"to a link, IPv6", v6, dev, true},
		{"blackhole", v6, kernel.Route{Type: kernel.Blackhole}, true},
		{"IPv4 by an IPv6 gateway", v4, kernel.Route{Hops: kernel.Hops(hop("fe80::1", "eth0", 1, false))}, true},
		{"IPv6 by an IPv4 gateway", v6, kernel.Route{Hops: kernel.Hops(hop("10.0.0.2", "eth0", 1, false))}, false},
		{"source of the other family", v6, kernel.Route{Hops: dev.Hops, Source: netip.MustParseAddr("10.0.0.2")}, false},
		{"nothing", v4, kernel.Route{}, false},
		{"blackhole somewhere", v4, kernel.Route{Type: kernel.Blackhole, Hops: dev.Hops}, false},
		{"another type", v4, kernel.Route{Type: kernel.Blackhole + 1}, false},
		{"no link", v4, kernel.Route{Hops: kernel.Hops(hop("10.0.0.2", "", 1, false))}, false},
		{"no prefix", kernel.RouteKey{Table: 254, Priority: 1}, dev, false},
		{"host bits", with(v4, func(k *kernel.RouteKey) { k.Dst = netip.MustParsePrefix("10.0.0.1/24") }), dev, false},
		{"mapped prefix", with(v4, func(k *kernel.RouteKey) { k.Dst = netip.MustParsePrefix("::ffff:10.0.0.1/128") }), dev, false},
		{"no table", with(v4, func(k *kernel.RouteKey) { k.Table = 0 }), dev, false},
		{"no metric", with(v4, func(k *kernel.RouteKey) { k.Priority = 0 }), dev, false},
	} {
		err := tt.r.Check(tt.key)
		if tt.ok != (err == nil) || err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, want ok: %v", tt.name, err, tt.ok)
		}
	}
}
