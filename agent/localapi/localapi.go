// Package localapi is what an agent tells those on its own node: HTTP with JSON
// over a unix socket.
//
//	GET /v1/status   the agent's NodeStatus (api/v1), as of now
//	GET /v1/routes   []Route, every route that is wanted, learned or in the kernel as ours
//	GET /v1/endpoints
//	                 []Endpoint, the node's pods and host endpoints, and what is in force for each
//	GET /v1/flows    Flow, one a line: what policies did with packets;
//	                 follow=true goes on with those to come, denied=true leaves others out,
//	                 endpoint and address ask for those from or to one
//	GET /v1/trace    TraceHop, one a line: the way of packets from now on, as it is seen;
//	                 src, dst, protocol, srcPort, dstPort, mark say of which, replies=true
//	                 takes in what comes back
//	GET /v1/counters []Counter, what the rules of policies have counted
//
// It guarantees the wire format for agent and ctl alike, and leaves to them what
// is in it. Errors are JSON {"error": "…"} with a fitting status code; one
// that ends what has begun to be told line by line is the last line.
package localapi

// Paths of the API.
const (
	StatusPath    = "/v1/status"
	RoutesPath    = "/v1/routes"
	EndpointsPath = "/v1/endpoints"
	FlowsPath     = "/v1/flows"
	TracePath     = "/v1/trace"
	CountersPath  = "/v1/counters"
)

// DefaultSocket is where the agent listens unless told otherwise.
const DefaultSocket = "/run/cairn/agent.sock"

// Route is one destination, and what became of it.
type Route struct {
	// Dst is the destination's prefix.
	Dst string `json:"dst"`
	// Origin says why the route is wanted: "pod", "block", "node", "bgp"; "" if
	// it isn't.
	Origin string `json:"origin,omitempty"`
	// From is the pod (namespace/name), the pool, the node or the peer behind Origin.
	From string `json:"from,omitempty"`
	// Type is "unicast" or "blackhole".
	Type string `json:"type,omitempty"`
	// NextHops are the ways out, as "via 192.0.2.1 dev eth0".
	NextHops []string `json:"nextHops,omitempty"`
	// InKernel says that the kernel has just this route.
	InKernel bool `json:"inKernel"`
	// Reason says why the kernel has no or another route, or why a learned path
	// is not wanted.
	Reason string `json:"reason,omitempty"`
}

// problem is an answer that is no success.
type problem struct {
	Error string `json:"error"`
}
