package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
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

// Route types. A driver that reads a route of ours with a type that Cairn never
// sets returns the kernel's number for it, which equals neither of these.
const (
	Unicast RouteType = iota
	Blackhole
)

func (t RouteType) String() string {
	switch t {
	case Unicast:
		return "unicast"
	case Blackhole:
		return "blackhole"
	}
	return "type " + strconv.Itoa(int(t))
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
	if r.Type != Unicast {
		s = r.Type.String()
	}
	if r.Source.IsValid() {
		s += " src " + r.Source.String()
	}
	if r.MTU != 0 {
		s += " mtu " + strconv.FormatUint(uint64(r.MTU), 10)
	}
	return s
}

// Check returns an error that says why no kernel can have this route at k, and
// nil when it depends on the host. It unwraps to the errno that Linux gives.
func (r Route) Check(k RouteKey) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
	}
	hops := r.Hops.List()
	switch {
	case !k.Dst.IsValid() || k.Dst != k.Dst.Masked() || k.Dst.Addr().Is4In6():
		return invalid("destination %v is not a masked prefix", k.Dst)
	case k.Table == 0 || k.Priority == 0:
		return invalid("table and metric must be given")
	case r.Type > Blackhole:
		return invalid("%v is no type to set", r.Type)
	case r.Type == Blackhole && len(hops) > 0:
		return invalid("a blackhole has no next hop")
	case r.Type == Unicast && len(hops) == 0:
		return invalid("no next hop")
	case r.Source.IsValid() && r.Source.Is4() != k.Dst.Addr().Is4():
		return invalid("source %v is of the other family", r.Source)
	}
	for _, h := range hops {
		switch {
		case h.Link == "":
			return invalid("next hop without a link")
		case h.Gateway.IsValid() && h.Gateway.Is4() && k.Dst.Addr().Is6():
			return invalid("gateway %v is of the other family", h.Gateway)
		case !h.Gateway.IsValid() && k.Dst.Addr().Is6() && len(hops) > 1:
			return invalid("an IPv6 route over several links needs a gateway on each")
		}
	}
	return nil
}

// NextHop is one way out of the host.
type NextHop struct {
	Gateway netip.Addr // invalid: the destination is on the link itself (scope link)
	Link    string     // name of the outgoing link
	OnLink  bool       // the gateway is reachable on Link whatever the routes say (RTNH_F_ONLINK)
	Weight  uint8      // share of the flows among several next hops, from 1
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

// compare orders next hops by the way they go, and says 0 for the same way.
func (h NextHop) compare(o NextHop) int {
	return cmp.Or(h.Gateway.Compare(o.Gateway), strings.Compare(h.Link, o.Link))
}

// NextHops is a set of next hops in canonical form: sorted, one for each way
// (gateway and link), comparable with ==. The zero value is the empty set; more
// than one is a multipath route (ECMP).
type NextHops struct{ text string }

// Hops returns the canonical set of hops. What the kernel does not keep is not
// kept: the weight of a lone hop, and the onlink flag of a hop without gateway.
// Hops that go the same way become one, with the greatest of their weights, and
// onlink if one of them is.
func Hops(hops ...NextHop) NextHops {
	hs := slices.Clone(hops)
	for i := range hs {
		hs[i].Gateway = hs[i].Gateway.Unmap().WithZone("") // the link says it
		hs[i].OnLink = hs[i].OnLink && hs[i].Gateway.IsValid()
		hs[i].Weight = max(hs[i].Weight, 1)
	}
	slices.SortFunc(hs, NextHop.compare)
	n := 0
	for i, h := range hs {
		if i > 0 && h.compare(hs[n-1]) == 0 {
			hs[n-1].OnLink = hs[n-1].OnLink || h.OnLink
			hs[n-1].Weight = max(hs[n-1].Weight, h.Weight)
			continue
		}
		hs[n] = h
		n++
	}
	hs = hs[:n]
	if n == 1 {
		hs[0].Weight = 1
	}
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
	at := " " + link + " "
	return strings.Contains(n.text, at+"true ") || strings.Contains(n.text, at+"false ")
}

// HostRoute returns the key of Cairn's route to one address.
func HostRoute(ip netip.Addr) RouteKey {
	return RouteKey{Table: MainTable, Dst: netip.PrefixFrom(ip, ip.BitLen()), Priority: RoutePriority}
}
