package calc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/selector"
)

// pool is a range of pods' addresses.
type pool struct {
	name     string
	cidr     netip.Prefix
	mode     v1.EncapMode // when packets travel in the tunnel
	link     string       // of the tunnel; "" if mode is Never
	disabled bool
	noExport bool
	nodes    *selector.Selector // that may claim blocks
}

// modeField returns the field that says when packets travel in a tunnel.
func modeField(link string) string {
	if link == kernel.LinkIPIP {
		return "spec.ipipMode"
	}
	return "spec.vxlanMode"
}

// pools is the cluster's address ranges, disabled ones included: what was given
// from them stays routed.
type pools struct {
	list   []*pool // the oldest first
	byCIDR map[netip.Prefix]*pool
	bits   []int // the prefix lengths that there are
	// protected is what the rules of nftables need to know of them.
	protected []protectedPool
	issues    []v1.Issue
}

// newPools returns the pools that are valid and do not overlap an older one.
func newPools(s *datastore.Snapshot) *pools {
	ps := &pools{byCIDR: map[netip.Prefix]*pool{}}
	objects := datastore.Sorted[*v1.IPPool](s)
	slices.SortStableFunc(objects, func(a, b *v1.IPPool) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	for _, o := range objects {
		full, issues := check(o, "the pool is ignored")
		ps.issues = append(ps.issues, issues...)
		if len(issues) == 0 {
			ps.add(full)
		}
	}
	return ps
}

func (ps *pools) add(o *v1.IPPool) {
	p := &pool{
		name: o.Name, cidr: o.Prefix(), mode: v1.EncapNever,
		disabled: o.Spec.Disabled, noExport: o.Spec.DisableBGPExport,
	}
	issue := func(field, format string, args ...any) {
		ps.issues = append(ps.issues, v1.Issue{Object: objectName(o), Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	if i := slices.IndexFunc(ps.list, func(q *pool) bool { return q.cidr.Overlaps(p.cidr) }); i >= 0 {
		first := ps.list[i]
		issue("spec.cidr", "%s overlaps IPPool %s (%s), which is older or else the first by name: the pool is ignored", p.cidr, first.name, first.cidr)
		return
	}
	nodes, err := selector.Parse(o.Spec.NodeSelector)
	if err != nil {
		issue("spec.nodeSelector", "%v: the pool is ignored", err)
		return
	}
	p.nodes = nodes
	switch {
	case o.Spec.IPIPMode != v1.EncapNever:
		p.mode, p.link = o.Spec.IPIPMode, kernel.LinkIPIP
	case o.Spec.VXLANMode != v1.EncapNever:
		p.mode, p.link = o.Spec.VXLANMode, kernel.LinkVXLAN4
		if p.cidr.Addr().Is6() {
			p.link = kernel.LinkVXLAN6
		}
	}
	ps.list = append(ps.list, p)
	ps.protected = append(ps.protected, protectedPool{p.cidr, o.Spec.NATOutgoing})
	ps.byCIDR[p.cidr] = p
	if !slices.Contains(ps.bits, p.cidr.Bits()) {
		ps.bits = append(ps.bits, p.cidr.Bits())
	}
}

// of returns the pool around a block or an address; nil if there is none. There
// may be many pools, but they have few lengths of prefix.
func (ps *pools) of(block netip.Prefix) *pool {
	for _, bits := range ps.bits {
		if bits > block.Bits() {
			continue
		}
		around, err := block.Addr().Prefix(bits)
		if p := ps.byCIDR[around]; err == nil && p != nil {
			return p
		}
	}
	return nil
}

// names returns those of the pools, joined by blanks, the first by name first.
func names(list []*pool) string {
	list = slices.SortedFunc(slices.Values(list), func(a, b *pool) int { return cmp.Compare(a.name, b.name) })
	text := ""
	for i, p := range list {
		if i > 0 {
			text += " "
		}
		text += p.name
	}
	return text
}

// contains says whether inner lies inside outer, or is the same. Both are
// masked.
func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
