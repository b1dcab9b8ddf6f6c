package bgptest

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"cairn.network/cairn/bgp"
)

// testImport changes what may be learned while the session is up.
func testImport(t *testing.T, w World) {
	a, b := pair(t, w, as, as+1)
	inside, border, above := prefix("10.1.0.0/32"), prefix("10.1.0.0/16"), prefix("10.0.0.0/15")
	a.advertise(map[netip.Prefix]bgp.Path{inside: own, border: own, above: own, q4: own})
	b.until("four routes", func() bool { return b.session(A.V4()).IPv4.Accepted == 4 })
	for _, c := range []struct {
		name string
		set  bgp.PrefixSet
		want []netip.Prefix
	}{
		{"none", bgp.Prefixes(), nil},
		{"one", bgp.Prefixes(border), []netip.Prefix{inside, border}},
		{"other family only", bgp.Prefixes(prefix("::/0")), nil},
		{"two", bgp.Prefixes(border, q4), []netip.Prefix{inside, border, q4}},
		{"equal but distinct", bgp.Prefixes(q4, prefix("10.1.2.3/16")), []netip.Prefix{inside, border, q4}},
		{"all", everything, []netip.Prefix{inside, border, above, q4}},
	} {
		p := peer(B, as)
		p.Import = c.set
		b.peers(map[netip.Addr]bgp.Peer{A.V4(): p})
		b.until(c.name, func() bool {
			r := b.RIB().Routes
			for _, want := range c.want {
				if r[want] == nil {
					return false
				}
			}
			return len(r) == len(c.want)
		})
		if s := b.session(A.V4()); s.IPv4.Received != 4 || s.IPv4.Accepted != uint64(len(c.want)) || s.Flaps != 0 {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
	if s := a.session(B.V4()); s.Flaps != 0 || s.IPv4.Advertised != 4 {
		t.Errorf("the other side: %+v", s)
	}
}

// testReset changes settings of one of two peers.
func testReset(t *testing.T, w World) {
	a, b, c := start(t, w, A, config(A, as)), start(t, w, B, config(B, as)), start(t, w, C, config(C, as))
	pb, pc := peer(A, as), peer(A, as)
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): pb, C.V4(): pc})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(B, as)})
	c.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(C, as)})
	b.advertise(map[netip.Prefix]bgp.Path{p4: own})
	c.advertise(map[netip.Prefix]bgp.Path{q4: own})
	a.learns(p4, B.V4())
	a.learns(q4, C.V4())
	for n, change := range []func(*bgp.Peer){
		func(p *bgp.Peer) { p.HoldTime = 12 * time.Second },
		func(p *bgp.Peer) { p.Graceful = false },
		func(p *bgp.Peer) { p.IPv6 = true },
	} {
		change(&pb)
		a.peers(map[netip.Addr]bgp.Peer{B.V4(): pb, C.V4(): pc})
		a.until("session back", func() bool {
			s := a.session(B.V4())
			return s.State == bgp.Established && s.Flaps == uint64(n+1)
		})
		a.learns(p4, B.V4())
	}
	if s := a.session(C.V4()); s.Flaps != 0 || s.State != bgp.Established {
		t.Errorf("the other session: %+v", s)
	}
	if s := b.session(A.V4()); !strings.Contains(s.LastError, "received Peer De-configured (Cease)") {
		t.Errorf("at B: %+v", s)
	}
}

func testWrongAS(t *testing.T, w World) {
	a, b := start(t, w, A, config(A, as)), start(t, w, B, config(B, as+1))
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as+7)})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(B, as)})
	a.until("Bad Peer AS sent", func() bool { return a.session(B.V4()).LastError == "sent Bad Peer AS (OPEN Message Error)" })
	b.until("Bad Peer AS received", func() bool {
		return b.session(A.V4()).LastError == "received Bad Peer AS (OPEN Message Error)"
	})
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as+1)})
	a.established(B.V4())
	b.established(A.V4())
	if s := b.session(A.V4()); s.LastError != "" || s.Flaps != 0 {
		t.Errorf("a session that never ended: %+v", s)
	}
}

