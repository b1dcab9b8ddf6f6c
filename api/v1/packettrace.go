package v1

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PacketTrace asks the agents to send one packet and to tell of its way. It is made and
// deleted by cairn ctl trace; agents take no part in one that is older than a minute.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type PacketTrace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              PacketTraceSpec   `json:"spec"`
	Status            PacketTraceStatus `json:"status,omitzero"`
}

// PacketTraceSpec says which packet is wanted.
type PacketTraceSpec struct {
	// Source sends it: a pod or a node.
	Source TraceEnd `json:"source"`
	// Destination is where it is sent to.
	Destination TraceEnd `json:"destination"`
	// Protocol is TCP, UDP, ICMP or ICMPv6. Default TCP.
	Protocol Protocol `json:"protocol,omitempty"`
	// Port is the destination's, of TCP and UDP.
	Port int32 `json:"port,omitempty"`
	// SourcePort is of TCP and UDP; 0: the agent chooses.
	SourcePort int32 `json:"sourcePort,omitempty"`
	// IPVersion is 4 or 6; 0: what both ends have, 4 first.
	IPVersion int `json:"ipVersion,omitempty"`
	// Timeout is how long an answer is waited for. Default 2s.
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// Replies asks for the way of what comes back, too.
	Replies bool `json:"replies,omitempty"`
}

// TraceEnd is one end of a traced packet: one of a pod, a node and an address.
type TraceEnd struct {
	// Pod is written namespace/name.
	Pod  string `json:"pod,omitempty"`
	Node string `json:"node,omitempty"`
	// Address is of destinations only.
	Address string `json:"address,omitempty"`
}

func (e TraceEnd) String() string {
	switch {
	case e.Pod != "":
		return e.Pod
	case e.Node != "":
		return "node/" + e.Node
	}
	return e.Address
}

// PacketTraceStatus is what agents tell.
type PacketTraceStatus struct {
	// Packet is what is sent. The agent of the source's node writes it, and all agents
	// trace it from then on.
	Packet *TracedPacket `json:"packet,omitempty"`
	// Nodes are those on its way, as far as the source's agent knows: its own first.
	Nodes []string `json:"nodes,omitempty"`
	// Ready are the ones of Nodes that trace by now.
	Ready []string `json:"ready,omitempty"`
	// SentAt is when the packet was sent.
	SentAt metav1.MicroTime `json:"sentAt,omitzero"`
	// Answer is what came back to the source, one of the TraceAnswer texts; "" until that is
	// known.
	Answer string `json:"answer,omitempty"`
	// Problems are why a node takes no part.
	Problems []TraceProblem `json:"problems,omitempty"`
	// Observations are the steps that were seen; those of a node in their order.
	Observations []TraceObservation `json:"observations,omitempty"`
}

// TracedPacket is what the headers of a traced packet say when it is sent.
type TracedPacket struct {
	Source          string   `json:"source"`
	Destination     string   `json:"destination"`
	Protocol        Protocol `json:"protocol"`
	SourcePort      int32    `json:"sourcePort,omitempty"`
	DestinationPort int32    `json:"destinationPort,omitempty"`
}

// TraceProblem is why a node takes no part.
type TraceProblem struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// Steps of observations.
const (
	TraceStepLink    = "link"    // it came by a link, or the host sends it
	TraceStepRules   = "rules"   // rules of nftables met it
	TraceStepRoute   = "route"   // routing decided
	TraceStepVerdict = "verdict" // what became of it on this node, see Verdict
)

// Verdicts of a node.
const (
	TraceDelivered = "delivered" // to a pod of the node, or to the node itself
	TraceSent      = "sent"      // on its way to elsewhere
	TraceDropped   = "drop"
)

// Answers to a packet.
const (
	TraceAnswered = "answered"
	TraceRefused  = "refused"
	TraceNoAnswer = "none" // in time
)

