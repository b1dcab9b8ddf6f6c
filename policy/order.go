package policy

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// stagedKind begins the kinds of staged policies; the kind of the enforced policy of
// the same name follows.
const stagedKind = "Staged"

// enforced returns the ID that a policy has, or of a staged one the ID that it would
// have when enforced.
func (id ID) enforced() ID {
	id.Kind = strings.TrimPrefix(id.Kind, stagedKind)
	return id
}

// CompareTiers orders tiers: by order, name.
func CompareTiers(a, b Tier) int {
	return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(a.Name, b.Name))
}

// TierPolicies is a tier with those of its policies that concern an endpoint, in
// order; there is at least one.
type TierPolicies struct {
	Tier     Tier
	Policies []*Policy
}

// Concerning returns the enforced policies that concern an endpoint, one direction
// and one phase, by tier, in the order in which they are asked.
//
// What names a tier that does not exist is as if it had a Fault. It comes before all
// tiers: nobody knows what it was to be asked before, and what it was to deny must not
// be allowed by others.
func (w *World) Concerning(e *Endpoint, d Direction, ph Phase) []TierPolicies {
	return kept(w.memo.concern, concern{e, d, ph}, func() []TierPolicies { return w.concerningNow(e, d, ph) })
}

func (w *World) concerningNow(e *Endpoint, d Direction, ph Phase) []TierPolicies {
	tiers := slices.SortedFunc(slices.Values(w.Tiers), CompareTiers)
	byTier := make(map[string][]*Policy)
	for _, p := range w.Policies {
		name := p.Tier
		if !slices.ContainsFunc(tiers, func(t Tier) bool { return t.Name == name }) {
			lostPolicy := *p
			lostPolicy.Fault = cmp.Or(p.Fault, "there is no tier "+name)
			p, name = &lostPolicy, lostTier.Name
		}
		if w.concerns(p, e, d, ph) {
			byTier[name] = append(byTier[name], p)
		}
	}
	var out []TierPolicies
	for _, t := range append([]Tier{lostTier}, tiers...) {
		if policies := byTier[t.Name]; len(policies) > 0 {
			slices.SortFunc(policies, Compare)
			out = append(out, TierPolicies{t, policies})
		}
	}
	return out
}

// lostTier is the tier of policies that name one that does not exist.
var lostTier = Tier{Order: math.Inf(-1), Default: Deny}

// concerns says whether a policy is enforced for an endpoint, in a direction and phase.
func (w *World) concerns(p *Policy, e *Endpoint, d Direction, ph Phase) bool {
	return p.enforcedFor(e.Kind, d, ph) && p.Selector.Matches(w.labelsOf(e))
}

// enforcedFor says whether a policy is enforced for endpoints of a kind that it
// selects, in a direction and phase. One that has a Fault is about both directions,
// whatever it was to apply to.
func (p *Policy) enforcedFor(kind string, d Direction, ph Phase) bool {
	switch {
	case p.Staged || !p.in(ph):
		return false
	case kind != KindHost && (kind != KindPod || ph != Normal):
		return false
	case ph == PreDNAT && d == Egress: // nothing leaves before it is translated
		return false
	}
	return p.Applies[d] || p.Fault != ""
}

// in says whether a policy is enforced in a phase. What applies to forwarded traffic
// applies to the host's own, too.
func (p *Policy) in(ph Phase) bool {
	switch ph {
	case Untracked:
		return p.DoNotTrack
	case PreDNAT:
		return p.PreDNAT
	case Forward:
		return p.ApplyOnForward && !p.DoNotTrack && !p.PreDNAT
	}
	return !p.DoNotTrack && !p.PreDNAT
}

// Staged returns the world as it would be with its staged policies enforced: each in
// the place of the enforced policy of its kind and name, if there is one; those with
// Delete take that one away. What it says of a packet names staged policies by their
// own IDs.
func (w *World) Staged() *World {
	replaced := make(map[ID]bool)
	for _, p := range w.Policies {
		if p.Staged {
			replaced[p.enforced()] = true
		}
	}
	staged := *w
	staged.Policies, staged.memo = nil, memo{}
	if w.memo.byAddr != nil {
		staged.memo = newMemo(&staged)
	}
	for _, p := range w.Policies {
		switch {
		case !p.Staged && !replaced[p.ID]:
			staged.Policies = append(staged.Policies, p)
		case p.Staged && !p.Delete:
			enforced := *p
			enforced.Staged = false
			staged.Policies = append(staged.Policies, &enforced)
		}
	}
	return &staged
}
