package calc

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// protectedPool is what the rules need to know of a pool.
type protectedPool struct {
	cidr        netip.Prefix
	natOutgoing bool
}

// protectionInput is everything that the rules depend on.
type protectionInput struct {
	tunnels immutable.Map[string, kernel.Tunnel] // the wanted ones, by link
	nodes   immutable.Map[netip.Addr, string]    // every address of every node, the own included, and its node
	pools   []protectedPool                      // all of them, disabled ones included; none overlaps another
}

// protection is what keeps strangers out of the tunnels and translates addresses.
// docs/nftables.md says what each chain is for.
type protection struct {
	sets     immutable.Map[string, kernel.Set]
	elements immutable.Map[kernel.Element, struct{}]
	chains   immutable.Map[string, kernel.Chain]
}

// protector computes the protection, and edits the last one where that says the
// same: the cost follows the change. The zero value is ready.
type protector struct {
	in  protectionInput
	out protection
}

func (p *protector) protection(in protectionInput) protection {
	if in.tunnels == p.in.tunnels && in.nodes == p.in.nodes && slices.Equal(in.pools, p.in.pools) {
		return p.out
	}
	out := protection{elements: p.elements(in)}
	out.sets = edited(p.out.sets, in.sets())
	out.chains = edited(p.out.chains, in.chains())
	in.pools = slices.Clone(in.pools)
	p.in, p.out = in, out
	return out
}

// edited returns old, changed to hold what want does.
func edited[K, V comparable](old immutable.Map[K, V], want map[K]V) immutable.Map[K, V] {
	e := old.Edit()
	for k := range old.All() {
		if _, ok := want[k]; !ok {
			e.Delete(k)
		}
	}
	for k, v := range want {
		e.Set(k, v)
	}
	return e.Map()
}

// setName returns the name of a set of addresses of one family. Nodes are single
// addresses, pools ranges; nat are the pools with natOutgoing.
func setName(what string, v6 bool) string {
	if v6 {
		return what + "6"
	}
	return what + "4"
}

// tunnelled says whether packets between nodes are tunnelled over this family.
func (in protectionInput) tunnelled(v6 bool) bool {
	if v6 {
		return in.tunnels.Has(kernel.LinkVXLAN6)
	}
	return in.tunnels.Has(kernel.LinkIPIP) || in.tunnels.Has(kernel.LinkVXLAN4)
}

// translated says whether a pool of this family has natOutgoing.
func (in protectionInput) translated(v6 bool) bool {
	return slices.ContainsFunc(in.pools, func(p protectedPool) bool { return p.natOutgoing && p.cidr.Addr().Is6() == v6 })
}

// sets returns the sets that the chains ask for.
func (in protectionInput) sets() map[string]kernel.Set {
	sets := make(map[string]kernel.Set)
	for _, v6 := range []bool{false, true} {
		if in.tunnelled(v6) {
			sets[setName("nodes", v6)] = kernel.Set{IPv6: v6}
		}
		if in.translated(v6) {
			sets[setName("nat", v6)] = kernel.Set{IPv6: v6, Ranges: true}
			sets[setName("pools", v6)] = kernel.Set{IPv6: v6, Ranges: true}
		}
	}
	return sets
}

// elements edits the last elements to be those of in.
func (p *protector) elements(in protectionInput) immutable.Map[kernel.Element, struct{}] {
	e := p.out.elements.Edit()
	put := func(a netip.Addr, there bool) {
		k := kernel.Element{Set: setName("nodes", a.Is6()), Prefix: netip.PrefixFrom(a, a.BitLen())}
		if there {
			e.Set(k, struct{}{})
		} else {
			e.Delete(k)
		}
	}
	for a := range immutable.Diff(p.in.nodes, in.nodes) {
		put(a, in.tunnelled(a.Is6()) && in.nodes.Has(a))
	}
	for _, v6 := range []bool{false, true} {
		if in.tunnelled(v6) != p.in.tunnelled(v6) {
			for a := range in.nodes.All() {
				if a.Is6() == v6 {
					put(a, in.tunnelled(v6))
				}
			}
		}
	}
	old, now := p.in.poolElements(), in.poolElements()
	for k := range old {
		if _, ok := now[k]; !ok {
			e.Delete(k)
		}
	}
	for k := range now {
		e.Set(k, struct{}{})
	}
	return e.Map()
}

func (in protectionInput) poolElements() map[kernel.Element]struct{} {
	elements := make(map[kernel.Element]struct{})
	for _, p := range in.pools {
		v6 := p.cidr.Addr().Is6()
		if !in.translated(v6) {
			continue
		}
		elements[kernel.Element{Set: setName("pools", v6), Prefix: p.cidr}] = struct{}{}
		if p.natOutgoing {
			elements[kernel.Element{Set: setName("nat", v6), Prefix: p.cidr}] = struct{}{}
		}
	}
	return elements
}

