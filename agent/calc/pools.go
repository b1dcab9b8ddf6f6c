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
		p, issues := parsePool(o)
		ps.issues = append(ps.issues, issues...)
		if p == nil {
			continue
		}
		if i := slices.IndexFunc(ps.list, func(q *pool) bool { return q.cidr.Overlaps(p.cidr) }); i >= 0 {
			older := ps.list[i]
			ps.issues = append(ps.issues, v1.Issue{
				Object: objectName(o), Field: "spec.cidr",
				Reason: fmt.Sprintf("%s overlaps IPPool %s (%s), which is older: the pool is ignored", p.cidr, older.name, older.cidr),
			})
			continue
		}
		ps.list = append(ps.list, p)
	}
	return ps
}

func parsePool(o *v1.IPPool) (*pool, []v1.Issue) {
	full, issues := check(o, "the pool is ignored")
	if len(issues) > 0 {
		return nil, issues
	}
	p := &pool{name: o.Name, cidr: full.Prefix(), mode: v1.EncapNever, noExport: full.Spec.DisableBGPExport}
	for _, tunnel := range []struct {
		field string
		mode  v1.EncapMode
	}{{"spec.ipipMode", full.Spec.IPIPMode}, {"spec.vxlanMode", full.Spec.VXLANMode}} {
		if tunnel.mode == v1.EncapNever {
			continue
		}
		p.mode = tunnel.mode
		issues = append(issues, v1.Issue{
			Object: objectName(o), Field: tunnel.field,
			Reason: fmt.Sprintf("tunnels are not programmed by this version: where %s asks for one there is a route only if BGP gives it", tunnel.mode),
		})
	}
	return p, issues
}

// of returns the pool that a block was cut from: the one that it names, or else
// the one around it; nil if there is none.
func (ps *pools) of(name string, block netip.Prefix) *pool {
	var around *pool
	for _, p := range ps.list {
		if !contains(p.cidr, block) {
			continue
		}
		if p.name == name {
			return p
		}
		around = p
	}
	return around
}

// cover says whether a prefix lies inside a pool, or is one.
func (ps *pools) cover(p netip.Prefix) bool {
	return slices.ContainsFunc(ps.list, func(q *pool) bool { return contains(q.cidr, p) })
}

// contains says whether inner lies inside outer, or is the same. Both are
// masked.
func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
