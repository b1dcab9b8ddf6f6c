package v1

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Node is a member of the cluster. Its labels are what node selectors match.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              NodeSpec `json:"spec,omitzero"`
}

// NodeSpec is what others must know of a node to reach it.
type NodeSpec struct {
	// BGP holds the node's addresses and its part in BGP. A node without it is
	// not a member of the mesh and has no routes.
	BGP *NodeBGP `json:"bgp,omitempty"`
}

// NodeBGP holds a node's addresses and its part in BGP.
type NodeBGP struct {
	// IPv4Address is the node's address with the prefix length of its subnet,
	// such as 192.0.2.11/24.
	IPv4Address string `json:"ipv4Address,omitempty"`
	// IPv6Address is the same for IPv6.
	IPv6Address string `json:"ipv6Address,omitempty"`
	// ASNumber is the node's autonomous system; the cluster's if left out.
	ASNumber *uint32 `json:"asNumber,omitempty"`
}

// Default fills in what was left out.
func (n *Node) Default() { n.TypeMeta = typeMeta("Node") }

// Addresses returns the node's valid addresses with the prefix lengths of their
// subnets, IPv4 first.
func (n *Node) Addresses() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range []netip.Prefix{n.Address(false), n.Address(true)} {
		if p.IsValid() {
			all = append(all, p)
		}
	}
	return all
}

// Address returns the node's address of one family with the prefix length of its
// subnet; the zero Prefix if there is none or it is invalid.
func (n *Node) Address(ipv6 bool) netip.Prefix {
	if n.Spec.BGP == nil {
		return netip.Prefix{}
	}
	text := n.Spec.BGP.IPv4Address
	if ipv6 {
		text = n.Spec.BGP.IPv6Address
	}
	p, _ := validNodeAddress(nil, text, ipv6)
	return p
}

// Validate returns every reason to refuse the defaulted node.
func (n *Node) Validate() field.ErrorList {
	errs := validMeta(&n.ObjectMeta, false)
	if n.Spec.BGP == nil {
		return errs
	}
	at := path("bgp")
	if n.Spec.BGP.IPv4Address == "" && n.Spec.BGP.IPv6Address == "" {
		errs = append(errs, field.Required(at, "ipv4Address, ipv6Address or both"))
	}
	if text := n.Spec.BGP.IPv4Address; text != "" {
		_, addrErrs := validNodeAddress(at.Child("ipv4Address"), text, false)
		errs = append(errs, addrErrs...)
	}
	if text := n.Spec.BGP.IPv6Address; text != "" {
		_, addrErrs := validNodeAddress(at.Child("ipv6Address"), text, true)
		errs = append(errs, addrErrs...)
	}
	if n.Spec.BGP.ASNumber != nil {
		errs = append(errs, validAS(at.Child("asNumber"), *n.Spec.BGP.ASNumber)...)
	}
	return errs
}

// validNodeAddress parses a node's address with the prefix length of its subnet.
func validNodeAddress(at *field.Path, text string, ipv6 bool) (netip.Prefix, field.ErrorList) {
	family, example := "IPv4", "192.0.2.11/24"
	if ipv6 {
		family, example = "IPv6", "2001:db8::11/64"
	}
	p, err := netip.ParsePrefix(text)
	var reason string
	switch {
	case err != nil:
		reason = fmt.Sprintf("must be an %s address with the prefix length of its subnet, such as %s", family, example)
	case p.Addr().Is4In6() || p.Addr().Is6() != ipv6:
		reason = "must be an " + family + " address"
	case special(netip.PrefixFrom(p.Addr(), p.Addr().BitLen())) != "":
		reason = "must not be one of " + special(netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	case p.Addr().BitLen()-p.Bits() > 1 && p == p.Masked():
		reason = fmt.Sprintf("must be the node's own address in the subnet, such as %s", example)
	default:
		return p, nil
	}
	return netip.Prefix{}, field.ErrorList{field.Invalid(at, text, reason)}
}
