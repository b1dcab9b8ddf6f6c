package policy

import (
	"cmp"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
)

// NewWorld returns the world that these resources make, and what is wrong with them.
// Kinds that no verdict depends on are passed over. All lists are in order: tiers and
// policies as they are asked, the rest by name.
func NewWorld(objects ...v1.Object) (*World, []v1.Issue) {
	w := &World{
		Namespaces: map[string]map[string]string{}, ServiceAccounts: map[ID]map[string]string{},
		Services: map[ID][]ServiceEndpoint{},
	}
	var issues []v1.Issue
	tiers := map[string]Tier{}
	for _, t := range BuiltinTiers() {
		tiers[t.Name] = t
	}
	for _, o := range objects {
		if p, wrong := Convert(o); p != nil {
			w.Policies, issues = append(w.Policies, p), append(issues, wrong...)
			continue
		}
		o = defaulted(o)
		if t, ok := o.(*v1.Tier); ok {
			if wrong := invalid(o, "the tier is ignored"); len(wrong) > 0 {
				issues = append(issues, wrong...)
				continue
			}
			tiers[t.Name] = FromTier(t)
		} else if w.add(o) {
			issues = append(issues, invalid(o, "it is left out")...)
		}
	}
	for _, t := range tiers {
		w.Tiers = append(w.Tiers, t)
	}
	slices.SortFunc(w.Tiers, CompareTiers)
	for i, p := range w.Policies {
		placed, wrong := Place(p, w.Tiers)
		w.Policies[i], issues = placed, append(issues, wrong...)
	}
	w.sort()
	return w, issues
}

// add adds an object other than policies and tiers, and says whether any verdict may
// depend on it.
func (w *World) add(o v1.Object) bool {
	switch o := o.(type) {
	case *v1.WorkloadEndpoint:
		w.Endpoints = append(w.Endpoints, FromWorkloadEndpoint(o))
	case *v1.HostEndpoint:
		w.Endpoints = append(w.Endpoints, FromHostEndpoint(o))
	case *v1.NetworkSet:
		w.Endpoints = append(w.Endpoints, FromNetworkSet(o))
	case *v1.GlobalNetworkSet:
		w.Endpoints = append(w.Endpoints, FromGlobalNetworkSet(o))
	case *v1.Node:
		w.Nodes = append(w.Nodes, FromNode(o))
	case *v1.Namespace:
		w.Namespaces[o.Name] = o.Labels
	case *v1.ServiceAccount:
		w.ServiceAccounts[ID{Namespace: o.Namespace, Name: o.Name}] = o.Labels
	case *v1.EndpointSlice:
		if id, endpoints := FromEndpointSlice(o); id != (ID{}) {
			w.Services[id] = append(w.Services[id], endpoints...)
		}
	default:
		return false
	}
	return true
}

// invalid returns the reasons to refuse a defaulted object, each with what comes of it.
func invalid(o v1.Object, outcome string) []v1.Issue {
	var issues []v1.Issue
	for _, err := range faults(o) {
		issues = append(issues, v1.Issue{Object: idOf(o).String(), Field: err.Field, Reason: err.ErrorBody() + ": " + outcome})
	}
	return issues
}

// sort brings the lists, but for the tiers, into their order.
func (w *World) sort() {
	place := map[string]int{}
	for i, t := range w.Tiers {
		place[t.Name] = i
	}
	slices.SortFunc(w.Policies, func(a, b *Policy) int {
		return cmp.Or(cmp.Compare(place[a.Tier], place[b.Tier]), Compare(a, b))
	})
	slices.SortFunc(w.Endpoints, func(a, b *Endpoint) int { return a.ID.Compare(b.ID) })
	slices.SortFunc(w.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	for id, endpoints := range w.Services {
		slices.SortFunc(endpoints, func(a, b ServiceEndpoint) int {
			return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
		})
		w.Services[id] = slices.Compact(endpoints)
	}
}
