package ipam

import (
	"iter"
	"maps"
	"net/netip"
)

// Handle names the user of addresses: one interface of one container. A
// container's ID is never used twice.
type Handle struct {
	ContainerID string
	Interface   string // inside the pod
}

// tunnelContainer stands where a container's ID would: no container's has a slash.
const tunnelContainer = "/tunnel"

// TunnelHandle is the handle of the addresses of one of the node's own tunnel
// devices, by the link's name. They are assigned, journalled and recovered like a
// pod's.
func TunnelHandle(link string) Handle {
	return Handle{ContainerID: tunnelContainer, Interface: link}
}

// IsTunnel says whether it is a handle of TunnelHandle, so no pod's.
func (h Handle) IsTunnel() bool { return h.ContainerID == tunnelContainer }

func (h Handle) String() string { return h.ContainerID + "/" + h.Interface }

// Assignment is who has which addresses on this node. It is immutable.
type Assignment struct {
	Handle
	IPv4      netip.Addr // invalid: none
	IPv6      netip.Addr // invalid: none
	Namespace string     // the pod's
	Pod       string
	HostLink  string // name of the link's host side
	Netns     string // path of the pod's network namespace
	Network   string // name of the CNI network that asked
	Labels    map[string]string
	// ServiceAccount is the name of the pod's; "" if the runtime did not say.
	ServiceAccount string
	Ports          []NamedPort
}

// NamedPort is a port that a pod has a name for.
type NamedPort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // TCP, UDP or SCTP
	Port     uint16 `json:"port"`
}

// Addrs returns the addresses, IPv4 first.
func (a Assignment) Addrs() []netip.Addr {
	var as []netip.Addr
	for _, ip := range []netip.Addr{a.IPv4, a.IPv6} {
		if ip.IsValid() {
			as = append(as, ip)
		}
	}
	return as
}

// Assignments is every assignment of this node at one moment. It is immutable:
// the same pointer means that nothing changed.
type Assignments struct{ byHandle map[Handle]Assignment }

// NewAssignments returns the set of these assignments.
func NewAssignments(as ...Assignment) *Assignments {
	s := &Assignments{byHandle: make(map[Handle]Assignment, len(as))}
	for _, a := range as {
		s.byHandle[a.Handle] = a
	}
	return s
}

// Get returns the assignment of a handle.
func (s *Assignments) Get(h Handle) (Assignment, bool) {
	a, ok := s.byHandle[h]
	return a, ok
}

// All returns every assignment, in no order.
func (s *Assignments) All() iter.Seq[Assignment] { return maps.Values(s.byHandle) }

// Len returns the number of assignments.
func (s *Assignments) Len() int { return len(s.byHandle) }
