package v1

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Versions of the APIs of Kubernetes that Cairn reads.
const (
	coreVersion       = "v1"
	discoveryVersion  = "discovery.k8s.io/v1"
	networkingVersion = "networking.k8s.io/v1"
	policyVersion     = "policy.networking.k8s.io/v1alpha2"
)

// Namespace is Kubernetes' own. Cairn reads its labels.
//
// +kubebuilder:object:root=true
type Namespace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              corev1.NamespaceSpec   `json:"spec,omitzero"`
	Status            corev1.NamespaceStatus `json:"status,omitzero"`
}

// ServiceAccount is Kubernetes' own. Cairn reads its labels.
//
// +kubebuilder:object:root=true
type ServiceAccount struct {
	metav1.TypeMeta              `json:",inline"`
	metav1.ObjectMeta            `json:"metadata,omitzero"`
	Secrets                      []corev1.ObjectReference      `json:"secrets,omitempty"`
	ImagePullSecrets             []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	AutomountServiceAccountToken *bool                         `json:"automountServiceAccountToken,omitempty"`
}

// EndpointSlice is Kubernetes' own: addresses behind a Service.
//
// +kubebuilder:object:root=true
type EndpointSlice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	AddressType       discoveryv1.AddressType    `json:"addressType"`
	Endpoints         []discoveryv1.Endpoint     `json:"endpoints"`
	Ports             []discoveryv1.EndpointPort `json:"ports"`
}

// Default fills in what was left out.
func (n *Namespace) Default() {
	n.TypeMeta = metav1.TypeMeta{APIVersion: coreVersion, Kind: "Namespace"}
}

// Default fills in what was left out.
func (a *ServiceAccount) Default() {
	a.TypeMeta = metav1.TypeMeta{APIVersion: coreVersion, Kind: "ServiceAccount"}
}

// Default fills in what was left out.
func (s *EndpointSlice) Default() {
	s.TypeMeta = metav1.TypeMeta{APIVersion: discoveryVersion, Kind: "EndpointSlice"}
}

// Validate returns every reason to refuse the defaulted namespace.
func (n *Namespace) Validate() field.ErrorList { return validStockMeta(n.ObjectMeta, false) }

// Validate returns every reason to refuse the defaulted service account.
func (a *ServiceAccount) Validate() field.ErrorList { return validStockMeta(a.ObjectMeta, true) }

// Validate returns every reason to refuse the defaulted slice.
func (s *EndpointSlice) Validate() field.ErrorList {
	errs := validStockMeta(s.ObjectMeta, true)
	errs = append(errs, validEnum(field.NewPath("addressType"), s.AddressType, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN)...)
	for i, e := range s.Endpoints {
		at := field.NewPath("endpoints").Index(i).Child("addresses")
		if len(e.Addresses) == 0 {
			errs = append(errs, field.Required(at, ""))
		}
		if s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for j, text := range e.Addresses {
			a, addrErrs := validAddress(at.Index(j), text)
			errs = append(errs, addrErrs...)
			if a.IsValid() && a.Is6() != (s.AddressType == discoveryv1.AddressTypeIPv6) {
				errs = append(errs, field.Invalid(at.Index(j), text, "is not of addressType "+string(s.AddressType)))
			}
		}
	}
	for i, p := range s.Ports {
		at := field.NewPath("ports").Index(i)
		if p.Port != nil {
			errs = append(errs, validPort(at.Child("port"), *p.Port)...)
		}
		if p.Protocol != nil {
			errs = append(errs, validServiceProtocol(at.Child("protocol"), *p.Protocol)...)
		}
	}
	return errs
}

// Service returns the name of the Service that the slice belongs to; "" for none.
func (s *EndpointSlice) Service() string { return s.Labels[discoveryv1.LabelServiceName] }

// Addrs returns the valid addresses of one of the slice's endpoints.
func (s *EndpointSlice) Addrs(e discoveryv1.Endpoint) []netip.Addr {
	var all []netip.Addr
	for _, text := range e.Addresses {
		if a, errs := validAddress(nil, text); len(errs) == 0 && s.AddressType != discoveryv1.AddressTypeFQDN {
			all = append(all, a)
		}
	}
	return all
}

// validServiceProtocol checks a protocol that Services may have.
func validServiceProtocol(at *field.Path, p corev1.Protocol) field.ErrorList {
	return validEnum(at, p, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
}

// validStockMeta checks the metadata of an object of Kubernetes. What its API server
// named carries what the name was generated from.
func validStockMeta(meta metav1.ObjectMeta, namespaced bool) field.ErrorList {
	if meta.Name != "" {
		meta.GenerateName = ""
	}
	return validMeta(&meta, namespaced)
}
