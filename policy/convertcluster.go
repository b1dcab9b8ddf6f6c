package policy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/selector"
)

// FromClusterNetworkPolicy returns the policy in its internal form, and what is wrong
// with it. A rule that can't be enforced fails closed as its API wants it: one that
// accepts is left out, any other denies all.
func FromClusterNetworkPolicy(o *v1.ClusterNetworkPolicy) (*Policy, []v1.Issue) {
	o = defaulted(o)
	s := &o.Spec
	p := &Policy{
		ID: idOf(o), Tier: v1.TierAdmin, Order: float64(s.Priority),
		Selector: clusterPods(s.Subject.Namespaces, s.Subject.Pods),
		Applies:  [2]bool{Ingress: len(s.Ingress) > 0, Egress: len(s.Egress) > 0},
	}
	if s.Tier == policyv1alpha2.BaselineTier {
		p.Tier = v1.TierBaseline
	}
	bad, whole := ruleFaults(faults(o))
	if whole != "" {
		p = p.Faulty(whole)
		return p, p.issues()
	}
	var issues []v1.Issue
	add := func(dir Direction, i int, action policyv1alpha2.ClusterNetworkPolicyRuleAction, protocols []policyv1alpha2.ClusterNetworkPolicyProtocol, peers func() []Peer) {
		does := clusterAction(action)
		reason, isBad := bad[ruleAt{dir, i}]
		if !isBad {
			p.Rules[dir] = append(p.Rules[dir], numbered(i, rulesFor(does, dir, peers(), clusterServices(protocols))...)...)
			return
		}
		outcome := "; the rule is left out"
		if does != Allow {
			outcome = "; the rule denies all"
			p.Rules[dir] = append(p.Rules[dir], numbered(i, Rule{Action: Deny})...)
		}
		issues = append(issues, v1.Issue{Object: p.ID.String(), Reason: reason + outcome})
	}
	for i, r := range s.Ingress {
		add(Ingress, i, r.Action, r.Protocols, func() []Peer { return clusterSources(r.From) })
	}
	for i, r := range s.Egress {
		add(Egress, i, r.Action, r.Protocols, func() []Peer { return clusterDestinations(r.To) })
	}
	return p, issues
}

// clusterAction returns the action in our words; Deny for what is none.
func clusterAction(a policyv1alpha2.ClusterNetworkPolicyRuleAction) Action {
	switch a {
	case policyv1alpha2.ClusterNetworkPolicyRuleActionAccept:
		return Allow
	case policyv1alpha2.ClusterNetworkPolicyRuleActionPass:
		return Pass
	}
	return Deny
}

// clusterPods returns the selector of pods that are chosen by their namespaces' labels
// or by both these and their own; of nothing if they are by neither.
func clusterPods(namespaces *metav1.LabelSelector, pods *policyv1alpha2.NamespacedPod) *selector.Selector {
	switch {
	case namespaces != nil:
		return selector.And(anyPod(), selector.Has(LabelNamespace), fromLabels(namespaces, NamespacePrefix))
	case pods != nil:
		return selector.And(anyPod(), selector.Has(LabelNamespace), fromLabels(&pods.NamespaceSelector, NamespacePrefix), fromLabels(&pods.PodSelector, ""))
	}
	return nothing()
}

func clusterSources(from []policyv1alpha2.ClusterNetworkPolicyIngressPeer) []Peer {
	var all []Peer
	for _, p := range from {
		all = append(all, Peer{Selector: clusterPods(p.Namespaces, p.Pods)})
	}
	return all
}

func clusterDestinations(to []policyv1alpha2.ClusterNetworkPolicyEgressPeer) []Peer {
	var all []Peer
	for _, p := range to {
		var peer Peer
		switch {
		case p.Nodes != nil:
			peer.Nodes = fromLabels(p.Nodes, "")
		case len(p.Networks) > 0:
			for _, n := range p.Networks {
				peer.Nets = append(peer.Nets, v1.ParseStockCIDR(string(n)))
			}
		default:
			peer.Selector = clusterPods(p.Namespaces, p.Pods)
		}
		all = append(all, peer)
	}
	return all
}

// clusterServices returns what a rule's protocols ask for. A port's name is asked of
// every protocol, for the API says of none.
func clusterServices(protocols []policyv1alpha2.ClusterNetworkPolicyProtocol) []service {
	var asked services
	for _, p := range protocols {
		switch {
		case p.TCP != nil:
			asked.add(protoTCP, clusterPort(p.TCP.DestinationPort))
		case p.UDP != nil:
			asked.add(protoUDP, clusterPort(p.UDP.DestinationPort))
		case p.SCTP != nil:
			asked.add(protoSCTP, clusterPort(p.SCTP.DestinationPort))
		default:
			for _, protocol := range []uint8{protoTCP, protoUDP, protoSCTP} {
				asked.add(protocol, &Port{Name: p.DestinationNamedPort})
			}
		}
	}
	return asked.list()
}

func clusterPort(p *policyv1alpha2.Port) *Port {
	switch {
	case p == nil:
		return nil
	case p.Range != nil:
		return &Port{First: uint16(p.Range.Start), Last: uint16(p.Range.End)}
	}
	return &Port{First: uint16(p.Number), Last: uint16(p.Number)}
}
