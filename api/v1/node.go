package v1

import (
	"encoding/base64"
	"fmt"
	"net"
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
	// What follows the node's agent writes once its tunnel devices are up, and takes
	// away when it sends nothing through them any more.

	// IPv4VXLANTunnelAddr is the address of the node's VXLAN device.
	IPv4VXLANTunnelAddr string `json:"ipv4VXLANTunnelAddr,omitempty"`
	// VXLANTunnelMACAddr is the device's hardware address.
	VXLANTunnelMACAddr string `json:"vxlanTunnelMACAddr,omitempty"`
	// IPv6VXLANTunnelAddr is the address of the node's device for VXLAN over IPv6.
	IPv6VXLANTunnelAddr string `json:"ipv6VXLANTunnelAddr,omitempty"`
	// VXLANTunnelMACAddrV6 is that device's hardware address.
	VXLANTunnelMACAddrV6 string `json:"vxlanTunnelMACAddrV6,omitempty"`
	// WireGuard is how the node's WireGuard device is reached.
	WireGuard *NodeWireGuard `json:"wireguard,omitempty"`
}

// NodeWireGuard is a node's WireGuard device as its peers must know it.
type NodeWireGuard struct {
	// PublicKey is the device's key, base64 (wg(8)).
	PublicKey string `json:"publicKey"`
	// ListeningPort is the device's UDP port.
	ListeningPort int32 `json:"listeningPort"`
	// InterfaceIPv4Address and InterfaceIPv6Address are the device's addresses.
	InterfaceIPv4Address string `json:"interfaceIPv4Address,omitempty"`
	InterfaceIPv6Address string `json:"interfaceIPv6Address,omitempty"`
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
	// IPv4IPIPTunnelAddr is the address of the node's IPIP device. Its agent writes
	// it once the device is up.
	IPv4IPIPTunnelAddr string `json:"ipv4IPIPTunnelAddr,omitempty"`
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
	errs := append(validMeta(&n.ObjectMeta, false), n.Spec.validTunnels()...)
	if n.Spec.BGP == nil {
		return errs
	}
	at := path("bgp")
	errs = append(errs, validTunnelAddr(at.Child("ipv4IPIPTunnelAddr"), n.Spec.BGP.IPv4IPIPTunnelAddr, false)...)
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

// validTunnels checks what the node's agent writes of its tunnel devices.
func (s *NodeSpec) validTunnels() field.ErrorList {
	errs := validTunnelAddr(path("ipv4VXLANTunnelAddr"), s.IPv4VXLANTunnelAddr, false)
	errs = append(errs, validTunnelAddr(path("ipv6VXLANTunnelAddr"), s.IPv6VXLANTunnelAddr, true)...)
	errs = append(errs, validVTEP(path("vxlanTunnelMACAddr"), s.VXLANTunnelMACAddr, s.IPv4VXLANTunnelAddr)...)
	errs = append(errs, validVTEP(path("vxlanTunnelMACAddrV6"), s.VXLANTunnelMACAddrV6, s.IPv6VXLANTunnelAddr)...)
	if w := s.WireGuard; w != nil {
		at := path("wireguard")
		if key, err := base64.StdEncoding.DecodeString(w.PublicKey); err != nil || len(key) != wireGuardKeySize {
			errs = append(errs, field.Invalid(at.Child("publicKey"), w.PublicKey, "must be a WireGuard key: 32 bytes in base64"))
		}
		errs = append(errs, validPort(at.Child("listeningPort"), w.ListeningPort)...)
		errs = append(errs, validTunnelAddr(at.Child("interfaceIPv4Address"), w.InterfaceIPv4Address, false)...)
		errs = append(errs, validTunnelAddr(at.Child("interfaceIPv6Address"), w.InterfaceIPv6Address, true)...)
	}
	return errs
}

// wireGuardKeySize is the size of a WireGuard key in bytes (Curve25519).
const wireGuardKeySize = 32

// validTunnelAddr checks the address of a tunnel device; there may be none.
func validTunnelAddr(at *field.Path, text string, ipv6 bool) field.ErrorList {
	if text == "" {
		return nil
	}
	a, errs := validAddress(at, text)
	if len(errs) == 0 && a.Is6() != ipv6 {
		errs = field.ErrorList{field.Invalid(at, text, "is of the other family")}
	}
	return errs
}

// validVTEP checks the hardware address of a VXLAN device, which is there exactly
// if the device has an address.
func validVTEP(at *field.Path, mac, addr string) field.ErrorList {
	switch {
	case mac == "" && addr == "":
		return nil
	case addr == "":
		return field.ErrorList{field.Invalid(at, mac, "must be empty, for the device has no address")}
	}
	if hw, err := net.ParseMAC(mac); err != nil || len(hw) != 6 || hw[0]&1 != 0 {
		return field.ErrorList{field.Invalid(at, mac, "must be a unicast hardware address such as 66:01:02:03:04:05, for the device has an address")}
	}
	return nil
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
