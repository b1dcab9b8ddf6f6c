package calc

import (
	"net/netip"

	"cairn.network/cairn/bgp"
)

// pathsKey is what the paths depend on.
type pathsKey struct {
	member bool // others can reach the own node
	pools  *pools
	claims int // see claims.ownChanges
}

// paths returns what the node advertises: its confirmed blocks without those
// lent as a whole, and the addresses it borrowed. The next hop is left to the
// sessions, each of one family.
func paths(ms *members, ps *pools, cs *claims) map[netip.Prefix]bgp.Path {
	paths := map[netip.Prefix]bgp.Path{}
	if ms.own() == nil {
		return paths
	}
	for _, dst := range cs.of[ms.node] {
		if p := ps.of(dst); p == nil || !p.noExport {
			paths[dst] = bgp.Path{}
		}
	}
	return paths
}
