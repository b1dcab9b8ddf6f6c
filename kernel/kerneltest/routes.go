package kerneltest

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/kernel"
)

// byValue compares the addresses and next hops inside routes with ==.
var byValue = cmp.Options{
	cmp.Comparer(func(a, b kernel.RouteKey) bool { return a == b }),
	cmp.Comparer(func(a, b kernel.Route) bool { return a == b }),
	cmp.Comparer(func(a, b kernel.Addr) bool { return a == b }),
}

// shapes are the routes that Cairn makes, of one family.
func shapes(v6 bool) map[string]kernel.Route {
	source, gw1, gw1b, gw2, far := "10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.2.2", "192.0.2.1"
	if v6 {
		source, gw1, gw1b, gw2, far = "fd00:1::1", "fd00:1::2", "fd00:1::3", "fd00:2::2", "2001:db8::1"
	}
	onlink := via(far, "east")
	onlink.OnLink = true
	heavy := via(gw2, "west")
	heavy.Weight = 256 - 1
	onlink2 := onlink
	onlink2.Link = "west"
	s := map[string]kernel.Route{
		"link":             unicast(kernel.NextHop{Link: "east"}),
		"other link":       unicast(kernel.NextHop{Link: "west"}),
		"gateway":          unicast(via(gw1, "east")),
		"other gateway":    unicast(via(gw1b, "east")),
		"onlink":           unicast(onlink),
		"blackhole":        {Type: kernel.Blackhole},
		"two":              unicast(via(gw1, "east"), via(gw2, "west")),
		"two on a link":    unicast(via(gw1, "east"), via(gw1b, "east")),
		"two weighted":     unicast(via(gw1, "east"), heavy),
		"two onlink":       unicast(onlink, onlink2),
		"three":            unicast(via(gw1, "east"), via(gw1b, "east"), via(gw2, "west")),
		"source":           {Hops: kernel.Hops(via(gw1, "east")), Source: netip.MustParseAddr(source)},
		"MTU":              {Hops: kernel.Hops(via(gw1, "east")), MTU: 1400},
		"MTU of two":       {Hops: kernel.Hops(via(gw1, "east"), via(gw2, "west")), MTU: 1400},
		"source, MTU, two": {Hops: kernel.Hops(via(gw1, "east"), via(gw2, "west")), MTU: 1400, Source: netip.MustParseAddr(source)},
	}
	if !v6 {
		s["two links"] = unicast(kernel.NextHop{Link: "east"}, kernel.NextHop{Link: "west"})
		s["over IPv6"] = unicast(via("fd00:1::2", "east"))
	} else {
		s["link-local"] = unicast(via("fe80::2", "east"))
	}
	return s
}

// families are the destinations that the tests of both families use.
var families = []struct {
	name string
	v6   bool
	dst  string
}{
	{"IPv4", false, "10.9.0.0/26"},
	{"IPv6", true, "fd00:9::/122"},
}

func mustRead(t *testing.T, w World) map[kernel.RouteKey]kernel.Route {
	t.Helper()
	have, err := w.Routes().Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return have
}

func mustSet(t *testing.T, w World, set map[kernel.RouteKey]kernel.Route) {
	t.Helper()
	if err := w.Routes().Write(t.Context(), set, nil); err != nil {
		t.Fatal(err)
	}
}

func wantRoutes(t *testing.T, w World, want map[kernel.RouteKey]kernel.Route) {
	t.Helper()
	if diff := cmp.Diff(want, mustRead(t, w), byValue); diff != "" {
		t.Fatalf("routes read back (-want +got):\n%s", diff)
	}
}

