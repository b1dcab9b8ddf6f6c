package calc

import (
	"cmp"
	"fmt"
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
	links    map[string][]netip.Addr
	agent    *agentSettings
	tunnels  immutable.Map[string, kernel.Tunnel]

	locals  map[policy.ID]ownPod // pods of this node, as the compiler knows them
	slices  map[policy.ID]map[string]*v1.EndpointSlice
	issues  map[string][]v1.Issue // by object
	tierOf  map[policy.ID]string  // the tier that each policy names
	byTier  map[string]map[policy.ID]bool
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
		locals: map[policy.ID]ownPod{}, slices: map[policy.ID]map[string]*v1.EndpointSlice{},
		issues: map[string][]v1.Issue{}, tierOf: map[policy.ID]string{}, byTier: map[string]map[policy.ID]bool{},
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
		p.ordered = slices.Concat(append(slices.Collect(maps.Values(p.issues)), p.lost(in))...)
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
	note(followPolicy[*v1.NetworkPolicy](p, in))
	note(followPolicy[*v1.GlobalNetworkPolicy](p, in))
	note(followPolicy[*v1.KubernetesNetworkPolicy](p, in))
	note(followPolicy[*v1.ClusterNetworkPolicy](p, in))
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
		if kind == "Node" {
			issues = nil // others tell, and a node has what is valid of its addresses
		}
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
}](p *policies, in Inputs) bool {
	kind := datastore.KindOf[T]()
	part := in.Store.Part(kind)
	if part == p.told[kind] {
		return false
	}
	var none T
	for was, is := range datastore.Changed[T](p.told[kind], part) {
		key := datastore.KeyOf(cmp.Or(is, was))
		id := policy.ID{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name}
		delete(p.issues, key.String())
		if is == none {
			p.inTier(id, "")
			p.compiler.DeletePolicy(id)
			continue
		}
		made, issues := policy.Convert(is)
		if len(issues) > 0 {
			p.issues[key.String()] = issues
		}
		p.inTier(id, made.Tier)
		p.compiler.SetPolicy(made)
	}
	p.told[kind] = part
	return true
}

// inTier notes which tier a policy names; "" of one that is gone.
func (p *policies) inTier(id policy.ID, tier string) {
	was := p.tierOf[id]
	if was == tier {
		return
	}
	if delete(p.byTier[was], id); len(p.byTier[was]) == 0 {
		delete(p.byTier, was)
	}
	delete(p.tierOf, id)
	if tier == "" {
		return
	}
	p.tierOf[id] = tier
	if p.byTier[tier] == nil {
		p.byTier[tier] = map[policy.ID]bool{}
	}
	p.byTier[tier][id] = true
}

// lost returns what is wrong with policies that name a tier which does not exist.
func (p *policies) lost(in Inputs) []v1.Issue {
	exists := map[string]bool{}
	for _, t := range policy.BuiltinTiers() {
		exists[t.Name] = true
	}
	for t := range datastore.All[*v1.Tier](in.Store) {
		exists[t.Name] = true
	}
	var issues []v1.Issue
	for tier, ids := range p.byTier {
		if exists[tier] {
			continue
		}
		for id := range ids {
			issues = append(issues, v1.Issue{Object: id.String(), Field: "spec.tier",
				Reason: fmt.Sprintf("there is no tier %q: the policy denies what it selects", tier)})
		}
	}
	return issues
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
	changed := p.ownPods(in, touched) || part != known
	if in.Host != p.host {
		links := hostLinks(in.Host)
		if !maps.EqualFunc(links, p.links, slices.Equal) {
			p.compiler.SetLinks(links)
			p.links, changed = links, true
		}
	}
	p.pods, p.host = in.Pods, in.Host
	return changed
}

// ownPods tells the compiler of the pods attached here, and says whether anything
// changed.
func (p *policies) ownPods(in Inputs, touched map[policy.ID]bool) bool {
	changed := false
	now := currentPods(in)
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
		changed = true
	}
	for id, a := range now {
		if old, known := p.locals[id]; known && !touched[id] && old.is(a) {
			continue
		}
		e := ownEndpoint(in, id, a)
		p.locals[id] = ownPod{a.Handle, e}
		p.compiler.SetEndpoint(e)
		p.compiler.SetLocal(e)
		changed = true
	}
	return changed
}

// ownPod is a pod of this node as the compiler knows it.
type ownPod struct {
	container ipam.Handle
	endpoint  *policy.Endpoint
}

// is says whether a pod's container is the same, where it was.
func (p ownPod) is(a ipam.Assignment) bool {
	return p.container == a.Handle && p.endpoint.Link == a.HostLink && slices.Equal(p.endpoint.Addrs, a.Addrs())
}

// currentPods returns the containers of the pods attached here. Of a pod that was made
// anew the predecessor may still be around: the link says whose it is. A link is one
// pod's.
func currentPods(in Inputs) map[policy.ID]ipam.Assignment {
	pods := make(map[policy.ID]ipam.Assignment, in.Pods.Len())
	owns := func(a ipam.Assignment) bool {
		on, ok := kernel.ParsePodAlias(in.Host.Links[a.HostLink].Alias)
		return ok && on.ContainerID == a.ContainerID && on.PodLink == a.Interface
	}
	for a := range in.Pods.All() {
		if a.IsTunnel() {
			continue
		}
		id := EndpointID(a)
		if other, twice := pods[id]; twice {
			if owns(other) == owns(a) && other.ContainerID < a.ContainerID || owns(other) && !owns(a) {
				continue
			}
		}
		pods[id] = a
	}
	byLink := make(map[string]policy.ID, len(pods))
	for id, a := range pods {
		if other, twice := byLink[a.HostLink]; !twice || id.Compare(other) < 0 {
			byLink[a.HostLink] = id
		}
	}
	maps.DeleteFunc(pods, func(id policy.ID, a ipam.Assignment) bool { return byLink[a.HostLink] != id })
	return pods
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
	for _, addrs := range links {
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
	return links
}

// enforcement returns what the administrator wants of the rules.
func enforcement(s v1.AgentSettings, devices immutable.Map[string, kernel.Tunnel]) policy.Settings {
	out := policy.Settings{
		LogRate: uint32(s.LogActionRateLimit), LogBurst: uint32(s.LogActionBurst), PodsToHost: policy.Allow,
		Tunnels: betweenNodes(devices), EndRefused: s.PolicyChange == v1.PolicyTerminate,
		FailSafe: [2][]policy.FailSafe{policy.Ingress: policy.FromFailsafePorts(s.FailsafeInbound), policy.Egress: policy.FromFailsafePorts(s.FailsafeOutbound)},
	}
	if s.DefaultEndpointToHostAction == v1.EndpointToHostDrop {
		out.PodsToHost = policy.Deny
	}
	return out
}

// betweenNodes matches what is encapsulated between nodes: host endpoints let it pass,
// and what protects tunnels decides about it.
func betweenNodes(devices immutable.Map[string, kernel.Tunnel]) kernel.Rules {
	var rules []kernel.Rule
	for _, link := range kernel.TunnelLinks() {
		t, ok := devices.Get(link)
		if !ok {
			continue
		}
		r := kernel.Rule{Protocol: kernel.ProtoUDP, DstPort: t.Port, Verdict: kernel.Accept, Comment: "between nodes"}
		switch link {
		case kernel.LinkIPIP:
			r.Protocol, r.DstPort = kernel.ProtoIPIP, 0
			r.Family = 4
		case kernel.LinkVXLAN4:
			r.Family = 4
		case kernel.LinkVXLAN6:
			r.Family = 6
		}
		rules = append(rules, r)
	}
	return kernel.RulesOf(rules...)
}
