// Package kerneltest is the suite that every implementation of package kernel's
// seam must pass: the driver on a real kernel, and the fake.
package kerneltest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"cairn.network/cairn/kernel"
)

// World is a host of its own, empty but for its loopback link, with what its
// administrator may do to it. What can't be done fails the test.
type World interface {
	kernel.Watcher
	kernel.Attacher
	Routes() kernel.Table[kernel.RouteKey, kernel.Route]
	Sysctls() kernel.Table[kernel.Sysctl, string]

	// NewPod makes a network namespace and returns its path.
	NewPod(t testing.TB) string
	// AddLink makes a link that is up and has a carrier.
	AddLink(t testing.TB, name string)
	// SetUp sets a link up or down.
	SetUp(t testing.TB, name string, up bool)
	// DelLink deletes a link.
	DelLink(t testing.TB, name string)
	// AddAddr and DelAddr change the addresses of a link.
	AddAddr(t testing.TB, a kernel.Addr)
	DelAddr(t testing.TB, a kernel.Addr)
	// PutRoute and DropRoute do what "ip route replace" and "ip route del" do.
	PutRoute(t testing.TB, k kernel.RouteKey, r kernel.Route, protocol uint8)
	DropRoute(t testing.TB, k kernel.RouteKey)
}

// patience bounds the wait for something that must happen.
const patience = 10 * time.Second

// Run runs the suite, each test on a world of its own.
func Run(t *testing.T, newWorld func(t *testing.T) World) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"routes", routeTests},
		{"watch", watchTests},
		{"sysctls", sysctlTests},
		{"pods", podTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, tt := range group.tests {
				t.Run(tt.name, func(t *testing.T) { tt.run(t, newWorld(t)) })
			}
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, w World)
}

// twoLinks are the links that most tests have, each with a subnet of each family.
func twoLinks(t *testing.T, w World) {
	for _, l := range []struct{ name, v4, v6 string }{
		{"east", "10.0.1.1/24", "fd00:1::1/64"},
		{"west", "10.0.2.1/24", "fd00:2::1/64"},
	} {
		w.AddLink(t, l.name)
		w.AddAddr(t, kernel.Addr{Link: l.name, Prefix: netip.MustParsePrefix(l.v4)})
		w.AddAddr(t, kernel.Addr{Link: l.name, Prefix: netip.MustParsePrefix(l.v6)})
	}
}

func key(dst string) kernel.RouteKey {
	return kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix(dst), Priority: kernel.RoutePriority}
}

func via(gateway, link string) kernel.NextHop {
	return kernel.NextHop{Gateway: netip.MustParseAddr(gateway), Link: link}
}

func unicast(hops ...kernel.NextHop) kernel.Route { return kernel.Route{Hops: kernel.Hops(hops...)} }

// story is what a watcher was told so far.
type story struct {
	t      *testing.T
	events chan kernel.Event
	ended  chan error

	host    *kernel.Host
	routes  map[kernel.RouteKey]*kernel.Route // the last word on each
	down    map[string]bool
	tunnels map[string]bool
	// The last word on each entry of a tunnel device.
	neighbours map[kernel.Neighbour]*kernel.MAC
	forwarding map[kernel.Forwarding]*netip.Addr

	overrun bool
	told    int
}

// watch begins to watch and returns when the first event came.
func watch(t *testing.T, w World) *story {
	s := &story{t: t, events: make(chan kernel.Event, 10_000), ended: make(chan error, 1)}
	s.forget()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { s.ended <- w.Watch(ctx, func(e kernel.Event) { s.events <- e }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-s.ended:
			if err != nil {
				t.Errorf("Watch returned %v after its context was done, want nil", err)
			}
		case <-time.After(patience):
			t.Error("Watch did not return when its context was done")
		}
	})
	s.until("the first event", func() bool { return s.host != nil })
	return s
}

// forget empties the story but for the host.
func (s *story) forget() {
	s.routes, s.down, s.tunnels = make(map[kernel.RouteKey]*kernel.Route), make(map[string]bool), make(map[string]bool)
	s.neighbours, s.forwarding = make(map[kernel.Neighbour]*kernel.MAC), make(map[kernel.Forwarding]*netip.Addr)
	s.overrun, s.told = false, 0
}

// until takes events until the condition is true.
func (s *story) until(what string, condition func() bool) {
	s.t.Helper()
	limit := time.After(patience)
	for !condition() {
		select {
		case e := <-s.events:
			s.take(e)
		case err := <-s.ended:
			s.ended <- err
			s.t.Fatalf("Watch ended with %v before %s", err, what)
		case <-limit:
			s.t.Fatalf("no word of %s; told so far: routes %v, neighbours %v, forwarding %v, tunnels %v, down %v, host %+v",
				what, s.routes, s.neighbours, s.forwarding, s.tunnels, s.down, s.host)
		}
	}
}

func (s *story) take(e kernel.Event) {
	s.told++
	if e.Host == nil {
		s.t.Fatal("event without a host")
	}
	s.host = e.Host
	maps.Copy(s.routes, e.Routes)
	for _, name := range e.Down {
		s.down[name] = true
	}
	for _, name := range e.Tunnels {
		s.tunnels[name] = true
	}
	maps.Copy(s.neighbours, e.Neighbours)
	maps.Copy(s.forwarding, e.Forwarding)
	s.overrun = s.overrun || e.Overrun
}

// settled waits until everything done so far was told: a link made for this is.
func (s *story) settled(w World) {
	s.t.Helper()
	name := fmt.Sprintf("mark%d", time.Now().UnixNano()%1e9)
	w.AddLink(s.t, name)
	s.until("link "+name, func() bool { _, ok := s.host.Links[name]; return ok })
}
