package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// RouteProtocol marks a route as Cairn's (rtm_protocol, rtnetlink(7)). The
// number is 0xCA; no protocol of /etc/iproute2/rt_protos uses it. A route with
// another number is never changed, and never listed as ours.
const RouteProtocol = 202

// RoutePriority is the metric of Cairn's routes, the same in both families. It
// is the kernel's own default for IPv6, so that an administrator's IPv4 route
// without a metric wins over ours.
const RoutePriority = 1024

// MainTable is the routing table that packets use by default (RT_TABLE_MAIN).
const MainTable = 254

// RouteKey identifies a route: the kernel holds at most one for each key.
type RouteKey struct {
	Table    uint32
	Dst      netip.Prefix // masked
	Priority uint32       // metric; lower wins
}

func (k RouteKey) String() string {
	s := k.Dst.String()
	if k.Table != MainTable {
		s += fmt.Sprintf(" table %d", k.Table)
	}
	if k.Priority != RoutePriority {
		s += fmt.Sprintf(" metric %d", k.Priority)
	}
	return s
}

// RouteType says what happens to a packet that matches (rtm_type, rtnetlink(7)).
type RouteType uint8

// Route types.
const (
	Unicast RouteType = iota
	Blackhole
)

func (t RouteType) String() string {
	if t == Blackhole {
		return "blackhole"
	}
	return "unicast"
}

// Route is what a RouteKey leads to.
type Route struct {
	Type   RouteType
	Hops   NextHops   // empty for Blackhole
	Source netip.Addr // preferred source of the host's own packets; invalid: the kernel chooses
	MTU    uint32     // path MTU in bytes; 0: the link's
}

func (r Route) String() string {
	s := r.Hops.String()
	if r.Type == Blackhole {
		s = "blackhole"
	}
	if r.Source.IsValid() {
		s += " src " + r.Source.String()
	}
	if r.MTU != 0 {
		s += " mtu " + strconv.FormatUint(uint64(r.MTU), 10)
	}
	return s
}

// NextHop is one way out of the host.
type NextHop struct {
	Gateway netip.Addr // invalid: the destination is on the link itself (scope link)
	Link    string     // name of the outgoing link
	OnLink  bool       // the gateway is reachable on Link whatever the routes say (RTNH_F_ONLINK)
	Weight  uint8      // share of the flows; 0 and 1 mean the same and are stored as 1
}

func (h NextHop) String() string {
	var b strings.Builder
	if h.Gateway.IsValid() {
		fmt.Fprintf(&b, "via %s ", h.Gateway)
	}
	fmt.Fprintf(&b, "dev %s", h.Link)
	if h.OnLink {
		b.WriteString(" onlink")
	}
	if h.Weight > 1 {
		fmt.Fprintf(&b, " weight %d", h.Weight)
	}
	return b.String()
}

func (h NextHop) compare(o NextHop) int {
	return cmp.Or(h.Gateway.Compare(o.Gateway), strings.Compare(h.Link, o.Link), cmp.Compare(h.Weight, o.Weight))
}

// NextHops is a set of next hops in canonical form: sorted, without duplicates,
// comparable with ==. The zero value is the empty set; more than one is a
// multipath route (ECMP).
type NextHops struct{ text string }

// Hops returns the canonical set of hops.
func Hops(hops ...NextHop) NextHops {
	hs := slices.Clone(hops)
	for i := range hs {
		hs[i].Gateway = hs[i].Gateway.Unmap()
		hs[i].Weight = max(hs[i].Weight, 1)
	}
	slices.SortFunc(hs, NextHop.compare)
	hs = slices.Compact(hs)
	parts := make([]string, len(hs))
	for i, h := range hs {
		gw := "-"
		if h.Gateway.IsValid() {
			gw = h.Gateway.String()
		}
		parts[i] = fmt.Sprintf("%s %s %t %d", gw, h.Link, h.OnLink, h.Weight)
	}
	return NextHops{strings.Join(parts, "\n")}
}

// Len returns the number of next hops.
func (n NextHops) Len() int {
	if n.text == "" {
		return 0
	}
	return strings.Count(n.text, "\n") + 1
}

// List returns the next hops in canonical order.
func (n NextHops) List() []NextHop {
	if n.text == "" {
		return nil
	}
	lines := strings.Split(n.text, "\n")
	hops := make([]NextHop, len(lines))
	for i, line := range lines {
		f := strings.Split(line, " ")
		h := NextHop{Link: f[1], OnLink: f[2] == "true"}
		if f[0] != "-" {
			h.Gateway = netip.MustParseAddr(f[0])
		}
		w, _ := strconv.ParseUint(f[3], 10, 8) // written by Hops
		h.Weight = uint8(w)
		hops[i] = h
	}
	return hops
}

func (n NextHops) String() string {
	var parts []string
	for _, h := range n.List() {
		parts = append(parts, h.String())
	}
	return strings.Join(parts, ", ")
}

// Uses says whether one of the next hops leaves through the named link.
func (n NextHops) Uses(link string) bool {
	for _, h := range n.List() {
		if h.Link == link {
			return true
		}
	}
	return false
}

// HostRoute returns the key of Cairn's route to one address.
func HostRoute(ip netip.Addr) RouteKey {
	return RouteKey{Table: MainTable, Dst: netip.PrefixFrom(ip, ip.BitLen()), Priority: RoutePriority}
}