var routeTests = []test{
	{"none", func(t *testing.T, w World) {
		wantRoutes(t, w, map[kernel.RouteKey]kernel.Route{})
		if err := w.Routes().Write(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}},
	{"every shape reads back equal", func(t *testing.T, w World) {
		twoLinks(t, w)
		want := make(map[kernel.RouteKey]kernel.Route)
		n := 0
		for _, f := range families {
			for _, r := range shapes(f.v6) {
				n++
				dst := fmt.Sprintf("10.8.%d.0/24", n)
				if f.v6 {
					dst = fmt.Sprintf("fd00:8:0:%d::/64", n)
				}
				want[key(dst)] = r
			}
		}
		for _, dst := range []string{"0.0.0.0/0", "10.7.0.1/32", "::/0", "fd00:7::1/128"} {
			want[key(dst)] = unicast(kernel.NextHop{Link: "west"})
		}
		for _, dst := range []string{"10.7.0.1/32", "fd00:7::1/128"} {
			k := key(dst)
			k.Table = 1000
			want[k] = unicast(kernel.NextHop{Link: "east"})
			k = key(dst)
			k.Priority++
			want[k] = kernel.Route{Type: kernel.Blackhole}
		}
		mustSet(t, w, want)
		wantRoutes(t, w, want)
		mustSet(t, w, want)
		wantRoutes(t, w, want)
		var keys []kernel.RouteKey
		for k := range want {
			keys = append(keys, k)
		}
		for range 2 { // the second time they are gone already
			if err := w.Routes().Write(t.Context(), nil, keys); err != nil {
				t.Fatal(err)
			}
			wantRoutes(t, w, map[kernel.RouteKey]kernel.Route{})
		}
	}},
	{"every shape replaces every other in place", replaceEveryShape},
	{"another's route stays", foreignRouteStays},
	{"a bad route does not stop its neighbours", badRoutes},
	{"routes go with their link", func(t *testing.T, w World) {
		twoLinks(t, w)
		stays := map[kernel.RouteKey]kernel.Route{
			key("10.9.2.0/24"):   unicast(via("10.0.2.2", "west")),
			key("fd00:9:2::/64"): unicast(via("fd00:2::2", "west")),
		}
		mustSet(t, w, stays)
		goes := map[kernel.RouteKey]kernel.Route{
			key("10.9.1.0/24"):   unicast(via("10.0.1.2", "east")),
			key("fd00:9:1::/64"): unicast(via("fe80::2", "east")),
		}
		mustSet(t, w, goes)
		w.SetUp(t, "east", false)
		wantRoutes(t, w, stays)
		w.SetUp(t, "east", true)
		wantRoutes(t, w, stays)
		mustSet(t, w, goes)
		w.DelLink(t, "east")
		wantRoutes(t, w, stays)
		for k := range goes {
			if err := w.Routes().Write(t.Context(), nil, []kernel.RouteKey{k}); err != nil {
				t.Errorf("delete a route that went with its link: %v", err)
			}
		}
	}},
}

func replaceEveryShape(t *testing.T, w World) {
	twoLinks(t, w)
	for _, f := range families {
		all := shapes(f.v6)
		k := key(f.dst)
		for fromName, from := range all {
			for toName, to := range all {
				mustSet(t, w, map[kernel.RouteKey]kernel.Route{k: from})
				if err := w.Routes().Write(t.Context(), map[kernel.RouteKey]kernel.Route{k: to}, nil); err != nil {
					t.Fatalf("%s: %s to %s: %v", f.name, fromName, toName, err)
				}
				if diff := cmp.Diff(map[kernel.RouteKey]kernel.Route{k: to}, mustRead(t, w), byValue); diff != "" {
					t.Fatalf("%s: %s to %s (-want +got):\n%s", f.name, fromName, toName, diff)
				}
			}
		}
		if err := w.Routes().Write(t.Context(), nil, []kernel.RouteKey{k}); err != nil {
			t.Fatal(err)
		}
		wantRoutes(t, w, map[kernel.RouteKey]kernel.Route{})
	}
}

func foreignRouteStays(t *testing.T, w World) {
	twoLinks(t, w)
	s := watch(t, w)
	for _, f := range families {
		k := key(f.dst)
		for name, theirs := range map[string]kernel.Route{"gateway": shapes(f.v6)["gateway"], "link": shapes(f.v6)["link"], "two": shapes(f.v6)["two"]} {
			w.PutRoute(t, k, theirs, 186)
			other := key("10.200.0.0/16")
			err := w.Routes().Write(t.Context(), map[kernel.RouteKey]kernel.Route{
				k: shapes(f.v6)["other gateway"], other: {Type: kernel.Blackhole},
			}, nil)
			var keyErr *kernel.KeyError[kernel.RouteKey]
			switch {
			case !errors.As(err, &keyErr) || keyErr.Key != k || keyErr.Op != "set":
				t.Errorf("%s %s: error is %v, want a KeyError of set %v", f.name, name, err, k)
			case !errors.Is(err, kernel.ErrForeign) || !errors.Is(err, kernel.ErrBusy) || !errors.Is(err, syscall.EEXIST):
				t.Errorf("%s %s: error is %v, want ErrForeign, ErrBusy and EEXIST", f.name, name, err)
			}
			wantRoutes(t, w, map[kernel.RouteKey]kernel.Route{other: {Type: kernel.Blackhole}})
			if err := w.Routes().Write(t.Context(), nil, []kernel.RouteKey{k, other}); err != nil {
				t.Errorf("%s %s: delete what is not ours: %v", f.name, name, err)
			}
			s.until("their "+name, func() bool { return s.host.Foreign[k] == theirs })
			s.settled(w)
			if s.host.Foreign[k] != theirs {
				t.Errorf("%s %s: their route became %v", f.name, name, s.host.Foreign[k])
			}
			w.DropRoute(t, k)
		}
	}
}

func badRoutes(t *testing.T, w World) {
	twoLinks(t, w)
	w.AddLink(t, "off")
	w.SetUp(t, "off", false)
	good := map[kernel.RouteKey]kernel.Route{
		key("10.9.99.0/24"):   unicast(via("10.0.1.2", "east")),
		key("fd00:9:99::/64"): unicast(via("fd00:1::2", "east")),
	}
	for _, tt := range []struct {
		name string
		key  kernel.RouteKey
		r    kernel.Route
		want error
	}{
		{"unknown link", key("10.9.0.0/26"), unicast(kernel.NextHop{Link: "gone"}), syscall.ENODEV},
		{"unknown link, IPv6", key("fd00:9::/64"), unicast(kernel.NextHop{Link: "gone"}), syscall.ENODEV},
		{"one of two links unknown", key("10.9.0.0/26"), unicast(via("10.0.1.2", "east"), via("10.0.2.2", "gone")), syscall.ENODEV},
		{"link name too long", key("10.9.0.0/26"), unicast(kernel.NextHop{Link: "sixteen-letters-"}), syscall.ENODEV},
		{"link down", key("10.9.0.0/26"), unicast(kernel.NextHop{Link: "off"}), syscall.ENETDOWN},
		{"link down, IPv6", key("fd00:9::/64"), unicast(kernel.NextHop{Link: "off"}), syscall.ENETDOWN},
		{"gateway not on link", key("10.9.0.0/26"), unicast(via("192.0.2.1", "east")), syscall.ENETUNREACH},
		{"gateway not on link, IPv6", key("fd00:9::/64"), unicast(via("2001:db8::1", "east")), syscall.EHOSTUNREACH},
		{"gateway on another link", key("10.9.0.0/26"), unicast(via("10.0.1.2", "west")), syscall.ENETUNREACH},
		{"gateway on another link, IPv6", key("fd00:9::/64"), unicast(via("fd00:1::2", "west")), syscall.EHOSTUNREACH},
		{"one of two gateways unreachable", key("10.9.0.0/26"), unicast(via("10.0.1.2", "east"), via("192.0.2.1", "east")), syscall.ENETUNREACH},
		{"one of two gateways unreachable, IPv6", key("fd00:9::/64"), unicast(via("fd00:1::2", "east"), via("2001:db8::1", "east")), syscall.EHOSTUNREACH},
		{"own gateway, IPv6", key("fd00:9::/64"), unicast(via("fd00:1::1", "east")), syscall.EINVAL},
		{"foreign source", key("10.9.0.0/26"), kernel.Route{Hops: kernel.Hops(via("10.0.1.2", "east")), Source: netip.MustParseAddr("192.0.2.9")}, syscall.EINVAL},
		{"foreign source, IPv6", key("fd00:9::/64"), kernel.Route{Hops: kernel.Hops(via("fd00:1::2", "east")), Source: netip.MustParseAddr("2001:db8::9")}, syscall.EINVAL},
		{"no next hop", key("10.9.0.0/26"), kernel.Route{}, syscall.EINVAL},
		{"blackhole with next hop", key("10.9.0.0/26"), kernel.Route{Type: kernel.Blackhole, Hops: kernel.Hops(via("10.0.1.2", "east"))}, syscall.EINVAL},
		{"two links without gateway, IPv6", key("fd00:9::/64"), unicast(kernel.NextHop{Link: "east"}, kernel.NextHop{Link: "west"}), syscall.EINVAL},
		{"prefix not masked", key("10.9.0.1/26"), unicast(kernel.NextHop{Link: "east"}), syscall.EINVAL},
		{"no prefix", kernel.RouteKey{Table: kernel.MainTable, Priority: 1}, unicast(kernel.NextHop{Link: "east"}), syscall.EINVAL},
	} {
		set := map[kernel.RouteKey]kernel.Route{tt.key: tt.r}
		for k, r := range good {
			set[k] = r
		}
		err := w.Routes().Write(t.Context(), set, nil)
		var keyErr *kernel.KeyError[kernel.RouteKey]
		if !errors.As(err, &keyErr) || keyErr.Key != tt.key || !errors.Is(err, tt.want) {
			t.Errorf("%s: error is %v, want a KeyError of %v with %q", tt.name, err, tt.key, tt.want)
		}
		if diff := cmp.Diff(good, mustRead(t, w), byValue); diff != "" {
			t.Errorf("%s: routes (-want +got):\n%s", tt.name, diff)
		}
	}
	// A refusal leaves what was there.
	for k := range good {
		if err := w.Routes().Write(t.Context(), map[kernel.RouteKey]kernel.Route{k: unicast(kernel.NextHop{Link: "gone"})}, nil); err == nil {
			t.Errorf("%v through a link that does not exist was taken", k)
		}
	}
	wantRoutes(t, w, good)
}
