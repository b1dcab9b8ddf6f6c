package bgptest

import (
	"net/netip"
	"testing"
	"time"

	"cairn.network/cairn/bgp"
)

// holds watches for d that n keeps the route to prefix.
func (n node) holds(d time.Duration, prefix netip.Prefix, peer netip.Addr) {
	n.t.Helper()
	for over := time.After(d); ; {
		if !n.has(prefix, peer) {
			n.t.Fatalf("host %d lost the route to %v: %+v", n.host, prefix, n.RIB())
		}
		select {
		case <-n.Changed():
		case <-over:
			return
		}
	}
}

func testGraceful(t *testing.T, w World) {
	a, b := pair(t, w, as, as)
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	b.learns(p4, A.V4())
	if err := a.Stop(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	b.until("session lost", func() bool { return b.session(A.V4()).State != bgp.Established })
	b.holds(restartTime/2, p4, A.V4())
	b.learns(p4)
}

func testCrash(t *testing.T, w World) {
	a, b := start(t, w, A, config(A, as)), start(t, w, B, config(B, as))
	pa := peer(A, as)
	pa.Graceful = false
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): pa})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(B, as)})
	b.learns(p4, A.V4())
	w.Kill(a.Speaker)
	b.within(restartTime-time.Second, "routes gone at once", func() bool { return b.has(p4) })
}

// testRestart kills a speaker and starts it again in time, with one path gone
// and a new one.
func testRestart(t *testing.T, w World) {
	a, b := pair(t, w, as, as+1)
	r4 := prefix("10.3.0.0/26")
	a.advertise(map[netip.Prefix]bgp.Path{p4: own, q4: own})
	b.advertise(map[netip.Prefix]bgp.Path{r4: own})
	b.learns(p4, A.V4())
	b.learns(q4, A.V4())
	w.Kill(a.Speaker)
	b.until("session lost", func() bool { return b.session(A.V4()).Flaps == 1 })
	b.holds(restartTime/10, p4, A.V4())

	cfg := config(A, as)
	cfg.Restarting = true
	a = start(t, w, A, cfg)
	s4 := prefix("10.4.0.0/26")
	a.advertise(map[netip.Prefix]bgp.Path{p4: own, s4: own})
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as+1)})
	a.within(3*time.Second, "session back", func() bool { return a.session(B.V4()).State == bgp.Established })
	for !b.has(q4) { // kept until A's End-of-RIB
		b.holds(0, p4, A.V4())
		b.until("a change", func() bool { return true })
		select {
		case <-b.Changed():
		case <-time.After(10 * time.Millisecond):
		}
	}
	b.learns(s4, A.V4())
	a.learns(r4, B.V4())
	a.until("complete", func() bool { return a.RIB().Complete })
	b.holds(restartTime+time.Second, p4, A.V4())
	if s := b.session(A.V4()); s.Flaps != 1 || s.State != bgp.Established || s.LastError == "" {
		t.Errorf("at B: %+v", s)
	}
}

// testNeverBack restarts one of two peers while the other stays away: routes of
// the second go, and the first's are not kept waiting for it longer than Deferral.
func testNeverBack(t *testing.T, w World) {
	a, b, c := start(t, w, A, config(A, as)), start(t, w, B, config(B, as)), start(t, w, C, config(C, as))
	mesh := func(own Host, others ...Host) map[netip.Addr]bgp.Peer {
		set := map[netip.Addr]bgp.Peer{}
		for _, o := range others {
			set[o.V4()] = peer(own, as)
		}
		return set
	}
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	b.advertise(map[netip.Prefix]bgp.Path{q4: own})
	a.peers(mesh(A, B, C))
	b.peers(mesh(B, A, C))
	c.peers(mesh(C, A, B))
	c.learns(p4, A.V4())
	c.learns(q4, B.V4())
	w.Kill(a.Speaker)
	w.Kill(b.Speaker)
	c.until("sessions lost", func() bool { return c.session(A.V4()).Flaps == 1 && c.session(B.V4()).Flaps == 1 })

	cfg := config(A, as)
	cfg.Restarting = true
	a = start(t, w, A, cfg)
	r4 := prefix("10.3.0.0/26")
	a.advertise(map[netip.Prefix]bgp.Path{p4: own, r4: own})
	a.peers(mesh(A, B, C))
	a.established(C.V4())
	if a.RIB().Complete {
		t.Error("complete though B was not heard")
	}
	c.learns(r4, A.V4())
	c.learns(q4)
	c.holds(restartTime/10, p4, A.V4())
	a.until("complete", func() bool { return a.RIB().Complete })

	// B comes back later, and A doesn't claim to restart then.
	b = start(t, w, B, config(B, as))
	b.peers(mesh(B, A, C))
	b.within(deferral, "A's routes", func() bool { return b.has(r4, A.V4()) })
}

func testComplete(t *testing.T, w World) {
	a := start(t, w, A, config(A, as))
	if a.RIB().Complete {
		t.Error("complete before peers were written")
	}
	a.peers(nil)
	a.within(deferral, "complete without peers", func() bool { return a.RIB().Complete })

	b := start(t, w, B, config(B, as))
	begin := time.Now()
	b.peers(map[netip.Addr]bgp.Peer{C.V4(): peer(B, as)})
	b.until("complete", func() bool { return b.RIB().Complete })
	if d := time.Since(begin); d < deferral {
		t.Errorf("complete after %v, though a peer had %v", d, deferral)
	}
	// A peer that comes later does not take it back.
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as)})
	if !a.RIB().Complete {
		t.Error("incomplete again")
	}
}

// testCut takes the link away until both ends give the session up. The routes
// stay for the restart time, so a short cut does no harm.
func testCut(t *testing.T, w World) {
	a, b := start(t, w, A, config(A, as)), start(t, w, B, config(B, as))
	pa, pb := peer(A, as), peer(B, as)
	pa.HoldTime, pb.HoldTime = 3*time.Second, 3*time.Second
	pa.RestartTime, pb.RestartTime = 15*time.Second, 15*time.Second
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): pa})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): pb})
	b.learns(p4, A.V4())
	w.Cut(A, B)
	b.until("hold time over", func() bool { return b.session(A.V4()).State != bgp.Established })
	b.holds(time.Second, p4, A.V4())
	w.Heal(A, B)
	b.established(A.V4())
	if got := b.session(A.V4()); got.LastError != "sent Hold Timer Expired" || got.Flaps != 1 {
		t.Errorf("session %+v", got)
	}
	b.holds(time.Second, p4, A.V4())
}
