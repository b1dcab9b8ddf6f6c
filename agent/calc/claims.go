package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
)

// claim says which node a range of addresses is routed to.
type claim struct {
	node string
	pool string // name of the pool that the block names; "" for a single address
}

// claims is what the datastore says of who has which pods' addresses.
type claims struct {
	// blocks holds the confirmed blocks.
	blocks map[netip.Prefix]claim
	// lent holds the single addresses that another node than the block's holds,
	// whatever the block's state.
	lent   map[netip.Prefix]claim
	issues []v1.Issue
}

type parsedBlock struct {
	cidr      netip.Prefix // invalid: refused
	owner     claim
	confirmed bool
	lent      []loan
	issues    []v1.Issue
}

type loan struct {
	address netip.Prefix // a single one
	holder  string
}

// parseBlock reads of a block what routes depend on. The rest is ipam's.
func parseBlock(o *v1.IPAMBlock) parsedBlock {
	refuse := func(field, format string, args ...any) parsedBlock {
		return parsedBlock{issues: []v1.Issue{{
			Object: objectName(o), Field: field, Reason: fmt.Sprintf(format, args...) + ": the block is ignored",
		}}}
	}
	cidr := o.Prefix()
	if !cidr.IsValid() || cidr.Bits() == 0 || !cidr.Addr().IsGlobalUnicast() {
		return refuse("spec.cidr", "%q is no range that can be routed", o.Spec.CIDR)
	}
	// With this no two blocks have one CIDR.
	if name := v1.BlockName(cidr); o.Name != name {
		return refuse("metadata.name", "must be %s, after spec.cidr", name)
	}
	if o.Spec.Node == "" {
		return refuse("spec.node", "no node has claimed the block")
	}
	switch o.Spec.State {
	case v1.BlockPending, v1.BlockConfirmed, v1.BlockReleasing:
	default:
		return refuse("spec.state", "%q is no state of a claim", o.Spec.State)
	}
	b := parsedBlock{cidr: cidr, owner: claim{o.Spec.Node, o.Spec.Pool}, confirmed: o.Spec.State == v1.BlockConfirmed}
	for i, a := range o.Spec.Allocations {
		if a.Node == o.Spec.Node || a.Node == "" {
			continue
		}
		ip, err := netip.ParseAddr(a.Address)
		if err != nil || !cidr.Contains(ip) {
			b.issues = append(b.issues, v1.Issue{
				Object: objectName(o), Field: fmt.Sprintf("spec.allocations[%d].address", i),
				Reason: fmt.Sprintf("%q is no address of %s: it is not routed to node %s", a.Address, cidr, a.Node),
			})
			continue
		}
		b.lent = append(b.lent, loan{netip.PrefixFrom(ip, ip.BitLen()), a.Node})
	}
	return b
}

func newClaims(parsed map[*v1.IPAMBlock]parsedBlock) *claims {
	cs := &claims{blocks: make(map[netip.Prefix]claim, len(parsed)), lent: map[netip.Prefix]claim{}}
	for _, b := range parsed {
		cs.issues = append(cs.issues, b.issues...)
		if b.confirmed {
			cs.blocks[b.cidr] = b.owner
		}
		for _, l := range b.lent {
			// Nested blocks can both name an address; any order will do if it is fixed.
			if other, ok := cs.lent[l.address]; !ok || l.holder < other.node {
				cs.lent[l.address] = claim{node: l.holder}
			}
		}
	}
	cs.issues = sortIssues(cs.issues)
	return cs
}

// or returns the earlier claims if these are the same: most changes of blocks
// are allocations, which change no route.
func (cs *claims) or(earlier *claims) *claims {
	if earlier != nil && maps.Equal(cs.blocks, earlier.blocks) && maps.Equal(cs.lent, earlier.lent) &&
		slices.Equal(cs.issues, earlier.issues) {
		return earlier
	}
	return cs
}

// inside returns the node's own confirmed block around a prefix, or equal to it.
func (cs *claims) inside(node string, p netip.Prefix) (netip.Prefix, bool) {
	for bits := p.Bits(); bits > 0; bits-- {
		around := netip.PrefixFrom(p.Addr(), bits).Masked()
		if c, ok := cs.blocks[around]; ok && c.node == node {
			return around, true
		}
	}
	return netip.Prefix{}, false
}
