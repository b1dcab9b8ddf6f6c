package calc

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/immutable"
)

// sessions is the node's part in BGP.
type sessions struct {
	key     sessionsKey
	speaker immutable.Map[struct{}, bgp.Config]
	peers   immutable.Map[netip.Addr, bgp.Peer]
	origins immutable.Map[netip.Addr, PeerOrigin]
	// accepts holds what may be learned from a peer besides the pools.
	accepts map[netip.Addr][]netip.Prefix
	// imports holds what may be learned from one that no BGPPeer names.
	imports map[bgp.Family]bgp.PrefixSet
	issues  []v1.Issue
}

// deferral is how long BGP waits for the peers after a start. A session takes
// seconds to come up, and the peers keep our routes for longer.
const deferral = 30 * time.Second

// sessionsKey is what the sessions depend on besides the other nodes.
type sessionsKey struct {
	part       *datastore.Part // the BGPPeers
	own        *member
	pools      *pools
	settings   *settings
	restarting bool
}

// update returns the sessions as the nodes are now: the earlier ones if nothing
// of theirs changed. It returns too which addresses are peers that were none, or
// the other way round; anew says that all may differ.
func (s *sessions) update(k sessionsKey, store *datastore.Snapshot, ms *members, changes []memberChange) (next *sessions, anew bool, came []netip.Addr) {
	if s == nil || s.key != k || s.anyConfigured(changes) {
		return newSessions(k, store, ms, s), true, nil
	}
	if !k.settings.mesh || k.own == nil || len(changes) == 0 {
		return s, false, nil
	}
	next = new(*s)
	peers, origins := s.peers.Edit(), s.origins.Edit()
	for _, c := range changes { // an address may go from one node to another
		for ip := range meshed(k.own, c.was) {
			peers.Delete(ip)
			origins.Delete(ip)
		}
	}
	for _, c := range changes {
		for ip := range meshed(k.own, c.is) {
			peers.Set(ip, next.meshPeer(c.is, ip))
			origins.Set(ip, PeerOrigin{Type: v1.PeerTypeMesh, Name: c.name})
		}
	}
	next.peers, next.origins = immutable.Share(peers.Map(), s.peers), immutable.Share(origins.Map(), s.origins)
	for ip := range immutable.Diff(s.peers, next.peers) {
		if s.peers.Has(ip) != next.peers.Has(ip) {
			came = append(came, ip)
		}
	}
	return next, false, came
}

// anyConfigured says whether one of the nodes that changed has or had a session
// by a BGPPeer, which is about more than its address.
func (s *sessions) anyConfigured(changes []memberChange) bool {
	for _, c := range changes {
		for _, m := range []*member{c.was, c.is} {
			if m == nil {
				continue
			}
			for _, a := range m.addresses() {
				if o, ok := s.origins.Get(a.Addr()); ok && o.Type != v1.PeerTypeMesh {
					return true
				}
			}
		}
	}
	return false
}

// meshed returns the addresses of another node that it and the own node have
// sessions with in the mesh: one for each family that both have.
func meshed(own, m *member) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if m == nil || m.name == own.name {
			return
		}
		for _, a := range m.addresses() {
			if own.address(bgp.FamilyOf(a.Addr())).IsValid() && !yield(a.Addr()) {
				return
			}
		}
	}
}

