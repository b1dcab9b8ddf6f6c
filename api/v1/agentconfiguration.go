package v1

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// AgentConfiguration is what the administrator wants of the agents. The one named
// default holds for all nodes; one named node.NAME for that node, and goes before
// it, field by field.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type AgentConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              AgentConfigurationSpec `json:"spec,omitzero"`
}

// AgentConfigurationSpec is what the administrator wants of the agents.
type AgentConfigurationSpec struct {
	// WireGuardEnabled encrypts what nodes that both have it send to each other's
	// pods, whatever the pools' modes say. Default false.
	WireGuardEnabled *bool `json:"wireguardEnabled,omitempty"`
	// WireGuardListeningPort is the UDP port of WireGuard. Default 51820.
	WireGuardListeningPort *int32 `json:"wireguardListeningPort,omitempty"`
	// VXLANVNI is the network identifier of VXLAN, the same on all nodes: 1 to
	// 16777215 (RFC 7348, section 5). Default 4096.
	VXLANVNI *int32 `json:"vxlanVNI,omitempty"`
	// VXLANPort is the UDP port of VXLAN, the same on all nodes. Default 4789.
	VXLANPort *int32 `json:"vxlanPort,omitempty"`
	// VXLANChecksumOffload says whether network cards may compute the checksums of
	// packets in VXLAN. Default Auto.
	VXLANChecksumOffload *ChecksumOffload `json:"vxlanChecksumOffload,omitempty"`
	PolicySettings       `json:",inline"`
}

// ChecksumOffload says who computes checksums of packets in a tunnel.
//
// +kubebuilder:validation:Enum=Auto;Enabled;Disabled
type ChecksumOffload string

// Ways of checksum offload.
const (
	// ChecksumOffloadAuto leaves checksums to the card except where kernel or
	// driver is known to get them wrong.
	ChecksumOffloadAuto     ChecksumOffload = "Auto"
	ChecksumOffloadEnabled  ChecksumOffload = "Enabled"
	ChecksumOffloadDisabled ChecksumOffload = "Disabled"
)

// NodeConfigurationPrefix begins the name of a node's own AgentConfiguration.
const NodeConfigurationPrefix = "node."

// Defaults of AgentConfiguration.
const (
	defaultWireGuardPort = 51820
	defaultVXLANVNI      = 4096
	defaultVXLANPort     = 4789 // RFC 7348, section 8
)

// Default fills in nothing: what is left out here may be given elsewhere, see
// Effective.
func (c *AgentConfiguration) Default() { c.TypeMeta = typeMeta("AgentConfiguration") }

// AgentSettings are the settings that hold for a node, complete.
//
// +kubebuilder:object:generate=false
type AgentSettings struct {
	WireGuardEnabled       bool
	WireGuardListeningPort int32
	VXLANVNI               int32
	VXLANPort              int32
	VXLANChecksumOffload   ChecksumOffload

	PolicyChange                       PolicyChange
	FailsafeInbound, FailsafeOutbound  []FailsafePort // shared; not to be changed
	DefaultEndpointToHostAction        EndpointToHostAction
	LogActionRateLimit, LogActionBurst int32 // packets per second, packets
}

// Effective returns the settings that hold for a node: each from its own
// configuration, else from the cluster's, else the default. Either may be nil.
func Effective(cluster, node *AgentConfiguration) AgentSettings {
	s := AgentSettings{
		WireGuardListeningPort: defaultWireGuardPort, VXLANVNI: defaultVXLANVNI, VXLANPort: defaultVXLANPort,
		VXLANChecksumOffload: ChecksumOffloadAuto,
		PolicyChange:         PolicyKeep, DefaultEndpointToHostAction: EndpointToHostAccept,
		FailsafeInbound: defaultFailsafeInbound(), FailsafeOutbound: defaultFailsafeOutbound(),
		LogActionRateLimit: defaultLogRate, LogActionBurst: defaultLogBurst,
	}
	for _, c := range []*AgentConfiguration{cluster, node} {
		if c == nil {
			continue
		}
		override(&s.WireGuardEnabled, c.Spec.WireGuardEnabled)
		override(&s.WireGuardListeningPort, c.Spec.WireGuardListeningPort)
		override(&s.VXLANVNI, c.Spec.VXLANVNI)
		override(&s.VXLANPort, c.Spec.VXLANPort)
		override(&s.VXLANChecksumOffload, c.Spec.VXLANChecksumOffload)
		override(&s.PolicyChange, c.Spec.PolicyChange)
		override(&s.FailsafeInbound, c.Spec.FailsafeInboundHostPorts)
		override(&s.FailsafeOutbound, c.Spec.FailsafeOutboundHostPorts)
		override(&s.DefaultEndpointToHostAction, c.Spec.DefaultEndpointToHostAction)
		override(&s.LogActionRateLimit, c.Spec.LogActionRateLimit)
		override(&s.LogActionBurst, c.Spec.LogActionRateLimitBurst)
	}
	return s
}

func override[T any](value *T, by *T) {
	if by != nil {
		*value = *by
	}
}

// Validate returns every reason to refuse the defaulted configuration.
func (c *AgentConfiguration) Validate() field.ErrorList {
	errs := validMeta(&c.ObjectMeta, false)
	node, isNode := strings.CutPrefix(c.Name, NodeConfigurationPrefix)
	if c.Name != "" && c.Name != DefaultName && !isNode {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be "+DefaultName+", or "+NodeConfigurationPrefix+" with a node's name"))
	}
	if isNode {
		errs = append(errs, validName(field.NewPath("metadata", "name"), node)...)
		// Nodes that don't agree on these can't hear each other.
		for _, f := range []struct {
			name  string
			value *int32
		}{{"vxlanVNI", c.Spec.VXLANVNI}, {"vxlanPort", c.Spec.VXLANPort}} {
			if f.value != nil {
				errs = append(errs, field.Forbidden(path(f.name), "is the same on all nodes: set it in AgentConfiguration "+DefaultName))
			}
		}
	}
	if p := c.Spec.WireGuardListeningPort; p != nil {
		errs = append(errs, validPort(path("wireguardListeningPort"), *p)...)
	}
	if p := c.Spec.VXLANPort; p != nil {
		errs = append(errs, validPort(path("vxlanPort"), *p)...)
	}
	if v := c.Spec.VXLANVNI; v != nil && (*v < 1 || *v >= 1<<24) {
		errs = append(errs, field.Invalid(path("vxlanVNI"), *v, "must be 1 to 16777215"))
	}
	if o := c.Spec.VXLANChecksumOffload; o != nil {
		errs = append(errs, validEnum(path("vxlanChecksumOffload"), *o, ChecksumOffloadAuto, ChecksumOffloadEnabled, ChecksumOffloadDisabled)...)
	}
	return append(errs, c.Spec.PolicySettings.validate()...)
}
