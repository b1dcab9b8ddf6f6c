package gobgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"

	"cairn.network/cairn/bgp"
)

// Names of GoBGP's two policies. It has one global policy per direction; what
// differs by peer are statements for sets of neighbours.
const (
	importPolicy = "import"
	exportPolicy = "export"
)

var (
	accept = &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	reject = &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT}
)

// local is the condition that a path is our own.
func local() *api.Conditions {
	return &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}
}

// policies returns what to accept from peers and what to tell them.
func policies(peers map[netip.Addr]bgp.Peer) *api.SetPoliciesRequest {
	req := &api.SetPoliciesRequest{}
	in := &api.Policy{Name: importPolicy, Statements: []*api.Statement{{Name: "in-own", Conditions: local(), Actions: accept}}}
	for i, group := range importGroups(peers) {
		neighbours := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: fmt.Sprintf("neighbours-%d", i)}
		for _, a := range group.peers {
			neighbours.List = append(neighbours.List, netip.PrefixFrom(a, a.BitLen()).String())
		}
		req.DefinedSets = append(req.DefinedSets, neighbours)
		for _, family := range []bgp.Family{bgp.IPv4, bgp.IPv6} {
			prefixes := prefixSet(fmt.Sprintf("prefixes-%d-%v", i, family), family, group.prefixes)
			if len(prefixes.Prefixes) == 0 {
				continue // GoBGP refuses it
			}
			req.DefinedSets = append(req.DefinedSets, prefixes)
			in.Statements = append(in.Statements, &api.Statement{
				Name: "in-" + prefixes.Name,
				Conditions: &api.Conditions{
					NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: neighbours.Name},
					PrefixSet:   &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: prefixes.Name},
				},
				Actions: accept,
			})
		}
	}
	req.Policies = []*api.Policy{in, outPolicy(peers)}
	return req
}

// outPolicy lets out own paths only, and none with a next hop of the other
// family: where a path has none of its own GoBGP puts in the session's address,
// even an IPv4 one for an IPv6 prefix. Only whole addresses can be matched:
// GoBGP v4.8 forgets the length of a prefix of next hops.
func outPolicy(peers map[netip.Addr]bgp.Peer) *api.Policy {
	out := &api.Policy{Name: exportPolicy}
	for _, f := range []struct {
		name  string
		afi   api.Family_Afi
		other func(bgp.Peer) bool // a session of the other family that exchanges this one
	}{
		{"out-v4-by-v6", api.Family_AFI_IP, func(p bgp.Peer) bool { return p.IPv4 && bgp.FamilyOf(p.Local) == bgp.IPv6 }},
		{"out-v6-by-v4", api.Family_AFI_IP6, func(p bgp.Peer) bool { return p.IPv6 && bgp.FamilyOf(p.Local) == bgp.IPv4 }},
	} {
		hops := map[string]bool{}
		for _, p := range peers {
			if f.other(p) {
				hops[p.Local.String()] = true
			}
		}
		if len(hops) > 0 {
			out.Statements = append(out.Statements, &api.Statement{
				Name: f.name,
				Conditions: &api.Conditions{
					AfiSafiIn:     []*api.Family{{Afi: f.afi, Safi: api.Family_SAFI_UNICAST}},
					NextHopInList: slices.Sorted(maps.Keys(hops)),
				},
				Actions: reject,
			})
		}
	}
	out.Statements = append(out.Statements, &api.Statement{Name: "out-own", Conditions: local(), Actions: accept})
	return out
}

func prefixSet(name string, family bgp.Family, prefixes []netip.Prefix) *api.DefinedSet {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name}
	for _, p := range prefixes {
		if bgp.FamilyOf(p.Addr()) == family {
			set.Prefixes = append(set.Prefixes, &api.Prefix{
				IpPrefix: p.String(), MaskLengthMin: uint32(p.Bits()), MaskLengthMax: uint32(p.Addr().BitLen()),
			})
		}
	}
	return set
}

type importGroup struct {
	prefixes []netip.Prefix
	peers    []netip.Addr
}

// importGroups gathers the peers that have the same Import. Who may tell
// nothing is in none.
func importGroups(peers map[netip.Addr]bgp.Peer) []importGroup {
	groups := map[bgp.PrefixSet]*importGroup{}
	for addr, p := range peers {
		g := groups[p.Import]
		if g == nil {
			g = &importGroup{prefixes: p.Import.List()}
			groups[p.Import] = g
		}
		g.peers = append(g.peers, addr)
	}
	var out []importGroup
	for _, g := range groups {
		if len(g.prefixes) > 0 {
			slices.SortFunc(g.peers, netip.Addr.Compare)
			out = append(out, *g)
		}
	}
	return out
}

// assignPolicies puts the policies in force: what they don't accept is refused.
func (s *instance) assignPolicies(ctx context.Context) error {
	if err := s.server.SetPolicies(ctx, policies(nil)); err != nil {
		return fmt.Errorf("set policies: %w", err)
	}
	for name, direction := range map[string]api.PolicyDirection{
		importPolicy: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
		exportPolicy: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
	} {
		err := s.server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
			Direction:     direction,
			Policies:      []*api.Policy{{Name: name}},
			DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		}})
		if err != nil {
			return fmt.Errorf("assign %s policy: %w", name, err)
		}
	}
	return nil
}
