package v1

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// ClusterNetworkPolicy is the Kubernetes network policy group's own
// (policy.networking.k8s.io/v1alpha2).
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type ClusterNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              policyv1alpha2.ClusterNetworkPolicySpec   `json:"spec"`
	Status            policyv1alpha2.ClusterNetworkPolicyStatus `json:"status,omitzero"`
}

// Limits of ClusterNetworkPolicy.
const (
	maxClusterItems    = 25 // of each list
	maxClusterPriority = 1000
	maxClusterRuleName = 100 // in bytes
)

// Default fills in what was left out.
func (p *ClusterNetworkPolicy) Default() {
	p.TypeMeta = metav1.TypeMeta{APIVersion: policyVersion, Kind: "ClusterNetworkPolicy"}
}

// Validate returns every reason to refuse the defaulted policy, as Kubernetes' API
// server would; and names of domains.
func (p *ClusterNetworkPolicy) Validate() field.ErrorList {
	errs := validStockMeta(p.ObjectMeta, false)
	errs = append(errs, validEnum(path("tier"), p.Spec.Tier, policyv1alpha2.AdminTier, policyv1alpha2.BaselineTier)...)
	if n := p.Spec.Priority; n < 0 || n > maxClusterPriority {
		errs = append(errs, field.Invalid(path("priority"), n, fmt.Sprintf("must be 0 to %d", maxClusterPriority)))
	}
	errs = append(errs, validPods(path("subject"), p.Spec.Subject.Namespaces, p.Spec.Subject.Pods)...)
	if n := len(p.Spec.Ingress); n > maxClusterItems {
		errs = append(errs, field.TooMany(path("ingress"), n, maxClusterItems))
	}
	for i, r := range p.Spec.Ingress {
		at := path("ingress").Index(i)
		errs = append(errs, validClusterRule(at, r.Name, r.Action, r.Protocols)...)
		errs = append(errs, validItems(at.Child("from"), len(r.From))...)
		for j, peer := range r.From {
			errs = append(errs, validPods(at.Child("from").Index(j), peer.Namespaces, peer.Pods)...)
		}
	}
	if n := len(p.Spec.Egress); n > maxClusterItems {
		errs = append(errs, field.TooMany(path("egress"), n, maxClusterItems))
	}
	for i, r := range p.Spec.Egress {
		at := path("egress").Index(i)
		errs = append(errs, validClusterRule(at, r.Name, r.Action, r.Protocols)...)
		errs = append(errs, validItems(at.Child("to"), len(r.To))...)
		for j, peer := range r.To {
			errs = append(errs, validEgressPeer(at.Child("to").Index(j), peer)...)
		}
		errs = append(errs, validPortNames(at, r)...)
	}
	return errs
}

// validPods checks that pods are chosen in one of the two ways.
func validPods(at *field.Path, namespaces *metav1.LabelSelector, pods *policyv1alpha2.NamespacedPod) field.ErrorList {
	errs := validStockSelector(at.Child("namespaces"), namespaces)
	if pods != nil {
		errs = append(errs, validStockSelector(at.Child("pods", "namespaceSelector"), &pods.NamespaceSelector)...)
		errs = append(errs, validStockSelector(at.Child("pods", "podSelector"), &pods.PodSelector)...)
	}
	if (namespaces == nil) == (pods == nil) {
		errs = append(errs, field.Required(at, "exactly one of namespaces and pods"))
	}
	return errs
}

func validEgressPeer(at *field.Path, p policyv1alpha2.ClusterNetworkPolicyEgressPeer) field.ErrorList {
	set := 0
	for _, there := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil, len(p.Networks) > 0, len(p.DomainNames) > 0} {
		if there {
			set++
		}
	}
	if set != 1 {
		return field.ErrorList{field.Required(at, "exactly one of namespaces, pods, nodes and networks")}
	}
	var errs field.ErrorList
	switch {
	case len(p.DomainNames) > 0:
		errs = append(errs, field.Forbidden(at.Child("domainNames"), "Cairn enforces by address, and does not follow what names stand for"))
	case p.Nodes != nil:
		errs = append(errs, validStockSelector(at.Child("nodes"), p.Nodes)...)
	case len(p.Networks) > 0:
		errs = append(errs, validItems(at.Child("networks"), len(p.Networks))...)
		for i, n := range p.Networks {
			_, cidrErrs := validStockCIDR(at.Child("networks").Index(i), string(n))
			errs = append(errs, cidrErrs...)
		}
	default:
		errs = append(errs, validPods(at, p.Namespaces, p.Pods)...)
	}
	return errs
}

