package policy

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/selector"
)

// kubernetesOrder is the order of Kubernetes' own policies in the tier DefaultTier.
const kubernetesOrder = 1000

// FromKubernetesNetworkPolicy returns the policy in its internal form, and what is
// wrong with it. A rule that can't be enforced is left out: all rules allow, so
// without it the policy is stricter.
func FromKubernetesNetworkPolicy(o *v1.KubernetesNetworkPolicy) (*Policy, []v1.Issue) {
	o = defaulted(o)
	p := &Policy{
		ID: idOf(o), Tier: v1.DefaultTier, Order: kubernetesOrder,
		Selector: selector.And(anyPod(), selector.Equal(LabelNamespace, o.Namespace), fromLabels(&o.Spec.PodSelector, "")),
		Applies: [2]bool{
			Ingress: slices.Contains(o.Spec.PolicyTypes, networkingv1.PolicyTypeIngress),
			Egress:  slices.Contains(o.Spec.PolicyTypes, networkingv1.PolicyTypeEgress),
		},
	}
	bad, whole := ruleFaults(faults(o))
	if whole != "" {
		p = p.Faulty(whole)
		return p, p.issues()
	}
	var issues []v1.Issue
	add := func(dir Direction, i int, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
		if reason, ok := bad[ruleAt{dir, i}]; ok {
			issues = append(issues, v1.Issue{Object: p.ID.String(), Reason: reason + "; the rule is left out"})
			return
		}
		if p.Applies[dir] {
			p.Rules[dir] = append(p.Rules[dir], numbered(i, rulesFor(Allow, dir, stockPeers(peers, o.Namespace), stockPorts(ports))...)...)
		}
	}
	for i, r := range o.Spec.Ingress {
		add(Ingress, i, r.From, r.Ports)
	}
	for i, r := range o.Spec.Egress {
		add(Egress, i, r.To, r.Ports)
	}
	return p, issues
}

// stockPeers returns the peers of a rule, any if there are none. Ranges without
// exceptions are one peer.
func stockPeers(peers []networkingv1.NetworkPolicyPeer, namespace string) []Peer {
	if len(peers) == 0 {
		return []Peer{{}}
	}
	var nets Peer
	var all []Peer
	for _, p := range peers {
		b := p.IPBlock
		switch {
		case b == nil:
			all = append(all, Peer{Selector: stockSelector(p, namespace)})
		case len(b.Except) == 0:
			nets.Nets = append(nets.Nets, v1.ParseStockCIDR(b.CIDR))
		default:
			peer := Peer{}
			peer.Nets = append(peer.Nets, v1.ParseStockCIDR(b.CIDR))
			for _, except := range b.Except {
				peer.NotNets = append(peer.NotNets, v1.ParseStockCIDR(except))
			}
			all = append(all, peer)
		}
	}
	if len(nets.Nets) > 0 {
		all = append(all, nets)
	}
	return all
}

// stockSelector returns which pods a peer is: of the policy's own namespace unless it
// chooses namespaces.
func stockSelector(p networkingv1.NetworkPolicyPeer, namespace string) *selector.Selector {
	parts := []*selector.Selector{anyPod()}
	if p.NamespaceSelector == nil {
		parts = append(parts, selector.Equal(LabelNamespace, namespace))
	} else {
		parts = append(parts, selector.Has(LabelNamespace), fromLabels(p.NamespaceSelector, NamespacePrefix))
	}
	if p.PodSelector != nil {
		parts = append(parts, fromLabels(p.PodSelector, ""))
	}
	return selector.And(parts...)
}

// stockPorts returns what a rule's ports ask for.
func stockPorts(ports []networkingv1.NetworkPolicyPort) []service {
	var asked services
	for _, p := range ports {
		protocol := v1.Protocol(*p.Protocol).Number()
		switch {
		case p.Port == nil:
			asked.add(protocol, nil)
		case p.Port.Type == intstr.String:
			asked.add(protocol, &Port{Name: p.Port.StrVal})
		default:
			port := Port{First: uint16(p.Port.IntVal), Last: uint16(p.Port.IntVal)}
			if p.EndPort != nil {
				port.Last = uint16(*p.EndPort)
			}
			asked.add(protocol, &port)
		}
	}
	return asked.list()
}

// ruleAt is a rule's place in a policy.
type ruleAt struct {
	dir Direction
	i   int
}

// ruleFaults tells reasons to refuse single rules from those to refuse the policy.
func ruleFaults(errs field.ErrorList) (rules map[ruleAt]string, whole string) {
	rules = map[ruleAt]string{}
	for _, err := range errs {
		at, ok := ruleOf(err.Field)
		if !ok {
			whole = join(whole, err.Error())
			continue
		}
		rules[at] = join(rules[at], err.Error())
	}
	return rules, whole
}

// ruleOf returns the rule that the path of a field leads into.
func ruleOf(path string) (ruleAt, bool) {
	for _, dir := range []Direction{Ingress, Egress} {
		var i int
		if rest, ok := strings.CutPrefix(path, "spec."+dir.String()+"["); ok {
			if _, err := fmt.Sscanf(rest, "%d]", &i); err == nil {
				return ruleAt{dir, i}, true
			}
		}
	}
	return ruleAt{}, false
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
