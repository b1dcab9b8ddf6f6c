package policy

import (
	"strings"

	"cairn.network/cairn/immutable"
)

// Origin says what a rule of the kernel was compiled from.
type Origin struct {
	Direction Direction
	// Tier is the policy's; "" of a policy that is gone by now.
	Tier string
	// Policy is whose rule it is: one that is in force, nil of a tier's default action,
	// and of a policy that is gone by now.
	Policy *Policy
	// Chain is the policy's, or the tier's, Unversioned.
	Chain string
	Rule  int // index in the policy; -1: the default action, or the policy's Fault
}

// OriginOf returns what a rule with this comment in a chain of Cairn's table was
// compiled from; false: it is of no policy. Policies are those in force, by the names of
// their chains (Output).
func OriginOf(chain, comment string, policies immutable.Map[string, *Policy]) (Origin, bool) {
	chain = Unversioned(chain)
	if own, index, ok := strings.Cut(comment, " "); ok { // of a policy whose rules stand in the lists
		chain, comment = own, index
	}
	rule, ok := ruleIn(comment)
	if !ok {
		return Origin{}, false
	}
	return OriginOfLog(Logged{Chain: chain, Rule: rule}, policies)
}

// OriginOfLog returns what the rule was compiled from that logged a packet.
func OriginOfLog(l Logged, policies immutable.Map[string, *Policy]) (Origin, bool) {
	o := Origin{Chain: l.Chain, Rule: l.Rule}
	parts := strings.Split(l.Chain, "/")
	switch parts[len(parts)-1] {
	case Ingress.way():
	case Egress.way():
		o.Direction = Egress
	default:
		return Origin{}, false
	}
	if p, ok := policies.Get(l.Chain); ok {
		o.Policy, o.Tier = p, p.Tier
		return o, true
	}
	if parts[0] == tierPrefix && len(parts) > 1 {
		o.Tier = parts[1]
		return o, true
	}
	return o, known(parts)
}

// known says whether a chain's name is one that a policy may have.
func known(parts []string) bool {
	if parts[0] == untrackedPrefix {
		parts = parts[1:]
	}
	for _, short := range abbreviations {
		if len(parts) > 0 && parts[0] == short {
			return true
		}
	}
	return false
}

// Action returns what the rule does with packets; "" where that is not known, because
// the policy is gone or was changed.
func (o Origin) Action() Action {
	switch {
	case o.Rule < 0:
		return Deny
	case o.Policy == nil || o.Rule >= len(o.Policy.Rules[o.Direction]):
		return ""
	}
	return o.Policy.Rules[o.Direction][o.Rule].Action
}

// Number returns which rule of the policy's resource it is, counted from 1 as people
// count; 0 where Rule is -1.
func (o Origin) Number() int {
	if o.Policy == nil {
		return o.Rule + 1
	}
	return o.Policy.Number(o.Direction, o.Rule)
}

// Number returns which rule of the resource the rule with this index was made from,
// counted from 1 as people count; 0 of an index below zero.
func (p *Policy) Number(d Direction, rule int) int {
	if rule >= 0 && rule < len(p.Rules[d]) && p.Rules[d][rule].Number > 0 {
		return p.Rules[d][rule].Number
	}
	return rule + 1
}

// Name returns the policy's kind and name, the name of its chain if it is gone, and ""
// of a tier's default action.
func (o Origin) Name() string {
	switch {
	case o.Policy != nil:
		return o.Policy.ID.String()
	case o.Tier != "":
		return ""
	}
	return o.Chain
}
