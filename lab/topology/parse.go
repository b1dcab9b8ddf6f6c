package topology

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// parser turns a file into a Topology and collects what is wrong with it.
type parser struct {
	errs   field.ErrorList
	seen   map[string]*field.Path // names taken; nil for those of the lab itself
	ranges []taken
}

// taken is a prefix and what it is used for.
type taken struct {
	prefix netip.Prefix
	path   *field.Path
}

func (p *parser) topology(f file) *Topology {
	t := &Topology{Name: f.Name, ASNumber: f.ASNumber, Pools: f.Pools, Resources: f.Resources, Agent: f.Agent}
	for _, msg := range validation.IsDNS1123Label(f.Name) {
		p.invalid(field.NewPath("name"), f.Name, msg)
	}
	path := field.NewPath("racks")
	if len(f.Racks) == 0 {
		p.errs = append(p.errs, field.Required(path, "a lab has at least one rack"))
	}
	rackPath := map[string]*field.Path{}
	for i, r := range f.Racks {
		at := path.Index(i)
		p.name(at.Child("name"), r.Name, maxRackName, rackPath)
		t.Segments = append(t.Segments, Segment{r.Name, p.subnets(at.Child("subnets"), r.Subnets)})
	}
	control := Segment{Control, p.subnets(field.NewPath("control", "subnets"), f.Control.Subnets)}
	t.Segments = append(t.Segments, control)
	p.sameFamilies(t.Segments)
	if len(p.errs) > 0 {
		return nil // what follows counts in these subnets
	}
	t.Routers = p.routers(f.Routers, t.Segments)
	t.Etcd = p.host(field.NewPath("control", "subnets"), Etcd, control, etcd4, etcd6, len(t.Routers))
	for i, r := range f.Racks {
		t.Nodes = append(t.Nodes, p.nodes(path.Index(i).Child("nodes"), r.Nodes, t.Segments[i], len(t.Nodes), len(t.Routers))...)
	}
	p.pools(f.Pools)
	return t
}

func (p *parser) invalid(path *field.Path, value any, reason string) {
	p.errs = append(p.errs, field.Invalid(path, value, reason))
}

// name checks a name, also against those in seen, and adds it.
func (p *parser) name(path *field.Path, name string, most int, seen map[string]*field.Path) {
	for _, msg := range validation.IsDNS1123Label(name) {
		p.invalid(path, name, msg)
		return
	}
	if len(name) > most {
		p.invalid(path, name, fmt.Sprintf("must have at most %d characters: it becomes an interface's name", most))
	}
	first, used := seen[name]
	switch {
	case used && first == nil:
		p.invalid(path, name, "the lab itself uses this name")
	case used:
		p.invalid(path, name, "is the name of "+first.String()+" already")
	default:
		seen[name] = path
	}
}

// subnets checks the prefixes of a segment: one of a family, none used twice.
func (p *parser) subnets(path *field.Path, texts []string) []netip.Prefix {
	if len(texts) == 0 {
		p.errs = append(p.errs, field.Required(path, "an IPv4 subnet, an IPv6 subnet, or one of each"))
	}
	var subnets []netip.Prefix
	for i, text := range texts {
		at := path.Index(i)
		subnet, ok := p.prefix(at, text)
		if !ok {
			continue
		}
		if slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == subnet.Addr().Is4() }) {
			p.invalid(at, text, "there is a subnet of this family already")
		}
		p.take(at, subnet)
		subnets = append(subnets, subnet)
	}
	return subnets
}

// prefix parses a prefix without host bits.
func (p *parser) prefix(path *field.Path, text string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		p.invalid(path, text, "must be an address and a prefix length, such as 10.101.1.0/24 or fd00:101:1::/64")
	case prefix != prefix.Masked():
		p.invalid(path, text, fmt.Sprintf("has host bits; the prefix is %s", prefix.Masked()))
	default:
		return prefix, true
	}
	return netip.Prefix{}, false
}

// take notes that a prefix is used, and refuses it if that can't be.
func (p *parser) take(path *field.Path, prefix netip.Prefix) {
	for _, o := range p.ranges {
		if o.prefix.Overlaps(prefix) {
			p.invalid(path, prefix.String(), fmt.Sprintf("overlaps %s of %s", o.prefix, o.path))
		}
	}
	p.ranges = append(p.ranges, taken{prefix, path})
}

// sameFamilies refuses segments of which one lacks a family that another has:
// hosts could not reach each other by it.
func (p *parser) sameFamilies(segments []Segment) {
	families := func(s Segment) (has4, has6 bool) {
		for _, subnet := range s.Subnets {
			has4 = has4 || subnet.Addr().Is4()
			has6 = has6 || subnet.Addr().Is6()
		}
		return has4, has6
	}
	want4, want6 := families(segments[0])
	for i, s := range segments[1:] {
		path := field.NewPath("racks").Index(i + 1).Child("subnets")
		if s.Name == Control {
			path = field.NewPath("control", "subnets")
		}
		if has4, has6 := families(s); len(s.Subnets) > 0 && (has4 != want4 || has6 != want6) {
			p.invalid(path, fmt.Sprint(s.Subnets), fmt.Sprintf("must be of the same families as racks[0].subnets, %v", segments[0].Subnets))
		}
	}
}