// newSessions returns the speaker and the peers of the own node: the BGPPeers
// that apply to it, and every other node in the mesh that isn't one of those.
func newSessions(k sessionsKey, store *datastore.Snapshot, ms *members, earlier *sessions) *sessions {
	s := &sessions{key: k, accepts: map[netip.Addr][]netip.Prefix{}, imports: map[bgp.Family]bgp.PrefixSet{}}
	if earlier == nil {
		earlier = s
	}
	var configured []*peer
	for _, o := range datastore.Sorted[*v1.BGPPeer](store) {
		p, issues := parsePeer(o)
		s.issues = append(s.issues, issues...)
		if p != nil {
			configured = append(configured, p)
		}
	}
	own := k.own
	if own == nil {
		return s
	}
	for _, f := range []bgp.Family{bgp.IPv4, bgp.IPv6} {
		s.imports[f] = k.pools.imports(f, nil)
	}
	peers, origins := map[netip.Addr]bgp.Peer{}, map[netip.Addr]PeerOrigin{}
	for _, p := range applying(configured, own) {
		s.addConfigured(ms, configured, p, peers, origins)
	}
	if k.settings.mesh {
		for m := range ms.others() {
			for ip := range meshed(own, m) {
				if _, ok := peers[ip]; !ok {
					peers[ip] = s.meshPeer(m, ip)
					origins[ip] = PeerOrigin{Type: v1.PeerTypeMesh, Name: m.name}
				}
			}
		}
	}
	s.peers, s.origins = edited(earlier.peers, peers), edited(earlier.origins, origins)
	var listen []netip.Addr
	for _, a := range own.addresses() {
		listen = append(listen, a.Addr())
	}
	s.speaker = earlier.speaker.With(struct{}{}, bgp.Config{
		AS:         k.settings.nodeAS(own),
		RouterID:   routerID(own),
		Listen:     bgp.Addrs(listen...),
		Port:       k.settings.port,
		Restarting: k.restarting,
		Deferral:   deferral,
	})
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
func (s *sessions) addConfigured(ms *members, configured []*peer, p *peer, peers map[netip.Addr]bgp.Peer, origins map[netip.Addr]PeerOrigin) {
	own := s.key.own
	ip := p.address.Addr()
	if ip == own.v4.Addr() || ip == own.v6.Addr() {
		return
	}
	f := bgp.FamilyOf(ip)
	issue := func(format string, args ...any) {
		s.issues = append(s.issues, v1.Issue{Object: "BGPPeer " + p.name, Field: "spec.peerIP", Reason: fmt.Sprintf(format, args...)})
	}
	local := own.address(f).Addr()
	if !local.IsValid() {
		issue("node %s has no %s address: no session with %s", own.name, f, ip)
		return
	}
	if first, ok := origins[ip]; ok {
		issue("%s is a peer of node %s by BGPPeer %s already: this one is ignored there", ip, own.name, first.Name)
		return
	}
	session := s.session(ip, s.key.pools.imports(f, p.accepts))
	session.AS, session.Port, session.HoldTime = p.as, p.address.Port(), p.holdTime
	session.RestartTime = cmp.Or(p.restartTime, s.key.settings.restartTime)
	if other := ms.at(ip); other != nil {
		session.Passive = waits(local, ip) && s.seeks(configured, other, local)
	}
	peers[ip] = session
	s.accepts[ip] = p.accepts
	origins[ip] = PeerOrigin{Type: v1.PeerTypeNode, Name: p.name}
	if p.scope == scopeGlobal {
		origins[ip] = PeerOrigin{Type: v1.PeerTypeGlobal, Name: p.name}
	}
}

// meshPeer returns the session with another node's address in the mesh.
func (s *sessions) meshPeer(m *member, ip netip.Addr) bgp.Peer {
	session := s.session(ip, s.imports[bgp.FamilyOf(ip)])
	session.AS, session.Port, session.HoldTime = s.key.settings.nodeAS(m), s.key.settings.port, bgp.DefaultHoldTime
	session.RestartTime, session.Passive = s.key.settings.restartTime, waits(session.Local, ip)
	return session
}

// session returns what is the same for all: a session carries the family of its
// addresses.
func (s *sessions) session(ip netip.Addr, imports bgp.PrefixSet) bgp.Peer {
	f := bgp.FamilyOf(ip)
	return bgp.Peer{
		Local: s.key.own.address(f).Addr(), IPv4: f == bgp.IPv4, IPv6: f == bgp.IPv6, Graceful: true, Import: imports,
	}
}

// imports returns what may be learned of a family: the pools, and what else is
// accepted.
func (ps *pools) imports(f bgp.Family, accepts []netip.Prefix) bgp.PrefixSet {
	all := slices.Clone(accepts)
	for _, p := range ps.list {
		all = append(all, p.cidr)
	}
	return bgp.Prefixes(slices.DeleteFunc(all, func(p netip.Prefix) bool { return bgp.FamilyOf(p.Addr()) != f })...)
}

// waits says which side of a session between two nodes is passive: the one with
// the higher address (netip.Addr.Compare). Both come to the same answer, so they
// never connect to each other at once, which would confuse graceful restart.
func waits(local, remote netip.Addr) bool { return local.Compare(remote) > 0 }

// seeks says whether another node has, by itself, a session with an address of
// ours. If it has not, waiting for it would be in vain.
func (s *sessions) seeks(configured []*peer, other *member, local netip.Addr) bool {
	if s.key.settings.mesh {
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
