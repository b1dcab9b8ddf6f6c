package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/reconcile"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// tables are the trackers of all that the loop writes.
type tables struct {
	sets     *reconcile.Tracker[string, kernel.Set]
	elements *reconcile.Tracker[kernel.Element, struct{}]
	chains   *reconcile.Tracker[string, kernel.Chain]

	tunnels    *reconcile.Tracker[string, kernel.Tunnel]
	sysctls    *reconcile.Tracker[kernel.Sysctl, string]
	addrs      *reconcile.Tracker[kernel.Addr, struct{}]
	neighbours *reconcile.Tracker[kernel.Neighbour, kernel.MAC]
	forwarding *reconcile.Tracker[kernel.Forwarding, netip.Addr]
	wireguard  *reconcile.Tracker[kernel.WireGuardKey, kernel.WireGuardPeer]
	routes     *reconcile.Tracker[kernel.RouteKey, kernel.Route]
	podMTUs    *reconcile.Tracker[ipam.Handle, int]

	speaker *reconcile.Tracker[struct{}, bgp.Config]
	paths   *reconcile.Tracker[netip.Prefix, bgp.Path]
	peers   *reconcile.Tracker[netip.Addr, bgp.Peer]

	// base and top are all of these in the order in which they are written: what is
	// in this host's kernel, then what is announced.
	base, top []table
}

// table is a tracker as those see it who do the same with every one.
type table struct {
	tracked
	label    string // in metrics
	failures func() []failure
}

type tracked interface {
	reconcile.Step
	Doubt()
	Err() error
	Status() reconcile.Status
}

// failure is what can't be applied.
type failure struct {
	reconcile.Failure
	name string // to people
	link string // to which it belongs; "": to none
}

func newTables(drv Drivers, pods podTable) tables {
	t := tables{
		sets:       reconcile.NewTracker("nftables sets", drv.Sets),
		elements:   reconcile.NewTracker("nftables elements", drv.Elements),
		chains:     reconcile.NewTracker("nftables chains", drv.Chains),
		tunnels:    reconcile.NewTracker("tunnels", drv.Tunnels),
		sysctls:    reconcile.NewTracker("sysctls", drv.Sysctls),
		addrs:      reconcile.NewTracker("addresses of tunnels", drv.Addrs),
		neighbours: reconcile.NewTracker("neighbours", drv.Neighbours),
		forwarding: reconcile.NewTracker("forwarding entries", drv.Forwarding),
		wireguard:  reconcile.NewTracker("WireGuard peers", drv.Encryption.Peers()),
		routes:     reconcile.NewTracker("routes", drv.Routes),
		podMTUs:    reconcile.NewTracker("MTU of pods", pods),
		speaker:    reconcile.NewTracker("BGP speaker", drv.Speaker.Config()),
		paths:      reconcile.NewTracker("BGP paths", drv.Speaker.Paths()),
		peers:      reconcile.NewTracker("BGP peers", drv.Speaker.Peers()),
	}
	t.sets.Holds(t.elements)
	t.elements.Displaces(kernel.Displaced)
	// A device that was made anew has lost all that hung on it.
	t.tunnels.Voids(t.sysctls, t.addrs, t.neighbours, t.forwarding, t.wireguard, t.routes)
	t.speaker.Voids(t.paths, t.peers)
	t.base = []table{
		tableOf("nft_sets", t.sets, text[string]("nftables set "), nil),
		tableOf("nft_elements", t.elements, text[kernel.Element]("nftables element "), nil),
		tableOf("nft_chains", t.chains, text[string]("nftables chain "), nil),
		tableOf("tunnels", t.tunnels, text[string]("tunnel "), nil),
		tableOf("sysctls", t.sysctls, text[kernel.Sysctl]("sysctl "), linkOfSysctl),
		tableOf("addresses", t.addrs, func(a kernel.Addr) string { return fmt.Sprintf("address %s of %s", a.Prefix, a.Link) },
			func(a kernel.Addr) string { return a.Link }),
		tableOf("neighbours", t.neighbours, text[kernel.Neighbour]("neighbour "), func(n kernel.Neighbour) string { return n.Link }),
		tableOf("forwarding", t.forwarding, text[kernel.Forwarding]("forwarding entry "), func(f kernel.Forwarding) string { return f.Link }),
		tableOf("wireguard_peers", t.wireguard, text[kernel.WireGuardKey]("WireGuard peer "),
			func(kernel.WireGuardKey) string { return kernel.LinkWireGuard }),
		tableOf("routes", t.routes, text[kernel.RouteKey]("route "), nil),
		tableOf("pod_mtus", t.podMTUs, pods.name, nil),
	}
	t.top = []table{
		tableOf("bgp_speaker", t.speaker, func(struct{}) string { return "BGP speaker" }, nil),
		tableOf("bgp_paths", t.paths, text[netip.Prefix]("BGP path "), nil),
		tableOf("bgp_peers", t.peers, text[netip.Addr]("BGP peer "), nil),
	}
	return t
}

