package e2e

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	v1 "cairn.network/cairn/api/v1"
)

// base returns the policy that decides about every pod what no other did.
func (c *changes) base() *v1.GlobalNetworkPolicy {
	p := globalPolicy("base")
	p.Spec.Types = []v1.PolicyType{v1.PolicyIngress, v1.PolicyEgress}
	p.Spec.Ingress, p.Spec.Egress = c.deciding(false, false), c.deciding(true, false)
	return p
}

// policy returns a policy about some or all pods.
func (c *changes) policy(name string) *v1.GlobalNetworkPolicy {
	p := globalPolicy(name)
	p.Spec.Selector = pick(c, "", "has(team)", "team == 'red'", "team != 'blue'", "team in {'red', 'green'}", "!has(mark) && team == 'blue'")
	p.Spec.NamespaceSelector = pick(c, "", "", "has(env)", "env == 'prod'", "env != 'prod'")
	p.Spec.Types = pick(c, []v1.PolicyType{v1.PolicyIngress}, []v1.PolicyType{v1.PolicyEgress}, []v1.PolicyType{v1.PolicyIngress, v1.PolicyEgress})
	order := float64(c.rnd.IntN(50))
	p.Spec.Order = pick(c, nil, &order)
	p.Spec.Tier = pick(c, v1.DefaultTier, tierAny, tierSoft, tierHard)
	for _, kind := range p.Spec.Types {
		egress := kind == v1.PolicyEgress
		var rules []v1.Rule
		switch {
		case p.Spec.Tier == tierSoft && c.one(2):
			rules = c.fillers(c.rnd.IntN(10))
		case p.Spec.Tier == tierHard && c.one(2):
			rules = append(c.shuffled(c.allowing(egress, true), c.rnd.IntN(10)), otherwise(v1.ActionDeny, portOpen)...)
		default:
			rules = c.deciding(egress, p.Spec.Tier != v1.DefaultTier)
		}
		if egress {
			p.Spec.Egress = rules
		} else {
			p.Spec.Ingress = rules
		}
	}
	return p
}

// deciding returns rules that decide about all ports, or, if they may, pass them on.
// Behind them come some that would decide otherwise: a rule that is missed, if only for a
// moment, shows.
func (c *changes) deciding(egress, mayPass bool) []v1.Rule {
	own, _ := shut(egress)
	rules := c.allowing(egress, mayPass)
	for _, protocol := range protocols() {
		from, to := c.anyPod(), c.anyPod()
		to.Ports = pick(c, ports(own), []v1.Port{v1.Port(fmt.Sprintf("%d:%d", own-1, own+50))}, append(ports(own), "9443"))
		if c.one(4) {
			to = named(own, protocol)
		}
		rules = append(rules, rule(c.action(v1.ActionDeny, mayPass), protocol, from, to))
	}
	rules = append(c.shuffled(rules, c.rnd.IntN(20)), otherwise(v1.ActionDeny, portOpen)...)
	return append(rules, otherwise(v1.ActionAllow, own)...)
}

// allowing returns rules that allow what is not shut, or, if they may, pass it on.
func (c *changes) allowing(egress, mayPass bool) []v1.Rule {
	own, others := shut(egress)
	service := &v1.ServiceMatch{Namespace: "default", Name: "open"}
	var rules []v1.Rule
	for _, protocol := range protocols() {
		from, to := c.anyPod(), c.anyPod()
		to.Ports = pick(c, ports(portOpen), []v1.Port{"8000:8999"}, append(ports(portOpen), "80", "8443"))
		switch {
		case c.one(4):
			to.Ports, to.NotPorts = nil, ports(own)
		case c.one(4):
			to = named(portOpen, protocol)
		}
		switch {
		case egress && c.one(6):
			to = v1.EntityRule{Services: service}
		case !egress && c.one(6):
			from = v1.EntityRule{Services: service}
		}
		rules = append(rules, rule(c.action(v1.ActionAllow, mayPass), protocol, from, to))
		from, to = c.anyPod(), c.anyPod()
		to.Ports = ports(others)
		rules = append(rules, rule(c.action(v1.ActionAllow, mayPass), protocol, from, to))
	}
	return rules
}

