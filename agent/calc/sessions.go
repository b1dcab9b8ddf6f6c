package calc

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
)

// sessions is the node's part in BGP.
type sessions struct {
	speaker map[struct{}]bgp.Config
	peers   map[netip.Addr]bgp.Peer
	origins map[netip.Addr]PeerOrigin
	// accepts holds what may be learned from a peer besides the pools.
	accepts map[netip.Addr][]netip.Prefix
	issues  []v1.Issue
}

// deferral is how long BGP waits for the peers after a start. A session takes
// seconds to come up, and the peers keep our routes for longer.
const deferral = 30 * time.Second

type sessionsKey struct {
	part       *datastore.Part // the BGPPeers
	members    *members
	pools      *pools
	settings   *settings
	restarting bool
}

// newSessions returns the speaker and the peers of the own node: the BGPPeers
// that apply to it, and every other node in the mesh that isn't one of those.
func newSessions(k sessionsKey, store *datastore.Snapshot) *sessions {
	s := &sessions{
		speaker: map[struct{}]bgp.Config{},
		peers:   map[netip.Addr]bgp.Peer{},
		origins: map[netip.Addr]PeerOrigin{},
		accepts: map[netip.Addr][]netip.Prefix{},
	}
	var configured []*peer
	for _, o := range datastore.Sorted[*v1.BGPPeer](store) {
		p, issues := parsePeer(o)
		s.issues = append(s.issues, issues...)
		if p != nil {
			configured = append(configured, p)
		}
	}
	own := k.members.own
	if own == nil {
		return s
	}
	for _, p := range applying(configured, own) {
		s.addConfigured(k, configured, p)
	}
	if k.settings.mesh {
		s.addMesh(k)
	}
	var listen []netip.Addr
	for _, a := range own.addresses() {
		listen = append(listen, a.Addr())
	}
	s.speaker[struct{}{}] = bgp.Config{
		AS:         k.settings.nodeAS(own),
		RouterID:   routerID(own),
		Listen:     bgp.Addrs(listen...),
		Port:       k.settings.port,
		Restarting: k.restarting,
		Deferral:   deferral,
	}
	return s
}

// routerID returns the node's IPv4 address, or else a number made from its name
// that is unique as far as a hash can be.
func routerID(m *member) netip.Addr {
	if m.v4.IsValid() {
		return m.v4.Addr()
	}
	sum := sha256.Sum256([]byte(m.name))
	// The first byte makes it a unicast address outside 0.0.0.0/8 and 127.0.0.0/8:
	// some speakers want an identifier to look like one.
	sum[0] = 128 + sum[0]%96
	return netip.AddrFrom4([4]byte(sum[:4]))
}

// addConfigured adds the session of a BGPPeer, or the issue that there is none.
func (s *sessions) addConfigured(k sessionsKey, configured []*peer, p *peer) {
	own := k.members.own
	ip := p.address.Addr()
	if ip == own.v4.Addr() || ip == own.v6.Addr() {
		return
	}
	local := own.address(bgp.FamilyOf(ip)).Addr()
	if !local.IsValid() {
		s.issues = append(s.issues, v1.Issue{
			Object: "BGPPeer " + p.name, Field: "spec.peerIP",
			Reason: fmt.Sprintf("node %s has no %s address: no session with %s", own.name, bgp.FamilyOf(ip), ip),
		})
		return
	}
	if first, ok := s.origins[ip]; ok {
		s.issues = append(s.issues, v1.Issue{
			Object: "BGPPeer " + p.name, Field: "spec.peerIP",
			Reason: fmt.Sprintf("%s is a peer of node %s by BGPPeer %s already: this one is ignored there", ip, own.name, first.Name),
		})
		return
	}
	session := bgp.Peer{AS: p.as, Port: p.address.Port(), HoldTime: p.holdTime, RestartTime: cmp.Or(p.restartTime, k.settings.restartTime)}
	if other := k.members.byAddr[ip]; other != nil {
		session.Passive = waits(local, ip) && seeks(k, configured, other, local)
	}
	s.add(k, ip, session, p.accepts)
	s.origins[ip] = PeerOrigin{Type: v1.PeerTypeNode, Name: p.name}
	if p.scope == scopeGlobal {
		s.origins[ip] = PeerOrigin{Type: v1.PeerTypeGlobal, Name: p.name}
	}
}

// addMesh adds a session with every other node for each family that both have.
func (s *sessions) addMesh(k sessionsKey) {
	for _, m := range k.members.others {
		for _, a := range m.addresses() {
			ip := a.Addr()
			local := k.members.own.address(bgp.FamilyOf(ip)).Addr()
			if _, configured := s.peers[ip]; configured || !local.IsValid() {
				continue
			}
			session := bgp.Peer{
				AS: k.settings.nodeAS(m), Port: k.settings.port, HoldTime: bgp.DefaultHoldTime, RestartTime: k.settings.restartTime, Passive: waits(local, ip),
			}
			s.add(k, ip, session, nil)
			s.origins[ip] = PeerOrigin{Type: v1.PeerTypeMesh, Name: m.name}
		}
	}
}

// add completes a session by what is the same for all: it carries the family
// of its addresses.
func (s *sessions) add(k sessionsKey, ip netip.Addr, session bgp.Peer, accepts []netip.Prefix) {
	f := bgp.FamilyOf(ip)
	session.Local = k.members.own.address(f).Addr()
	session.IPv4, session.IPv6 = f == bgp.IPv4, f == bgp.IPv6
	session.Graceful = true
	imports := slices.Clone(accepts)
	for _, p := range k.pools.list {
		imports = append(imports, p.cidr)
	}
	imports = slices.DeleteFunc(imports, func(p netip.Prefix) bool { return bgp.FamilyOf(p.Addr()) != f })
	session.Import = bgp.Prefixes(imports...)
	s.peers[ip] = session
	s.accepts[ip] = accepts
}

// waits says which side of a session between two nodes is passive: the one with
// the higher address (netip.Addr.Compare). Both come to the same answer, so they
// never connect to each other at once, which would confuse graceful restart.
func waits(local, remote netip.Addr) bool { return local.Compare(remote) > 0 }

// seeks says whether another node has, by itself, a session with an address of
// ours. If it has not, waiting for it would be in vain.
func seeks(k sessionsKey, configured []*peer, other *member, local netip.Addr) bool {
	if k.settings.mesh {
		return true
	}
	return slices.ContainsFunc(applying(configured, other), func(p *peer) bool { return p.address.Addr() == local })
}

// applying returns the peers that apply to a node, the most specific first, then
// by name.
func applying(configured []*peer, m *member) []*peer {
	var list []*peer
	for _, p := range configured {
		if p.appliesTo(m) {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b *peer) int { return cmp.Compare(a.scope, b.scope) })
	return list
}
