package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// AnyLink is the Link of a host endpoint for every link that has none of its own.
const AnyLink = "*"

// Check is a place on a packet's way where it is decided about.
type Check struct {
	Endpoint  *Endpoint
	Direction Direction
	Phase     Phase
	Decision
}

// Verdict is what becomes of a packet on its whole way.
type Verdict struct {
	Action Action // Deny if a check says so, else Allow
	// Checks are in the order in which the packet comes to them; those behind a Deny are
	// what it would meet without it.
	Checks []Check
	// Staged is the verdict as it would be with staged policies enforced; nil: none is
	// staged.
	Staged *Verdict
}

// Evaluate returns what becomes of a packet on its way: what a pod sends is checked at
// that pod, what is for a pod at that pod, and what leaves one node or comes to another
// by their host endpoints.
//
// Nothing here knows by which links packets leave and reach a node. They are taken to
// be those of its host endpoint that has the packet's address, or else one of the node's;
// if there is none, of its only one; else of the one for every link. Where links are known, HostEndpointOf
// and Decide tell more. Links of pods have no host endpoint: between a node and its own
// pods none is asked.
func (w *World) Evaluate(p Packet) Verdict {
	v := w.evaluate(p)
	if slices.ContainsFunc(w.Policies, func(p *Policy) bool { return p.Staged }) {
		staged := w.Staged().evaluate(p)
		v.Staged = &staged
	}
	return v
}

// way is a packet with the checks that it has met.
type way struct {
	world  *World
	packet Packet
	checks []Check
}

// check adds a check, and returns what it decides. Phases that only some host endpoints
// have are not worth telling where no policy is about them.
func (y *way) check(e *Endpoint, d Direction, ph Phase) Action {
	decision := y.world.Decide(e, d, ph, y.packet)
	if ph == Normal || decision.Reason != ReasonNoPolicy {
		y.checks = append(y.checks, Check{e, d, ph, decision})
	}
	return decision.Action
}

func (w *World) evaluate(p Packet) Verdict {
	y := &way{world: w, packet: p}
	src, dst := w.siteOf(p.Src), w.siteOf(p.Dst)
	var out, in *Endpoint // host endpoints by which it leaves and comes
	if src.node != dst.node {
		out, in = w.uplink(src.node, p.Src), w.uplink(dst.node, p.Dst)
	}
	if src.pod != nil {
		y.check(src.pod, Egress, Normal)
	}
	if out != nil {
		y.leave(out, src.pod != nil)
	}
	if in != nil {
		y.come(in, dst.pod != nil)
	}
	switch {
	case dst.pod == nil:
	case src.pod == nil && src.node != "" && src.node == dst.node:
		own := Decision{Action: Allow, RuleID: RuleID{Rule: -1}, Reason: ReasonOwnNode}
		y.checks = append(y.checks, Check{dst.pod, Ingress, Normal, own})
	default:
		y.check(dst.pod, Ingress, Normal)
	}
	v := Verdict{Action: Allow, Checks: y.checks}
	if slices.ContainsFunc(v.Checks, func(c Check) bool { return c.Action == Deny }) {
		v.Action = Deny
	}
	return v
}

// leave checks what leaves a node by a host endpoint. Before connections are tracked
// only the node's own packets pass.
func (y *way) leave(host *Endpoint, forwarded bool) {
	switch {
	case forwarded:
		y.check(host, Egress, Forward)
	case y.check(host, Egress, Untracked) != Allow:
		y.check(host, Egress, Normal)
	}
}

// come checks what comes to a node by a host endpoint. What is allowed before
// connections are tracked is not asked about again there, unless it is forwarded. What
// is allowed before translation is: nothing tells later rules of it.
func (y *way) come(host *Endpoint, forwarded bool) {
	untracked := y.check(host, Ingress, Untracked) == Allow
	if !untracked {
		y.check(host, Ingress, PreDNAT)
	}
	switch {
	case forwarded:
		y.check(host, Ingress, Forward)
	case !untracked:
		y.check(host, Ingress, Normal)
	}
}

