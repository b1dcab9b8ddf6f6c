package policy

import (
	"cmp"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/selector"
)

// fromRule returns a rule of a policy of this namespace, or of the whole cluster if
// it is "".
func fromRule(r *v1.Rule, namespace string) Rule {
	out := Rule{
		Action: Action(r.Action),
		ICMP:   fromICMP(r.ICMP), NotICMP: fromICMP(r.NotICMP),
		Source: fromPeer(&r.Source, namespace), Destination: fromPeer(&r.Destination, namespace),
	}
	if r.IPVersion != nil {
		out.IPVersion = uint8(*r.IPVersion)
	}
	if r.Protocol != nil {
		out.Protocol = r.Protocol.Number()
	}
	if r.NotProtocol != nil {
		out.NotProtocol = r.NotProtocol.Number()
	}
	return out
}

// numbered returns rules that come from the one with this index in the resource.
func numbered(i int, rules ...Rule) []Rule {
	for at := range rules {
		rules[at].Number = i + 1
	}
	return rules
}

func fromICMP(f *v1.ICMPFields) *ICMP {
	if f == nil || f.Type == nil {
		return nil
	}
	icmp := &ICMP{Type: uint8(*f.Type), AnyCode: f.Code == nil}
	if f.Code != nil {
		icmp.Code = uint8(*f.Code)
	}
	return icmp
}

func fromPeer(e *v1.EntityRule, namespace string) Peer {
	p := Peer{
		Selector: peerSelector(e, namespace),
		Nets:     v1.ParseNets(e.Nets), NotNets: v1.ParseNets(e.NotNets),
		Ports: fromPorts(e.Ports), NotPorts: fromPorts(e.NotPorts),
	}
	if e.NotSelector != "" {
		p.NotSelector = parse(e.NotSelector)
	}
	if s := e.Services; s != nil {
		p.Service = ID{Namespace: cmp.Or(s.Namespace, namespace), Name: s.Name}
	}
	return p
}

// peerSelector returns what an end of a packet is one of; nil if it may be anything.
// Who names no namespaces in a policy of one means that one.
func peerSelector(e *v1.EntityRule, namespace string) *selector.Selector {
	if e.Selector == "" && e.NamespaceSelector == "" && e.ServiceAccounts == nil {
		return nil
	}
	var parts []*selector.Selector
	switch {
	case e.NamespaceSelector != "":
		parts = append(parts, inNamespaces(parse(e.NamespaceSelector)))
	case namespace != "":
		parts = append(parts, selector.Equal(LabelNamespace, namespace))
	}
	if e.Selector != "" {
		parts = append(parts, parse(e.Selector))
	}
	if a := e.ServiceAccounts; a != nil {
		if len(a.Names) > 0 {
			parts = append(parts, selector.In(LabelServiceAccount, a.Names...))
		}
		if a.Selector != "" || len(a.Names) == 0 {
			parts = append(parts, ofAccounts(parse(a.Selector)))
		}
	}
	return selector.And(parts...)
}

func fromPorts(texts []v1.Port) []Port {
	var ports []Port
	for _, t := range texts {
		if first, last, ok := t.Range(); ok {
			ports = append(ports, Port{First: first, Last: last})
		} else if name := t.Name(); name != "" {
			ports = append(ports, Port{Name: name})
		}
	}
	return mergePorts(ports)
}

// mergePorts returns the same ports in one way of writing them: ranges in order that
// neither overlap nor touch, then names.
func mergePorts(ports []Port) []Port {
	sorted := slices.Clone(ports)
	slices.SortFunc(sorted, func(a, b Port) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var merged []Port
	for _, p := range sorted {
		if n := len(merged); n > 0 && p.Name == merged[n-1].Name && (p.Name != "" || int(p.First) <= int(merged[n-1].Last)+1) {
			merged[n-1].Last = max(merged[n-1].Last, p.Last)
			continue
		}
		merged = append(merged, p)
	}
	return merged
}

// service is what the policies of Kubernetes ask of a packet's protocol and of its
// destination's port.
type service struct {
	protocol uint8
	ports    []Port // empty: any
}

// services gathers what rules of Kubernetes ask for, by protocol. A protocol that is
// asked for without a port is so with any.
type services struct {
	order []uint8
	ports map[uint8][]Port
	whole map[uint8]bool
}

// add asks for a port of the protocol; for all of it if port is nil.
func (s *services) add(protocol uint8, port *Port) {
	if s.ports == nil {
		s.ports, s.whole = map[uint8][]Port{}, map[uint8]bool{}
	}
	if !slices.Contains(s.order, protocol) {
		s.order = append(s.order, protocol)
	}
	if port == nil {
		s.whole[protocol] = true
		return
	}
	s.ports[protocol] = append(s.ports[protocol], *port)
}

// list returns what was asked for, any packet if it was nothing.
func (s *services) list() []service {
	if len(s.order) == 0 {
		return []service{{}}
	}
	var all []service
	for _, protocol := range s.order {
		one := service{protocol: protocol}
		if !s.whole[protocol] {
			one.ports = mergePorts(s.ports[protocol])
		}
		all = append(all, one)
	}
	return all
}

// rulesFor returns the rules that do so with packets of every one of the peers and
// services. The peer is a packet's source in ingress, else its destination.
func rulesFor(action Action, dir Direction, peers []Peer, asked []service) []Rule {
	var rules []Rule
	for _, peer := range peers {
		for _, s := range asked {
			r := Rule{Action: action, Protocol: s.protocol}
			if dir == Ingress {
				r.Source = peer
			} else {
				r.Destination = peer
			}
			r.Destination.Ports = s.ports
			rules = append(rules, r)
		}
	}
	return rules
}
