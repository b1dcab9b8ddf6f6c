package calc

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// String returns the state as text, in order, one thing a line: for golden files
// and for people.
func (s State) String() string {
	var b strings.Builder
	section := func(name string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "%s\n  %s\n", name, strings.Join(lines, "\n  "))
		}
	}
	section("sysctls", lines(s.Sysctls, cmp.Compare, func(k kernel.Sysctl, v string) string {
		return fmt.Sprintf("%s = %s", k, v)
	}))
	section("routes", lines(s.Routes, compareRouteKeys, func(k kernel.RouteKey, r kernel.Route) string {
		return fmt.Sprintf("%s %s (%s %s)", k, r, s.Origins.At(k).Kind, s.Origins.At(k).From)
	}))
	section("unused", lines(s.Unused, netip.Prefix.Compare, func(p netip.Prefix, why string) string {
		return fmt.Sprintf("%s: %s", p, why)
	}))
	for _, c := range s.Speaker.All() {
		restarting := ""
		if c.Restarting {
			restarting = " restarting"
		}
		fmt.Fprintf(&b, "speaker\n  AS %d, ID %s, listens on %s port %d, deferral %s%s\n",
			c.AS, c.RouterID, c.Listen, c.Port, c.Deferral, restarting)
	}
	section("peers", lines(s.Peers, netip.Addr.Compare, s.peerLine))
	section("paths", lines(s.Paths, netip.Prefix.Compare, func(p netip.Prefix, _ bgp.Path) string { return p.String() }))
	fmt.Fprintf(&b, "mtu %d\n", s.MTU)
	if s.Tentative {
		b.WriteString("tentative\n")
	}
	var issues []string
	for _, i := range s.Issues {
		text := i.Object + ": "
		if i.Field != "" {
			text += i.Field + ": "
		}
		issues = append(issues, text+i.Reason)
	}
	section("issues", issues)
	return b.String()
}

func (s State) peerLine(a netip.Addr, p bgp.Peer) string {
	var b strings.Builder
	o := s.PeerOrigins.At(a)
	fmt.Fprintf(&b, "%s port %d, AS %d, %s %s, from %s", a, p.Port, p.AS, o.Type, o.Name, p.Local)
	for _, flag := range []struct {
		set  bool
		name string
	}{{p.IPv4, "IPv4"}, {p.IPv6, "IPv6"}, {p.Passive, "passive"}, {p.Graceful, "graceful"}} {
		if flag.set {
			b.WriteString(", " + flag.name)
		}
	}
	fmt.Fprintf(&b, ", hold %s, restart %s, import [%s]", p.HoldTime, p.RestartTime, p.Import)
	return b.String()
}

// lines returns one text for each entry, in the order of keys.
func lines[K, V comparable](m immutable.Map[K, V], compare func(K, K) int, line func(K, V) string) []string {
	var out []string
	plain := m.Plain()
	for _, k := range slices.SortedFunc(maps.Keys(plain), compare) {
		out = append(out, line(k, plain[k]))
	}
	return out
}

func compareRouteKeys(a, b kernel.RouteKey) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), a.Dst.Compare(b.Dst), cmp.Compare(a.Priority, b.Priority))
}
