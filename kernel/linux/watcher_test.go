//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// listen watches with w and returns what waits until an event satisfies a
// condition, and returns that event.
func listen(t *testing.T, w kernel.Watcher) func(what string, condition func(kernel.Event) bool) kernel.Event {
	events := make(chan kernel.Event, 10_000)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Watch(ctx, func(e kernel.Event) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return func(what string, condition func(kernel.Event) bool) kernel.Event {
		t.Helper()
		limit := time.After(10 * time.Second)
		for {
			select {
			case e := <-events:
				if condition(e) {
					return e
				}
			case <-limit:
				t.Fatalf("no word of %s", what)
			}
		}
	}
}

// TestOverrun gives the socket a tiny buffer, so that the kernel drops events.
func TestOverrun(t *testing.T) {
	w := newRoutedWorld(t)
	in := config{netns: int(w.netns.Fd())}
	wait := listen(t, watcher{in, 1})
	wait("the host", func(e kernel.Event) bool { return e.Host.Links["east"].Up })
	set := make(map[kernel.RouteKey]kernel.Route)
	for i := range 2000 {
		set[testKey(fmt.Sprintf("10.%d.%d.0/24", 100+i/250, i%250))] = testRoute("10.0.1.2", "east")
	}
	if err := w.routes.Write(t.Context(), set, nil); err != nil {
		t.Fatal(err)
	}
	wait("lost events", func(e kernel.Event) bool { return e.Overrun })
	w.DelLink(t, "west")
	w.AddAddr(t, kernel.Addr{Link: "east", Prefix: netip.MustParsePrefix("10.0.7.1/24")})
	wait("the host as it is", func(e kernel.Event) bool {
		_, west := e.Host.Links["west"]
		_, addr := e.Host.Addrs[kernel.Addr{Link: "east", Prefix: netip.MustParsePrefix("10.0.7.1/24")}]
		return !west && addr
	})
}

// TestTentativeAddress adds an address that the kernel first has to make sure of.
func TestTentativeAddress(t *testing.T) {
	w := newWorld(t)
	w.AddLink(t, "east")
	wait := listen(t, w)
	a := kernel.Addr{Link: "east", Prefix: netip.MustParsePrefix("fd00:7::1/64")}
	if err := w.admin.AddrAdd(w.link(t, "east"), &vishnet.Addr{IPNet: ipNet(a.Prefix)}); err != nil {
		t.Fatal(err)
	}
	wait("the address", func(e kernel.Event) bool { _, ok := e.Host.Addrs[a]; return ok })
	addrs, err := w.admin.AddrList(w.link(t, "east"), unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range addrs {
		if got.IPNet.String() == a.Prefix.String() && got.Flags&unix.IFA_F_TENTATIVE != 0 {
			t.Error("the address was told while it was tentative")
		}
	}
}

func TestRename(t *testing.T) {
	w := newRoutedWorld(t)
	wait := listen(t, w)
	a := kernel.Addr{Link: "east", Prefix: netip.MustParsePrefix("10.0.1.1/24")}
	wait("the address", func(e kernel.Event) bool { _, ok := e.Host.Addrs[a]; return ok })
	err := w.admin.LinkSetName(w.link(t, "east"), "north")
	live := !errors.Is(err, unix.EBUSY)
	if !live { // before Linux 6.2 only a link that is down gets another name
		w.SetUp(t, "east", false)
		wait("the link down", func(e kernel.Event) bool { return !e.Host.Links["east"].Up })
		err = w.admin.LinkSetName(w.link(t, "east"), "north")
	}
	if err != nil {
		t.Fatal(err)
	}
	a.Link = "north"
	e := wait("the new name", func(e kernel.Event) bool { _, ok := e.Host.Links["north"]; return ok })
	if _, ok := e.Host.Addrs[a]; !ok {
		t.Errorf("addresses are %v", e.Host.Addrs)
	}
	if _, ok := e.Host.Links["east"]; ok || len(e.Down) != 1 || e.Down[0] != "east" {
		t.Errorf("links are %v, down %v", e.Host.Links, e.Down)
	}
	connected := kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("10.0.1.0/24")}
	moved := func(e kernel.Event) bool { return e.Host.Foreign[connected].Hops.Uses("north") }
	if !live {
		w.SetUp(t, "north", true)
		e = wait("the connected route", moved)
	}
	if !moved(e) {
		t.Errorf("connected route is %v", e.Host.Foreign[connected])
	}
}

// TestTwoForeignRoutesOfOneKey has the same subnet on two links.
func TestTwoForeignRoutesOfOneKey(t *testing.T) {
	w := newRoutedWorld(t)
	wait := listen(t, w)
	k := kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("10.0.1.0/24")}
	wait("the first", func(e kernel.Event) bool { return e.Host.Foreign[k].Hops.Uses("east") })
	second := kernel.Addr{Link: "west", Prefix: netip.MustParsePrefix("10.0.1.9/24")}
	w.AddAddr(t, second)
	wait("the second address", func(e kernel.Event) bool { _, ok := e.Host.Addrs[second]; return ok })
	w.DelAddr(t, kernel.Addr{Link: "east", Prefix: netip.MustParsePrefix("10.0.1.1/24")})
	wait("the second route", func(e kernel.Event) bool { return e.Host.Foreign[k].Hops.Uses("west") })
	w.DelAddr(t, second)
	wait("none", func(e kernel.Event) bool { _, ok := e.Host.Foreign[k]; return !ok })
}

