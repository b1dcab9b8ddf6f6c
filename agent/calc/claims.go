package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// claim says which node a range of addresses is routed to.
type claim struct {
	node string
	pool string // name of the pool that the block names; "" for a single address
}

// claims is what the datastore says of who has which pods' addresses.
type claims struct {
	node string // name of the own node
	part *datastore.Part
	// blocks holds the confirmed blocks.
	blocks map[netip.Prefix]claim
	// lent holds the nodes other than the block's that hold a single address,
	// whatever the block's state, in order: the first counts. Nested blocks can both
	// name an address.
	lent map[netip.Prefix][]string
	// of holds the ranges that are routed to each node, in no order.
	of map[string][]netip.Prefix
	// ownChanges counts the changes of what is routed to the own node.
	ownChanges int

	faults map[string][]v1.Issue // by block
	issues []v1.Issue
}

// claimChange is what became of a range. An empty node: there is no claim.
type claimChange struct {
	dst     netip.Prefix
	was, is claim
	// ownBlock says that an own block came or went, which concerns the ranges in it
	// too.
	ownBlock bool
}

func newClaims(node string) *claims {
	return &claims{
		node: node, blocks: map[netip.Prefix]claim{}, lent: map[netip.Prefix][]string{}, of: map[string][]netip.Prefix{},
		faults: map[string][]v1.Issue{},
	}
}

// claimed returns where a range is routed, and whether that is because the node
// holds the single address. Who has an address by itself counts more than whose
// block it is.
func (cs *claims) claimed(dst netip.Prefix) (c claim, lent, ok bool) {
	if holders := cs.lent[dst]; len(holders) > 0 {
		return claim{node: holders[0]}, true, true
	}
	c, ok = cs.blocks[dst]
	return c, false, ok
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

func (b parsedBlock) equal(o parsedBlock) bool {
	return b.cidr == o.cidr && b.owner == o.owner && b.confirmed == o.confirmed &&
		slices.Equal(b.lent, o.lent) && slices.Equal(b.issues, o.issues)
}

// eachRange calls f for each range that the block says something of.
func (b parsedBlock) eachRange(f func(netip.Prefix)) {
	if b.confirmed {
		f(b.cidr)
	}
	for _, l := range b.lent {
		f(l.address)
	}
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

// update takes in the blocks as they are now, and returns the ranges that are
// routed elsewhere than before. Most changes of blocks are allocations, which
// change none.
func (cs *claims) update(part *datastore.Part) []claimChange {
	if part == cs.part {
		return nil
	}
	before := map[netip.Prefix]claimChange{}
	if cs.part == nil {
		before = make(map[netip.Prefix]claimChange, part.Len())
		cs.blocks = make(map[netip.Prefix]claim, part.Len())
	}
	note := func(dst netip.Prefix) {
		if _, ok := before[dst]; !ok {
			was, _, _ := cs.claimed(dst)
			before[dst] = claimChange{dst: dst, was: was, ownBlock: cs.own(dst)}
		}
	}
	faults := false
	for was, is := range datastore.Changed[*v1.IPAMBlock](cs.part, part) {
		var old, now parsedBlock
		if was != nil {
			old = parseBlock(was)
		}
		if is != nil {
			now = parseBlock(is)
		}
		if old.equal(now) {
			continue
		}
		old.eachRange(note)
		now.eachRange(note)
		cs.remove(old)
		cs.add(now)
		name := objectOf(was, is).Name
		if delete(cs.faults, name); len(now.issues) > 0 {
			cs.faults[name] = now.issues
		}
		faults = faults || len(old.issues)+len(now.issues) > 0
	}
	cs.part = part
	if faults {
		cs.issues = sortIssues(slices.Collect(maps.Values(cs.faults))...)
	}
	var changes []claimChange
	for dst, c := range before {
		c.is, _, _ = cs.claimed(dst)
		c.ownBlock = c.ownBlock != cs.own(dst)
		changes = append(changes, c)
		cs.index(c)
	}
	return changes
}

// index keeps the ranges of each node.
func (cs *claims) index(c claimChange) {
	if c.was.node == c.is.node {
		return
	}
	if c.was.node == cs.node || c.is.node == cs.node {
		cs.ownChanges++
	}
	if c.was.node != "" {
		left := slices.DeleteFunc(cs.of[c.was.node], func(p netip.Prefix) bool { return p == c.dst })
		if cs.of[c.was.node] = left; len(left) == 0 {
			delete(cs.of, c.was.node)
		}
	}
	if c.is.node != "" {
		cs.of[c.is.node] = append(cs.of[c.is.node], c.dst)
	}
}

func (cs *claims) add(b parsedBlock) {
	if b.confirmed {
		cs.blocks[b.cidr] = b.owner
	}
	for _, l := range b.lent {
		holders := append(cs.lent[l.address], l.holder)
		slices.Sort(holders)
		cs.lent[l.address] = holders
	}
}

func (cs *claims) remove(b parsedBlock) {
	if b.confirmed {
		delete(cs.blocks, b.cidr)
	}
	for _, l := range b.lent {
		holders := cs.lent[l.address]
		i := slices.Index(holders, l.holder)
		holders = slices.Delete(holders, i, i+1)
		if cs.lent[l.address] = holders; len(holders) == 0 {
			delete(cs.lent, l.address)
		}
	}
}

// own says whether a range is a confirmed block of the own node.
func (cs *claims) own(p netip.Prefix) bool {
	c, ok := cs.blocks[p]
	return ok && c.node == cs.node
}

// inside returns the own confirmed block around a prefix, or equal to it.
func (cs *claims) inside(p netip.Prefix) (netip.Prefix, bool) {
	for bits := p.Bits(); bits > 0; bits-- {
		if around := netip.PrefixFrom(p.Addr(), bits).Masked(); cs.own(around) {
			return around, true
		}
	}
	return netip.Prefix{}, false
}