// site is where an address is.
type site struct {
	node string    // "": none of ours
	pod  *Endpoint // nil: the node itself
}

// siteOf returns where an address is. Pods and host endpoints that share it are asked in
// order of their IDs, pods first.
func (w *World) siteOf(a netip.Addr) site {
	return kept(w.memo.sites, a, func() site { return w.siteNow(a) })
}

func (w *World) siteNow(a netip.Addr) site {
	of := func(kind string) *Endpoint {
		return w.first(func(e *Endpoint) bool { return e.Kind == kind && slices.Contains(e.Addrs, a) })
	}
	if pod := of(KindPod); pod != nil {
		return site{pod.Node, pod}
	}
	for _, n := range w.Nodes {
		if slices.Contains(n.Addrs, a) {
			return site{node: n.Name}
		}
	}
	if host := of(KindHost); host != nil {
		return site{node: host.Node}
	}
	return site{}
}

// first returns the endpoint with the lowest ID that is so, or nil.
func (w *World) first(is func(*Endpoint) bool) *Endpoint {
	var found *Endpoint
	for _, e := range w.Endpoints {
		if is(e) && (found == nil || e.Compare(found.ID) < 0) {
			found = e
		}
	}
	return found
}

// uplink returns the host endpoint by which packets of an address are taken to reach
// or leave its node, or nil.
func (w *World) uplink(node string, a netip.Addr) *Endpoint {
	return kept(w.memo.uplinks, uplink{node, a}, func() *Endpoint { return w.uplinkNow(node, a) })
}

func (w *World) uplinkNow(node string, a netip.Addr) *Endpoint {
	of := func(is func(*Endpoint) bool) *Endpoint {
		return w.first(func(e *Endpoint) bool { return e.Kind == KindHost && e.Node == node && is(e) })
	}
	var addrs []netip.Addr
	for _, n := range w.Nodes {
		if n.Name == node {
			addrs = n.Addrs
		}
	}
	only := of(func(*Endpoint) bool { return true })
	if only != nil && of(func(e *Endpoint) bool { return e != only }) != nil {
		only = nil // not the only one
	}
	return cmp.Or(
		of(func(e *Endpoint) bool { return slices.Contains(e.Addrs, a) }),
		of(func(e *Endpoint) bool { return e.hasAny(addrs) }),
		only,
		of(func(e *Endpoint) bool { return e.Link == AnyLink }),
	)
}

func (e *Endpoint) hasAny(addrs []netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(e.Addrs, a) })
}

// HostEndpointOf returns the host endpoint that covers a link of a node, or nil: see
// Covering.
func (w *World) HostEndpointOf(node, link string, linkAddrs []netip.Addr) *Endpoint {
	var hosts []*Endpoint
	for _, e := range w.Endpoints {
		if e.Kind == KindHost && e.Node == node {
			hosts = append(hosts, e)
		}
	}
	return Covering(hosts, link, linkAddrs)
}

// Covering returns which of the host endpoints of a node covers a link, or nil: the one
// that names the link; else one that names none and has one of the link's addresses;
// else the one for AnyLink. One that names a link, or AnyLink, is never found by its
// addresses. Of several the one with the lowest name is taken. Links of pods have none:
// don't ask for them.
func Covering(hosts []*Endpoint, link string, linkAddrs []netip.Addr) *Endpoint {
	of := func(is func(*Endpoint) bool) *Endpoint {
		return (&World{Endpoints: hosts}).first(is)
	}
	return cmp.Or(
		of(func(e *Endpoint) bool { return e.Link == link }),
		of(func(e *Endpoint) bool { return e.Link == "" && e.hasAny(linkAddrs) }),
		of(func(e *Endpoint) bool { return e.Link == AnyLink }),
	)
}
