package agent

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/kernel"
)

// observed makes what a node tells of a traced packet from the steps of its way: of the
// first packet each way, since what is sent again goes the same way.
type observed struct {
	node   string
	packet kernel.Packet
	// say returns what a rule did in words of policies, "" for another's.
	say func(localapi.TraceHop) string

	firsts map[bool]uint64 // by whether it is the answer
	hops   map[bool][]localapi.TraceHop
}

// take takes in a step, and returns what there is to tell when the packet's way is over.
func (o *observed) take(hop localapi.TraceHop) []v1.TraceObservation {
	if o.firsts == nil {
		o.firsts, o.hops = map[bool]uint64{}, map[bool][]localapi.TraceHop{}
	}
	reply := false
	for _, way := range []bool{false, true} {
		if n, begun := o.firsts[way]; begun && n == hop.Packet {
			reply = way
		}
	}
	if hop.Step == localapi.StepLink {
		reply = hop.Src != o.packet.Src || hop.SrcPort != o.packet.SrcPort
		if _, begun := o.firsts[reply]; !begun {
			o.firsts[reply] = hop.Packet
		}
	}
	if n, begun := o.firsts[reply]; !begun || n != hop.Packet {
		return nil
	}
	o.hops[reply] = append(o.hops[reply], hop)
	if hop.Step != localapi.StepVerdict {
		return nil
	}
	all := o.observations(o.hops[reply])
	for i := range all {
		all[i].Reply = reply
	}
	delete(o.hops, reply)
	return all
}

// observations sums up the steps of one packet: all that rules did from one base chain on
// is one.
func (o *observed) observations(hops []localapi.TraceHop) []v1.TraceObservation {
	var all []v1.TraceObservation
	var rules []localapi.TraceHop // since the base chain was entered
	add := func(hop localapi.TraceHop, step, text string) {
		all = append(all, v1.TraceObservation{Node: o.node, Time: metav1.NewMicroTime(hop.Time), Step: step, Text: text})
	}
	end := func() {
		if text := o.rulesText(rules); text != "" {
			add(rules[0], v1.TraceStepRules, text)
		}
		rules = nil
	}
	for _, hop := range hops {
		switch hop.Step {
		case localapi.StepLink:
			add(hop, v1.TraceStepLink, linkText(hop))
		case localapi.StepRule:
			if hop.Hook != "" && len(rules) > 0 && (hop.Table != rules[0].Table || hop.Chain != rules[0].Chain) {
				end()
			}
			rules = append(rules, hop)
		case localapi.StepRoute:
			end()
			add(hop, v1.TraceStepRoute, "route: "+hop.Text)
		case localapi.StepVerdict:
			end()
			add(hop, v1.TraceStepVerdict, hop.Text)
			all[len(all)-1].Verdict = hop.Verdict
		}
	}
	return all
}

func linkText(hop localapi.TraceHop) string {
	switch {
	case hop.InLink == "":
		return "sent by this host itself"
	case hop.Endpoint != "" && strings.HasPrefix(hop.InLink, kernel.PodLinkPrefix):
		return fmt.Sprintf("in %s from %s", hop.InLink, hop.Endpoint)
	}
	return "in " + hop.InLink
}

// rulesText says what rules did from a base chain on; "" if that is nothing but to let
// the packet pass.
func (o *observed) rulesText(hops []localapi.TraceHop) string {
	if len(hops) == 0 {
		return ""
	}
	var parts []string
	for _, hop := range hops {
		if text := o.ruleText(hop); text != "" {
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	where := hops[0].Chain
	if hops[0].Table != ownTable {
		where = hops[0].Table + " " + where
	}
	return where + ": " + strings.Join(parts, " ")
}

// ruleText says what one rule did; "" if that is nothing.
func (o *observed) ruleText(hop localapi.TraceHop) string {
	switch verdict := kernel.Verdict(hop.Verdict); {
	case verdict == kernel.Jump, verdict == kernel.Goto:
		return "-> " + hop.Target
	case hop.Rule == 0 && verdict != kernel.Drop: // the end of a chain
		return ""
	}
	if text := o.say(hop); text != "" {
		return text
	}
	switch {
	case kernel.Verdict(hop.Verdict) == kernel.Continue:
		return ""
	case hop.Rule == 0:
		return "policy: " + hop.Verdict
	case hop.Comment != "":
		return fmt.Sprintf("rule %d (%s): %s", hop.Rule, hop.Comment, hop.Verdict)
	}
	return fmt.Sprintf("rule %d (%s): %s", hop.Rule, hop.Text, hop.Verdict)
}
