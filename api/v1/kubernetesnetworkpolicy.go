package v1

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// KubernetesNetworkPolicy is Kubernetes' own NetworkPolicy (networking.k8s.io/v1).
//
// +kubebuilder:object:root=true
type KubernetesNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              networkingv1.NetworkPolicySpec `json:"spec,omitzero"`
}

// Default fills in what was left out.
func (p *KubernetesNetworkPolicy) Default() {
	p.TypeMeta = metav1.TypeMeta{APIVersion: networkingVersion, Kind: "NetworkPolicy"}
	if len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	ports := func(all []networkingv1.NetworkPolicyPort) {
		for i := range all {
			if all[i].Protocol == nil {
				tcp := corev1.ProtocolTCP
				all[i].Protocol = &tcp
			}
		}
	}
	for _, r := range p.Spec.Ingress {
		ports(r.Ports)
	}
	for _, r := range p.Spec.Egress {
		ports(r.Ports)
	}
}

// Validate returns every reason to refuse the defaulted policy, as Kubernetes' API
// server would.
func (p *KubernetesNetworkPolicy) Validate() field.ErrorList {
	errs := validStockMeta(p.ObjectMeta, true)
	errs = append(errs, validStockSelector(path("podSelector"), &p.Spec.PodSelector)...)
	if len(p.Spec.PolicyTypes) > 2 {
		errs = append(errs, field.TooMany(path("policyTypes"), len(p.Spec.PolicyTypes), 2))
	}
	for i, t := range p.Spec.PolicyTypes {
		errs = append(errs, validEnum(path("policyTypes").Index(i), t, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)...)
	}
	for i, r := range p.Spec.Ingress {
		errs = append(errs, validStockRule(path("ingress").Index(i), "from", r.From, r.Ports)...)
	}
	for i, r := range p.Spec.Egress {
		errs = append(errs, validStockRule(path("egress").Index(i), "to", r.To, r.Ports)...)
	}
	return errs
}

func validStockRule(at *field.Path, name string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) field.ErrorList {
	var errs field.ErrorList
	for i, p := range peers {
		errs = append(errs, validStockPeer(at.Child(name).Index(i), p)...)
	}
	for i, p := range ports {
		errs = append(errs, validStockPort(at.Child("ports").Index(i), p)...)
	}
	return errs
}

func validStockPeer(at *field.Path, p networkingv1.NetworkPolicyPeer) field.ErrorList {
	var errs field.ErrorList
	selects := p.PodSelector != nil || p.NamespaceSelector != nil
	switch {
	case p.IPBlock == nil && !selects:
		errs = append(errs, field.Required(at, "podSelector, namespaceSelector or ipBlock"))
	case p.IPBlock != nil && selects:
		errs = append(errs, field.Forbidden(at.Child("ipBlock"), "may not be set together with podSelector and namespaceSelector"))
	}
	errs = append(errs, validStockSelector(at.Child("podSelector"), p.PodSelector)...)
	errs = append(errs, validStockSelector(at.Child("namespaceSelector"), p.NamespaceSelector)...)
	if p.IPBlock == nil {
		return errs
	}
	at = at.Child("ipBlock")
	block, blockErrs := validStockCIDR(at.Child("cidr"), p.IPBlock.CIDR)
	errs = append(errs, blockErrs...)
	for i, text := range p.IPBlock.Except {
		at := at.Child("except").Index(i)
		except, exceptErrs := validStockCIDR(at, text)
		errs = append(errs, exceptErrs...)
		if block.IsValid() && except.IsValid() && (!block.Contains(except.Addr()) || except.Bits() <= block.Bits()) {
			errs = append(errs, field.Invalid(at, text, fmt.Sprintf("must be a smaller range inside %s", block)))
		}
	}
	return errs
}

func validStockPort(at *field.Path, p networkingv1.NetworkPolicyPort) field.ErrorList {
	var errs field.ErrorList
	if p.Protocol != nil {
		errs = append(errs, validServiceProtocol(at.Child("protocol"), *p.Protocol)...)
	}
	switch {
	case p.Port == nil && p.EndPort != nil:
		errs = append(errs, field.Required(at.Child("port"), "endPort needs it"))
	case p.Port == nil:
	case p.Port.Type == intstr.String:
		for _, reason := range utilvalidation.IsValidPortName(p.Port.StrVal) {
			errs = append(errs, field.Invalid(at.Child("port"), p.Port.StrVal, reason))
		}
		if p.EndPort != nil {
			errs = append(errs, field.Forbidden(at.Child("endPort"), "may not be set together with a port's name"))
		}
	default:
		errs = append(errs, validPort(at.Child("port"), p.Port.IntVal)...)
		if p.EndPort != nil {
			errs = append(errs, validPort(at.Child("endPort"), *p.EndPort)...)
			if *p.EndPort < p.Port.IntVal {
				errs = append(errs, field.Invalid(at.Child("endPort"), *p.EndPort, "must not be less than port"))
			}
		}
	}
	return errs
}

// validStockSelector checks a selector of labels as Kubernetes writes them; nil is
// none.
func validStockSelector(at *field.Path, s *metav1.LabelSelector) field.ErrorList {
	if s == nil {
		return nil
	}
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, at)
}

// validStockCIDR parses a range as Kubernetes takes them: it may be written by any of
// its addresses.
func validStockCIDR(at *field.Path, text string) (netip.Prefix, field.ErrorList) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return validCIDR(at, text)
	}
	return p.Masked(), nil
}

// ParseStockCIDR returns a range as Kubernetes takes them, by its first address; the
// zero Prefix if it is invalid.
func ParseStockCIDR(text string) netip.Prefix {
	p, _ := validStockCIDR(nil, text)
	return p
}