// chains returns the chains of each tunnel and of the translation. Each tunnel
// has its own, so that they go after the device that they protect.
func (in protectionInput) chains() map[string]kernel.Chain {
	chains := make(map[string]kernel.Chain)
	for link, t := range in.tunnels.All() {
		maps.Copy(chains, tunnelChains(link, t, in.translated(false) || in.translated(true)))
	}
	var rules []kernel.Rule
	for _, v6 := range []bool{false, true} {
		if in.translated(v6) {
			rules = append(rules, kernel.Rule{
				Src: kernel.InSet{Set: setName("nat", v6), IPv6: v6}, Dst: kernel.InSet{Set: setName("pools", v6), IPv6: v6, Not: true},
				Verdict: kernel.Masquerade, Comment: "natOutgoing: leaves all pools",
			})
		}
	}
	if len(rules) > 0 {
		chains["nat-postrouting"] = kernel.Chain{
			Hook: kernel.HookPostrouting, Type: kernel.ChainNAT, Priority: kernel.PriorityNAT, Rules: kernel.RulesOf(rules...),
		}
	}
	return chains
}

// chainPrefix begins the names of the chains that protect a tunnel device.
// WireGuard protects itself: it takes what a peer has signed, and nothing else.
func chainPrefix(link string) (prefix string, protected bool) {
	switch link {
	case kernel.LinkIPIP:
		return "ipip-", true
	case kernel.LinkVXLAN4:
		return "vxlan4-", true
	case kernel.LinkVXLAN6:
		return "vxlan6-", true
	}
	return "", false
}

// Protects says whether a chain is one of those that protect a tunnel device:
// other nodes must not be told of a device before these are in the kernel.
func Protects(chain, link string) bool {
	prefix, protected := chainPrefix(link)
	return protected && strings.HasPrefix(chain, prefix)
}

// tunnelChains returns the chains that protect a tunnel device. Nat says that
// packets of pods may have got a node's address.
func tunnelChains(link string, t kernel.Tunnel, nat bool) map[string]kernel.Chain {
	prefix, protected := chainPrefix(link)
	if !protected {
		return nil
	}
	v6 := link == kernel.LinkVXLAN6
	nodes := kernel.InSet{Set: setName("nodes", v6), IPv6: v6}
	others := nodes
	others.Not = true
	carried := kernel.Rule{Protocol: kernel.ProtoIPIP}
	if t.Kind == kernel.VXLAN {
		carried = kernel.Rule{Protocol: kernel.ProtoUDP, DstPort: t.Port}
	}
	with := func(src, dst kernel.InSet, verdict kernel.Verdict, comment string) kernel.Rule {
		r := carried
		r.Src, r.Dst, r.Verdict, r.Comment = src, dst, verdict, comment
		return r
	}
	var anyone kernel.InSet
	// Whatever the VNI: of a packet in fragments the first may end before it.
	byPod := with(anyone, nodes, kernel.Drop, "a pod sends as if it were a node")
	byPod.InLink = kernel.PodLinkPrefix + "*"

	carried.VNI = t.VNI
	forward := []kernel.Rule{byPod, with(others, nodes, kernel.Drop, "sent by no node")}
	input := []kernel.Rule{byPod}
	if nat && t.Kind == kernel.VXLAN {
		// As if by the node where it was masqueraded, to a port that a Service has on
		// this one. Without natOutgoing connections need not be tracked for it.
		relayed := with(anyone, nodes, kernel.Drop, "by way of a Service")
		relayed.Translated = true
		forward, input = append(forward, relayed), append(input, relayed)
	}
	strangers := []kernel.Rule{
		with(others, anyone, kernel.Drop, "sent by no node"),
		with(anyone, others, kernel.Drop, "sent to no node's address"),
	}
	if v6 {
		// IPv6 puts fragments together behind this hook, unless connections are
		// tracked. The first may end before the VNI, but not before the port.
		for _, r := range strangers[:2:2] {
			r.VNI, r.Fragment = 0, true
			strangers = append(strangers, r)
		}
	}
	chains := map[string]kernel.Chain{
		prefix + "forward": {Hook: kernel.HookForward, Type: kernel.ChainFilter, Priority: kernel.PriorityFilter, Rules: kernel.RulesOf(forward...)},
		prefix + "input": {
			Hook: kernel.HookInput, Type: kernel.ChainFilter, Priority: kernel.PriorityFilter,
			Rules: kernel.RulesOf(append(input, strangers...)...),
		},
	}
	if t.Kind == kernel.VXLAN {
		untracked := kernel.RulesOf(with(nodes, nodes, kernel.NoTrack, "the packets inside are tracked"))
		for _, hook := range []kernel.Hook{kernel.HookPrerouting, kernel.HookOutput} {
			chains[prefix+string(hook)] = kernel.Chain{Hook: hook, Type: kernel.ChainFilter, Priority: kernel.PriorityRaw, Rules: untracked}
		}
	}
	return chains
}
