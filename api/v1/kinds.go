package v1

import "strings"

// Kind describes a kind of resource.
//
// +kubebuilder:object:generate=false
type Kind struct {
	Name       string // such as IPPool
	Plural     string // such as ippools
	ShortNames []string
	Namespaced bool
	New        func() Object // returns an empty object
}

// Kinds returns every kind, in an order in which they can be created: what
// others build on comes first.
func Kinds() []Kind {
	return []Kind{
		{Name: "BGPConfiguration", Plural: "bgpconfigurations", ShortNames: []string{"bgpconfig", "bgpconfigs"}, New: func() Object { return &BGPConfiguration{} }},
		{Name: "AgentConfiguration", Plural: "agentconfigurations", ShortNames: []string{"agentconfig", "agentconfigs"}, New: func() Object { return &AgentConfiguration{} }},
		{Name: "BGPPeer", Plural: "bgppeers", ShortNames: []string{"bgpp"}, New: func() Object { return &BGPPeer{} }},
		{Name: "IPPool", Plural: "ippools", ShortNames: []string{"ipp", "pool", "pools"}, New: func() Object { return &IPPool{} }},
		{Name: "Node", Plural: "nodes", ShortNames: []string{"no"}, New: func() Object { return &Node{} }},
		{Name: "IPAMBlock", Plural: "ipamblocks", ShortNames: []string{"block", "blocks"}, New: func() Object { return &IPAMBlock{} }},
		{Name: "WorkloadEndpoint", Plural: "workloadendpoints", ShortNames: []string{"wep", "weps"}, Namespaced: true, New: func() Object { return &WorkloadEndpoint{} }},
		{Name: "NodeStatus", Plural: "nodestatuses", ShortNames: []string{"nodestat"}, New: func() Object { return &NodeStatus{} }},
	}
}

// KindByName returns the kind with this name, plural or short name, in whatever
// case.
func KindByName(name string) (Kind, bool) {
	name = strings.ToLower(name)
	for _, k := range Kinds() {
		if strings.ToLower(k.Name) == name || k.Plural == name {
			return k, true
		}
		for _, short := range k.ShortNames {
			if short == name {
				return k, true
			}
		}
	}
	return Kind{}, false
}

// newObject returns an empty object of the kind, by its exact name.
func newObject(kind string) (Object, bool) {
	k, ok := KindByName(kind)
	if !ok || k.Name != kind {
		return nil, false
	}
	return k.New(), true
}
