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
//	members, pools, settings   the Nodes, IPPools and the BGPConfiguration
//	claims                     the IPAMBlocks: who routes what
//	fabric                     the host without the links of pods
//	sessions                   members, pools, settings and the BGPPeers
//	paths                      members, pools and claims
//	routes                     all of these and the RIB: everything but pods
//	pods                       the assignments and the host's links
type Calculator struct {
	nodes  parser[*v1.Node, parsedNode]
	blocks parser[*v1.IPAMBlock, parsedBlock]

	members  memo[membersKey, *members]
	pools    memo[*datastore.Part, *pools]
	settings memo[*datastore.Part, *settings]
	claims   memo[*datastore.Part, *claims]
	fabric   memo[*kernel.Host, *fabric]
	sessions memo[sessionsKey, *sessions]
	paths    memo[pathsKey, map[netip.Prefix]bgp.Path]
	routes   memo[routesKey, *routes]
	pods     memo[podsKey, *pods]
	state    memo[stateKey, State]
}

// stateKey is everything that a State is put together from.
type stateKey struct {
	node     string
	members  *members
	pools    *pools
	settings *settings
	claims   *claims
	fabric   *fabric
	sessions *sessions
	routes   *routes
	pods     *pods
	complete bool
}

// Desired returns what the node should be.
func (c *Calculator) Desired(in Inputs) State {
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

	k := stateKey{node: in.Node, complete: in.RIB.Complete}
	k.members = c.members.get(membersKey{in.Store.Part("Node"), in.Node}, func() *members {
		return newMembers(in.Node, c.nodes.parse(in.Store, parseNode))
	})
	k.pools = c.pools.get(in.Store.Part("IPPool"), func() *pools { return newPools(in.Store) })
	k.settings = c.settings.get(in.Store.Part("BGPConfiguration"), func() *settings { return newSettings(in.Store) })
	k.claims = c.claims.get(in.Store.Part("IPAMBlock"), func() *claims {
		return newClaims(c.blocks.parse(in.Store, parseBlock)).or(c.claims.value)
	})
	k.fabric = c.fabric.get(in.Host, func() *fabric { return newFabric(in.Host, c.fabric.value) })
	sk := sessionsKey{in.Store.Part("BGPPeer"), k.members, k.pools, k.settings, in.Restarting}
	k.sessions = c.sessions.get(sk, func() *sessions { return newSessions(sk, in.Store) })
	pk := pathsKey{k.members, k.pools, k.claims}
	paths := c.paths.get(pk, pk.paths)
	rk := routesKey{k.members, k.pools, k.settings, k.claims, k.fabric, k.sessions, in.RIB}
	k.routes = c.routes.get(rk, func() *routes { return newRoutes(rk, c.routes.value) })
	ok := podsKey{in.Pods, in.Host}
	k.pods = c.pods.get(ok, func() *pods { return newPods(ok, c.pods.value) })
	s := c.state.get(k, func() State { return k.assemble(paths) })
	if unreadable := in.Store.Issues(); len(unreadable) > 0 {
		s.Issues = sortIssues(s.Issues, unreadable)
	}
	return s
}

// assemble puts the parts together. A pod's route goes before any other to the
// same address: what is here need not be looked for elsewhere.
func (k stateKey) assemble(paths map[netip.Prefix]bgp.Path) State {
	s := State{
		Sysctls:     immutable.Of(k.pods.sysctls),
		Routes:      immutable.Of(k.routes.routes),
		Speaker:     immutable.Of(k.sessions.speaker),
		Peers:       immutable.Of(k.sessions.peers),
		Paths:       immutable.Of(paths),
		Tentative:   len(k.sessions.peers) > 0 && !k.complete, // without peers there is nothing to come
		MTU:         k.fabric.mtu(k.members.own),
		Origins:     immutable.Of(k.routes.origins),
		Unused:      immutable.Of(k.routes.unused),
		PeerOrigins: immutable.Of(k.sessions.origins),
		Issues: sortIssues(k.members.issues, k.pools.issues, k.settings.issues, k.claims.issues,
			k.sessions.issues, k.pods.issues),
	}
	if len(k.pods.routes) == 0 {
		return s
	}
	for key, r := range k.pods.routes {
		if o, ok := s.Origins.Get(key); ok {
			s.Unused = s.Unused.With(key.Dst, "a pod of this node has the address, so it is not routed to "+string(o.Kind)+" "+o.From)
		}
		s.Routes, s.Origins = s.Routes.With(key, r), s.Origins.With(key, k.pods.origins[key])
	}
	return s
}

// sortIssues returns the issues in order, each once.
func sortIssues(lists ...[]v1.Issue) []v1.Issue {
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b v1.Issue) int {
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.Field, b.Field), strings.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(all)
}
