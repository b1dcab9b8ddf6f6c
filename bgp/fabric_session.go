package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// fakePeer is a speaker's view of a peer.
type fakePeer struct {
	life       *life
	addr       netip.Addr
	want       Peer
	restarting bool // the peer is told that we restarted

	session *fakeSession // nil: not Established
	state   State
	since   time.Time
	flaps   uint64
	ended   string
	attempt string

	told    map[netip.Prefix]LearnedPath // by the peer, before Import
	stale   bool                         // told is of the session before
	restart *time.Timer                  // ends stale
	synced  bool                         // the peer's End-of-RIB came
}

func (p *fakePeer) enter(s State) {
	if p.state != s {
		p.state, p.since = s, time.Now()
		p.life.speaker.notify()
	}
}

// forget drops what the peer told.
func (p *fakePeer) forget() {
	p.told, p.stale = nil, false
	if p.restart != nil {
		p.restart.Stop()
		p.restart = nil
	}
}

// failed notes why the session can't come up.
func (p *fakePeer) failed(why string) {
	if p.attempt != why {
		p.attempt = why
		p.life.speaker.notify()
	}
}

func (p *fakePeer) report() Session {
	s := Session{
		Peer: p.addr, AS: p.want.AS, External: p.want.External(p.life.config.AS),
		State: p.state, Since: p.since, Flaps: p.flaps, LastError: p.ended,
	}
	if p.attempt != "" {
		s.LastError = p.attempt
	}
	if p.session == nil {
		return s
	}
	count := func(prefix netip.Prefix) *Count {
		if FamilyOf(prefix.Addr()) == IPv4 {
			return &s.IPv4
		}
		return &s.IPv6
	}
	for prefix := range p.told {
		count(prefix).Received++
		if p.want.Import.Covers(prefix) {
			count(prefix).Accepted++
		}
	}
	for prefix := range p.session.other(p).told {
		count(prefix).Advertised++
	}
	return s
}

// fakeSession is an established session.
type fakeSession struct {
	ends       [2]*fakePeer
	ipv4, ipv6 bool
	graceful   bool
	cut        bool
	timer      *time.Timer // hold time, while cut
}

func (s *fakeSession) other(p *fakePeer) *fakePeer {
	if s.ends[0] == p {
		return s.ends[1]
	}
	return s.ends[0]
}

// hold starts the hold timers: nothing is heard any more.
func (s *fakeSession) hold(f *Fabric) {
	if s.timer != nil {
		return
	}
	d := DefaultHoldTime
	for _, p := range s.ends {
		if p.want.HoldTime != 0 {
			d = min(d, p.want.HoldTime)
		}
	}
	s.timer = time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if s.cut {
			s.close(f, nil, Notification{}, "sent "+HoldTimerExpired.String())
			f.settle()
		}
	})
}

// close ends a session from end by, with a notification or, if that is zero, by
// closing the connection; why then tells more. Over a cut link the other end
// hears nothing, and is left to its hold time.
func (s *fakeSession) close(f *Fabric, by *fakePeer, n Notification, why string) {
	for _, p := range s.ends {
		if p.session != s || s.cut && by != nil && p != by {
			continue
		}
		p.session = nil
		p.flaps++
		p.synced = false
		p.enter(Active)
		switch {
		case n == (Notification{}) && why == "":
			p.ended = "connection closed by the peer"
		case n == (Notification{}):
			p.ended = why
		case p == by:
			p.ended = "sent " + n.String()
		default:
			p.ended = "received " + n.String()
		}
		if !s.graceful || n != (Notification{}) {
			p.forget()
			continue
		}
		p.keep(f, s.other(p).want.RestartTime)
	}
	if s.timer != nil && (!s.cut || by == nil) {
		s.timer.Stop()
	}
}

// open says whether both ends have the session.
func (s *fakeSession) open() bool { return s.ends[0].session == s && s.ends[1].session == s }

// keep holds on to what the peer told until it is back, for d at most.
func (p *fakePeer) keep(f *Fabric, d time.Duration) {
	if d == 0 {
		d = DefaultRestartTime
	}
	p.stale = true
	p.restart = time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if p.stale && p.session == nil {
			p.forget()
			f.settle()
		}
	})
}

// sessions returns every session once.
func (f *Fabric) sessions() []*fakeSession {
	var out []*fakeSession
	for _, s := range f.speakers {
		if s.life == nil {
			continue
		}
		for _, p := range s.life.peers {
			if p.session != nil && (p.session.ends[0] == p || !p.session.open()) {
				out = append(out, p.session)
			}
		}
	}
	return out
}

// connect brings up what sessions it can.
func (f *Fabric) connect() {
	for _, s := range f.speakers {
		if s.life == nil {
			continue
		}
		for _, p := range s.life.peers {
			if p.session == nil && !p.want.Passive {
				f.dial(p)
			}
		}
	}
}

// dial has p open a connection.
func (f *Fabric) dial(p *fakePeer) {
	to := netip.AddrPortFrom(p.addr, p.want.Port)
	remote, why := f.reach(p, to)
	if remote == nil {
		p.failed(fmt.Sprintf("connect to %v: %s", to, why))
		return
	}
	q := remote.peers[p.want.Local]
	if q == nil || q.want.Local != p.addr || q.session != nil {
		p.failed("connection closed by the peer")
		return
	}
	if agree(p, q) {
		establish(p, q)
	}
}

// reach returns who listens there, or why nobody answers.
func (f *Fabric) reach(p *fakePeer, to netip.AddrPort) (*life, string) {
	if !slices.Contains(p.life.speaker.addrs, p.want.Local) {
		return nil, "cannot assign requested address"
	}
	for _, s := range f.speakers {
		if !slices.Contains(s.addrs, to.Addr()) {
			continue
		}
		if f.isCut(s, p.life.speaker) {
			return nil, "timed out"
		}
		if l := f.listener(to); l != nil {
			return l, ""
		}
		return nil, "connection refused"
	}
	return nil, "no route to host"
}

// agree exchanges OPEN messages and says whether both ends agree.
func agree(p, q *fakePeer) bool {
	ok := true
	check := func(a, b *fakePeer) {
		n := Notification{}
		switch {
		case a.want.AS != b.life.config.AS:
			n = BadPeerAS
		case a.life.config.AS == b.life.config.AS && a.life.config.RouterID == b.life.config.RouterID:
			n = Notification{2, 3} // Bad BGP Identifier (RFC 6286 2.2)
		default:
			return
		}
		if ok {
			b.failed("received " + n.String())
		}
		a.failed("sent " + n.String())
		ok = false
	}
	check(p, q)
	check(q, p)
	return ok
}

func establish(p, q *fakePeer) {
	s := &fakeSession{
		ends: [2]*fakePeer{p, q},
		ipv4: p.want.IPv4 && q.want.IPv4, ipv6: p.want.IPv6 && q.want.IPv6,
		graceful: p.want.Graceful && q.want.Graceful,
	}
	for _, e := range s.ends {
		e.session, e.attempt = s, ""
		e.enter(Established)
	}
}
