package v1

// PolicyAction is what a rule does with a packet that it matches.
//
// +kubebuilder:validation:Enum=Allow;Deny;Log;Pass
type PolicyAction string

// Actions of rules.
const (
	ActionAllow PolicyAction = "Allow" // lets it through
	ActionDeny  PolicyAction = "Deny"  // drops it
	ActionLog   PolicyAction = "Log"   // logs it, and asks the next rule
	ActionPass  PolicyAction = "Pass"  // asks the next tier
)

// PolicyType is a direction that a policy is about, as its endpoints see it.
//
// +kubebuilder:validation:Enum=Ingress;Egress
type PolicyType string

// Directions.
const (
	PolicyIngress PolicyType = "Ingress"
	PolicyEgress  PolicyType = "Egress"
)

// Rule says what becomes of packets for which all that it names is so.
type Rule struct {
	// Metadata holds notes about the rule. They mean nothing to Cairn.
	Metadata *RuleMetadata `json:"metadata,omitempty"`
	// Action is what becomes of the packets.
	Action PolicyAction `json:"action"`
	// IPVersion is 4 or 6. Default both.
	IPVersion *int `json:"ipVersion,omitempty"`
	// Protocol is the protocol above IP. Default any.
	Protocol *Protocol `json:"protocol,omitempty"`
	// NotProtocol is a protocol that it isn't.
	NotProtocol *Protocol `json:"notProtocol,omitempty"`
	// ICMP is a type of ICMP or ICMPv6; Protocol says of which.
	ICMP *ICMPFields `json:"icmp,omitempty"`
	// NotICMP is one that it isn't.
	NotICMP *ICMPFields `json:"notICMP,omitempty"`
	// Source is where packets come from.
	Source EntityRule `json:"source,omitzero"`
	// Destination is where they go to.
	Destination EntityRule `json:"destination,omitzero"`
	// HTTP is refused: Cairn enforces layers 3 and 4 only.
	HTTP *HTTPMatch `json:"http,omitempty"`
}

// RuleMetadata holds notes about a rule.
type RuleMetadata struct {
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ICMPFields is a type of ICMP or ICMPv6, and a code of it.
type ICMPFields struct {
	// Type is 0 to 254.
	Type *int `json:"type,omitempty"`
	// Code is 0 to 255. Default any.
	Code *int `json:"code,omitempty"`
}

// EntityRule is what a rule asks of one end of a packet: all that is set.
type EntityRule struct {
	// Nets are ranges or addresses of which one holds the end's address.
	Nets []string `json:"nets,omitempty"`
	// NotNets are such of which none does.
	NotNets []string `json:"notNets,omitempty"`
	// Selector chooses endpoints and network sets by their labels; the end is one of
	// them. In a namespaced policy without NamespaceSelector only those of its own
	// namespace.
	Selector string `json:"selector,omitempty"`
	// NamespaceSelector chooses the namespaces of the end by their labels; global() is
	// what is in none.
	NamespaceSelector string `json:"namespaceSelector,omitempty"`
	// NotSelector chooses what the end is none of, in whatever namespace.
	NotSelector string `json:"notSelector,omitempty"`
	// ServiceAccounts chooses pods by their service accounts; the end is one of them.
	ServiceAccounts *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
	// Services is a Service; the end is behind it. Only as the destination of an egress
	// rule, there with the Service's ports, or as the source of an ingress rule.
	Services *ServiceMatch `json:"services,omitempty"`
	// Ports are ports of which one is the end's. Protocol must have ports.
	Ports []Port `json:"ports,omitempty"`
	// NotPorts are ports of which none is.
	NotPorts []Port `json:"notPorts,omitempty"`
}

// ServiceAccountMatch chooses service accounts: both by name and by label, if both
// are set; all of them if none is.
type ServiceAccountMatch struct {
	Names    []string `json:"names,omitempty"`
	Selector string   `json:"selector,omitempty"`
}

// ServiceMatch names a Service of Kubernetes.
type ServiceMatch struct {
	Name string `json:"name"`
	// Namespace is, by default, the policy's own.
	Namespace string `json:"namespace,omitempty"`
}

// HTTPMatch is what Calico's proxy would match of HTTP. It is here to be refused by
// name.
type HTTPMatch struct {
	Methods []string   `json:"methods,omitempty"`
	Paths   []HTTPPath `json:"paths,omitempty"`
}

// HTTPPath is a path of HTTP, exact or by how it begins.
type HTTPPath struct {
	Exact  string `json:"exact,omitempty"`
	Prefix string `json:"prefix,omitempty"`
}
