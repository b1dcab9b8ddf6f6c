package localapi

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// Verdicts of flows.
const (
	FlowAllowed = "allow"
	FlowDenied  = "deny"
	FlowLogged  = "log" // a rule with action Log matched; what became of it another flow says
)

// Flow is what a policy did with a packet, mostly the first of a connection.
type Flow struct {
	Time time.Time `json:"time"`
	Node string    `json:"node"`
	// Verdict is "allow", "deny" or, where a rule's action is Log, "log".
	Verdict string `json:"verdict"`
	// Direction is "ingress" or "egress", as the endpoint sees it whose policy it is.
	Direction string     `json:"direction,omitempty"`
	Src       netip.Addr `json:"src,omitzero"`
	Dst       netip.Addr `json:"dst,omitzero"`
	// Protocol is above IP (iana.org/assignments/protocol-numbers).
	Protocol uint8  `json:"protocol"`
	SrcPort  uint16 `json:"srcPort,omitempty"`
	DstPort  uint16 `json:"dstPort,omitempty"`
	// ICMPType and ICMPCode are of protocols 1 and 58.
	ICMPType uint8 `json:"icmpType,omitempty"`
	ICMPCode uint8 `json:"icmpCode,omitempty"`
	// InLink and OutLink are the node's links by which it came and leaves; "": none.
	InLink  string `json:"inLink,omitempty"`
	OutLink string `json:"outLink,omitempty"`
	// SrcEndpoint and DstEndpoint are whose the addresses are, as "namespace/pod" or the
	// name of a node; "" if that is not known.
	SrcEndpoint string `json:"srcEndpoint,omitempty"`
	DstEndpoint string `json:"dstEndpoint,omitempty"`
	// Tier and Policy (kind and name) decided, by rule number Rule from 1; 0: no rule but
	// the tier's default.
	Tier   string `json:"tier,omitempty"`
	Policy string `json:"policy,omitempty"`
	Rule   int    `json:"rule,omitempty"`
	// Lost is how many flows before this one could not be told, at least.
	Lost uint64 `json:"lost,omitempty"`
}

// FlowQuery says which flows are wanted.
type FlowQuery struct {
	Follow bool // go on with those to come; otherwise end with the last that is remembered
	Denied bool // only those denied
	// Endpoint asks for flows from or to this one, as SrcEndpoint and DstEndpoint have it;
	// Address for those from or to this address.
	Endpoint string
	Address  netip.Addr
}

// Matches says whether a flow is wanted.
func (q FlowQuery) Matches(f Flow) bool {
	return (!q.Denied || f.Verdict == FlowDenied) &&
		(q.Endpoint == "" || q.Endpoint == f.SrcEndpoint || q.Endpoint == f.DstEndpoint) &&
		(!q.Address.IsValid() || q.Address == f.Src || q.Address == f.Dst)
}

// Steps of a packet's way.
const (
	StepReady   = "ready"   // packets are picked from now on; once, before all others
	StepLink    = "link"    // the packet came by InLink, or the host itself sends it
	StepRule    = "rule"    // a rule of nftables met it, or the end of a chain
	StepRoute   = "route"   // routing decided, see Route
	StepVerdict = "verdict" // what became of it on this node, and why
)

// TraceHop is a step on the way of a traced packet.
type TraceHop struct {
	Node string    `json:"node"`
	Time time.Time `json:"time"`
	// Packet counts the packets traced on the node, from 1.
	Packet uint64 `json:"packet,omitempty"`
	Step   string `json:"step"`
	// Src, Dst, Protocol and the ports are the packet's as it is now: translation shows
	// in them.
	Src      netip.Addr `json:"src,omitzero"`
	Dst      netip.Addr `json:"dst,omitzero"`
	Protocol uint8      `json:"protocol,omitempty"`
	SrcPort  uint16     `json:"srcPort,omitempty"`
	DstPort  uint16     `json:"dstPort,omitempty"`
	Mark     uint32     `json:"mark,omitempty"`
	InLink   string     `json:"inLink,omitempty"`
	OutLink  string     `json:"outLink,omitempty"`
	// Endpoint is whose InLink or OutLink is, as in Flow.
	Endpoint string `json:"endpoint,omitempty"`
	// Hook, Table (with its family, as "inet cairn") and Chain are where a rule is, Rule
	// is its number in the chain, from 1; 0: the end of the chain. Comment is its own.
	Hook    string `json:"hook,omitempty"`
	Table   string `json:"table,omitempty"`
	Chain   string `json:"chain,omitempty"`
	Rule    int    `json:"rule,omitempty"`
	Comment string `json:"comment,omitempty"`
	// Verdict is what a rule, or the node, does with the packet, as nft(8) writes it;
	// Target is the chain that a jump leads to.
	Verdict string      `json:"verdict,omitempty"`
	Target  string      `json:"target,omitempty"`
	Route   *TraceRoute `json:"route,omitempty"`
	// Text says it for people: what the rule says, or why it is so.
	Text string `json:"text,omitempty"`
	// Lost says that steps before this one could not be told.
	Lost bool `json:"lost,omitempty"`
}

