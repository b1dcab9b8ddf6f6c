package calc

import (
	"bytes"
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
	section("sets", lines(s.Sets, cmp.Compare, func(name string, set kernel.Set) string { return fmt.Sprintf("%s %+v", name, set) }))
	section("elements", lines(s.Elements, compareElements, func(e kernel.Element, _ struct{}) string { return e.String() }))
	section("chains", lines(s.Chains, cmp.Compare, chainLine))
	section("tunnels", lines(s.Tunnels, cmp.Compare, func(link string, t kernel.Tunnel) string { return link + " " + t.String() }))
	section("addresses", lines(s.Addrs, compareAddrs, func(a kernel.Addr, _ struct{}) string { return a.Prefix.String() + " dev " + a.Link }))
	section("neighbours", lines(s.Neighbours, compareNeighbours, func(n kernel.Neighbour, m kernel.MAC) string { return n.String() + " " + m.String() }))
	section("forwarding", lines(s.Forwarding, compareForwarding, func(f kernel.Forwarding, node netip.Addr) string { return f.String() + " to " + node.String() }))
	section("wireguard", lines(s.WireGuard, compareKeys, func(k kernel.WireGuardKey, p kernel.WireGuardPeer) string { return k.String() + " " + p.String() }))
	section("routes", lines(s.Routes, compareRouteKeys, func(k kernel.RouteKey, r kernel.Route) string {
		return fmt.Sprintf("%s %s (%s %s)", k, r, s.Origins.At(k).Kind, s.Origins.At(k).From)
	}))
	section("unused", lines(s.Unused, netip.Prefix.Compare, func(p netip.Prefix, why string) string {
		return fmt.Sprintf("%s: %s", p, why)
	}))
	section("held", lines(s.Held, compareRouteKeys, func(k kernel.RouteKey, why string) string { return k.String() + ": " + why }))
	section("uses", lines(s.Uses, cmp.Compare, useLine))
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
	if s.EndRefused {
		b.WriteString("ends what policies refuse\n")
	}
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

func useLine(link string, u Use) string {
	text := link
	for _, flag := range []struct {
		set  bool
		name string
	}{{u.Sending, "sending"}, {u.IPv4, "IPv4"}, {u.IPv6, "IPv6"}} {
		if flag.set {
			text += " " + flag.name
		}
	}
	return text + " from [" + u.Pools + "]"
}

func chainLine(name string, c kernel.Chain) string {
	text := name
	if c.Hook != kernel.HookNone {
		text += fmt.Sprintf(" (%s %s %d)", c.Type, c.Hook, c.Priority)
	}
	for line := range strings.Lines(c.Rules.String()) {
		text += "\n    " + strings.TrimSuffix(line, "\n")
	}
	return text
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

func compareElements(a, b kernel.Element) int {
	return cmp.Or(cmp.Compare(a.Set, b.Set), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
		cmp.Compare(a.Beside, b.Beside), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
}

func compareAddrs(a, b kernel.Addr) int {
	return cmp.Or(strings.Compare(a.Link, b.Link), a.Prefix.Compare(b.Prefix))
}

func compareNeighbours(a, b kernel.Neighbour) int {
	return cmp.Or(strings.Compare(a.Link, b.Link), a.IP.Compare(b.IP))
}

func compareForwarding(a, b kernel.Forwarding) int {
	return cmp.Or(strings.Compare(a.Link, b.Link), bytes.Compare(a.MAC[:], b.MAC[:]))
}

func compareKeys(a, b kernel.WireGuardKey) int { return bytes.Compare(a[:], b[:]) }
