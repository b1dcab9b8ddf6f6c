package bgp

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// settle carries every change to where it has an effect.
func (f *Fabric) settle() {
	f.connect()
	for again := true; again; {
		again = false
		for _, s := range f.sessions() {
			if !s.cut && s.open() {
				again = s.tell(s.ends[0], s.ends[1]) || again
				again = s.tell(s.ends[1], s.ends[0]) || again
			}
		}
		for _, s := range f.speakers {
			if s.life != nil {
				again = s.life.choose() || again
			}
		}
	}
}

// tell brings what from advertises to to, and says whether that was new.
func (s *fakeSession) tell(from, to *fakePeer) bool {
	if from.withheld() {
		return false
	}
	told := map[netip.Prefix]LearnedPath{}
	for prefix, path := range from.life.paths {
		if l, ok := s.learned(from, prefix, path); ok {
			told[prefix] = l
		}
	}
	changed := !maps.Equal(told, to.told) || to.stale || !to.synced
	if changed {
		to.forget()
		to.told, to.synced = told, true
	}
	return changed
}

// learned returns an own path of from as the other end learns it, if it does.
func (s *fakeSession) learned(from *fakePeer, prefix netip.Prefix, path Path) (LearnedPath, bool) {
	family := FamilyOf(prefix.Addr())
	negotiated := family == IPv4 && s.ipv4 || family == IPv6 && s.ipv6
	_, hidden := from.life.rib.Routes[prefix]
	if !negotiated || hidden || !path.NextHop.IsValid() && family != FamilyOf(from.addr) {
		return LearnedPath{}, false
	}
	own := from.life.config.AS
	l := LearnedPath{Peer: from.want.Local, NextHop: path.NextHop, PeerAS: own, External: from.want.AS != own, Communities: path.Communities}
	if !l.NextHop.IsValid() {
		l.NextHop = from.want.Local
	}
	if l.External {
		l.ASPath = strconv.FormatUint(uint64(own), 10)
	} else {
		l.LocalPref = preference(path.LocalPref)
	}
	return l, true
}

// preference is a path's local preference where a number is needed (RFC 4271
// 9.1.1 leaves the default to the speaker).
func preference(p uint32) uint32 {
	if p == 0 {
		return 100
	}
	return p
}

// withheld says whether p's End-of-RIB, and all before it, must wait for those of
// the other peers (RFC 4724 4.1).
func (p *fakePeer) withheld() bool {
	if !p.restarting || p.life.deferred {
		return false
	}
	for _, q := range p.life.peers {
		done := q.synced || q.session != nil && (!q.session.graceful || q.session.other(q).restarting)
		if q.want.Graceful && !done {
			return true
		}
	}
	for _, q := range p.life.peers {
		q.restarting = false
	}
	return false
}

// choose makes the table of best paths anew and says whether it changed.
func (l *life) choose() bool {
	routes := map[netip.Prefix][]LearnedPath{}
	for _, p := range l.peers {
		for prefix, path := range p.told {
			if p.want.Import.Covers(prefix) {
				routes[prefix] = append(routes[prefix], path)
			}
		}
	}
	for prefix, paths := range routes {
		best := best(paths)
		if own, ok := l.paths[prefix]; ok && preference(own.LocalPref) >= preference(best[0].LocalPref) {
			delete(routes, prefix)
			continue
		}
		routes[prefix] = best
	}
	complete := l.rib.Complete || l.complete()
	if complete == l.rib.Complete && maps.EqualFunc(routes, l.rib.Routes, slices.Equal) {
		return false
	}
	l.rib = &RIB{Routes: routes, Complete: complete}
	l.speaker.notify()
	return true
}

// best returns the best of the paths to a prefix and those as good, in the order
// of their peers: highest local preference, shortest AS path, eBGP before iBGP
// (RFC 4271 9.1.2.2).
func best(paths []LearnedPath) []LearnedPath {
	better := func(a, b LearnedPath) int {
		switch {
		case preference(a.LocalPref) != preference(b.LocalPref):
			return int(preference(b.LocalPref)) - int(preference(a.LocalPref))
		case hops(a) != hops(b):
			return hops(a) - hops(b)
		case a.External != b.External && a.External:
			return -1
		case a.External != b.External:
			return 1
		}
		return 0
	}
	top := slices.MinFunc(paths, better)
	out := slices.DeleteFunc(slices.Clone(paths), func(p LearnedPath) bool { return better(p, top) != 0 })
	slices.SortFunc(out, func(a, b LearnedPath) int { return a.Peer.Compare(b.Peer) })
	return out
}

func hops(l LearnedPath) int { return len(strings.Fields(l.ASPath)) }

func (l *life) complete() bool {
	if !l.written || l.deferred {
		return l.written
	}
	for _, p := range l.peers {
		if p.session == nil || !p.session.graceful || !p.synced {
			return false
		}
	}
	return true
}