// routers gives each router an interface in every segment.
func (p *parser) routers(files []router, segments []Segment) []Router {
	path := field.NewPath("routers")
	if len(files) > maxRouters {
		p.errs = append(p.errs, field.TooMany(path, len(files), maxRouters))
	}
	var routers []Router
	for i, f := range files {
		at := path.Index(i)
		p.name(at.Child("name"), f.Name, maxName, p.seen)
		r := Router{Name: f.Name, Speaker: f.Speaker, ASNumber: f.ASNumber, AcceptCIDRs: f.AcceptCIDRs}
		switch f.Speaker {
		case SpeakerCairn, SpeakerBIRD:
		case SpeakerNone:
			if f.ASNumber != 0 || len(f.Announce) > 0 || len(f.AcceptCIDRs) > 0 {
				p.invalid(at.Child("speaker"), f.Speaker, "asNumber, announce and acceptCIDRs need a speaker")
			}
		default:
			p.errs = append(p.errs, field.NotSupported(at.Child("speaker"), f.Speaker, []Speaker{SpeakerCairn, SpeakerBIRD, SpeakerNone}))
		}
		for j, text := range f.Announce {
			if prefix, ok := p.prefix(at.Child("announce").Index(j), text); ok {
				r.Announce = append(r.Announce, prefix)
			}
		}
		for j, text := range f.AcceptCIDRs {
			p.prefix(at.Child("acceptCIDRs").Index(j), text)
		}
		for _, s := range segments {
			port := Port{Segment: s.Name, Link: "eth-" + s.Name}
			for _, subnet := range s.Subnets {
				port.Addrs = append(port.Addrs, routerAddr(subnet, i))
			}
			r.Ports = append(r.Ports, port)
		}
		routers = append(routers, r)
	}
	return routers
}

// nodes gives each node of a rack its addresses; before is the number of nodes
// in the racks before it.
func (p *parser) nodes(path *field.Path, n nodes, s Segment, before, routers int) []Host {
	names := n.names
	for i := range n.count {
		names = append(names, fmt.Sprintf("n%d", before+1+i))
	}
	if len(names) == 0 || len(names) > maxPerRack {
		p.invalid(path, len(names), fmt.Sprintf("a rack has between 1 and %d nodes", maxPerRack))
		return nil
	}
	var hosts []Host
	for i, name := range names {
		p.name(path.Index(i), name, maxName, p.seen)
		hosts = append(hosts, p.host(path.Index(i), name, s, firstNode4+i, firstNode6+i, routers))
	}
	return hosts
}

// host gives a host its addresses in a segment and its default routes.
func (p *parser) host(path *field.Path, name string, s Segment, offset4, offset6, routers int) Host {
	h := Host{Name: name, Segment: s.Name}
	for _, subnet := range s.Subnets {
		offset := offset6
		if subnet.Addr().Is4() {
			offset = offset4
		}
		addr := offsetAddr(subnet, offset)
		// The address after it must be in the subnet too: the last one of an IPv4
		// subnet is the broadcast address.
		if !subnet.Contains(addr) || !subnet.Contains(addr.Next()) {
			p.invalid(path, name, fmt.Sprintf("has no address: subnet %s is too small", subnet))
			continue
		}
		h.Addrs = append(h.Addrs, netip.PrefixFrom(addr, subnet.Bits()))
		var gateways []netip.Addr
		for i := range routers {
			gateways = append(gateways, routerAddr(subnet, i).Addr())
		}
		h.Gateway = append(h.Gateway, gateways)
	}
	return h
}

// pools checks names and ranges; the rest is checked where every IPPool is.
func (p *parser) pools(pools []Pool) {
	seen := map[string]*field.Path{}
	for i, pool := range pools {
		at := field.NewPath("pools").Index(i)
		for _, msg := range validation.IsDNS1123Subdomain(pool.Name) {
			p.invalid(at.Child("name"), pool.Name, msg)
		}
		if first := seen[pool.Name]; first != nil {
			p.invalid(at.Child("name"), pool.Name, "is the name of "+first.String()+" already")
		}
		seen[pool.Name] = at
		if prefix, ok := p.prefix(at.Child("cidr"), pool.CIDR); ok {
			p.take(at.Child("cidr"), prefix)
		}
	}
}

// routerAddr returns the address of the i-th router in a subnet.
func routerAddr(subnet netip.Prefix, i int) netip.Prefix {
	return netip.PrefixFrom(offsetAddr(subnet, 1+i), subnet.Bits())
}

// offsetAddr returns the n-th address after the subnet's first.
func offsetAddr(subnet netip.Prefix, n int) netip.Addr {
	a := subnet.Addr()
	for range n {
		a = a.Next()
	}
	return a
}