// TraceObservation is what a node saw of the packet.
type TraceObservation struct {
	Node string           `json:"node"`
	Time metav1.MicroTime `json:"time,omitzero"`
	// Reply says that it is about what came back.
	Reply bool   `json:"reply,omitempty"`
	Step  string `json:"step"`
	// Verdict is of TraceStepVerdict: one of the verdicts of a node, or what else a rule
	// did with the packet.
	Verdict string `json:"verdict,omitempty"`
	// Text says it to people.
	Text string `json:"text"`
}

// Default fills in what was left out.
func (t *PacketTrace) Default() {
	t.TypeMeta = typeMeta("PacketTrace")
	if t.Spec.Protocol == "" {
		t.Spec.Protocol = ProtocolTCP
	}
}

// Validate returns every reason to refuse the defaulted trace.
func (t *PacketTrace) Validate() field.ErrorList {
	errs := validMeta(&t.ObjectMeta, false)
	errs = append(errs, t.Spec.Source.validate(path("source"), false)...)
	errs = append(errs, t.Spec.Destination.validate(path("destination"), true)...)
	switch p := t.Spec.Protocol; p.Number() {
	case protoTCP, protoUDP:
		errs = append(errs, validPort(path("port"), t.Spec.Port)...)
		if t.Spec.SourcePort != 0 {
			errs = append(errs, validPort(path("sourcePort"), t.Spec.SourcePort)...)
		}
	case protoICMP, protoICMPv6:
		for at, port := range map[string]int32{"port": t.Spec.Port, "sourcePort": t.Spec.SourcePort} {
			if port != 0 {
				errs = append(errs, field.Forbidden(path(at), string(p)+" has no ports"))
			}
		}
		if v := t.Spec.IPVersion; v != 0 && v != p.ipVersion() {
			errs = append(errs, field.Invalid(path("ipVersion"), v, "must be that of "+string(p)))
		}
	default:
		errs = append(errs, field.NotSupported(path("protocol"), p, []Protocol{ProtocolTCP, ProtocolUDP, ProtocolICMP, ProtocolICMPv6}))
	}
	if v := t.Spec.IPVersion; v != 0 && v != 4 && v != 6 {
		errs = append(errs, field.Invalid(path("ipVersion"), v, "must be 4 or 6"))
	}
	if d := t.Spec.Timeout; d != nil && (d.Duration <= 0 || d.Duration > maxTraceTimeout) {
		errs = append(errs, field.Invalid(path("timeout"), d.Duration.String(), "must be more than 0s and at most "+maxTraceTimeout.String()))
	}
	return errs
}

// Wait returns how long an answer is waited for.
func (s *PacketTraceSpec) Wait() time.Duration {
	if s.Timeout == nil {
		return defaultTraceTimeout
	}
	return s.Timeout.Duration
}

// Bounds of PacketTraceSpec's Timeout.
const (
	defaultTraceTimeout = 2 * time.Second
	maxTraceTimeout     = 30 * time.Second
)

// validate checks one end.
func (e TraceEnd) validate(at *field.Path, addresses bool) field.ErrorList {
	var errs field.ErrorList
	given := 0
	if e.Pod != "" {
		given++
		namespace, name, ok := strings.Cut(e.Pod, "/")
		if !ok {
			errs = append(errs, field.Invalid(at.Child("pod"), e.Pod, "must be namespace/name"))
		} else {
			errs = append(errs, validName(at.Child("pod"), namespace)...)
			errs = append(errs, validName(at.Child("pod"), name)...)
		}
	}
	if e.Node != "" {
		given++
		errs = append(errs, validName(at.Child("node"), e.Node)...)
	}
	if e.Address != "" {
		given++
		_, addrErrs := validAddress(at.Child("address"), e.Address)
		errs = append(errs, addrErrs...)
		if !addresses {
			errs = append(errs, field.Forbidden(at.Child("address"), "packets are sent from a pod or a node"))
		}
	}
	if given != 1 {
		errs = append(errs, field.Invalid(at, e.String(), "must be one of a pod, a node and an address"))
	}
	return errs
}
