package v1

import (
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// WorkloadEndpoint is a pod's interface. Agents write those of their node. Labels, service account
// and ports are the pod's; agents write them for a new container only, so that users can
// change them.
//
// +kubebuilder:object:root=true
type WorkloadEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              WorkloadEndpointSpec `json:"spec"`
}

// WorkloadEndpointSpec is where a pod's interface is and how it is reached.
type WorkloadEndpointSpec struct {
	// Node is the node that the pod runs on.
	Node string `json:"node"`
	// Pod is the pod's name.
	Pod string `json:"pod"`
	// ContainerID is the sandbox's ID as the container runtime gave it.
	ContainerID string `json:"containerID"`
	// Endpoint is the interface's name inside the pod, by custom eth0.
	Endpoint string `json:"endpoint"`
	// InterfaceName is the name of the host's side.
	InterfaceName string `json:"interfaceName"`
	// IPNetworks are the pod's addresses with full prefix length.
	IPNetworks []string `json:"ipNetworks"`
	// ServiceAccountName is the name of the pod's service account.
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Ports are the ports that the pod has names for.
	Ports []EndpointPort `json:"ports,omitempty"`
}

// EndpointPort is a port that an endpoint has a name for.
type EndpointPort struct {
	Name string `json:"name"`
	// Protocol is TCP, UDP or SCTP.
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
}

// Default fills in what was left out.
func (w *WorkloadEndpoint) Default() {
	w.TypeMeta = typeMeta("WorkloadEndpoint")
	if w.Spec.Endpoint == "" {
		w.Spec.Endpoint = "eth0"
	}
}

// Addrs returns the pod's valid addresses.
func (w *WorkloadEndpoint) Addrs() []netip.Addr {
	var all []netip.Addr
	for _, text := range w.Spec.IPNetworks {
		if a, errs := validSingle(nil, text); len(errs) == 0 {
			all = append(all, a)
		}
	}
	return all
}

// Validate returns every reason to refuse the defaulted endpoint.
func (w *WorkloadEndpoint) Validate() field.ErrorList {
	errs := validMeta(&w.ObjectMeta, true)
	errs = append(errs, validName(path("node"), w.Spec.Node)...)
	errs = append(errs, validName(path("pod"), w.Spec.Pod)...)
	errs = append(errs, validText(path("containerID"), w.Spec.ContainerID)...)
	errs = append(errs, validLink(path("endpoint"), w.Spec.Endpoint)...)
	errs = append(errs, validLink(path("interfaceName"), w.Spec.InterfaceName)...)
	if len(w.Spec.IPNetworks) == 0 {
		errs = append(errs, field.Required(path("ipNetworks"), ""))
	}
	seen := map[netip.Addr]bool{}
	for i, text := range w.Spec.IPNetworks {
		at := path("ipNetworks").Index(i)
		addr, addrErrs := validSingle(at, text)
		errs = append(errs, addrErrs...)
		if addr.IsValid() && seen[addr] {
			errs = append(errs, field.Duplicate(at, text))
		}
		seen[addr] = true
	}
	return errs
}

// validSingle parses an address written as a range of its own.
func validSingle(at *field.Path, text string) (netip.Addr, field.ErrorList) {
	cidr, errs := validCIDR(at, text)
	if len(errs) == 0 && !cidr.IsSingleIP() {
		errs = field.ErrorList{field.Invalid(at, text, "must be one address: prefix length 32 for IPv4, 128 for IPv6")}
	}
	if len(errs) > 0 {
		return netip.Addr{}, errs
	}
	return cidr.Addr(), nil
}

// validLink checks the name of a network device as the kernel does (IFNAMSIZ,
// dev_valid_name).
func validLink(at *field.Path, name string) field.ErrorList {
	switch {
	case name == "":
		return field.ErrorList{field.Required(at, "")}
	case len(name) > 15, name == ".", name == "..", strings.ContainsAny(name, "/: \t\n\v\f\r"):
		return field.ErrorList{field.Invalid(at, name, "must be the name of a network device: at most 15 bytes, without slash, colon or space")}
	}
	return nil
}
