package kerneltest

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

// LookupWorld is a host of its own whose routing can be asked.
type LookupWorld interface {
	World
	kernel.Lookup
}

// RunLookup runs the suite of look-ups of routes.
func RunLookup(t *testing.T, newWorld func(t *testing.T) LookupWorld) {
	w := newWorld(t)
	twoLinks(t, w)
	Put(t, w.Sysctls(), map[kernel.Sysctl]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"})
	Put(t, w.Routes(), map[kernel.RouteKey]kernel.Route{
		key("10.8.0.0/16"):   unicast(via("10.0.1.2", "east")),
		key("10.8.1.0/24"):   unicast(via("10.0.2.2", "west")),
		key("10.9.0.0/26"):   {Type: kernel.Blackhole},
		key("fd00:8::/48"):   unicast(via("fd00:1::2", "east")),
		key("fd00:8:1::/64"): unicast(via("fd00:2::2", "west")),
		key("fd00:9::/122"):  {Type: kernel.Blackhole},
	})
	addr := netip.MustParseAddr
	out := func(gateway, link, src string) kernel.Decision {
		d := kernel.Decision{Type: kernel.DecidedUnicast, Link: link, Src: addr(src), Table: kernel.MainTable}
		if gateway != "" {
			d.Gateway = addr(gateway)
		}
		return d
	}
	for _, tt := range []struct {
		name         string
		dst, src, in string
		want         kernel.Decision
	}{
		{"on a link, IPv4", "10.0.1.9", "", "", out("", "east", "10.0.1.1")},
		{"on a link, IPv6", "fd00:1::9", "", "", out("", "east", "fd00:1::1")},
		{"by a gateway, IPv4", "10.8.0.9", "", "", out("10.0.1.2", "east", "10.0.1.1")},
		{"by a gateway, IPv6", "fd00:8::9", "", "", out("fd00:1::2", "east", "fd00:1::1")},
		{"the longer prefix, IPv4", "10.8.1.9", "", "", out("10.0.2.2", "west", "10.0.2.1")},
		{"the longer prefix, IPv6", "fd00:8:1::9", "", "", out("fd00:2::2", "west", "fd00:2::1")},
		{"forwarded, IPv4", "10.8.1.9", "10.0.1.9", "east", out("10.0.2.2", "west", "10.0.1.9")},
		{"forwarded, IPv6", "fd00:8:1::9", "fd00:1::9", "east", out("fd00:2::2", "west", "fd00:1::9")},
		{"the host's own, IPv4", "10.0.2.1", "10.0.1.9", "east", kernel.Decision{Type: kernel.DecidedLocal, Src: addr("10.0.1.9"), Table: kernel.LocalTable}},
		{"the host's own, IPv6", "fd00:2::1", "fd00:1::9", "east", kernel.Decision{Type: kernel.DecidedLocal, Src: addr("fd00:1::9"), Table: kernel.LocalTable}},
		{"blackhole, IPv4", "10.9.0.1", "", "", kernel.Decision{Type: kernel.DecidedBlackhole}},
		{"blackhole, IPv6", "fd00:9::1", "", "", kernel.Decision{Type: kernel.DecidedBlackhole}},
		{"blackhole for what is forwarded, IPv4", "10.9.0.1", "10.0.1.9", "east", kernel.Decision{Type: kernel.DecidedBlackhole, Src: addr("10.0.1.9")}},
		{"blackhole for what is forwarded, IPv6", "fd00:9::1", "fd00:1::9", "east", kernel.Decision{Type: kernel.DecidedBlackhole, Src: addr("fd00:1::9")}},
		{"no route, IPv4", "203.0.113.1", "", "", kernel.Decision{Type: kernel.DecidedNone}},
		{"no route, IPv6", "2001:db8::1", "", "", kernel.Decision{Type: kernel.DecidedNone}},
		{"the host's own as source", "10.8.1.9", "10.0.2.1", "east", kernel.Decision{Type: kernel.DecidedRefused, Src: addr("10.0.2.1")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := kernel.RouteQuery{Dst: addr(tt.dst), InLink: tt.in}
			if tt.src != "" {
				q.Src = addr(tt.src)
			}
			for _, q.Protocol = range []uint8{0, kernel.ProtoTCP, kernel.ProtoUDP, kernel.ProtoSCTP} {
				if q.Protocol != 0 {
					q.SrcPort, q.DstPort = 1000, 80
				}
				got, err := w.Route(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				if got.Type == kernel.DecidedLocal {
					got.Link = "" // the loopback link or the address's own
				}
				if got != tt.want {
					t.Errorf("protocol %d: %+v, want %+v", q.Protocol, got, tt.want)
				}
			}
		})
	}
	if _, err := w.Route(t.Context(), kernel.RouteQuery{Dst: addr("10.0.1.9"), InLink: "none"}); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("by a link that there is not: %v, want ENODEV", err)
	}
}
