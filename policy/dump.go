package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "cairn.network/cairn/api/v1"
)

// What follows writes the internal form for people to read, one thing on a line.

func (t Tier) String() string {
	return fmt.Sprintf("tier %s: order %s, then %s", t.Name, orderText(t.Order), t.Default)
}

func orderText(order float64) string {
	if order == Last {
		return "last"
	}
	return strconv.FormatFloat(order, 'f', -1, 64)
}

func (p *Policy) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  tier %s, order %s", p.ID, p.Tier, orderText(p.Order))
	for _, f := range []struct {
		set  bool
		name string
	}{
		{p.Staged, "staged"}, {p.Delete, "deletes"}, {p.DoNotTrack, "untracked"}, {p.PreDNAT, "before DNAT"}, {p.ApplyOnForward, "forwarded too"},
	} {
		if f.set {
			b.WriteString(", " + f.name)
		}
	}
	fmt.Fprintf(&b, "\n  selects %s\n", p.Selector)
	if p.Fault != "" {
		fmt.Fprintf(&b, "  fault: %s\n", p.Fault)
	}
	for _, dir := range []Direction{Ingress, Egress} {
		if !p.Applies[dir] {
			continue
		}
		fmt.Fprintf(&b, "  %s\n", dir)
		for _, r := range p.Rules[dir] {
			fmt.Fprintf(&b, "    %s\n", r)
		}
	}
	return b.String()
}

func (r Rule) String() string {
	parts := []string{string(r.Action)}
	if r.IPVersion != 0 {
		parts = append(parts, fmt.Sprintf("IPv%d", r.IPVersion))
	}
	if r.Protocol != 0 {
		parts = append(parts, protocolText(r.Protocol))
	}
	if r.NotProtocol != 0 {
		parts = append(parts, "not "+protocolText(r.NotProtocol))
	}
	if r.ICMP != nil {
		parts = append(parts, r.ICMP.String())
	}
	if r.NotICMP != nil {
		parts = append(parts, "not "+r.NotICMP.String())
	}
	if s := r.Source.String(); s != "" {
		parts = append(parts, "from "+s)
	}
	if s := r.Destination.String(); s != "" {
		parts = append(parts, "to "+s)
	}
	return strings.Join(parts, " ")
}

// protocolText returns a protocol's name, or its number if it has none.
func protocolText(n uint8) string {
	for _, p := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolICMP, v1.ProtocolICMPv6, v1.ProtocolSCTP, v1.ProtocolUDPLite} {
		if p.Number() == n {
			return string(p)
		}
	}
	return fmt.Sprintf("protocol %d", n)
}

func (i ICMP) String() string {
	if i.AnyCode {
		return fmt.Sprintf("type %d", i.Type)
	}
	return fmt.Sprintf("type %d code %d", i.Type, i.Code)
}

func (p Peer) String() string {
	var parts []string
	add := func(set bool, format string, args ...any) {
		if set {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(p.Selector != nil, "{%v}", p.Selector)
	add(p.NotSelector != nil, "not {%v}", p.NotSelector)
	add(p.Nodes != nil, "nodes {%v}", p.Nodes)
	add(p.Service != ID{}, "service %s/%s", p.Service.Namespace, p.Service.Name)
	add(len(p.Nets) > 0, "nets %s", texts(p.Nets))
	add(len(p.NotNets) > 0, "not nets %s", texts(p.NotNets))
	add(len(p.Ports) > 0, "ports %s", texts(p.Ports))
	add(len(p.NotPorts) > 0, "not ports %s", texts(p.NotPorts))
	return strings.Join(parts, " ")
}

func (p Port) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.First == p.Last:
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

func (p NamedPort) String() string {
	return fmt.Sprintf("%s=%s:%d", p.Name, protocolText(p.Protocol), p.Port)
}

func (e *Endpoint) String() string {
	parts := []string{e.ID.String()}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("labels", labelsText(e.Labels))
	add("account", e.ServiceAccount)
	add("node", e.Node)
	add("link", e.Link)
	add("addresses", texts(e.Addrs))
	add("nets", texts(e.Nets))
	add("ports", texts(e.Ports))
	return strings.Join(parts, ", ")
}

func (n Node) String() string {
	return fmt.Sprintf("Node %s, labels %s, addresses %s", n.Name, labelsText(n.Labels), texts(n.Addrs))
}

func (s ServiceEndpoint) String() string {
	switch {
	case s.Protocol == 0:
		return s.Addr.String()
	case s.Port == 0:
		return fmt.Sprintf("%s %s", protocolText(s.Protocol), s.Addr)
	}
	return fmt.Sprintf("%s %s", protocolText(s.Protocol), netip.AddrPortFrom(s.Addr, s.Port))
}

func (w *World) String() string {
	var b strings.Builder
	for _, t := range w.Tiers {
		fmt.Fprintln(&b, t)
	}
	for _, p := range w.Policies {
		b.WriteString(p.String())
	}
	for _, e := range w.Endpoints {
		fmt.Fprintln(&b, e)
	}
	for _, n := range w.Nodes {
		fmt.Fprintln(&b, n)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Namespaces)) {
		fmt.Fprintf(&b, "Namespace %s, labels %s\n", name, labelsText(w.Namespaces[name]))
	}
	for _, id := range slices.SortedFunc(maps.Keys(w.ServiceAccounts), ID.Compare) {
		fmt.Fprintf(&b, "ServiceAccount %s/%s, labels %s\n", id.Namespace, id.Name, labelsText(w.ServiceAccounts[id]))
	}
	for _, id := range slices.SortedFunc(maps.Keys(w.Services), ID.Compare) {
		fmt.Fprintf(&b, "Service %s/%s: %s\n", id.Namespace, id.Name, cmp.Or(texts(w.Services[id]), "nothing"))
	}
	return b.String()
}

// texts writes a list.
func texts[T fmt.Stringer](list []T) string {
	all := make([]string, len(list))
	for i, v := range list {
		all[i] = v.String()
	}
	return strings.Join(all, ",")
}

func labelsText(labels map[string]string) string {
	all := []string{}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, k+"="+labels[k])
	}
	return "{" + strings.Join(all, " ") + "}"
}