// text returns what names a key to people.
func text[K any](noun string) func(K) string {
	return func(k K) string { return noun + fmt.Sprint(k) }
}

// tableOf returns a tracker as one of many. Link, which may be nil, says on which
// link a key is.
func tableOf[K, V comparable](label string, t *reconcile.Tracker[K, V], name, link func(K) string) table {
	return table{tracked: t, label: label, failures: func() []failure {
		var all []failure
		for k, f := range t.Failures() {
			of := failure{Failure: f, name: name(k)}
			if link != nil {
				of.link = link(k)
			}
			all = append(all, of)
		}
		slices.SortFunc(all, func(a, b failure) int { return strings.Compare(a.name, b.name) })
		return all
	}}
}

// linkOfSysctl returns the link that a parameter is of; "": of none.
func linkOfSysctl(k kernel.Sysctl) string {
	if parts := strings.Split(string(k), "/"); len(parts) == 5 { // net/ipv4/conf/LINK/NAME
		return parts[3]
	}
	return ""
}

func steps(ts []table) []reconcile.Step {
	all := make([]reconcile.Step, len(ts))
	for i, t := range ts {
		all[i] = t.tracked
	}
	return all
}

// each calls f with every table, in their order.
func (t *tables) each(f func(table)) {
	for _, one := range t.base {
		f(one)
	}
	for _, one := range t.top {
		f(one)
	}
}

// baseErr returns why a table of this host as a whole can't be read or written.
func (t *tables) baseErr() error {
	for _, one := range t.base {
		if err := one.Err(); err != nil {
			return err
		}
	}
	return nil
}

// rulesInForce says whether the rules are in the kernel, and how many parts of them
// could not be put there.
func (t *tables) rulesInForce() (whole bool, failed int) {
	whole = t.sets.Err() == nil && t.elements.Err() == nil && t.chains.Err() == nil
	return whole, t.sets.Failed().Len() + t.elements.Failed().Len() + t.chains.Failed().Len()
}

// allFailures returns what can't be applied, in the order of the tables, but for
// what only follows from another failure.
func (t *tables) allFailures() []failure {
	lacking, speechless := t.tunnels.Failures(), len(t.speaker.Failures()) > 0
	var all []failure
	t.each(func(one table) {
		for _, f := range one.failures() {
			_, noLink := lacking[f.link]
			switch {
			case noLink:
			case one.label == "sysctls" && errors.Is(f.Err, kernel.ErrUnsupported): // a kernel without IPv6 lacks nothing
			case speechless && errors.Is(f.Err, bgp.ErrStopped): // without a speaker nothing else of BGP can be written
			default:
				all = append(all, f)
			}
		}
	})
	return all
}

// want tells every table what it should hold.
func (t *tables) want(s *calc.State, pods immutable.Map[ipam.Handle, int]) {
	t.sets.Want(s.Sets, nil)
	t.elements.Want(s.Elements, nil)
	t.chains.Want(s.Chains, nil)
	t.tunnels.Want(s.Tunnels, nil)
	t.sysctls.Want(s.Sysctls, nil)
	t.addrs.Want(s.Addrs, nil)
	k := keeper{s, t.routes}
	t.neighbours.Want(s.Neighbours, k.neighbour())
	t.forwarding.Want(s.Forwarding, k.forwarding())
	t.wireguard.Want(s.WireGuard, k.wireguard())
	t.routes.Want(s.Routes, k.route())
	t.podMTUs.Want(pods, func(ipam.Handle, int) bool { return true })
	t.speaker.Want(s.Speaker, nil)
	t.paths.Want(s.Paths, nil)
	t.peers.Want(s.Peers, nil)
}
