package policytest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// Node is a node of a world, on which rules are compiled.
type Node struct {
	World *policy.World
	Name  string
	// Links holds the links that are no pod's, with their addresses; there is one at
	// least.
	Links map[string][]netip.Addr
}

// Hooks are those at which policies are enforced.
func Hooks() []kernel.Hook {
	return []kernel.Hook{kernel.HookPrerouting, kernel.HookInput, kernel.HookForward, kernel.HookOutput}
}

// Expected is what the reference model says of a packet at a hook.
type Expected struct {
	Dropped, NoTrack bool
	// Checks are what the endpoints decide that it meets there.
	Checks []policy.Check
}

func (e Expected) String() string {
	lines := []string{fmt.Sprintf("dropped %v, not tracked %v", e.Dropped, e.NoTrack)}
	for _, c := range e.Checks {
		lines = append(lines, fmt.Sprintf("%v at %s, %s, %s: %s by %s: %+v", c.Action, c.Endpoint.ID, c.Direction, c.Phase, c.Action, c.Reason, c.RuleID))
	}
	return strings.Join(lines, "\n\t")
}

// ask asks an endpoint, if there is one.
func (e *Expected) ask(w *policy.World, at *policy.Endpoint, d policy.Direction, ph policy.Phase, p PacketAt) policy.Action {
	if at == nil {
		return policy.Pass
	}
	c := policy.Check{Endpoint: at, Direction: d, Phase: ph, Decision: w.Decide(at, d, ph, p.Packet)}
	e.Checks = append(e.Checks, c)
	e.Dropped = e.Dropped || c.Action == policy.Deny
	return c.Action
}

// Expect returns what the reference model says of a packet that is at a hook of the
// node:
//
//	prerouting  Untracked of the link it came by, and unless that allows it, PreDNAT
//	input       the pod that it came from, or Normal of the link it came by
//	forward     the pod or Forward of the link it came from, and the same where it goes
//	output      Untracked of the link it leaves by, and unless that allows it, Normal
//
// Untracked is asked about every packet, the rest not about those of known connections,
// which pass. What is not tracked when it comes to input or output is not asked about
// Normal, nor about PreDNAT when it was not tracked before. What PreDNAT allows is: rules can't know of it at a later hook. What a node
// sends to its own pods passes. That pods send from their own addresses is taken for
// granted.
func (n Node) Expect(hook kernel.Hook, p PacketAt) Expected {
	var e Expected
	w, in, out := n.World, n.hostAt(p.InLink), n.hostAt(p.OutLink)
	known := p.State == kernel.StateEstablished || p.State == kernel.StateRelated
	untracked := p.State == kernel.StateUntracked
	switch hook {
	case kernel.HookPrerouting:
		e.NoTrack = e.ask(w, in, policy.Ingress, policy.Untracked, p) == policy.Allow
		if !e.NoTrack && !e.Dropped && !known && !untracked {
			e.ask(w, in, policy.Ingress, policy.PreDNAT, p)
		}
	case kernel.HookInput:
		if !known {
			e.ask(w, n.podAt(p.InLink), policy.Egress, policy.Normal, p)
			if !untracked {
				e.ask(w, in, policy.Ingress, policy.Normal, p)
			}
		}
	case kernel.HookForward:
		if !known {
			e.ask(w, n.podAt(p.InLink), policy.Egress, policy.Normal, p)
			e.ask(w, in, policy.Ingress, policy.Forward, p)
			e.ask(w, n.podAt(p.OutLink), policy.Ingress, policy.Normal, p)
			e.ask(w, out, policy.Egress, policy.Forward, p)
		}
	case kernel.HookOutput:
		e.NoTrack = e.ask(w, out, policy.Egress, policy.Untracked, p) == policy.Allow
		if !e.NoTrack && !e.Dropped && !known && !untracked {
			e.ask(w, out, policy.Egress, policy.Normal, p)
		}
	}
	return e
}

// podAt returns the pod of a link, or nil.
func (n Node) podAt(link string) *policy.Endpoint {
	for _, e := range n.World.Endpoints {
		if e.Kind == policy.KindPod && e.Node == n.Name && e.Link == link {
			return e
		}
	}
	return nil
}

// hostAt returns the host endpoint of a link that is no pod's, or nil.
func (n Node) hostAt(link string) *policy.Endpoint {
	addrs, ok := n.Links[link]
	if !ok {
		return nil
	}
	return n.World.HostEndpointOf(n.Name, link, addrs)
}

// PacketAt returns random packets at a hook of the node, mostly of new connections. A
// pod's have its own address at its end.
func (n Node) PacketAt(hook kernel.Hook) *rapid.Generator[PacketAt] {
	return rapid.Custom(func(t *rapid.T) PacketAt {
		d := dice{t}
		p := PacketAt{State: pick(d, "state", kernel.StateNew, kernel.StateNew, kernel.StateNew, kernel.StateNew, kernel.StateEstablished, kernel.StateUntracked)}
		v6 := d.oneIn(3, "IPv6")
		src, dst := d.end(n.World, v6), d.end(n.World, v6)
		if hook != kernel.HookOutput {
			p.InLink, src = n.link(d, v6, src)
		}
		if hook == kernel.HookForward || hook == kernel.HookOutput {
			p.OutLink, dst = n.link(d, v6, dst)
		}
		p.Packet = d.packet(n.World, src, dst)
		p.OverLimit = d.oneIn(4, "over the limit")
		return p
	})
}

// link draws a link, and the address that is behind it: a, unless a pod is.
func (n Node) link(d dice, v6 bool, a netip.Addr) (string, netip.Addr) {
	behind := make(map[string]netip.Addr)
	for link := range n.Links {
		behind[link] = a
	}
	for _, e := range n.World.Endpoints {
		own := slices.IndexFunc(e.Addrs, func(a netip.Addr) bool { return a.Is6() == v6 })
		if e.Kind == policy.KindPod && e.Node == n.Name && own >= 0 {
			behind[e.Link] = e.Addrs[own]
		}
	}
	link := pick(d, "link", slices.Sorted(maps.Keys(behind))...)
	return link, behind[link]
}

// Compare traces a packet through rules, and returns how that differs from what the
// reference model expects; "" where they agree.
func (n Node) Compare(r *Ruleset, hook kernel.Hook, p PacketAt) string {
	out, err := r.Trace(hook, p)
	if err != nil {
		return err.Error()
	}
	want := n.Expect(hook, p)
	if out.Dropped == want.Dropped && (out.NoTrack == want.NoTrack || out.Dropped) {
		return ""
	}
	return fmt.Sprintf("%s, %s to %s, at %s, state %d:\n\tthe rules: dropped %v, not tracked %v, by %+v\n\tthe model: %v",
		p.Packet, p.InLink, p.OutLink, hook, p.State, out.Dropped, out.NoTrack, out.By, want)
}

// Agree fails a test where rules and reference model differ about random packets, some
// at each hook.
func (n Node) Agree(t *rapid.T, r *Ruleset) {
	for _, hook := range Hooks() {
		for range 5 {
			p := n.PacketAt(hook).Draw(t, string(hook))
			if diff := n.Compare(r, hook, p); diff != "" {
				t.Fatalf("%s\n%s", diff, r)
			}
		}
	}
}