// TraceRoute is what routing does with a packet.
type TraceRoute struct {
	// Type is "unicast", "local", "blackhole", "unreachable", "prohibit", "none" (there is
	// no route), "refused" (the source does not come that way), …
	Type    string     `json:"type"`
	Gateway netip.Addr `json:"gateway,omitzero"`
	Link    string     `json:"link,omitempty"`
	Table   uint32     `json:"table,omitempty"` // number of the routing table
}

// TraceQuery says which packets to trace: those for which everything it names is so.
type TraceQuery struct {
	Src, Dst         netip.Addr // invalid: any
	Protocol         uint8      // 0: any
	SrcPort, DstPort uint16     // 0: any
	Mark             uint32     // 0: any
	Replies          bool       // what comes back, too
}

// PacketSource is a Source that tells of packets, too. The callbacks may wait until the
// client has taken what was told before, and return an error when it has gone; no more
// must be told then. What can't wait is left out, and Lost says so.
type PacketSource interface {
	// Flows calls f with the flows that are remembered, oldest first, then with those to
	// come if they are wanted. It returns at their end, or when ctx is done.
	Flows(ctx context.Context, q FlowQuery, f func(Flow) error) error
	// Trace traces packets and calls f with each step, first with StepReady, until ctx is
	// done.
	Trace(ctx context.Context, q TraceQuery, f func(TraceHop) error) error
}

// values returns the query as the parameters of a request.
func (q FlowQuery) values() url.Values {
	v := url.Values{}
	for name, set := range map[string]bool{"follow": q.Follow, "denied": q.Denied} {
		if set {
			v.Set(name, "true")
		}
	}
	if q.Endpoint != "" {
		v.Set("endpoint", q.Endpoint)
	}
	if q.Address.IsValid() {
		v.Set("address", q.Address.String())
	}
	return v
}

// parseFlowQuery is the reverse of values.
func parseFlowQuery(v url.Values) (q FlowQuery, err error) {
	return q, parseValues(v, map[string]func(string) error{
		"follow":   func(s string) (err error) { q.Follow, err = strconv.ParseBool(s); return err },
		"denied":   func(s string) (err error) { q.Denied, err = strconv.ParseBool(s); return err },
		"endpoint": func(s string) error { q.Endpoint = s; return nil },
		"address":  address(&q.Address),
	})
}

// values returns the query as the parameters of a request.
func (q TraceQuery) values() url.Values {
	v := url.Values{}
	for name, a := range map[string]netip.Addr{"src": q.Src, "dst": q.Dst} {
		if a.IsValid() {
			v.Set(name, a.String())
		}
	}
	for name, n := range map[string]uint64{
		"protocol": uint64(q.Protocol), "srcPort": uint64(q.SrcPort), "dstPort": uint64(q.DstPort), "mark": uint64(q.Mark),
	} {
		if n != 0 {
			v.Set(name, strconv.FormatUint(n, 10))
		}
	}
	if q.Replies {
		v.Set("replies", "true")
	}
	return v
}

// parseTraceQuery is the reverse of values.
func parseTraceQuery(v url.Values) (q TraceQuery, err error) {
	return q, parseValues(v, map[string]func(string) error{
		"src": address(&q.Src), "dst": address(&q.Dst),
		"replies":  func(s string) (err error) { q.Replies, err = strconv.ParseBool(s); return err },
		"protocol": number(&q.Protocol, 8), "srcPort": number(&q.SrcPort, 16), "dstPort": number(&q.DstPort, 16), "mark": number(&q.Mark, 32),
	})
}

func address(a *netip.Addr) func(string) error {
	return func(s string) (err error) { *a, err = netip.ParseAddr(s); return err }
}

func number[T uint8 | uint16 | uint32](n *T, bits int) func(string) error {
	return func(s string) error {
		parsed, err := strconv.ParseUint(s, 10, bits)
		*n = T(parsed)
		return err
	}
}

// parseValues has each parameter parsed. One that is not known is an error: to pass it
// over would give a newer client what it did not ask for.
func parseValues(v url.Values, parse map[string]func(string) error) error {
	for name, values := range v {
		set, ok := parse[name]
		switch {
		case !ok:
			return fmt.Errorf("unknown parameter %q", name)
		case len(values) != 1:
			return fmt.Errorf("parameter %q is given %d times", name, len(values))
		}
		if err := set(values[0]); err != nil {
			return fmt.Errorf("parameter %q: %w", name, err)
		}
	}
	return nil
}
