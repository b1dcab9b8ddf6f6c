package calc

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// policies is what is enforced on this node. It is told of what changed only, and
// keeps what it was told.
type policies struct {
	compiler *policy.Compiler
	told     map[string]*datastore.Part // what the compiler knows, by kind
	pods     *ipam.Assignments
	host     *kernel.Host
	agent    *agentSettings
	tunnels  immutable.Map[string, kernel.Tunnel]

	locals  map[policy.ID]*policy.Endpoint // pods of this node, as the compiler knows them
	slices  map[policy.ID]map[string]*v1.EndpointSlice
	issues  map[string][]v1.Issue // by object
	ordered []v1.Issue
	out     policy.Output
}

// PolicyKinds returns the kinds of resources on which enforcement depends.
func PolicyKinds() []string {
	return []string{
		"Tier", "NetworkPolicy", "GlobalNetworkPolicy", "KubernetesNetworkPolicy", "ClusterNetworkPolicy",
		"NetworkSet", "GlobalNetworkSet", "HostEndpoint", "WorkloadEndpoint", "Namespace", "ServiceAccount", "EndpointSlice",
	}
}

func newPolicies() *policies {
	return &policies{
		compiler: policy.NewCompiler(), told: map[string]*datastore.Part{},
		locals: map[policy.ID]*policy.Endpoint{}, slices: map[policy.ID]map[string]*v1.EndpointSlice{},
		issues: map[string][]v1.Issue{},
	}
}

// update takes in what changed, and returns what is enforced.
func (p *policies) update(in Inputs, agent *agentSettings, devices immutable.Map[string, kernel.Tunnel]) policy.Output {
	changed := p.resources(in)
	changed = p.local(in) || changed
	if agent != p.agent || devices != p.tunnels {
		p.agent, p.tunnels, changed = agent, devices, true
		p.compiler.SetSettings(enforcement(agent.AgentSettings, devices))
	}
	if changed || p.ordered == nil {
		p.out = p.compiler.Compile()
		p.ordered = slices.Concat(slices.Collect(maps.Values(p.issues))...)
		if p.ordered == nil {
			p.ordered = []v1.Issue{}
		}
	}
	return p.out
}

// resources tells the compiler which resources changed, and says whether any did.
func (p *policies) resources(in Inputs) bool {
	c := p.compiler
	changed := false
	note := func(more bool) { changed = changed || more }
	note(follow(p, in, "Tier", func(_, is *v1.Tier) {
		c.SetTier(policy.FromTier(is))
	}, func(was *v1.Tier) { c.DeleteTier(was.Name) }))
	note(followPolicy(p, in, "NetworkPolicy", policy.FromNetworkPolicy))
	note(followPolicy(p, in, "GlobalNetworkPolicy", policy.FromGlobalNetworkPolicy))
	note(followPolicy(p, in, "KubernetesNetworkPolicy", policy.FromKubernetesNetworkPolicy))
	note(followPolicy(p, in, "ClusterNetworkPolicy", policy.FromClusterNetworkPolicy))
	note(follow(p, in, "NetworkSet", func(_, is *v1.NetworkSet) { c.SetEndpoint(policy.FromNetworkSet(is)) },
		func(was *v1.NetworkSet) { c.DeleteEndpoint(policy.FromNetworkSet(was).ID) }))
	note(follow(p, in, "GlobalNetworkSet", func(_, is *v1.GlobalNetworkSet) { c.SetEndpoint(policy.FromGlobalNetworkSet(is)) },
		func(was *v1.GlobalNetworkSet) { c.DeleteEndpoint(policy.FromGlobalNetworkSet(was).ID) }))
	note(follow(p, in, "Namespace", func(_, is *v1.Namespace) { c.SetNamespace(is.Name, is.Labels) },
		func(was *v1.Namespace) { c.DeleteNamespace(was.Name) }))
	note(follow(p, in, "ServiceAccount", func(_, is *v1.ServiceAccount) { c.SetServiceAccount(is.Namespace, is.Name, is.Labels) },
		func(was *v1.ServiceAccount) { c.SetServiceAccount(was.Namespace, was.Name, nil) }))
	note(follow(p, in, "Node", func(_, is *v1.Node) { c.SetNode(policy.FromNode(is)) },
		func(was *v1.Node) { c.DeleteNode(was.Name) }))
	note(follow(p, in, "EndpointSlice", func(_, is *v1.EndpointSlice) { p.slice(is, false) },
		func(was *v1.EndpointSlice) { p.slice(was, true) }))
	note(follow(p, in, "HostEndpoint", func(was, is *v1.HostEndpoint) {
		e := policy.FromHostEndpoint(is)
		c.SetEndpoint(e)
		switch {
		case is.Spec.Node == in.Node:
			c.SetLocal(e)
		case was != nil && was.Spec.Node == in.Node:
			c.DeleteLocal(e.ID)
		}
	}, func(was *v1.HostEndpoint) {
		id := policy.FromHostEndpoint(was).ID
		c.DeleteEndpoint(id)
		c.DeleteLocal(id)
	}))
	return changed
}

