package calc

import (
	"net/netip"

	"cairn.network/cairn/bgp"
)

type pathsKey struct {
	members *members
	pools   *pools
	claims  *claims
}

// paths returns what the node advertises: its confirmed blocks without those
// lent as a whole, and the addresses it borrowed. The next hop is left to the
// sessions, each of one family.
func (k pathsKey) paths() map[netip.Prefix]bgp.Path {
	paths := map[netip.Prefix]bgp.Path{}
	if k.members.own == nil {
		return paths
	}
	add := func(dst netip.Prefix, c claim) {
		if p := k.pools.of(dst); c.node == k.members.node && (p == nil || !p.noExport) {
			paths[dst] = bgp.Path{}
		}
	}
	for cidr, c := range k.claims.blocks {
		if _, lent := k.claims.lent[cidr]; !lent {
			add(cidr, c)
		}
	}
	for address, c := range k.claims.lent {
		add(address, c)
	}
	return paths
}
