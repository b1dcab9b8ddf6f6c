package policytest

import (
	"fmt"

	"cairn.network/cairn/policy"
)

// Kinds of the policies that worlds have.
const (
	namespaced = "NetworkPolicy"
	global     = "GlobalNetworkPolicy"
	kubernetes = "KubernetesNetworkPolicy"
)

// policy draws the policy with this number.
func (d dice) policy(w *policy.World, n int) *policy.Policy {
	p := &policy.Policy{
		ID:       policy.ID{Kind: pick(d, "kind", namespaced, global, global, kubernetes), Name: fmt.Sprintf("p%d", n)},
		Tier:     w.Tiers[d.roll(len(w.Tiers), "tier")].Name,
		Order:    pick(d, "order", 1, 1, -1, 1000, policy.Last),
		Selector: d.selector(),
		Applies:  pick(d, "applies to", [2]bool{true, true}, [2]bool{true, true}, [2]bool{true, false}, [2]bool{false, true}),
	}
	if p.Kind != global {
		p.Namespace = pick(d, "namespace", "ns1", "ns1", "ns2")
		p.Selector = sel(fmt.Sprintf("(%s) && projectcalico.org/namespace == '%s'", p.Selector, p.Namespace))
	} else {
		d.phase(p)
	}
	d.special(w, p)
	for dir := range p.Rules {
		if p.Applies[dir] && p.Fault == "" {
			p.Rules[dir] = some(d, 4, "rules", func() policy.Rule { return d.rule(policy.Direction(dir)) })
		}
	}
	return p
}

// phase makes some policies of a phase that only host endpoints have.
func (d dice) phase(p *policy.Policy) {
	switch pick(d, "phase", "normal", "normal", "normal", "forward", "forward", "untracked", "untracked", "preDNAT") {
	case "forward":
		p.ApplyOnForward = true
	case "untracked":
		p.ApplyOnForward, p.DoNotTrack = true, true
	case "preDNAT":
		p.ApplyOnForward, p.PreDNAT, p.Applies = true, true, [2]bool{true, false}
	}
}

// special makes some policies staged or faulty, and some of a tier that does not exist.
func (d dice) special(w *policy.World, p *policy.Policy) {
	switch pick(d, "special", "", "", "", "", "", "", "", "", "", "", "", "staged", "staged", "fault", "lost") {
	case "staged":
		d.stage(w, p)
	case "fault":
		p.Fault = "too big"
	case "lost":
		if d.oneIn(3, "lost") {
			p.Tier = "none"
		}
	}
}

// stage makes a policy staged, and often one that is to replace or delete another.
// There is only one staged policy of a name.
func (d dice) stage(w *policy.World, p *policy.Policy) {
	taken := make(map[policy.ID]bool)
	for _, o := range w.Policies {
		taken[o.ID] = true
	}
	kind := "Staged" + p.Kind
	for _, o := range w.Policies {
		twin := policy.ID{Kind: kind, Namespace: o.Namespace, Name: o.Name}
		if o.Kind == p.Kind && o.Namespace == p.Namespace && !taken[twin] && d.oneIn(2, "counterpart") {
			p.Name = o.Name
			break
		}
	}
	p.Kind, p.Staged, p.Delete = kind, true, d.oneIn(3, "delete")
}

// rule draws a rule that asks for little, mostly.
func (d dice) rule(dir policy.Direction) policy.Rule {
	r := policy.Rule{
		Action:    pick(d, "action", policy.Allow, policy.Allow, policy.Allow, policy.Deny, policy.Deny, policy.Pass, policy.Log),
		IPVersion: pick[uint8](d, "version", 0, 0, 0, 0, 4, 6),
	}
	switch pick(d, "protocol", "any", "any", "any", "ports", "ports", "ports", "ICMP", "ICMP", "number", "not") {
	case "ports":
		r.Protocol = pick[uint8](d, "protocol", 6, 6, 6, 17, 132, 136)
	case "number":
		r.Protocol = pick[uint8](d, "protocol", 1, 58, 47)
	case "not":
		r.NotProtocol = pick[uint8](d, "protocol", 6, 17, 1, 58, 47)
	case "ICMP":
		d.icmp(&r)
	}
	ports := hasPorts(r.Protocol)
	r.Source = d.peer(ports, dir == policy.Ingress)
	r.Destination = d.peer(ports, dir == policy.Egress)
	return r
}

// icmp asks for a type of ICMP, of the version that the rule is for.
func (d dice) icmp(r *policy.Rule) {
	r.Protocol = pick[uint8](d, "ICMP", icmp, icmpv6)
	if r.IPVersion != 0 {
		r.Protocol = map[uint8]uint8{4: icmp, 6: icmpv6}[r.IPVersion]
	}
	one := func(what string) *policy.ICMP {
		if d.oneIn(2, what) {
			return nil
		}
		i := &policy.ICMP{Type: pick[uint8](d, "type", 8, 8, 128, 128, 0, 3), AnyCode: d.oneIn(2, "any code")}
		if !i.AnyCode {
			i.Code = pick[uint8](d, "code", 0, 0, 1)
		}
		return i
	}
	r.ICMP, r.NotICMP = one("a type"), one("not a type")
}

// peer draws what is asked of one end. Service says whether it can be one's.
func (d dice) peer(ports, service bool) (p policy.Peer) {
	if service && d.oneIn(8, "service") {
		p.Service = policy.ID{Namespace: pick(d, "service", "ns1", "ns1", "ns2"), Name: "svc"}
		return p
	}
	if d.oneIn(4, "by selector") {
		p.Selector = d.selector()
	}
	if d.oneIn(12, "by no selector") {
		p.NotSelector = d.selector()
	}
	if d.oneIn(16, "by nodes") {
		p.Nodes = sel(pick(d, "nodes", "all()", "rack == 'a'", "rack == 'b'"))
	}
	if d.oneIn(6, "by nets") {
		p.Nets = some(d, 3, "nets", d.net)
	}
	if d.oneIn(8, "by no nets") {
		p.NotNets = some(d, 2, "not nets", d.net)
	}
	if ports && d.oneIn(3, "by ports") {
		p.Ports = some(d, 3, "ports", d.ports)
	}
	if ports && d.oneIn(6, "by no ports") {
		p.NotPorts = some(d, 2, "not ports", d.ports)
	}
	return p
}

// ports draws a name or a range; ranges may overlap.
func (d dice) ports() policy.Port {
	if d.oneIn(3, "by name") {
		return policy.Port{Name: d.portName()}
	}
	return pick(d, "range", policy.Port{First: 80, Last: 80}, policy.Port{First: 80, Last: 81}, policy.Port{First: 53, Last: 53},
		policy.Port{First: 1, Last: 65535}, policy.Port{First: 0, Last: 0}, policy.Port{First: 81, Last: 1024}, policy.Port{First: 65535, Last: 65535})
}
