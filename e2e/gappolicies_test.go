package e2e

import (
	"fmt"

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
			rules = c.shuffled(c.allowing(egress, true), c.rnd.IntN(10))
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

// deciding returns rules that decide about both ports, or, if they may, pass them on.
func (c *changes) deciding(egress, mayPass bool) []v1.Rule {
	rules := c.allowing(egress, mayPass)
	for _, protocol := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP} {
		action := v1.ActionDeny
		if mayPass && c.one(4) {
			action = v1.ActionPass
		}
		from, to := c.anyPod(), c.anyPod()
		to.Ports = pick(c, []v1.Port{"9001"}, []v1.Port{"9000:9100"}, []v1.Port{"9001", "9443"})
		if c.one(4) {
			to = named("shut", protocol)
		}
		rules = append(rules, rule(action, protocol, from, to))
	}
	return c.shuffled(rules, c.rnd.IntN(20))
}

// allowing returns rules that allow portOpen, or, if they may, pass it on.
func (c *changes) allowing(egress, mayPass bool) []v1.Rule {
	service := &v1.ServiceMatch{Namespace: "default", Name: "open"}
	var rules []v1.Rule
	for _, protocol := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP} {
		action := v1.ActionAllow
		if mayPass && c.one(4) {
			action = v1.ActionPass
		}
		from, to := c.anyPod(), c.anyPod()
		to.Ports = pick(c, []v1.Port{"8080"}, []v1.Port{"8000:8999"}, []v1.Port{"80", "8080", "8443"})
		switch {
		case c.one(4):
			to.Ports, to.NotPorts = nil, []v1.Port{"9000:9001"}
		case c.one(4):
			to = named("open", protocol)
		}
		switch {
		case egress && c.one(6):
			to = v1.EntityRule{Services: service}
		case !egress && c.one(6):
			from = v1.EntityRule{Services: service}
		}
		rules = append(rules, rule(action, protocol, from, to))
	}
	return rules
}

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

// fillers returns rules that match neither port.
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
func named(port string, protocol v1.Protocol) v1.EntityRule {
	name := port + "-tcp"
	if protocol == v1.ProtocolUDP {
		name = port + "-udp"
	}
	return v1.EntityRule{Selector: "has(team) || has(mark)", Ports: []v1.Port{v1.Port(name)}}
}

func stockProtocol(p v1.Protocol) corev1.Protocol { return corev1.Protocol(p) }
