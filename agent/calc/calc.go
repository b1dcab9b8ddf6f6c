package calc

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// Desired returns what the node should be.
func Desired(in Inputs) State {
	var c Calculator
	return c.Desired(in)
}

// Calculator computes what Desired does, and keeps the parts of its result whose
// inputs stay the same, so that the cost follows the change. The result does not
// depend on what it was asked before. The zero value is ready; it is for one
// goroutine at a time.
//
// The parts, and what they are made from:
//
//	members, claims          the Nodes and the IPAMBlocks, object by object
//	pools, settings, agent   the other resources
//	fabric                   the host without the links that lead to pods
//	tunnels                  all of these: the own devices
//	sessions                 the nodes, pools, settings and the BGPPeers
//	pods                     the assignments and the host's links
//	routes                   all of these and the RIB, range by range
//	vteps, encryption        the tunnels and the nodes, node by node
//	protector                the tunnels, the nodes' addresses and the pools
//	policies                 the policies and what they select, object by object, the
//	                         assignments and the host's links
type Calculator struct {
	in    Inputs
	state State
	asked bool

	members *members
	claims  *claims

	pools    memo[*datastore.Part, *pools]
	settings memo[*datastore.Part, *settings]
	agent    memo[*datastore.Part, *agentSettings]
	fabric   memo[*kernel.Host, *fabric]
	tunnels  memo[tunnelsKey, *tunnels]
	pods     memo[podsKey, *pods]
	paths    memo[pathsKey, immutable.Map[netip.Prefix, bgp.Path]]

	sessions   *sessions
	sysctls    sysctls
	routes     routes
	vteps      vteps
	encryption encryption
	met        immutable.Map[kernel.WireGuardKey, bool]
	addresses  immutable.Map[netip.Addr, string] // of all nodes
	protector  protector
	policies   *policies
	rules      rules
}

// Desired returns what the node should be.
func (c *Calculator) Desired(in Inputs) State {
	if c.asked && in == c.in {
		return c.state
	}
	if !c.asked || in.Node != c.in.Node {
		*c = Calculator{members: newMembers(in.Node), claims: newClaims(in.Node), policies: newPolicies()}
	}
	c.in, c.asked = in, true
	c.state = c.desired(in.complete())
	return c.state
}

// complete returns the inputs with something in place of what is missing.
func (in Inputs) complete() Inputs {
	if in.Store == nil {
		in.Store = datastore.NewSnapshot()
	}
	if in.Pods == nil {
		in.Pods = ipam.NewAssignments()
	}
	if in.Host == nil {
		in.Host = &kernel.Host{}
	}
	if in.RIB == nil {
		in.RIB = &bgp.RIB{}
	}
	return in
}

func (c *Calculator) desired(in Inputs) State {
	nodes := c.members.update(in.Store.Part("Node"))
	claimed := c.claims.update(in.Store.Part("IPAMBlock"))
	pools := c.pools.get(in.Store.Part("IPPool"), func() *pools { return newPools(in.Store) })
	settings := c.settings.get(in.Store.Part("BGPConfiguration"), func() *settings { return newSettings(in.Store) })
	agent := c.agent.get(in.Store.Part("AgentConfiguration"), func() *agentSettings { return newAgentSettings(in.Store, in.Node) })
	fabric := c.fabric.get(in.Host, func() *fabric { return newFabric(in.Host, c.fabric.value) })
	tk := newTunnelsKey(c.members, pools, agent, fabric, &in)
	tunnels := c.tunnels.get(tk, func() *tunnels { return tk.tunnels(c.tunnels.value) })
	pk := podsKey{in.Pods, in.Host}
	pods := c.pods.get(pk, func() *pods { return newPods(pk, c.pods.value) })
	own := c.members.own()

	sk := sessionsKey{in.Store.Part("BGPPeer"), own, pools, settings, in.Restarting}
	sessions, anew, came := c.sessions.update(sk, in.Store, c.members, nodes)
	c.sessions = sessions
	v := &view{
		viewKey: viewKey{own, pools, settings, fabric, tunnels},
		members: c.members, claims: c.claims, sessions: sessions, rib: in.RIB, pods: pods, met: in.Met,
	}
	c.sysctls.update(pods, tunnels, in.Host)
	c.vteps.update(tunnels, c.members, nodes)
	c.addresses = located(c.addresses, nodes)
	nodes = append(nodes, c.members.acquainted(c.met, in.Met)...)
	c.met = in.Met
	c.routes.update(v, anew, nodes, claimed, came)
	c.encryption.update(v, nodes, claimed)
	return c.assemble(v, in, tk)
}

// assemble puts the parts together.
func (c *Calculator) assemble(v *view, in Inputs, tk tunnelsKey) State {
	earlier := &c.state
	devices := edited(earlier.Tunnels, v.tunnels.devices())
	protection := c.protector.protection(protectionInput{tunnels: devices, nodes: c.addresses, pools: v.pools.protected})
	enforced := c.policies.update(in, tk.settings, devices)
	c.rules = c.rules.of(protection, enforced)
	s := State{
		Sets:     c.rules.sets,
		Elements: c.rules.elements,
		Chains:   c.rules.chains,
		Policies: enforced.Policies,
		Locals:   enforced.Locals,

		EndRefused: tk.settings.PolicyChange == v1.PolicyTerminate,

		Sysctls:    c.sysctls.all,
		Tunnels:    devices,
		Addrs:      edited(earlier.Addrs, v.tunnels.addrs()),
		Neighbours: c.vteps.neighbours,
		Forwarding: c.vteps.forwarding,
		WireGuard:  c.encryption.peers,
		Routes:     c.routes.routes,

		Speaker: v.sessions.speaker,
		Peers:   v.sessions.peers,
		Paths: c.paths.get(pathsKey{v.own != nil, v.pools, c.claims.ownChanges}, func() immutable.Map[netip.Prefix, bgp.Path] {
			return edited(earlier.Paths, paths(c.members, v.pools, c.claims))
		}),

		Held:      c.routes.held,
		Tentative: v.sessions.peers.Len() > 0 && !in.RIB.Complete, // without peers there is nothing to come
		MTU:       v.tunnels.mtu,
		Uses:      edited(earlier.Uses, v.tunnels.uses()),

		Origins:     c.routes.origins,
		Unused:      c.routes.unused,
		PeerOrigins: v.sessions.origins,
		Issues: sortIssues(c.members.issues, v.pools.issues, v.settings.issues, tk.settings.issues, c.claims.issues,
			v.sessions.issues, v.pods.issues, tk.issues(v.tunnels), c.policies.ordered, in.Store.Issues()),
	}
	if slices.Equal(s.Issues, earlier.Issues) {
		s.Issues = earlier.Issues // who looks at them can tell at once
	}
	return s
}

// located returns the map from each node's address to its name after changes.
func located(addresses immutable.Map[netip.Addr, string], changes []memberChange) immutable.Map[netip.Addr, string] {
	e := addresses.Edit()
	for _, c := range changes { // an address may go from one node to another
		if c.was != nil {
			for _, a := range c.was.addresses() {
				e.Delete(a.Addr())
			}
		}
	}
	for _, c := range changes {
		if c.is != nil {
			for _, a := range c.is.addresses() {
				e.Set(a.Addr(), c.name)
			}
		}
	}
	return immutable.Share(e.Map(), addresses)
}

// sortIssues returns the issues in order, each once.
func sortIssues(lists ...[]v1.Issue) []v1.Issue {
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b v1.Issue) int {
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.Field, b.Field), strings.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(all)
}
