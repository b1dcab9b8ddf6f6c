package v1

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PolicySettings is what the administrator wants of how agents enforce policies.
type PolicySettings struct {
	// PolicyChange says what becomes of connections that a changed policy would refuse.
	// Default Keep.
	PolicyChange *PolicyChange `json:"policyChange,omitempty"`
	// FailsafeInboundHostPorts are ports of host endpoints that no policy closes. Left
	// out, they are those that nodes need (SSH, DHCP, BGP, etcd, the Kubernetes API);
	// an empty list means none.
	FailsafeInboundHostPorts *[]FailsafePort `json:"failsafeInboundHostPorts,omitempty"`
	// FailsafeOutboundHostPorts are ports of others that no policy of a host endpoint
	// keeps the host from. Left out, they are those that nodes need; an empty list means
	// none.
	FailsafeOutboundHostPorts *[]FailsafePort `json:"failsafeOutboundHostPorts,omitempty"`
	// DefaultEndpointToHostAction is what becomes of packets from pods to their own node
	// that the pod's egress policies allow. Default Accept.
	DefaultEndpointToHostAction *EndpointToHostAction `json:"defaultEndpointToHostAction,omitempty"`
	// LogActionRateLimit is how many packets per second a rule with the action Log logs
	// on a node at most: 1 to 100000. Default 10.
	LogActionRateLimit *int32 `json:"logActionRateLimit,omitempty"`
	// LogActionRateLimitBurst is how many it logs at once at most: 1 to 100000. Default
	// 5.
	LogActionRateLimitBurst *int32 `json:"logActionRateLimitBurst,omitempty"`
}

// PolicyChange is what becomes of connections that a changed policy would refuse.
//
// +kubebuilder:validation:Enum=Keep;Terminate
type PolicyChange string

// What becomes of them.
const (
	PolicyKeep      PolicyChange = "Keep"      // they go on
	PolicyTerminate PolicyChange = "Terminate" // they are ended
)

// EndpointToHostAction is what becomes of packets from pods to their own node.
//
// +kubebuilder:validation:Enum=Accept;Drop
type EndpointToHostAction string

// What becomes of them.
const (
	EndpointToHostAccept EndpointToHostAction = "Accept"
	EndpointToHostDrop   EndpointToHostAction = "Drop"
)

// FailsafePort is a port that no policy closes.
type FailsafePort struct {
	// Protocol is TCP, UDP, SCTP or UDPLite.
	Protocol Protocol `json:"protocol"`
	// Port is the port, 1 to 65535.
	Port int32 `json:"port"`
	// Net is the range of the others' addresses for which this holds. Default any.
	Net string `json:"net,omitempty"`
}

// Defaults of PolicySettings.
const (
	defaultLogRate  = 10
	defaultLogBurst = 5
	maxLogRate      = 100_000
)

// defaultFailsafeInbound returns the ports that a node needs reached.
func defaultFailsafeInbound() []FailsafePort {
	return append([]FailsafePort{
		{Protocol: ProtocolTCP, Port: 22}, // SSH
		{Protocol: ProtocolUDP, Port: 68}, // DHCP
	}, clusterFailsafe()...)
}

// defaultFailsafeOutbound returns the ports that a node needs to reach.
func defaultFailsafeOutbound() []FailsafePort {
	return append([]FailsafePort{
		{Protocol: ProtocolUDP, Port: 53}, // DNS
		{Protocol: ProtocolUDP, Port: 67}, // DHCP
	}, clusterFailsafe()...)
}

// clusterFailsafe returns the ports that the nodes of a cluster need of each other.
func clusterFailsafe() []FailsafePort {
	var ports []FailsafePort
	for _, port := range []int32{
		179,        // BGP
		2379, 2380, // etcd
		5473,       // Typha, of clusters that come from Calico
		6443,       // the Kubernetes API
		6666, 6667, // etcd that manages itself
	} {
		ports = append(ports, FailsafePort{Protocol: ProtocolTCP, Port: port})
	}
	return ports
}

func (s *PolicySettings) validate() field.ErrorList {
	var errs field.ErrorList
	if c := s.PolicyChange; c != nil {
		errs = append(errs, validEnum(path("policyChange"), *c, PolicyKeep, PolicyTerminate)...)
	}
	errs = append(errs, validFailsafe(path("failsafeInboundHostPorts"), s.FailsafeInboundHostPorts)...)
	errs = append(errs, validFailsafe(path("failsafeOutboundHostPorts"), s.FailsafeOutboundHostPorts)...)
	if a := s.DefaultEndpointToHostAction; a != nil {
		errs = append(errs, validEnum(path("defaultEndpointToHostAction"), *a, EndpointToHostAccept, EndpointToHostDrop)...)
	}
	for _, f := range []struct {
		name  string
		value *int32
	}{{"logActionRateLimit", s.LogActionRateLimit}, {"logActionRateLimitBurst", s.LogActionRateLimitBurst}} {
		if f.value != nil && (*f.value < 1 || *f.value > maxLogRate) {
			errs = append(errs, field.Invalid(path(f.name), *f.value, "must be 1 to 100000"))
		}
	}
	return errs
}

func validFailsafe(at *field.Path, ports *[]FailsafePort) field.ErrorList {
	if ports == nil {
		return nil
	}
	var errs field.ErrorList
	seen := map[FailsafePort]bool{}
	for i, p := range *ports {
		at := at.Index(i)
		errs = append(errs, validPortProtocol(at.Child("protocol"), p.Protocol)...)
		errs = append(errs, validPort(at.Child("port"), p.Port)...)
		if p.Net != "" {
			_, netErrs := validNet(at.Child("net"), p.Net)
			errs = append(errs, netErrs...)
		}
		if seen[p] {
			errs = append(errs, field.Duplicate(at, p.Port))
		}
		seen[p] = true
	}
	return errs
}
