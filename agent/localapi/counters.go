package localapi

import (
	"context"
	"fmt"
	"net/http"
)

// Counter is how many packets and bytes a policy's rule has matched on this node, or a
// tier's default action, since its chain was written last. Of connections that are
// allowed it is the first packet only.
type Counter struct {
	// Kind, Namespace and Name are the policy's; all are "" of a tier's default action.
	// Of a policy that is gone Name is the name of its chain.
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Tier      string `json:"tier,omitempty"`
	// Direction is "ingress" or "egress".
	Direction string `json:"direction,omitempty"`
	// Rule is the number of the policy's rule, from 1; 0: the default action, or a policy
	// that can't be enforced as it is written.
	Rule int `json:"rule"`
	// Action is "Allow", "Deny", "Pass" or "Log"; "" if it is not known any more.
	Action string `json:"action,omitempty"`
	// Reason is of packets that no policy is about and that are dropped all the same.
	Reason  string `json:"reason,omitempty"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// CounterSource is a Source that tells what rules have counted, too.
type CounterSource interface {
	// Counters returns what the rules of policies have counted: by tier, kind, namespace,
	// name, direction and rule, then those with a Reason.
	Counters(ctx context.Context) ([]Counter, error)
}

// handleCounters adds the counters to the API, if the source has them.
func handleCounters(mux *http.ServeMux, source Source) {
	mux.HandleFunc("GET "+CountersPath, func(w http.ResponseWriter, r *http.Request) {
		counts, ok := source.(CounterSource)
		if !ok {
			write(w, http.StatusNotImplemented, problem{"this agent does not tell of counters"})
			return
		}
		all, err := counts.Counters(r.Context())
		if all == nil {
			all = []Counter{}
		}
		answer(w, all, err)
	})
}

// Counters returns what the rules of policies on this node have counted, in the order
// of CounterSource. ErrNotRunning means that there is no agent.
func (c *Client) Counters(ctx context.Context) ([]Counter, error) {
	var all []Counter
	if err := c.get(ctx, CountersPath, &all); err != nil {
		return nil, fmt.Errorf("read the agent's counters: %w", err)
	}
	return all, nil
}
