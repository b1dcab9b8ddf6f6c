// Package protocol is how the CNI plug-in and the agent talk: over a unix
// socket, one JSON request and one JSON answer per connection, each on one line.
//
// It guarantees the wire format and the meaning of each verb, and imports only
// the standard library, so that the plug-in starts in milliseconds.
package protocol

import "net/netip"

// DefaultSocket is where the agent listens for the plug-in unless told otherwise.
const DefaultSocket = "/run/cairn/cni.sock"

// DefaultSpool is the folder in which the plug-in leaves a DEL that the agent
// was not there to take: one file for each, holding the Request as JSON.
const DefaultSpool = "/var/lib/cairn/cni/spool"

// Verbs.
const (
	// VerbAdd asks for addresses. The answer is the same for the same container
	// and interface however often it is asked.
	VerbAdd = "ADD"
	// VerbReady says that the pod's link is there; the answer comes when the
	// pod's routes are in the kernel.
	VerbReady = "READY"
	// VerbDel gives the addresses back. Unknown ones are no error.
	VerbDel = "DEL"
	// VerbCheck asks whether the agent still has these addresses for the
	// container and its routes are in the kernel.
	VerbCheck = "CHECK"
	// VerbStatus asks whether an ADD would succeed now.
	VerbStatus = "STATUS"
	// VerbGC gives back what belongs to no container of Valid.
	VerbGC = "GC"
)

// Request is what the plug-in asks.
type Request struct {
	Verb        string `json:"verb"`
	ContainerID string `json:"containerID,omitempty"`
	Interface   string `json:"interface,omitempty"` // inside the pod
	Netns       string `json:"netns,omitempty"`     // path; empty in a DEL without
	Namespace   string `json:"namespace,omitempty"` // the pod's
	Pod         string `json:"pod,omitempty"`
	// Labels are the pod's, where the runtime hands them on (CNI conventions,
	// args.cni.labels).
	Labels map[string]string `json:"labels,omitempty"`
	// ServiceAccount is the name of the pod's, and Ports are those that it has names
	// for, where the runtime hands them on (args.cni.serviceAccount, args.cni.ports).
	ServiceAccount string `json:"serviceAccount,omitempty"`
	Ports          []Port `json:"ports,omitempty"`
	// IPv4 and IPv6 ask for an address of the family. Neither: one of each family
	// that has a pool.
	IPv4 bool `json:"ipv4,omitempty"`
	IPv6 bool `json:"ipv6,omitempty"`
	// Pools are the names or CIDRs of the pools to take from; empty: any.
	Pools []string `json:"pools,omitempty"`
	// Network is the name in the CNI configuration; GC concerns only its own.
	Network string `json:"network,omitempty"`
	// Valid holds the containers that exist, for VerbGC.
	Valid []Sandbox `json:"valid,omitempty"`
	// TimeoutMillis is how long the caller waits for the answer; Client sets it
	// from its context, and Serve gives the handler a context that ends before.
	TimeoutMillis int64 `json:"timeoutMillis,omitempty"`
}

// Port is a port that a pod has a name for.
type Port struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // TCP, UDP or SCTP
	Port     uint16 `json:"port"`
}

// Sandbox is a container's interface.
type Sandbox struct {
	ContainerID string `json:"containerID"`
	Interface   string `json:"interface"`
}

// Response is what the agent answers.
type Response struct {
	Error *Error `json:"error,omitempty"`
	// For VerbAdd and VerbReady:
	IPv4     netip.Addr `json:"ipv4,omitzero"`
	IPv6     netip.Addr `json:"ipv6,omitzero"`
	HostLink string     `json:"hostLink,omitempty"` // name to give the host's side
	MTU      int        `json:"mtu,omitempty"`      // bytes
}

// Code says what sort of failure an Error is; the plug-in turns it into the CNI
// specification's error code.
type Code string

// Codes.
const (
	// CodeInvalid: the request is malformed, or asks for what can't be.
	CodeInvalid Code = "Invalid"
	// CodeUnavailable: not now; the agent is not in sync, or the datastore is
	// away and the reserve is used up.
	CodeUnavailable Code = "Unavailable"
	// CodeExhausted: no pool has a free address for this node.
	CodeExhausted Code = "Exhausted"
	// CodeUnknown: the agent knows no such container.
	CodeUnknown Code = "Unknown"
	// CodeTimeout: it did not happen in time.
	CodeTimeout Code = "Timeout"
	// CodeInternal: anything else.
	CodeInternal Code = "Internal"
)

// Error is a failure the agent reports.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }
