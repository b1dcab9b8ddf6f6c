package policy

import (
	"net/netip"
	"slices"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/selector"
)

// Settings is what the administrator wants of enforcement.
type Settings struct {
	// LogRate and LogBurst bound how often a rule with action Log logs: packets a
	// second, and packets above it. 0: without bounds.
	LogRate, LogBurst uint32
	// PodsToHost is what becomes of packets from a pod to its own host that the pod's
	// policies allow: Allow or Deny.
	PodsToHost Action
	// EndRefused says that connections are ended which policies have come to refuse:
	// those of pods then don't go on where connection tracking has forgotten them.
	EndRefused bool
	// FailSafe is what host endpoints always let in and out, by Direction.
	FailSafe [2][]FailSafe
	// Tunnels accept the encapsulated packets between nodes at host endpoints. What is
	// inside is policed as any packet.
	Tunnels kernel.Rules
}

// Output is what a node's rules are, and why.
type Output struct {
	Sets     immutable.Map[string, kernel.Set]
	Elements immutable.Map[kernel.Element, struct{}]
	Chains   immutable.Map[string, kernel.Chain]
	// Locals holds, of each endpoint on this node, what is in force for it.
	Locals immutable.Map[ID, *Enforced]
	// Policies holds the policies in force here by the names of their chains, Unversioned.
	Policies immutable.Map[string, *Policy]
}

// Enforced is what is in force for an endpoint. It is immutable.
type Enforced struct {
	Endpoint *Endpoint
	// Entries are the keys of the entries in verdict maps that lead to its chains; it is
	// protected once all of them are in the kernel.
	Entries []string
	// Policies are those that concern it, in the order in which they are asked, by
	// Direction, all phases.
	Policies [2][]*Policy
	// Links are the host's links that it covers.
	Links []string
}

// Compile returns the rules of a node for a world. The links are the host's with their
// addresses, those that lead to pods and the loopback left out.
func Compile(w *World, node string, links map[string][]netip.Addr, s Settings) Output {
	c := NewCompiler()
	s.FailSafe = w.FailSafe
	c.SetSettings(s)
	c.SetLinks(links)
	for _, t := range w.Tiers {
		c.SetTier(t)
	}
	for _, n := range w.Nodes {
		c.SetNode(n)
	}
	for name, labels := range w.Namespaces {
		c.SetNamespace(name, labels)
	}
	for id, labels := range w.ServiceAccounts {
		c.SetServiceAccount(id.Namespace, id.Name, labels)
	}
	for id, behind := range w.Services {
		c.SetService(id, behind)
	}
	for _, e := range w.Endpoints {
		c.SetEndpoint(e)
		if e.Node == node && (e.Kind == KindPod || e.Kind == KindHost) {
			c.SetLocal(e)
		}
	}
	for _, p := range w.Policies {
		c.SetPolicy(p)
	}
	return c.Compile()
}

// Compiler compiles policies to rules for one node, step by step: the cost follows
// the change. What it says depends on what is, not on what was. It is for one
// goroutine. Make it with NewCompiler.
type Compiler struct {
	settings Settings
	tiers    map[string]Tier
	policies map[ID]*Policy
	bySelect map[string]map[ID]*Policy // by the selector's text
	links    map[string][]netip.Addr   // of the host, without those of pods

	concern Selection[ID] // of policies' selectors and the endpoints of this node
	locals  map[ID]*local
	entries map[string]ID          // whose each entry is
	sources map[kernel.Element]int // how many pods may send from there

	sets  *setPool
	codes map[codeKey]*code
	// untracked is how many of them are for before connection tracking.
	untracked int
	lists     map[string]*list // by chain

	dirtyCodes  map[*code]bool
	dirtyLocals map[ID]bool
	dirtyHost   bool // which link is whose
	dirtyBases  bool // what the base chains depend on

	chains   immutable.Editor[string, kernel.Chain]
	enforced immutable.Editor[ID, *Enforced]
	active   immutable.Editor[string, *Policy]
	base     map[string]kernel.Chain // the base chains as they are in chains
	maps     map[string]bool         // the verdict maps that there are
}

// phases is how many phases there are.
const phases = 4

// NewCompiler returns a compiler that knows of nothing yet but the built-in tiers.
func NewCompiler() *Compiler {
	c := &Compiler{
		tiers: map[string]Tier{}, policies: map[ID]*Policy{}, bySelect: map[string]map[ID]*Policy{},
		locals: map[ID]*local{}, entries: map[string]ID{}, sources: map[kernel.Element]int{}, codes: map[codeKey]*code{}, lists: map[string]*list{},
		dirtyCodes: map[*code]bool{}, dirtyLocals: map[ID]bool{},
		base: map[string]kernel.Chain{}, dirtyBases: true,
	}
	c.concern = NewSelection(func(_ *selector.Selector, id ID, _ bool) { c.dirtyLocals[id] = true })
	c.sets = newSetPool(func(d *code) { c.dirtyCodes[d] = true })
	for _, t := range BuiltinTiers() {
		c.tiers[t.Name] = t
	}
	for _, v6 := range []bool{false, true} {
		c.sets.need(lookup{name: sourceSet(v6), kind: kernel.Set{Keys: kernel.KeysSources, IPv6: v6}})
	}
	return c
}

// Compile returns the rules for all that the compiler was told.
func (c *Compiler) Compile() Output {
	// A code that changes may change lists, and new lists may need new codes; codes
	// depend on sets only.
	for len(c.dirtyCodes)+len(c.dirtyLocals) > 0 || c.dirtyHost {
		if c.dirtyHost {
			c.dirtyHost = false
			for id := range c.locals {
				if id.Kind == KindHost {
					c.dirtyLocals[id] = true
				}
			}
		}
		for d := range c.dirtyCodes {
			delete(c.dirtyCodes, d)
			c.recode(d)
		}
		for id := range c.dirtyLocals {
			delete(c.dirtyLocals, id)
			c.relist(id)
		}
	}
	if c.dirtyBases {
		c.dirtyBases = false
		c.rebase()
	}
	return Output{
		Sets: c.sets.sets.Map(), Elements: c.sets.elements.Map(), Chains: c.chains.Map(),
		Locals: c.enforced.Map(), Policies: c.active.Map(),
	}
}

// SetSettings sets what the administrator wants.
func (c *Compiler) SetSettings(s Settings) {
	was := c.settings
	logs := s.LogRate != was.LogRate || s.LogBurst != was.LogBurst
	for d := range Direction(2) {
		c.dirtyHost = c.dirtyHost || !slices.Equal(s.FailSafe[d], was.FailSafe[d])
	}
	c.settings, c.dirtyBases = s, true
	for _, d := range c.codes {
		if logs {
			c.dirtyCodes[d] = true
		}
	}
}

// SetTier adds a tier or changes it.
func (c *Compiler) SetTier(t Tier) {
	if c.tiers[t.Name] != t {
		c.tiers[t.Name] = t
		c.allDirty()
	}
}

// DeleteTier removes a tier; a built-in one becomes what it was.
func (c *Compiler) DeleteTier(name string) {
	for _, t := range BuiltinTiers() {
		if t.Name == name {
			c.SetTier(t)
			return
		}
	}
	delete(c.tiers, name)
	c.allDirty()
}

// allDirty has every endpoint's list of policies made anew.
func (c *Compiler) allDirty() {
	for id := range c.locals {
		c.dirtyLocals[id] = true
	}
}

// SetPolicy adds a policy or changes it.
func (c *Compiler) SetPolicy(p *Policy) {
	old := c.policies[p.ID]
	if old == p {
		return
	}
	c.policies[p.ID] = p
	if old == nil || p.Selector.String() != old.Selector.String() {
		if old != nil {
			c.unfile(old)
		}
		text := p.Selector.String()
		if c.bySelect[text] == nil {
			c.bySelect[text] = map[ID]*Policy{}
			c.bySelect[text][p.ID] = p
			c.concern.Add(p.Selector)
		} else {
			c.bySelect[text][p.ID] = p
			c.concerned(p)
		}
		return // whom it concerns is to be listed anew
	}
	c.bySelect[p.Selector.String()][p.ID] = p
	if !listedAlike(old, p) {
		c.concerned(p)
		return
	}
	for d := range Direction(2) {
		for _, untracked := range []bool{false, true} {
			if code, ok := c.codes[codeKey{p.ID, d, untracked}]; ok {
				code.policy = p
				c.dirtyCodes[code] = true
			}
		}
	}
	c.concernedLocals(p, func(l *local) { c.dirtyLocals[l.endpoint.ID] = true })
}

// listedAlike says whether two policies have the same place in the lists of
// endpoints.
func listedAlike(a, b *Policy) bool {
	return a.Tier == b.Tier && a.Order == b.Order && a.Applies == b.Applies && a.Staged == b.Staged &&
		a.DoNotTrack == b.DoNotTrack && a.PreDNAT == b.PreDNAT && a.ApplyOnForward == b.ApplyOnForward
}

// DeletePolicy removes a policy.
func (c *Compiler) DeletePolicy(id ID) {
	if p := c.policies[id]; p != nil {
		delete(c.policies, id)
		c.unfile(p)
	}
}

// unfile takes a policy from those of its selector.
func (c *Compiler) unfile(p *Policy) {
	c.concerned(p)
	text := p.Selector.String()
	delete(c.bySelect[text], p.ID)
	if len(c.bySelect[text]) == 0 {
		delete(c.bySelect, text)
		c.concern.Remove(p.Selector)
	}
}

// concerned has the endpoints listed anew that a policy selects.
func (c *Compiler) concerned(p *Policy) {
	c.concernedLocals(p, func(l *local) { c.dirtyLocals[l.endpoint.ID] = true })
}

func (c *Compiler) concernedLocals(p *Policy, f func(*local)) {
	for id := range c.concern.Items(p.Selector) {
		if l := c.locals[id]; l != nil {
			f(l)
		}
	}
}

// SetEndpoint adds an endpoint or network set, wherever it is, or changes it.
func (c *Compiler) SetEndpoint(e *Endpoint) { c.sets.members.SetEndpoint(e) }

// DeleteEndpoint removes an endpoint or network set.
func (c *Compiler) DeleteEndpoint(id ID) { c.sets.members.DeleteEndpoint(id) }

// SetNode adds a node as a peer, or changes it.
func (c *Compiler) SetNode(n Node) { c.sets.nodes.SetEndpoint(n.endpoint()) }

// DeleteNode removes a node as a peer.
func (c *Compiler) DeleteNode(name string) {
	c.sets.nodes.DeleteEndpoint(ID{Kind: kindNode, Name: name})
}

// SetNamespace sets the labels of a namespace; DeleteNamespace takes them back.
func (c *Compiler) SetNamespace(name string, labels map[string]string) {
	c.sets.members.SetNamespace(name, labels)
	c.concern.SetNamespace(name, labels)
}

// DeleteNamespace takes the labels of a namespace back.
func (c *Compiler) DeleteNamespace(name string) { c.SetNamespace(name, nil) }

// SetServiceAccount sets the labels of a service account; nil takes them back.
func (c *Compiler) SetServiceAccount(namespace, name string, labels map[string]string) {
	id := ID{Namespace: namespace, Name: name}
	c.sets.members.SetServiceAccount(id, labels)
	c.concern.SetServiceAccount(id, labels)
}

// SetService sets what is behind a Service; nothing takes it back.
func (c *Compiler) SetService(id ID, endpoints []ServiceEndpoint) { c.sets.setService(id, endpoints) }

// SetLocal adds an endpoint of this node that is to be protected, or changes it. Its
// chains exist from then on.
func (c *Compiler) SetLocal(e *Endpoint) {
	l := c.locals[e.ID]
	if l != nil && l.endpoint == e {
		return
	}
	if l == nil {
		l = &local{}
		c.locals[e.ID] = l
	}
	c.sourcesOf(l.endpoint, e)
	l.endpoint = e
	c.dirtyLocals[e.ID], c.dirtyBases = true, true
	c.dirtyHost = c.dirtyHost || e.Kind == KindHost
	c.concern.Set(e.ID, e)
}

// DeleteLocal removes an endpoint of this node.
func (c *Compiler) DeleteLocal(id ID) {
	l := c.locals[id]
	if l == nil {
		return
	}
	c.sourcesOf(l.endpoint, nil)
	c.concern.Delete(id)
	c.unlist(l)
	delete(c.locals, id)
	delete(c.dirtyLocals, id)
	c.enforced.Delete(id)
	c.dirtyHost, c.dirtyBases = c.dirtyHost || id.Kind == KindHost, true
}

// SetLinks sets the links of this host with their addresses, those that lead to pods
// and the loopback left out.
func (c *Compiler) SetLinks(links map[string][]netip.Addr) {
	c.links = links
	c.dirtyHost, c.dirtyBases = true, true
}

// sourcesOf lets a pod send from its own addresses, in place of what it was.
func (c *Compiler) sourcesOf(was, is *Endpoint) {
	for _, e := range is.sources() {
		c.sources[e]++
		c.sets.put(e, true)
	}
	for _, e := range was.sources() {
		if c.sources[e]--; c.sources[e] == 0 {
			delete(c.sources, e)
			c.sets.put(e, false)
		}
	}
}

// sources returns the elements that let a pod send from its addresses.
func (e *Endpoint) sources() []kernel.Element {
	if e == nil || e.Kind != KindPod {
		return nil
	}
	all := make([]kernel.Element, len(e.Addrs))
	for i, a := range e.Addrs {
		all[i] = kernel.Element{Set: sourceSet(a.Is6()), Beside: e.Link, Prefix: netip.PrefixFrom(a, a.BitLen())}
	}
	return all
}