// follow calls set for each object of a kind that came or changed, and gone for each
// that went, and says whether any did. An invalid object counts as gone.
func follow[T interface {
	v1.Object
	comparable
}](p *policies, in Inputs, kind string, set func(was, is T), gone func(was T)) bool {
	part := in.Store.Part(kind)
	if part == p.told[kind] {
		return false
	}
	var none T
	for was, is := range datastore.Changed[T](p.told[kind], part) {
		if was != none {
			delete(p.issues, objectName(was))
		}
		if is == none {
			gone(was)
			continue
		}
		full, issues := check(is, "the object is ignored")
		if len(issues) == 0 {
			set(was, full)
			continue
		}
		p.issues[objectName(is)] = issues
		if was != none {
			gone(was)
		}
	}
	p.told[kind] = part
	return true
}

// followPolicy tells the compiler of policies of one kind. One that can't be enforced
// as it is written denies for what it selects.
func followPolicy[T interface {
	v1.Object
	comparable
}](p *policies, in Inputs, kind string, from func(T) *policy.Policy) bool {
	part := in.Store.Part(kind)
	if part == p.told[kind] {
		return false
	}
	var none T
	for was, is := range datastore.Changed[T](p.told[kind], part) {
		if was != none {
			delete(p.issues, objectName(was))
		}
		if is == none {
			p.compiler.DeletePolicy(from(was).ID)
			continue
		}
		full, issues := check(is, "the policy denies what it selects")
		made := from(full)
		switch {
		case len(issues) > 0:
			made.Fault = issues[0].Reason
		case made.Fault != "":
			issues = []v1.Issue{{Object: objectName(is), Reason: made.Fault + ": the policy denies what it selects"}}
		}
		if len(issues) > 0 {
			p.issues[objectName(is)] = issues
		}
		p.compiler.SetPolicy(made)
	}
	p.told[kind] = part
	return true
}

// slice takes in a part of what is behind a Service.
func (p *policies) slice(s *v1.EndpointSlice, gone bool) {
	id, _ := policy.FromEndpointSlice(s)
	if id == (policy.ID{}) {
		return
	}
	if p.slices[id] == nil {
		p.slices[id] = map[string]*v1.EndpointSlice{}
	}
	if gone {
		delete(p.slices[id], s.Name)
	} else {
		p.slices[id][s.Name] = s
	}
	var all []policy.ServiceEndpoint
	for _, name := range slices.Sorted(maps.Keys(p.slices[id])) {
		_, some := policy.FromEndpointSlice(p.slices[id][name])
		all = append(all, some...)
	}
	if len(p.slices[id]) == 0 {
		delete(p.slices, id)
	}
	p.compiler.SetService(id, all)
}

