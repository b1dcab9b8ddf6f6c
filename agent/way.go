package agent

import (
	"context"
	"fmt"
	"time"

	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// wayQuiet is how long nothing must be told of a packet until its way on this node is
// taken to be over: the kernel tells no end, and goes it in well below a millisecond.
const wayQuiet = 100 * time.Millisecond

// way is the way of one packet through this node, as far as it was told.
type way struct {
	a    *Agent
	last kernel.TraceEvent
	// from is the link that it came by; "": the host sends it.
	from    string
	route   *kernel.Decision // nil: not asked for yet
	dropped string           // why, once it is
	told    time.Time        // when the last event came
}

// step takes in an event, and returns what it says.
func (w *way) step(ctx context.Context, e kernel.TraceEvent) []localapi.TraceHop {
	w.told = time.Now()
	if e.Kind == kernel.TraceSeen {
		w.last, w.from = e, e.InLink
		hop := w.hop(e, localapi.StepLink)
		hop.Hook, hop.Endpoint = "", w.a.owner(e.Headers.Src, e.InLink)
		return []localapi.TraceHop{hop}
	}
	var hops []localapi.TraceHop
	if e.Hook != kernel.HookNone && e.Hook != kernel.HookPrerouting && w.route == nil {
		hops = append(hops, w.routed(ctx, e)...)
	}
	if e.Hook == kernel.HookNone { // in a chain that a base chain has called
		e.InLink, e.OutLink = w.last.InLink, w.last.OutLink
	}
	hop := w.hop(e, localapi.StepRule)
	hop.Hook, hop.Table, hop.Chain, hop.Rule, hop.Comment = string(e.Hook), e.Table, e.Chain, e.Rule, e.Comment
	hop.Verdict, hop.Target, hop.Text = string(e.Verdict), e.Target, e.Text
	hops = append(hops, hop)
	if hook := w.last.Hook; e.Hook == kernel.HookNone {
		e.Hook = hook
	}
	w.last = e
	if e.Verdict == kernel.Drop {
		w.dropped = w.a.culprit(e)
		hops = append(hops, w.end(ctx)...)
	}
	return hops
}

// hop returns what is the same of all steps.
func (w *way) hop(e kernel.TraceEvent, step string) localapi.TraceHop {
	h := e.Headers
	return localapi.TraceHop{
		Node: w.a.cfg.Node, Time: e.Time, Packet: e.Packet, Step: step,
		Src: h.Src, Dst: h.Dst, Protocol: h.Protocol, SrcPort: h.SrcPort, DstPort: h.DstPort,
		Mark: e.Mark, InLink: e.InLink, OutLink: e.OutLink, Hook: string(e.Hook), Lost: e.Lost,
	}
}

// routed asks how the packet is routed, as it is at this event.
func (w *way) routed(ctx context.Context, e kernel.TraceEvent) []localapi.TraceHop {
	h := e.Headers
	d, err := w.a.drv.Packets.Lookup.Route(ctx, kernel.RouteQuery{
		Dst: h.Dst, Src: h.Src, InLink: w.from, Protocol: h.Protocol, SrcPort: h.SrcPort, DstPort: h.DstPort, Mark: e.Mark,
	})
	w.route = &d
	hop := w.hop(e, localapi.StepRoute)
	hop.Hook = ""
	if err != nil {
		hop.Text = err.Error()
		return []localapi.TraceHop{hop}
	}
	hop.Route = &localapi.TraceRoute{Type: string(d.Type), Gateway: d.Gateway, Link: d.Link, Table: d.Table}
	hop.Text = routeText(d)
	return []localapi.TraceHop{hop}
}

// routeText says a decision of routing as ip(8) does.
func routeText(d kernel.Decision) string {
	switch {
	case d.Type != kernel.DecidedUnicast && d.Type != kernel.DecidedLocal:
		return string(d.Type)
	case d.Type == kernel.DecidedLocal:
		return "local"
	case d.Gateway.IsValid():
		return fmt.Sprintf("via %s dev %s", d.Gateway, d.Link)
	}
	return "dev " + d.Link
}

// end returns what became of the packet on this node.
func (w *way) end(ctx context.Context) []localapi.TraceHop {
	var hops []localapi.TraceHop
	if w.route == nil && w.dropped == "" {
		hops = w.routed(ctx, w.last)
	}
	hop := w.hop(w.last, localapi.StepVerdict)
	switch {
	case w.dropped != "":
		hop.Verdict, hop.Text = string(kernel.Drop), "dropped by "+w.dropped
	case w.last.Verdict == kernel.Queue, w.last.Verdict == kernel.Stolen:
		hop.Verdict, hop.Text = string(w.last.Verdict), fmt.Sprintf("taken out by a rule of %s %s", w.last.Table, w.last.Chain)
	case w.last.Hook == kernel.HookInput, w.route != nil && w.route.Type == kernel.DecidedLocal && w.from != "":
		hop.Verdict, hop.Text = verdictDelivered, "delivered to this host"
	case w.last.Hook == kernel.HookPrerouting:
		hop.Verdict, hop.Text = string(kernel.Drop), "dropped by routing: "+string(w.route.Type)
	default:
		hop.Endpoint = w.a.podAt(w.last.OutLink)
		hop.Verdict, hop.Text = verdictSent, "sent by "+w.last.OutLink
		if hop.Endpoint != "" {
			hop.Verdict, hop.Text = verdictDelivered, fmt.Sprintf("delivered to pod %s by %s", hop.Endpoint, w.last.OutLink)
		}
	}
	return append(hops, hop)
}

// Verdicts of a node, beside those of rules.
const (
	verdictDelivered = "delivered" // to a pod of the node, or the node itself
	verdictSent      = "sent"      // on its way to elsewhere
)

// podAt returns the pod that a link leads to; "" if it leads to none.
func (a *Agent) podAt(link string) string {
	if pod, ok := podOf(a.loop.currentHost(), link); ok {
		return podName(pod)
	}
	return ""
}

// culprit says which rule an event is about, in words of policies where it is of one.
func (a *Agent) culprit(e kernel.TraceEvent) string {
	if e.Table == ownTable {
		if text := a.ruleText(e.Chain, e.Comment); text != "" {
			return text
		}
	}
	where := fmt.Sprintf("%s %s", e.Table, e.Chain)
	switch {
	case e.Kind == kernel.TracePolicy:
		return "the policy of chain " + where
	case e.Comment != "":
		return fmt.Sprintf("%s rule %d: %s", where, e.Rule, e.Comment)
	}
	return fmt.Sprintf("%s rule %d", where, e.Rule)
}

// ownTable is Cairn's table as traces name it.
const ownTable = "inet " + kernel.RulesTable

// ruleText names the policy and rule behind a rule of Cairn's table; "" if there is
// none.
func (a *Agent) ruleText(chain, comment string) string {
	state := a.loop.state.Load()
	if state == nil {
		return ""
	}
	o, ok := policy.OriginOf(chain, comment, state.Policies)
	if !ok {
		return ""
	}
	text := "tier " + o.Tier
	if o.Tier == "" {
		text = "a policy that is gone"
	}
	switch name := o.Name(); {
	case name == "":
		return text + ", its default action"
	case o.Rule < 0:
		return text + ", " + name + ", which can't be enforced as it is written"
	default:
		return fmt.Sprintf("%s, %s, rule %d", text, name, o.Number())
	}
}

// say returns what a rule did in words of policies; "" if it is of none.
func (a *Agent) say(hop localapi.TraceHop) string {
	state := a.loop.state.Load()
	if hop.Table != ownTable || state == nil {
		return ""
	}
	o, ok := policy.OriginOf(hop.Chain, hop.Comment, state.Policies)
	if !ok {
		return ""
	}
	what := fmt.Sprintf("rule %d", o.Number())
	if o.Rule < 0 {
		what = "default action"
	}
	if o.Chain != policy.Unversioned(hop.Chain) { // the policy's rules stand in the tier's chain
		what = o.Name() + " " + what
	}
	verdict := hop.Verdict
	switch kernel.Verdict(verdict) {
	case kernel.Return:
		verdict = "pass"
	case kernel.Continue:
		verdict = "log"
	}
	return what + ": " + verdict
}
