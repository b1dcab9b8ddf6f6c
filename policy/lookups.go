package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/selector"
)

// lookup is a set that rules ask, and what is in it: one of the sources. Rules that
// ask for the same share the set: its name says what is in it.
type lookup struct {
	name  string
	kind  kernel.Set
	fixed []kernel.Element // these
	// members are what this selector chooses: single addresses or, with kind.Ranges,
	// wider nets; of nodes if nodes is set.
	members *selector.Selector
	nodes   bool
	port    *portKey // the named ports
	// service is the Service whose endpoints they are; with everyPort, a protocol, those
	// that take every port of it.
	service   *ID
	everyPort uint8
}

// portKey names a port of the endpoints that a selector chooses; nil: of all.
type portKey struct {
	selector *selector.Selector
	name     string
	protocol uint8
}

// of returns what Members call it.
func (k *portKey) of() NamedPorts {
	s := k.selector
	if s == nil {
		s = selector.All()
	}
	return NamedPorts{s.String(), k.name, k.protocol}
}

// family is 4 or 6, as names of sets have it.
func family(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}

// selectedName returns the name of the set of what a selector, given by its text,
// chooses.
func selectedName(text string, nets, nodes, v6 bool) string {
	switch {
	case nodes:
		return "h" + family(v6) + "/" + digest(text)
	case nets:
		return "n" + family(v6) + "/" + digest(text)
	}
	return kernel.SharedName(v6, shortDigest(text))
}

// selected returns the set of what a selector chooses: addresses, or wider nets.
func selected(s *selector.Selector, nets, nodes, v6 bool) lookup {
	return lookup{
		name: selectedName(s.String(), nets, nodes, v6),
		kind: kernel.Set{IPv6: v6, Ranges: nets, Shared: !nets && !nodes}, members: s, nodes: nodes,
	}
}

func namedPortName(of NamedPorts, v6 bool) string {
	return "p" + family(v6) + "/" + digest(of.Selector, of.Name, fmt.Sprint(of.Protocol))
}

func namedPort(k portKey, v6 bool) lookup {
	return lookup{name: namedPortName(k.of(), v6), kind: kernel.Set{Keys: kernel.KeysServices, IPv6: v6}, port: &k}
}

// behind returns the endpoints of a Service: with protocol and port, or just the
// addresses.
func behind(service ID, ports, v6 bool) lookup {
	l := lookup{name: "a" + family(v6) + "/" + digest(service.Namespace, service.Name), kind: kernel.Set{IPv6: v6}, service: &service}
	if ports {
		l.name, l.kind.Keys = "v"+l.name[1:], kernel.KeysServices
	}
	return l
}

// everyPort returns the addresses of those of a Service's endpoints that take every
// port of a protocol.
func everyPort(service ID, protocol uint8, v6 bool) lookup {
	l := behind(service, false, v6)
	l.name, l.everyPort = fmt.Sprintf("e%s/%d/%s", family(v6), protocol, l.name[len("a4/"):]), protocol
	return l
}

// servicesOf returns all sets there may be of a Service some of whose endpoints take
// every port of these protocols.
func servicesOf(service ID, protocols []uint8, v6 bool) []lookup {
	all := []lookup{behind(service, false, v6), behind(service, true, v6)}
	for _, protocol := range protocols {
		all = append(all, everyPort(service, protocol, v6))
	}
	return all
}

// prefixes returns the set of these ranges of one family; none overlaps another.
func prefixes(nets []netip.Prefix, v6 bool) lookup {
	texts := make([]string, len(nets))
	for i, p := range nets {
		texts[i] = p.String()
	}
	l := lookup{name: "nets" + family(v6) + "/" + digest(texts...), kind: kernel.Set{IPv6: v6, Ranges: true}}
	for _, p := range nets {
		l.fixed = append(l.fixed, kernel.Element{Set: l.name, Prefix: p})
	}
	return l
}

// ports returns the set of these ranges of ports; none overlaps another.
func ports(ranges []Port) lookup {
	var text strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&text, "%d-%d,", r.First, r.Last)
	}
	l := lookup{name: "ports/" + digest(text.String()), kind: kernel.Set{Keys: kernel.KeysPorts, Ranges: true}}
	for _, r := range ranges {
		e := kernel.Element{Set: l.name, Port: r.First}
		if r.Last != r.First {
			e.LastPort = r.Last
		}
		l.fixed = append(l.fixed, e)
	}
	return l
}

// disjoint returns the ranges that hold the same addresses, none of them inside
// another, in order; of one family only.
func disjoint(nets []netip.Prefix, v6 bool) []netip.Prefix {
	var of []netip.Prefix
	for _, p := range nets {
		if p.Addr().Is6() == v6 {
			of = append(of, p)
		}
	}
	slices.SortFunc(of, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range of {
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// joined returns the ranges of ports that hold the same ports, none touching
// another, in order, and the names beside them.
func joined(list []Port) (ranges []Port, names []string) {
	var sorted []Port
	for _, p := range list {
		if p.Name != "" {
			names = append(names, p.Name)
		} else {
			sorted = append(sorted, p)
		}
	}
	slices.SortFunc(sorted, func(a, b Port) int { return int(a.First) - int(b.First) })
	for _, p := range sorted {
		if n := len(ranges); n > 0 && int(p.First) <= int(ranges[n-1].Last)+1 {
			ranges[n-1].Last = max(ranges[n-1].Last, p.Last)
		} else {
			ranges = append(ranges, p)
		}
	}
	slices.Sort(names)
	return ranges, slices.Compact(names)
}

// kindNode is the kind of a node as an endpoint.
const kindNode = "Node"

// endpoint returns the node as what selectors of nodes choose.
func (n Node) endpoint() *Endpoint {
	return &Endpoint{ID: ID{Kind: kindNode, Name: n.Name}, Labels: n.Labels, Addrs: n.Addrs}
}
