package policy

import (
	"fmt"
	"net/netip"
)

// Packet is the first packet of a connection, or one that is not tracked. Its
// addresses are of one family, and IPv4's are not written as IPv6. Where policies see
// it, a Service's address has been translated, but before PreDNAT and Untracked.
type Packet struct {
	Src, Dst netip.Addr
	Protocol uint8
	// SrcPort and DstPort are of protocols that have ports.
	SrcPort, DstPort uint16
	// ICMPType and ICMPCode are of ICMP and ICMPv6.
	ICMPType, ICMPCode uint8
}

// String returns the packet with its protocol by number: "6 10.0.0.1:1024 > 10.0.0.2:80",
// "58 fd00::1 > fd00::2 type 128 code 0", "47 10.0.0.1 > 10.0.0.2".
func (p Packet) String() string {
	switch {
	case hasPorts(p.Protocol):
		return fmt.Sprintf("%d %v > %v", p.Protocol, netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort))
	case p.Protocol == protoICMP || p.Protocol == protoICMPv6:
		return fmt.Sprintf("%d %v > %v type %d code %d", p.Protocol, p.Src, p.Dst, p.ICMPType, p.ICMPCode)
	}
	return fmt.Sprintf("%d %v > %v", p.Protocol, p.Src, p.Dst)
}

// Reason says what a decision rests on.
type Reason string

// Reasons.
const (
	ReasonRule     Reason = "rule"           // a rule of a policy matched
	ReasonDefault  Reason = "default action" // of a tier whose policies concern the endpoint, and none matched
	ReasonFault    Reason = "fault"          // a policy that can't be enforced as written
	ReasonNoPolicy Reason = "no policy"      // none concerns the endpoint
	ReasonPassed   Reason = "passed"         // every tier that concerns the endpoint passed it on
	ReasonFailSafe Reason = "fail-safe port" // policies can't deny it
	ReasonOwnNode  Reason = "own node"       // a node reaches its own pods
)

// RuleID names what did something to a packet.
type RuleID struct {
	Tier string // "": no tier
	// Policy is zero for the tier's default action.
	Policy ID
	// Rule is counted from 0 within the policy's direction; -1: no rule.
	Rule int
}

// Step is something on the way to a decision. Each policy that is asked has one, which
// says what it did, and before it one for each of its rules that logged.
type Step struct {
	RuleID
	// Action is what was done; "": no rule of the policy decided.
	Action Action
}

// Decision is what one endpoint does with a packet, and why.
type Decision struct {
	// Action is Allow or Deny; in the phases Untracked and PreDNAT also Pass: the packet
	// goes on to what comes after the phase.
	Action Action
	RuleID // what decided; without Tier, nothing did but Reason
	Reason Reason
	Fault  string // why the policy can't be enforced, of ReasonFault
	// Steps lists every policy that was asked, in order, up to the one that decided, and
	// tiers' default actions.
	Steps []Step
}

// Logged returns the rules that logged the packet, in order.
func (d Decision) Logged() []RuleID {
	var rules []RuleID
	for _, s := range d.Steps {
		if s.Action == Log {
			rules = append(rules, s.RuleID)
		}
	}
	return rules
}

// Decide returns what an endpoint does with a packet in one direction and phase. Of
// pods and in the phases Normal and Forward it is Allow unless something denies. It is
// the connection that is decided about: what answers is let through by its state, but
// for untracked packets, which are decided about one by one.
//
// A FailSafe port is allowed in the phase Normal. In Untracked and PreDNAT it passes:
// its connections are tracked, and the phase Normal allows them. Neighbour discovery is
// not forwarded, and not decided about here.
func (w *World) Decide(e *Endpoint, d Direction, ph Phase, p Packet) Decision {
	out := Decision{Action: Allow, RuleID: RuleID{Rule: -1}, Reason: ReasonNoPolicy}
	if ph == Untracked || ph == PreDNAT {
		out.Action = Pass
	}
	tiers := w.Concerning(e, d, ph)
	if len(tiers) == 0 {
		return out
	}
	if e.Kind == KindHost && w.failSafe(d, ph, p) {
		out.Reason = ReasonFailSafe
		return out
	}
	out.Reason = ReasonPassed
	for _, t := range tiers {
		if w.askTier(t, d, ph, p, &out) {
			break
		}
	}
	return out
}

// askTier notes what a tier does with a packet, and says whether that is final.
func (w *World) askTier(t TierPolicies, d Direction, ph Phase, p Packet, out *Decision) bool {
	for _, policy := range t.Policies {
		switch step := w.ask(policy, d, p, out); step.Action {
		case Allow, Deny:
			out.Action, out.RuleID, out.Reason = step.Action, step.RuleID, ReasonRule
			if policy.Fault != "" {
				out.Reason, out.Fault = ReasonFault, policy.Fault
			}
			return true
		case Pass:
			return false
		}
	}
	if ph == Untracked || ph == PreDNAT { // what comes after has the last word
		return false
	}
	last := Step{RuleID{Tier: t.Tier.Name, Rule: -1}, t.Tier.Default}
	out.Steps = append(out.Steps, last)
	if last.Action != Deny {
		return false
	}
	out.Action, out.RuleID, out.Reason = Deny, last.RuleID, ReasonDefault
	return true
}

// ask notes and returns what a policy does with a packet.
func (w *World) ask(policy *Policy, d Direction, p Packet, out *Decision) Step {
	done := Step{RuleID: RuleID{policy.Tier, policy.ID, -1}}
	if policy.Fault != "" {
		done.Action = Deny
		out.Steps = append(out.Steps, done)
		return done
	}
	for i, r := range policy.Rules[d] {
		if !w.matches(r, p) {
			continue
		}
		matched := Step{RuleID{policy.Tier, policy.ID, i}, r.Action}
		if r.Action != Log {
			done = matched
			break
		}
		out.Steps = append(out.Steps, matched)
	}
	out.Steps = append(out.Steps, done)
	return done
}

// failSafe says whether a packet is of a FailSafe connection in that direction. Where
// connections are not tracked, what answers such a connection is, too.
func (w *World) failSafe(d Direction, ph Phase, p Packet) bool {
	if ph == Forward {
		return false
	}
	other := p.Src // the address at the other end
	if d == Egress {
		other = p.Dst
	}
	for _, f := range w.FailSafe[d] {
		if f.holds(p.Protocol, other, p.DstPort) {
			return true
		}
	}
	if ph == Untracked {
		for _, f := range w.FailSafe[1-d] {
			if f.holds(p.Protocol, other, p.SrcPort) {
				return true
			}
		}
	}
	return false
}

func (f FailSafe) holds(protocol uint8, other netip.Addr, port uint16) bool {
	return f.Protocol == protocol && f.Port == port && (!f.Net.IsValid() || f.Net.Contains(other))
}
