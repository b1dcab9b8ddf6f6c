package kerneltest

import (
	"fmt"
	"net/netip"
	"testing"

	"cairn.network/cairn/kernel"
)

var watchTests = []test{
	{"the first event has the whole host", func(t *testing.T, w World) {
		twoLinks(t, w)
		w.PutRoute(t, key("10.50.0.0/16"), unicast(via("10.0.1.9", "east")), 186)
		w.PutRoute(t, key("fd00:50::/32"), unicast(via("fd00:1::9", "east")), 186)
		mustSet(t, w, map[kernel.RouteKey]kernel.Route{key("10.9.0.0/26"): {Type: kernel.Blackhole}})
		s := watch(t, w)
		// A carrier or an address may still be on its way.
		s.until("all of it", func() bool {
			_, a4 := s.host.Addrs[addr("east", "10.0.1.1/24")]
			_, a6 := s.host.Addrs[addr("west", "fd00:2::1/64")]
			c4 := s.host.Foreign[kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("10.0.1.0/24")}]
			c6 := s.host.Foreign[kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("fd00:2::/64"), Priority: 256}]
			return s.host.Links["east"].Up && s.host.Links["lo"].Index == 1 && a4 && a6 &&
				c4.Hops == kernel.Hops(kernel.NextHop{Link: "east"}) && c4.Source == netip.MustParseAddr("10.0.1.1") &&
				c6.Hops == kernel.Hops(kernel.NextHop{Link: "west"}) &&
				s.host.Foreign[key("10.50.0.0/16")] == unicast(via("10.0.1.9", "east")) &&
				s.host.Foreign[key("fd00:50::/32")] == unicast(via("fd00:1::9", "east"))
		})
		if s.host.Release == "" {
			t.Error("the kernel's release is not told")
		}
		if r, ok := s.host.Foreign[key("10.9.0.0/26")]; ok {
			t.Errorf("our route %v is told as another's", r)
		}
		for k := range s.host.Foreign {
			if k.Dst.Addr().IsMulticast() || k.Dst.Addr().IsLinkLocalUnicast() || k.Table != kernel.MainTable {
				t.Errorf("route %v is told", k)
			}
		}
	}},
	{"links come, change and go", watchLinks},
	{"addresses come and go", func(t *testing.T, w World) {
		w.AddLink(t, "east")
		s := watch(t, w)
		for _, prefix := range []string{"10.0.1.1/24", "10.0.1.2/32", "fd00:1::1/64", "fd00:1::2/128"} {
			a := addr("east", prefix)
			w.AddAddr(t, a)
			s.until(prefix, func() bool { _, ok := s.host.Addrs[a]; return ok })
			w.DelAddr(t, a)
			s.until(prefix+" gone", func() bool { _, ok := s.host.Addrs[a]; return !ok })
		}
		s.until("no connected route", func() bool {
			_, v4 := s.host.Foreign[kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("10.0.1.0/24")}]
			_, v6 := s.host.Foreign[kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("fd00:1::/64"), Priority: 256}]
			return !v4 && !v6
		})
	}},
	{"others' routes come, change and go", func(t *testing.T, w World) {
		twoLinks(t, w)
		s := watch(t, w)
		for _, f := range families {
			k := key(f.dst)
			for _, shape := range []string{"link", "gateway", "other gateway", "two", "three", "gateway", "MTU", "link", "two"} {
				r := shapes(f.v6)[shape]
				w.PutRoute(t, k, r, 186)
				s.until(f.name+" "+shape, func() bool { return s.host.Foreign[k] == r })
			}
			w.DropRoute(t, k)
			s.until(f.name+" gone", func() bool { _, ok := s.host.Foreign[k]; return !ok })
		}
	}},
	{"others' routes go with their link", func(t *testing.T, w World) {
		twoLinks(t, w)
		for _, f := range families {
			w.PutRoute(t, key(f.dst), shapes(f.v6)["gateway"], 186)
		}
		s := watch(t, w)
		s.until("their routes", func() bool {
			_, v4 := s.host.Foreign[key(families[0].dst)]
			_, v6 := s.host.Foreign[key(families[1].dst)]
			return v4 && v6
		})
		w.SetUp(t, "east", false)
		s.until("none through east", func() bool {
			for _, r := range s.host.Foreign {
				if r.Hops.Uses("east") {
					return false
				}
			}
			return !s.host.Links["east"].Up
		})
		w.SetUp(t, "east", true)
		s.until("the connected route", func() bool {
			_, v4 := s.host.Foreign[kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("10.0.1.0/24")}]
			return v4 && s.host.Links["east"].Up
		})
	}},
	{"our routes are told as they are written", func(t *testing.T, w World) {
		twoLinks(t, w)
		s := watch(t, w)
		for _, f := range families {
			k := key(f.dst)
			all := shapes(f.v6)
			for _, name := range []string{"link", "blackhole", "gateway", "two", "three", "two weighted", "two onlink", "blackhole", "two", "link", "source", "MTU of two"} {
				r := all[name]
				s.forget()
				mustSet(t, w, map[kernel.RouteKey]kernel.Route{k: r})
				s.settled(w)
				if told := s.routes[k]; told == nil || *told != r {
					t.Errorf("%s %s: told %v, want %v", f.name, name, told, r)
				}
				if len(s.routes) != 1 {
					t.Errorf("%s %s: told %v, want one route", f.name, name, s.routes)
				}
			}
			s.forget()
			if err := w.Routes().Write(t.Context(), nil, []kernel.RouteKey{k}); err != nil {
				t.Fatal(err)
			}
			s.until("deletion", func() bool { r, ok := s.routes[k]; return ok && r == nil })
		}
	}},
	{"another hand on our routes is told", func(t *testing.T, w World) {
		twoLinks(t, w)
		s := watch(t, w)
		for _, f := range families {
			k, ours := key(f.dst), shapes(f.v6)["two"]
			gone := func() bool { r, ok := s.routes[k]; return ok && r == nil }
			set := func() {
				mustSet(t, w, map[kernel.RouteKey]kernel.Route{k: ours})
				s.settled(w)
				s.forget()
			}
			set()
			w.DropRoute(t, k)
			s.until(f.name+" deleted", gone)
			set()
			changed := shapes(f.v6)["gateway"]
			w.PutRoute(t, k, changed, kernel.RouteProtocol)
			s.until(f.name+" changed", func() bool { r := s.routes[k]; return r != nil && *r == changed })
			set()
			w.PutRoute(t, k, changed, 186)
			s.until(f.name+" taken over", gone)
			w.DropRoute(t, k)
		}
	}},
	{"our routes on a link that goes down", func(t *testing.T, w World) {
		twoLinks(t, w)
		set := make(map[kernel.RouteKey]kernel.Route)
		for _, f := range families {
			set[key(f.dst)] = shapes(f.v6)["gateway"]
		}
		mustSet(t, w, set)
		s := watch(t, w)
		s.settled(w)
		s.forget()
		w.SetUp(t, "east", false)
		s.until("east down", func() bool { return s.down["east"] && !s.host.Links["east"].Up })
		wantRoutes(t, w, map[kernel.RouteKey]kernel.Route{})
	}},
	{"our routes whose source is taken away", func(t *testing.T, w World) {
		twoLinks(t, w)
		k4, k6 := key(families[0].dst), key(families[1].dst)
		mustSet(t, w, map[kernel.RouteKey]kernel.Route{k4: shapes(false)["source"], k6: shapes(true)["source"]})
		s := watch(t, w)
		s.settled(w)
		s.forget()
		w.DelAddr(t, addr("east", "10.0.1.1/24"))
		w.DelAddr(t, addr("east", "fd00:1::1/64"))
		s.until("the link", func() bool { return s.down["east"] })
		wantRoutes(t, w, map[kernel.RouteKey]kernel.Route{k6: shapes(true)["gateway"]})
	}},
	{"a burst is told together", func(t *testing.T, w World) {
		twoLinks(t, w)
		s := watch(t, w)
		s.settled(w)
		s.forget()
		set := make(map[kernel.RouteKey]kernel.Route)
		for i := range 2000 {
			set[key(fmt.Sprintf("10.%d.%d.0/24", 100+i/250, i%250))] = unicast(via("10.0.1.2", "east"))
		}
		mustSet(t, w, set)
		s.until("all of them", func() bool { return len(s.routes) == len(set) })
		if s.told > len(set)/4 {
			t.Errorf("%d routes were told by %d events, want far fewer", len(set), s.told)
		}
	}},
}