// TestUnchangedIsShared makes sure that an event copies only what it changes.
func TestUnchangedIsShared(t *testing.T) {
	w := newRoutedWorld(t)
	wait := listen(t, w)
	isUp := func(e kernel.Event) bool {
		_, ok := e.Host.Addrs[kernel.Addr{Link: "west", Prefix: netip.MustParsePrefix("fd00:2::1/64")}]
		return ok && e.Host.Links["west"].Up
	}
	wait("the host", isUp)
	one := func(k kernel.RouteKey) kernel.Event {
		if err := w.routes.Write(t.Context(), map[kernel.RouteKey]kernel.Route{k: {Type: kernel.Blackhole}}, nil); err != nil {
			t.Fatal(err)
		}
		return wait("our route", func(e kernel.Event) bool { return e.Routes[k] != nil })
	}
	// The rest of the host may still be coming up.
	before := one(testKey("10.9.0.0/24"))
	for i := range 20 {
		after := one(testKey(fmt.Sprintf("10.9.%d.0/24", i+1)))
		if after.Host == before.Host {
			return
		}
		before = after
	}
	t.Error("each route of ours made a new host")
}

// TestLinkDriver asks for the drivers of links, of which only a physical one's is
// told.
func TestLinkDriver(t *testing.T) {
	w := newWorld(t)
	w.AddLink(t, "east")
	conn, err := config{netns: int(w.netns.Fd())}.dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, want := range map[string]string{"east": "veth", "lo": "", "gone": ""} {
		if got := linkDriver(conn, name); got != want {
			t.Errorf("driver of %s is %q, want %q", name, got, want)
		}
	}
	asked := 0
	s := hostState{driver: func(string) string { asked++; return "vmxnet3" }}
	eth0 := linkState{Link: kernel.Link{Name: "eth0", Index: 2}}
	first := s.withDriver(eth0, linkState{})
	again := s.withDriver(eth0, first)
	if first.Driver != "vmxnet3" || again != first || asked != 1 {
		t.Errorf("asked %d times, of %+v is told %+v, then %+v", asked, eth0, first, again)
	}
	for _, l := range []kernel.Link{{Name: "lo", Index: 1}, {Name: "east", Index: 3, Kind: "veth"}} {
		if got := s.withDriver(linkState{Link: l}, linkState{}); got.Driver != "" {
			t.Errorf("%+v is told", got)
		}
	}
}
