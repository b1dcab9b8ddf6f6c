package v1

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind describes a kind of resource.
//
// +kubebuilder:object:generate=false
type Kind struct {
	Name       string // such as IPPool; also the name of its Go type
	Plural     string // such as ippools
	ShortNames []string
	Namespaced bool
	New        func() Object // returns an empty object
	// OutsideVersion and OutsideKind are what objects of another API carry: its group
	// and version, and the kind if it isn't Name. Empty for Cairn's own.
	OutsideVersion, OutsideKind string
}

// APIVersion returns what objects of the kind carry as apiVersion.
func (k Kind) APIVersion() string { return cmp.Or(k.OutsideVersion, APIVersion) }

// GroupVersionKind returns what objects of the kind carry as apiVersion and kind.
func (k Kind) GroupVersionKind() schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(k.APIVersion(), k.carried())
}

// carried returns what objects of the kind carry as kind.
func (k Kind) carried() string { return cmp.Or(k.OutsideKind, k.Name) }

// Kinds returns every kind, in an order in which they can be created: what
// others build on comes first.
func Kinds() []Kind { return slices.Clone(kinds) }

// kinds are never changed. They are made once, for they are asked for with every object
// that is read.
var kinds = []Kind{
	{Name: "BGPConfiguration", Plural: "bgpconfigurations", ShortNames: []string{"bgpconfig", "bgpconfigs"}, New: func() Object { return &BGPConfiguration{} }},
	{Name: "AgentConfiguration", Plural: "agentconfigurations", ShortNames: []string{"agentconfig", "agentconfigs"}, New: func() Object { return &AgentConfiguration{} }},
	{Name: "BGPPeer", Plural: "bgppeers", ShortNames: []string{"bgpp"}, New: func() Object { return &BGPPeer{} }},
	{Name: "IPPool", Plural: "ippools", ShortNames: []string{"ipp", "pool", "pools"}, New: func() Object { return &IPPool{} }},
	{Name: "Node", Plural: "nodes", ShortNames: []string{"no"}, New: func() Object { return &Node{} }},
	{Name: "IPAMBlock", Plural: "ipamblocks", ShortNames: []string{"block", "blocks"}, New: func() Object { return &IPAMBlock{} }},
	{Name: "Namespace", Plural: "namespaces", ShortNames: []string{"ns"}, New: func() Object { return &Namespace{} }, OutsideVersion: coreVersion},
	{Name: "ServiceAccount", Plural: "serviceaccounts", ShortNames: []string{"sa"}, Namespaced: true, New: func() Object { return &ServiceAccount{} }, OutsideVersion: coreVersion},
	{Name: "EndpointSlice", Plural: "endpointslices", Namespaced: true, New: func() Object { return &EndpointSlice{} }, OutsideVersion: discoveryVersion},
	{Name: "Tier", Plural: "tiers", New: func() Object { return &Tier{} }},
	{Name: "NetworkSet", Plural: "networksets", ShortNames: []string{"netset", "netsets"}, Namespaced: true, New: func() Object { return &NetworkSet{} }},
	{Name: "GlobalNetworkSet", Plural: "globalnetworksets", ShortNames: []string{"gnetset", "gnetsets"}, New: func() Object { return &GlobalNetworkSet{} }},
	{Name: "NetworkPolicy", Plural: "networkpolicies", ShortNames: []string{"np", "policy", "policies"}, Namespaced: true, New: func() Object { return &NetworkPolicy{} }},
	{Name: "GlobalNetworkPolicy", Plural: "globalnetworkpolicies", ShortNames: []string{"gnp"}, New: func() Object { return &GlobalNetworkPolicy{} }},
	{Name: "StagedNetworkPolicy", Plural: "stagednetworkpolicies", ShortNames: []string{"snp"}, Namespaced: true, New: func() Object { return &StagedNetworkPolicy{} }},
	{Name: "StagedGlobalNetworkPolicy", Plural: "stagedglobalnetworkpolicies", ShortNames: []string{"sgnp"}, New: func() Object { return &StagedGlobalNetworkPolicy{} }},
	{Name: "KubernetesNetworkPolicy", Plural: "kubernetesnetworkpolicies", ShortNames: []string{"knp", "networkpolicies.networking.k8s.io"}, Namespaced: true, New: func() Object { return &KubernetesNetworkPolicy{} }, OutsideVersion: networkingVersion, OutsideKind: "NetworkPolicy"},
	{Name: "ClusterNetworkPolicy", Plural: "clusternetworkpolicies", ShortNames: []string{"cnp", "clusternetworkpolicies.policy.networking.k8s.io"}, New: func() Object { return &ClusterNetworkPolicy{} }, OutsideVersion: policyVersion},
	{Name: "HostEndpoint", Plural: "hostendpoints", ShortNames: []string{"hep", "heps"}, New: func() Object { return &HostEndpoint{} }},
	{Name: "WorkloadEndpoint", Plural: "workloadendpoints", ShortNames: []string{"wep", "weps"}, Namespaced: true, New: func() Object { return &WorkloadEndpoint{} }},
	{Name: "PacketTrace", Plural: "packettraces", New: func() Object { return &PacketTrace{} }},
	{Name: "NodeStatus", Plural: "nodestatuses", ShortNames: []string{"nodestat"}, New: func() Object { return &NodeStatus{} }},
}

// KindByName returns the kind with this name, plural or short name, in whatever
// case.
func KindByName(name string) (Kind, bool) {
	for _, k := range kinds {
		same := func(other string) bool { return strings.EqualFold(other, name) }
		if same(k.Name) || same(k.Plural) || slices.ContainsFunc(k.ShortNames, same) {
			return k, true
		}
	}
	return Kind{}, false
}

// KindOf returns the name of an object's kind, by which Cairn tells it from kinds of
// other APIs that carry the same: KubernetesNetworkPolicy of what is a NetworkPolicy
// of networking.k8s.io/v1. It is what the object carries if there is no such kind.
func KindOf(o Object) string {
	gvk := o.GetObjectKind().GroupVersionKind()
	if gvk.Group == Group {
		return gvk.Kind
	}
	if k, ok := kindCarrying(gvk.GroupVersion().String(), gvk.Kind); ok {
		return k.Name
	}
	return gvk.Kind
}

// kindCarrying returns the kind whose objects carry this apiVersion and kind.
func kindCarrying(apiVersion, kind string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.carried() == kind && k.APIVersion() == apiVersion {
			return k, true
		}
	}
	return Kind{}, false
}

// versionsOf returns the apiVersions that objects that carry this kind may have;
// none if there is no such kind.
func versionsOf(kind string) []string {
	var versions []string
	for _, k := range Kinds() {
		if k.carried() == kind {
			versions = append(versions, k.APIVersion())
		}
	}
	return versions
}

// newObject returns an empty object of the kind, by its exact name.
func newObject(kind string) (Object, bool) {
	k, ok := KindByName(kind)
	if !ok || k.Name != kind {
		return nil, false
	}
	return k.New(), true
}