func testNobody(t *testing.T, w World) {
	w.Start(B)
	a := start(t, w, A, config(A, as))
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as)})
	want := "connect to 10.99.0.2:17917: connection refused"
	a.until(want, func() bool { return a.session(B.V4()).LastError == want })
	if s := a.session(B.V4()); s.State == bgp.Established || s.Since.IsZero() {
		t.Errorf("session %+v", s)
	}
}

func testPortInUse(t *testing.T, w World) {
	free := w.Occupy(A)
	n := node{w.Start(A), t, A}
	err := n.Config().Write(t.Context(), map[struct{}]bgp.Config{{}: config(A, as)}, nil)
	checkKeyError(t, err, "set", struct{}{}, nil)
	if want := "listen on 10.99.0.1:17917: address already in use"; err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want %s", err, want)
	}
	free()
	n.configure(config(A, as))

	// What works goes on while another configuration can't be had.
	b := start(t, w, B, config(B, as))
	n.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as)})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(B, as)})
	n.established(B.V4())
	cfg := config(A, as)
	cfg.Listen = bgp.Addrs(A.V4(), C.V4())
	defer w.Occupy(C)()
	if err := n.Config().Write(t.Context(), map[struct{}]bgp.Config{{}: cfg}, nil); err == nil {
		t.Error("no error")
	}
	if s := n.session(B.V4()); s.State != bgp.Established || s.Flaps != 0 {
		t.Errorf("session %+v", s)
	}
	if got, _ := n.Config().Read(t.Context()); got[struct{}{}] != config(A, as) {
		t.Errorf("configuration %+v", got)
	}
}

func testNewConfig(t *testing.T, w World) {
	a, b := pair(t, w, as, as+1)
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	b.learns(p4, A.V4())
	a.configure(config(A, as+2))
	b.learns(p4) // a Cease: no graceful restart
	if peers, _ := a.Peers().Read(t.Context()); len(peers) != 0 {
		t.Errorf("peers %v", peers)
	}
	if paths, _ := a.Paths().Read(t.Context()); len(paths) != 0 {
		t.Errorf("paths %v", paths)
	}
	if r := a.RIB(); len(r.Routes) != 0 || r.Complete {
		t.Errorf("RIB %+v", r)
	}
	a.advertise(map[netip.Prefix]bgp.Path{q4: own})
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as+1)})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(B, as+2)})
	b.learns(q4, A.V4())
	if err := a.Config().Write(t.Context(), nil, []struct{}{{}}); err != nil {
		t.Fatal(err)
	}
	b.learns(q4)
	b.until("refused", func() bool { return strings.HasSuffix(b.session(A.V4()).LastError, "connection refused") })
	if got, _ := a.Config().Read(t.Context()); len(got) != 0 {
		t.Errorf("configuration %v", got)
	}
}

func testDeletePeer(t *testing.T, w World) {
	a, b := pair(t, w, as, as)
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	b.advertise(map[netip.Prefix]bgp.Path{q4: own})
	a.learns(q4, B.V4())
	b.learns(p4, A.V4())
	a.peers(nil, B.V4())
	a.learns(q4)
	b.learns(p4)
	if s, _ := a.Sessions(t.Context()); len(s) != 0 {
		t.Errorf("sessions %+v", s)
	}
	b.until("one flap", func() bool { return b.session(A.V4()).Flaps == 1 })
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as)})
	a.learns(q4, B.V4())
	b.learns(p4, A.V4())
}

func testStop(t *testing.T, w World) {
	a, b := pair(t, w, as, as)
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	b.learns(p4, A.V4())
	if err := a.Stop(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	b.within(restartTime-time.Second, "routes gone at once", func() bool { return b.has(p4) })
	b.until("one flap", func() bool { return b.session(A.V4()).Flaps == 1 })
}