func addr(link, prefix string) kernel.Addr {
	return kernel.Addr{Link: link, Prefix: netip.MustParsePrefix(prefix)}
}

func watchLinks(t *testing.T, w World) {
	s := watch(t, w)
	w.AddLink(t, "east")
	s.until("east up", func() bool { return s.host.Links["east"].Up })
	first := s.host.Links["east"]
	if first.Name != "east" || first.Kind != "veth" || first.MTU != 1500 || first.Index < 2 {
		t.Errorf("link is told as %+v", first)
	}
	w.AddAddr(t, addr("east", "10.0.1.1/24"))
	s.until("its address", func() bool { _, ok := s.host.Addrs[addr("east", "10.0.1.1/24")]; return ok })
	before := s.host
	s.forget()
	w.SetUp(t, "east", false)
	w.SetUp(t, "east", true)
	s.until("the flap", func() bool { return s.down["east"] && s.host.Links["east"].Up })
	if !before.Links["east"].Up {
		t.Error("a host that was told has changed")
	}
	s.forget()
	w.DelLink(t, "east")
	w.AddLink(t, "east")
	s.until("east made anew", func() bool {
		l := s.host.Links["east"]
		return s.down["east"] && l.Up && l.Index != first.Index
	})
	if _, ok := s.host.Addrs[addr("east", "10.0.1.1/24")]; ok {
		t.Error("the new link has the old one's address")
	}
	s.forget()
	w.DelLink(t, "east")
	s.until("east gone", func() bool { _, ok := s.host.Links["east"]; return !ok && s.down["east"] })
}
