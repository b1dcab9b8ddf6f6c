package policy

import (
	"cmp"
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	v1 "cairn.network/cairn/api/v1"
)

// What follows leaves out of an object what is invalid in it: an address that is
// none, a port out of range.

// FromWorkloadEndpoint returns the pod's interface as policies see it.
func FromWorkloadEndpoint(shared *v1.WorkloadEndpoint) *Endpoint {
	o := new(v1.WorkloadEndpoint)
	*o = *shared // there are very many: no more is copied than defaults change
	o.Spec.Ports = slices.Clone(o.Spec.Ports)
	o.Default()
	return &Endpoint{
		ID: idOf(o), Labels: o.Labels, ServiceAccount: o.Spec.ServiceAccountName, Node: o.Spec.Node,
		Link: o.Spec.InterfaceName, Addrs: o.Addrs(), Ports: fromNamedPorts(o.Spec.Ports),
		Sources: o.AllowedSourcePrefixes(),
	}
}

// FromHostEndpoint returns the host's link as policies see it. Its Link is "" if it is
// known by its addresses alone.
func FromHostEndpoint(o *v1.HostEndpoint) *Endpoint {
	o = defaulted(o)
	return &Endpoint{
		ID: idOf(o), Labels: o.Labels, Node: o.Spec.Node,
		Link: o.Spec.InterfaceName, Addrs: o.Addrs(), Ports: fromNamedPorts(o.Spec.Ports),
	}
}

// FromNetworkSet returns the set as policies see it.
func FromNetworkSet(o *v1.NetworkSet) *Endpoint {
	o = defaulted(o)
	return &Endpoint{ID: idOf(o), Labels: o.Labels, Nets: o.Spec.Prefixes()}
}

// FromGlobalNetworkSet returns the set as policies see it.
func FromGlobalNetworkSet(o *v1.GlobalNetworkSet) *Endpoint {
	o = defaulted(o)
	return &Endpoint{ID: idOf(o), Labels: o.Labels, Nets: o.Spec.Prefixes()}
}

// FromNode returns the node as policies see it: with the addresses by which others
// know it, not those of its tunnel devices.
func FromNode(o *v1.Node) Node {
	n := Node{Name: o.Name, Labels: o.Labels}
	for _, p := range o.Addresses() {
		n.Addrs = append(n.Addrs, p.Addr())
	}
	return n
}

func fromNamedPorts(ports []v1.NamedPort) []NamedPort {
	var all []NamedPort
	for _, p := range ports {
		if n := p.Protocol.Number(); n != 0 && p.Port > 0 && p.Port <= 65535 {
			all = append(all, NamedPort{Name: p.Name, Protocol: n, Port: uint16(p.Port)})
		}
	}
	return all
}

// FromEndpointSlice returns the Service that the slice belongs to, and what of it is
// behind that: what is ready, or serves while it ends. The ID is zero if it belongs to
// none.
func FromEndpointSlice(o *v1.EndpointSlice) (ID, []ServiceEndpoint) {
	if o.Service() == "" {
		return ID{}, nil
	}
	var all []ServiceEndpoint
	for _, e := range o.Endpoints {
		if !serves(e.Conditions) {
			continue
		}
		for _, a := range o.Addrs(e) {
			if len(o.Ports) == 0 {
				all = append(all, ServiceEndpoint{Addr: a})
			}
			for _, p := range o.Ports {
				if port, ok := slicePort(p); ok {
					port.Addr = a
					all = append(all, port)
				}
			}
		}
	}
	return ID{Namespace: o.Namespace, Name: o.Service()}, all
}

// serves says whether a Service leads to an endpoint. Conditions that are left out are
// as the API says (discovery/v1, EndpointConditions).
func serves(c discoveryv1.EndpointConditions) bool {
	is := func(b *bool, otherwise bool) bool {
		if b == nil {
			return otherwise
		}
		return *b
	}
	ready := is(c.Ready, true)
	return ready || is(c.Serving, ready) && is(c.Terminating, false)
}

// slicePort returns a port of a slice, still without an address.
func slicePort(p discoveryv1.EndpointPort) (ServiceEndpoint, bool) {
	protocol := v1.ProtocolTCP
	if p.Protocol != nil {
		protocol = cmp.Or(v1.Protocol(*p.Protocol), protocol)
	}
	e := ServiceEndpoint{Protocol: protocol.Number()}
	if p.Port == nil {
		return e, e.Protocol != 0
	}
	e.Port = uint16(*p.Port)
	return e, e.Protocol != 0 && *p.Port > 0 && *p.Port <= 65535
}

// FromFailsafePorts returns what host endpoints always let pass as policies see it.
func FromFailsafePorts(ports []v1.FailsafePort) []FailSafe {
	var all []FailSafe
	for _, p := range ports {
		f := FailSafe{Protocol: p.Protocol.Number(), Port: uint16(p.Port)}
		if p.Net != "" {
			net, err := netip.ParsePrefix(p.Net)
			if err != nil {
				continue
			}
			f.Net = net.Masked()
		}
		all = append(all, f)
	}
	return all
}
