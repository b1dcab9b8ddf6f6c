package calc

import (
	"net/netip"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// encryption is the other nodes as this node's WireGuard device knows them.
type encryption struct {
	key   encryptionKey
	peers immutable.Map[kernel.WireGuardKey, kernel.WireGuardPeer]
}

// encryptionKey is what every peer depends on.
type encryptionKey struct{ on, sending, over4, over6 bool }

// update takes in the device, the nodes and who has which addresses as they are
// now. The peers are there as long as the device: they may still send to it.
func (e *encryption) update(v *view, nodes []memberChange, claimed []claimChange) {
	t := v.tunnels.at(kernel.LinkWireGuard)
	k := encryptionKey{on: t.there(), sending: t.sending}
	if v.own != nil {
		k.over4, k.over6 = v.own.v4.IsValid(), v.own.v6.IsValid()
	}
	if k == e.key && (!k.on || len(nodes)+len(claimed) == 0) {
		return
	}
	peers := e.peers.Edit()
	again := map[string]struct{}{}
	if k != e.key {
		peers = new(immutable.Editor[kernel.WireGuardKey, kernel.WireGuardPeer])
		for m := range v.members.others() {
			again[m.name] = struct{}{}
		}
	} else {
		for _, c := range nodes {
			again[c.name] = struct{}{}
			if c.was != nil { // its key may go to another node
				peers.Delete(c.was.wireGuard.key)
			}
		}
		for _, c := range claimed {
			again[c.was.node], again[c.is.node] = struct{}{}, struct{}{}
			if c.dst.IsSingleIP() {
				again[v.members.first[addressIdentity(c.dst.Addr())].node] = struct{}{}
			}
		}
	}
	e.key = k
	for name := range again {
		m := v.members.named(name)
		if m == nil || name == v.members.node || !k.on || !m.wireGuard.exists() {
			continue
		}
		if end, ok := v.endpoint(m); ok {
			peers.Set(m.wireGuard.key, kernel.WireGuardPeer{
				Endpoint: netip.AddrPortFrom(end, m.wireGuard.port),
				Allowed:  kernel.PrefixesOf(v.behind(m)...),
				Probe:    k.sending && !v.met.Has(m.wireGuard.key),
			})
		}
	}
	e.peers = immutable.Share(peers.Map(), e.peers)
}

// acquainted returns the nodes whose peers have shaken hands, or have to do it
// again, as changes: their routes depend on it.
func (ms *members) acquainted(was, is immutable.Map[kernel.WireGuardKey, bool]) []memberChange {
	var changes []memberChange
	for key := range immutable.Diff(was, is) {
		r := ms.first[identity{of: roleKey, id: key}]
		if m := ms.named(r.node); m != nil {
			changes = append(changes, memberChange{m.name, m, m})
		}
	}
	return changes
}

// behind returns the addresses behind another node's WireGuard device: its pods',
// those of its tunnels, and its own, for hosts talk to pods too. No two nodes
// have one in common.
func (v *view) behind(m *member) []netip.Prefix {
	all := append([]netip.Prefix(nil), v.claims.of[m.name]...)
	single := m.tunnelAddresses()
	for _, f := range []bgp.Family{bgp.IPv4, bgp.IPv6} {
		if a := m.address(f).Addr(); a.IsValid() {
			single = append(single, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for _, p := range single {
		if c, _, known := v.claims.claimed(p); !known || c.node == m.name {
			all = append(all, p)
		}
	}
	return all
}
