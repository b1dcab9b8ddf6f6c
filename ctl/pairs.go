package ctl

import (
	"fmt"
	"slices"
	"strings"

	"cairn.network/cairn/policy"
)

// pairs says of pairs of ends what becomes of packets between them, in each of several
// worlds. Pairs of ends that no policy tells apart are asked about once.
type pairs struct {
	asked    *asked
	clusters []*cluster
	worlds   []*policy.World // of these, without staged policies

	classes map[string]int // numbers of classes
	known   map[pairKey][]passage
}

// pairKey is what a pair's passages depend on.
type pairKey struct {
	src, dst int // classes
	own      string
}

// passage is what becomes of packets of one kind.
type passage struct {
	what     string
	v6       bool
	verdicts []ruling // by world
}

// ruling is the verdict of a world.
type ruling struct {
	Allowed bool
	By      string // what decided
}

func newPairs(a *asked, clusters ...*cluster) *pairs {
	p := &pairs{asked: a, clusters: clusters, classes: map[string]int{}, known: map[pairKey][]passage{}}
	for _, c := range clusters {
		p.worlds = append(p.worlds, enforced(c.world))
	}
	return p
}

// enforced returns the world without its staged policies.
func enforced(w *policy.World) *policy.World {
	kept := *w
	kept.Policies = slices.DeleteFunc(slices.Clone(w.Policies), func(p *policy.Policy) bool { return p.Staged })
	return kept.Remembering()
}

// class returns the number of an end's class in all worlds.
func (p *pairs) class(n end) int {
	var b strings.Builder
	for _, w := range p.worlds {
		for _, v6 := range []bool{false, true} {
			b.WriteString("|")
			if a := n.at(v6); a.IsValid() {
				b.WriteString(w.Class(a))
				for _, port := range w.NamedPorts(a) {
					if port.Name == p.asked.port {
						b.WriteString(" " + port.String())
					}
				}
			}
		}
	}
	number, ok := p.classes[b.String()]
	if !ok {
		number = len(p.classes)
		p.classes[b.String()] = number
	}
	return number
}

// between returns the passages of packets from one end to another; src and dst are their
// classes. A port that has no such name there has none.
func (p *pairs) between(from, to end, src, dst int) []passage {
	key := pairKey{src, dst, p.own(from, to)}
	found, ok := p.known[key]
	if !ok {
		found = p.ask(from, to)
		p.known[key] = found
	}
	return found
}

// own says for each world and family what is so of a node and its own pod.
func (p *pairs) own(from, to end) string {
	if (from.kind == "pod") == (to.kind == "pod") {
		return ""
	}
	own := ""
	for i, w := range p.worlds {
		for _, v6 := range []bool{false, true} {
			if s, d := from.at(v6), to.at(v6); s.IsValid() && d.IsValid() {
				packet := policy.Packet{Src: s, Dst: d}
				own += fmt.Sprint(w.OwnNode(s, d), p.clusters[i].toOwnNode(w, packet))
			}
		}
	}
	return own
}

func (p *pairs) ask(from, to end) []passage {
	var all []passage
	for _, v6 := range p.asked.families() {
		s, d := from.at(v6), to.at(v6)
		if !s.IsValid() || !d.IsValid() {
			continue
		}
		kinds, err := p.asked.between(s, d, p.worlds...)
		if err != nil {
			continue // there is no such port
		}
		for _, k := range kinds {
			one := passage{what: k.String(), v6: v6}
			for i, w := range p.worlds {
				one.verdicts = append(one.verdicts, p.clusters[i].rule(w, k.Packet(s, d)))
			}
			all = append(all, one)
		}
	}
	return all
}

// rule returns what becomes of a packet, and the policy and rule that decide.
func (c *cluster) rule(w *policy.World, packet policy.Packet) ruling {
	v := w.Evaluate(packet)
	if v.Action == policy.Allow && c.toOwnNode(w, packet) != "" {
		return ruling{By: "AgentConfiguration: defaultEndpointToHostAction is Drop"}
	}
	out := ruling{Allowed: v.Action == policy.Allow}
	var by []string
	for _, c := range v.Checks {
		if c.Action == policy.Deny {
			by = []string{shortReason(w, c)}
			break
		}
		if c.Reason == policy.ReasonRule || c.Reason == policy.ReasonFailSafe || c.Reason == policy.ReasonOwnNode {
			by = append(by, shortReason(w, c))
		}
	}
	if out.By = strings.Join(by, "; "); len(by) == 0 {
		out.By = "no policy decides"
	}
	return out
}

// shortReason says where it was decided, and by what.
func shortReason(w *policy.World, c policy.Check) string {
	way := c.Direction.String()
	if c.Endpoint.Kind == policy.KindHost {
		way += " of hep/" + c.Endpoint.Name
	}
	switch c.Reason {
	case policy.ReasonRule:
		n, _ := ruleAt(w, c.RuleID, c.Direction)
		return fmt.Sprintf("%s: %s, rule %d", way, c.Policy, n)
	case policy.ReasonFault:
		return fmt.Sprintf("%s: %s, which can't be enforced", way, c.Policy)
	case policy.ReasonDefault:
		return fmt.Sprintf("%s: default action of tier %s", way, c.Tier)
	}
	return fmt.Sprintf("%s: %s", way, c.Reason)
}

// member is an end with its class.
type member struct {
	end
	class int
}

// members returns the ends with their classes.
func (p *pairs) members(ends []end) []member {
	all := make([]member, len(ends))
	for i, n := range ends {
		all[i] = member{n, p.class(n)}
	}
	return all
}