// local tells the compiler of the pods everywhere and of those of this node, and of
// the host's links, and says whether anything changed. What this node knows of its own
// pods goes before what the datastore says: their policies are there before others
// know of them.
func (p *policies) local(in Inputs) bool {
	part := in.Store.Part("WorkloadEndpoint")
	known := p.told["WorkloadEndpoint"]
	if part == known && in.Pods == p.pods && in.Host == p.host {
		return false
	}
	touched := map[policy.ID]bool{}
	for was, is := range datastore.Changed[*v1.WorkloadEndpoint](known, part) {
		one := is
		if one == nil {
			one = was
		}
		e := policy.FromWorkloadEndpoint(one)
		touched[e.ID] = true
		if _, own := p.locals[e.ID]; own {
			continue // below
		}
		if is == nil {
			p.compiler.DeleteEndpoint(e.ID)
		} else {
			p.compiler.SetEndpoint(e)
		}
	}
	p.told["WorkloadEndpoint"] = part
	if in.Pods != p.pods || len(touched) > 0 {
		p.ownPods(in, touched)
	}
	if in.Host != p.host {
		p.compiler.SetLinks(hostLinks(in.Host))
	}
	p.pods, p.host = in.Pods, in.Host
	return true
}

// ownPods tells the compiler of the pods attached here.
func (p *policies) ownPods(in Inputs, touched map[policy.ID]bool) {
	now := map[policy.ID]ipam.Assignment{}
	for a := range in.Pods.All() {
		if !a.IsTunnel() {
			now[EndpointID(a)] = a
		}
	}
	for id := range p.locals {
		if _, still := now[id]; still {
			continue
		}
		delete(p.locals, id)
		p.compiler.DeleteLocal(id)
		p.compiler.DeleteEndpoint(id)
		if w, ok := datastore.Get[*v1.WorkloadEndpoint](in.Store, id.Namespace, id.Name); ok { // another node's by now
			p.compiler.SetEndpoint(policy.FromWorkloadEndpoint(w))
		}
	}
	for id, a := range now {
		old, known := p.locals[id]
		if known && !touched[id] && slices.Equal(old.Addrs, a.Addrs()) && old.Link == a.HostLink && p.sameContainer(in, id, a) {
			continue
		}
		e := ownEndpoint(in, id, a)
		p.locals[id] = e
		p.compiler.SetEndpoint(e)
		p.compiler.SetLocal(e)
	}
}

// sameContainer says whether a pod's container is the one that was there last time.
func (p *policies) sameContainer(in Inputs, id policy.ID, a ipam.Assignment) bool {
	if p.pods == nil {
		return false
	}
	_, ok := p.pods.Get(a.Handle)
	return ok
}

// EndpointID returns the ID of a pod's WorkloadEndpoint.
func EndpointID(a ipam.Assignment) policy.ID {
	namespace := a.Namespace
	if namespace == "" {
		namespace = "default"
	}
	return policy.ID{Kind: policy.KindPod, Namespace: namespace, Name: a.Pod + "-" + a.Interface}
}

// ownEndpoint returns a pod of this node. Its labels and ports are those that the
// WorkloadEndpoint of its container has by now, else those that came with it.
func ownEndpoint(in Inputs, id policy.ID, a ipam.Assignment) *policy.Endpoint {
	e := &policy.Endpoint{ID: id, Labels: a.Labels}
	if w, ok := datastore.Get[*v1.WorkloadEndpoint](in.Store, id.Namespace, id.Name); ok && w.Spec.ContainerID == a.ContainerID {
		if full, issues := check(w, ""); len(issues) == 0 {
			e = policy.FromWorkloadEndpoint(full)
		}
	}
	e.Node, e.Link, e.Addrs = in.Node, a.HostLink, a.Addrs()
	return e
}

// hostLinks returns the links of the host that lead to no pod, with their addresses.
func hostLinks(h *kernel.Host) map[string][]netip.Addr {
	links := map[string][]netip.Addr{}
	for name, l := range h.Links {
		if name != "lo" && !kernel.IsPodLink(l) && !strings.HasPrefix(name, kernel.PodLinkPrefix) {
			links[name] = nil
		}
	}
	for a := range h.Addrs {
		if _, ok := links[a.Link]; ok {
			links[a.Link] = append(links[a.Link], a.Prefix.Addr())
		}
	}
	return links
}

// enforcement returns what the administrator wants of the rules.
func enforcement(s v1.AgentSettings, devices immutable.Map[string, kernel.Tunnel]) policy.Settings {
	return policy.Settings{}
}
