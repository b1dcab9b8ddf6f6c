package calc

import (
	"fmt"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// pool is a range of pods' addresses.
type pool struct {
	name     string
	cidr     netip.Prefix
	mode     v1.EncapMode // of whichever tunnel the pool uses
	noExport bool
}

// pools is the cluster's address ranges, disabled ones included: what was given
// from them stays routed.
type pools struct {
	list   []*pool // the oldest first
	issues []v1.Issue
}

// newPools returns the pools that are valid and do not overlap an older one.
func newPools(s *datastore.Snapshot) *pools {
	ps := &pools{}
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
	p := &pool{name: o.Name, cidr: o.Prefix(), mode: v1.EncapNever, noExport: o.Spec.DisableBGPExport}
	issue := func(field, format string, args ...any) {
		ps.issues = append(ps.issues, v1.Issue{Object: objectName(o), Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	if i := slices.IndexFunc(ps.list, func(q *pool) bool { return q.cidr.Overlaps(p.cidr) }); i >= 0 {
		first := ps.list[i]
		issue("spec.cidr", "%s overlaps IPPool %s (%s), which is older or else the first by name: the pool is ignored", p.cidr, first.name, first.cidr)
		return
	}
	for _, tunnel := range []struct {
		field string
		mode  v1.EncapMode
	}{{"spec.ipipMode", o.Spec.IPIPMode}, {"spec.vxlanMode", o.Spec.VXLANMode}} {
		if tunnel.mode != v1.EncapNever {
			p.mode = tunnel.mode
			issue(tunnel.field, "tunnels are not programmed by this version: where %s asks for one there is a route only if BGP gives it", tunnel.mode)
		}
	}
	if o.Spec.NATOutgoing {
		issue("spec.natOutgoing", "addresses are not translated by this version: packets leave with the pods' own")
	}
	ps.list = append(ps.list, p)
}

// of returns the pool around a block or an address; nil if there is none.
func (ps *pools) of(block netip.Prefix) *pool {
	i := slices.IndexFunc(ps.list, func(p *pool) bool { return contains(p.cidr, block) })
	if i < 0 {
		return nil
	}
	return ps.list[i]
}

// contains says whether inner lies inside outer, or is the same. Both are
// masked.
func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