// validPortNames checks that names of ports are asked of pods only.
func validPortNames(at *field.Path, r policyv1alpha2.ClusterNetworkPolicyEgressRule) field.ErrorList {
	var errs field.ErrorList
	for i, p := range r.Protocols {
		for _, peer := range r.To {
			if p.DestinationNamedPort != "" && (peer.Nodes != nil || len(peer.Networks) > 0) {
				errs = append(errs, field.Forbidden(at.Child("protocols").Index(i).Child("destinationNamedPort"), "may not be set together with nodes and networks, which have no names for ports"))
				break
			}
		}
	}
	return errs
}

// validItems checks that a list has something, and not too much.
func validItems(at *field.Path, n int) field.ErrorList {
	switch {
	case n == 0:
		return field.ErrorList{field.Required(at, "at least one")}
	case n > maxClusterItems:
		return field.ErrorList{field.TooMany(at, n, maxClusterItems)}
	}
	return nil
}

func validClusterRule(at *field.Path, name string, action policyv1alpha2.ClusterNetworkPolicyRuleAction, protocols []policyv1alpha2.ClusterNetworkPolicyProtocol) field.ErrorList {
	errs := validEnum(at.Child("action"), action, policyv1alpha2.ClusterNetworkPolicyRuleActionAccept,
		policyv1alpha2.ClusterNetworkPolicyRuleActionDeny, policyv1alpha2.ClusterNetworkPolicyRuleActionPass)
	if len(name) > maxClusterRuleName {
		errs = append(errs, field.TooLong(at.Child("name"), name, maxClusterRuleName))
	}
	if len(protocols) > maxClusterItems {
		errs = append(errs, field.TooMany(at.Child("protocols"), len(protocols), maxClusterItems))
	}
	for i, p := range protocols {
		errs = append(errs, validClusterProtocol(at.Child("protocols").Index(i), p)...)
	}
	return errs
}

func validClusterProtocol(at *field.Path, p policyv1alpha2.ClusterNetworkPolicyProtocol) field.ErrorList {
	var errs field.ErrorList
	set := 0
	port := func(name string, p *policyv1alpha2.Port) {
		set++
		errs = append(errs, validClusterPort(at.Child(name, "destinationPort"), p)...)
	}
	if p.TCP != nil {
		port("tcp", p.TCP.DestinationPort)
	}
	if p.UDP != nil {
		port("udp", p.UDP.DestinationPort)
	}
	if p.SCTP != nil {
		port("sctp", p.SCTP.DestinationPort)
	}
	if name := p.DestinationNamedPort; name != "" {
		set++
		if !portName(name) {
			errs = append(errs, field.Invalid(at.Child("destinationNamedPort"), name, "must be the name of a port"))
		}
	}
	if set != 1 {
		errs = append(errs, field.Required(at, "exactly one of tcp, udp, sctp and destinationNamedPort"))
	}
	return errs
}

func validClusterPort(at *field.Path, p *policyv1alpha2.Port) field.ErrorList {
	switch {
	case p == nil:
		return field.ErrorList{field.Required(at, "")}
	case (p.Number == 0) == (p.Range == nil):
		return field.ErrorList{field.Required(at, "exactly one of number and range")}
	case p.Range == nil:
		return validPort(at.Child("number"), p.Number)
	}
	errs := validPort(at.Child("range", "start"), p.Range.Start)
	errs = append(errs, validPort(at.Child("range", "end"), p.Range.End)...)
	if p.Range.Start >= p.Range.End {
		errs = append(errs, field.Invalid(at.Child("range", "end"), p.Range.End, "must be greater than start"))
	}
	return errs
}