// action returns the action, or, if that may be, sometimes Pass.
func (c *changes) action(action v1.PolicyAction, mayPass bool) v1.PolicyAction {
	if mayPass && c.one(4) {
		return v1.ActionPass
	}
	return action
}

// otherwise returns rules that do something about everything to a port.
func otherwise(action v1.PolicyAction, port uint16) []v1.Rule {
	var rules []v1.Rule
	for _, protocol := range protocols() {
		rules = append(rules, rule(action, protocol, v1.EntityRule{}, v1.EntityRule{Ports: ports(port)}))
	}
	return rules
}

func protocols() []v1.Protocol { return []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP} }

func ports(port uint16) []v1.Port { return []v1.Port{v1.Port(fmt.Sprint(port))} }

// anyPod returns an end of packets that every pod is, said in one of many ways.
func (c *changes) anyPod() v1.EntityRule {
	return pick(c,
		v1.EntityRule{},
		v1.EntityRule{Selector: "has(team)"},
		v1.EntityRule{Selector: "team in {'red', 'green', 'blue'}"},
		v1.EntityRule{Selector: "team != 'black'"},
		v1.EntityRule{NamespaceSelector: "has(env)"},
		v1.EntityRule{NamespaceSelector: "env in {'dev', 'test', 'prod'}", Selector: "has(team)"},
		v1.EntityRule{NotSelector: "team == 'black' || cover == 'no'"},
		v1.EntityRule{Selector: "cover == 'yes'"},
		v1.EntityRule{Selector: "cover == 'yes' || team == 'red'", NotNets: []string{"192.0.2.0/24"}},
		v1.EntityRule{Nets: c.nets()},
		v1.EntityRule{Nets: c.nets(), NotNets: []string{"198.51.100.0/24", "2001:db8::/32"}},
	)
}

// shuffled returns the rules in any order, with so many others in between.
func (c *changes) shuffled(rules []v1.Rule, others int) []v1.Rule {
	rules = append(rules, c.fillers(others)...)
	c.rnd.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	return rules
}

// fillers returns rules that match none of the ports.
func (c *changes) fillers(n int) []v1.Rule {
	rules := make([]v1.Rule, n)
	for i := range rules {
		action := pick(c, v1.ActionAllow, v1.ActionDeny, v1.ActionPass, v1.ActionLog)
		port := v1.Port(fmt.Sprint(1 + c.rnd.IntN(7000)))
		rules[i] = pick(c,
			rule(action, pick(c, v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP), c.anyPod(), v1.EntityRule{Ports: []v1.Port{port}}),
			rule(action, v1.ProtocolTCP, v1.EntityRule{Selector: fmt.Sprintf("app == 'a%s'", port)}, c.anyPod()),
			rule(action, v1.ProtocolUDP, v1.EntityRule{Nets: []string{"203.0.113.0/24"}}, v1.EntityRule{}),
			rule(action, v1.ProtocolICMP, c.anyPod(), c.anyPod()),
		)
	}
	return rules
}

func rule(action v1.PolicyAction, protocol v1.Protocol, from, to v1.EntityRule) v1.Rule {
	return v1.Rule{Action: action, Protocol: &protocol, Source: from, Destination: to}
}

// named returns the port of every pod by the name that the pods give it. Network sets have
// no names for ports, so they don't stand for the pods here.
func named(port uint16, protocol v1.Protocol) v1.EntityRule {
	return v1.EntityRule{Selector: "has(team) || has(mark)", Ports: []v1.Port{v1.Port(portName(port, protocol))}}
}

// portName returns the name that pods give to a port.
func portName(port uint16, protocol v1.Protocol) string {
	return fmt.Sprintf("p%d-%s", port, strings.ToLower(string(protocol)))
}

func stockProtocol(p v1.Protocol) corev1.Protocol { return corev1.Protocol(p) }
