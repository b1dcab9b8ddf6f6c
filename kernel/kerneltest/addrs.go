package kerneltest

import (
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

func (d device) addresses() map[kernel.Addr]struct{} {
	set := make(map[kernel.Addr]struct{})
	for _, a := range d.addrs {
		set[addr(d.link, a)] = struct{}{}
	}
	return set
}

// goesWithDevice checks what a device that goes takes with it, and that all of it
// is told.
func goesWithDevice(t *testing.T, w TunnelWorld, d device) {
	w.AddLink(t, "east")
	s := watch(t, w)
	routes := make(map[kernel.RouteKey]kernel.Route)
	for _, r := range d.routes {
		routes[key(r)] = unicast(kernel.NextHop{Link: d.link})
	}
	for _, way := range []struct {
		name string
		do   func()
	}{
		{"deleted", func() { Put(t, w.Tunnels(), nil, d.link) }},
		{"down", func() { w.SetUp(t, d.link, false) }},
	} {
		d.make(t, w)
		Put(t, w.Addrs(), d.addresses())
		Put(t, w.Routes(), routes)
		wantTable(t, "routes", w.Routes(), routes)
		s.settled(w)
		s.forget()
		way.do()
		s.until("the device "+way.name, func() bool { return s.down[d.link] && s.tunnels[d.link] })
		wantTable(t, "routes", w.Routes(), map[kernel.RouteKey]kernel.Route{})
		if way.name == "deleted" {
			wantTable(t, "addresses", w.Addrs(), map[kernel.Addr]struct{}{})
			for a := range d.addresses() {
				s.until(a.String()+" gone", func() bool { _, there := s.host.Addrs[a]; return !there })
			}
			Put(t, w.Addrs(), nil, addr(d.link, d.addrs[0]))
			continue
		}
		have, err := w.Addrs().Read(t.Context())
		for a := range d.addresses() {
			if _, there := have[a]; err != nil || there != a.Prefix.Addr().Is4() { // IPv6 forgets its own
				t.Errorf("after the device went down there are the addresses %v, %v", have, err)
			}
		}
	}
}

func tunnelAddresses(t *testing.T, w TunnelWorld, d device) {
	wantTable(t, "addresses", w.Addrs(), map[kernel.Addr]struct{}{})
	d.make(t, w)
	wantTable(t, "addresses", w.Addrs(), map[kernel.Addr]struct{}{})
	s := watch(t, w)
	for range 2 {
		Put(t, w.Addrs(), d.addresses())
		wantTable(t, "addresses", w.Addrs(), d.addresses())
	}
	for a := range d.addresses() {
		s.until(a.String(), func() bool { _, there := s.host.Addrs[a]; return there })
		// It is a source at once, for the asking.
		r := kernel.Route{Hops: kernel.Hops(kernel.NextHop{Link: d.link}), Source: a.Prefix.Addr()}
		for _, dst := range d.routes {
			if k := key(dst); k.Dst.Addr().Is4() == r.Source.Is4() {
				Put(t, w.Routes(), map[kernel.RouteKey]kernel.Route{k: r})
				wantTable(t, "routes", w.Routes(), map[kernel.RouteKey]kernel.Route{k: r})
				Put(t, w.Routes(), nil, k)
			}
		}
	}
	s.settled(w)
	for k, r := range s.host.Foreign {
		if r.Hops.Uses(d.link) {
			t.Errorf("the addresses brought the route %v to %v", k, r)
		}
	}
	for range 2 { // the second time they are gone already
		for a := range d.addresses() {
			Put(t, w.Addrs(), nil, a)
		}
		wantTable(t, "addresses", w.Addrs(), map[kernel.Addr]struct{}{})
	}
}

func addressesByAnotherHand(t *testing.T, w TunnelWorld, d device) {
	w.AddLink(t, "east")
	w.AddAddr(t, addr("east", "10.0.1.1/24"))
	d.make(t, w)
	Put(t, w.Addrs(), d.addresses())
	s := watch(t, w)
	for a := range d.addresses() {
		// Whoever believes that it is there, because it just wrote it, is told, though
		// the host is the same before and after.
		s.settled(w)
		w.DelAddr(t, a)
		s.settled(w)
		s.forget()
		Put(t, w.Addrs(), d.addresses())
		w.DelAddr(t, a)
		s.until(a.String()+" gone again", func() bool { return s.tunnels[d.link] && s.down[d.link] })
		rest := d.addresses()
		delete(rest, a)
		wantTable(t, "addresses", w.Addrs(), rest)
		Put(t, w.Addrs(), d.addresses())
		wantTable(t, "addresses", w.Addrs(), d.addresses())
	}
	more := d.addresses()
	alien := addr(d.link, "10.77.0.1/24")
	if d.link == kernel.LinkVXLAN6 {
		alien = addr(d.link, "fd00:77::1/64")
	}
	more[alien] = struct{}{}
	w.AddAddr(t, alien)
	wantTable(t, "addresses", w.Addrs(), more)
	Put(t, w.Addrs(), nil, alien)
	wantTable(t, "addresses", w.Addrs(), d.addresses())
}

func badAddresses(t *testing.T, w TunnelWorld, d device) {
	good := addr(d.link, d.addrs[0])
	d.make(t, w)
	w.AddLink(t, "east")
	want := map[kernel.Addr]error{
		addr("east", "10.1.1.1/32"):  kernel.ErrForeign,
		addr("gone", "10.1.1.1/32"):  syscall.ENODEV,
		addr(d.link, "10.1.1.1/24"):  syscall.EINVAL,
		addr(d.link, "0.0.0.0/32"):   syscall.EINVAL,
		addr(d.link, "224.0.0.1/32"): syscall.EINVAL,
		addr(d.link, "fd00:1::1/64"): syscall.EINVAL,
		addr(d.link, "fe80::1/128"):  syscall.EINVAL,
		{Link: d.link}:               syscall.EINVAL,
	}
	set := map[kernel.Addr]struct{}{good: {}}
	for a := range want {
		set[a] = struct{}{}
	}
	wantFailures(t, w.Addrs().Write(t.Context(), set, nil), "set", want)
	wantTable(t, "addresses", w.Addrs(), map[kernel.Addr]struct{}{good: {}})
	Put(t, w.Addrs(), nil, addr("east", "10.1.1.1/32"), addr("gone", "10.1.1.1/32"))
}
