package localapi

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
)

// Endpoint is a pod's interface or a host endpoint of the agent's node, and what is in
// force for it.
type Endpoint struct {
	// Kind is "WorkloadEndpoint" or "HostEndpoint"; Namespace and Name are the resource's.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Pod is the pod's name.
	Pod  string `json:"pod,omitempty"`
	Node string `json:"node"`
	// Links are the host's links that lead to it: one of a pod.
	Links     []string          `json:"links,omitempty"`
	Addresses []netip.Addr      `json:"addresses,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Ingress and Egress are the policies that concern it, in the order in which they are
	// asked.
	Ingress []EndpointPolicy `json:"ingress"`
	Egress  []EndpointPolicy `json:"egress"`
	// InForce says that all of it is in the kernel; else Reason says why not.
	InForce bool   `json:"inForce"`
	Reason  string `json:"reason,omitempty"`
}

// States of a policy.
const (
	PolicyInForce = "in force" // in the kernel
	PolicyPending = "pending"  // not written yet
	PolicyFailing = "failing"  // it can't be written, or not be enforced as written
)

// EndpointPolicy is a policy that concerns an endpoint in one direction.
type EndpointPolicy struct {
	Tier   string `json:"tier"`
	Policy string `json:"policy"` // kind and name
	// Phase is where a host endpoint asks it besides or instead of packets that begin or
	// end at the host: "forward too", "untracked", "preDNAT".
	Phase  string `json:"phase,omitempty"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"` // why it is failing
}

// Endpoints returns the pods and host endpoints of the agent's node, by kind and name.
// ErrNotRunning means that there is no agent.
func (c *Client) Endpoints(ctx context.Context) ([]Endpoint, error) {
	var es []Endpoint
	if err := c.get(ctx, EndpointsPath, &es); err != nil {
		return nil, fmt.Errorf("read the agent's endpoints: %w", err)
	}
	return es, nil
}

// handleEndpoints answers what is in force.
func handleEndpoints(mux *http.ServeMux, source Source) {
	mux.HandleFunc("GET "+EndpointsPath, func(w http.ResponseWriter, r *http.Request) {
		es, err := source.Endpoints(r.Context())
		if es == nil {
			es = []Endpoint{}
		}
		answer(w, es, err)
	})
}
