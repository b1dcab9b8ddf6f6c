package bgptest

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// Run runs the suite. around makes a world for each test and calls it.
func Run(t *testing.T, around func(t *testing.T, test func(t *testing.T, w World))) {
	for _, c := range []struct {
		name string
		test func(*testing.T, World)
	}{
		{"without a configuration", testStopped},
		{"tables read back", testReadBack},
		{"bad input", testBadInput},
		{"exchange both families", testExchange},
		{"both families in one session", testOneSession},
		{"attributes", testAttributes},
		{"one AS", testInternal},
		{"passive sides", testPassive},
		{"no transit", testNoTransit},
		{"multipath", testMultipath},
		{"import live", testImport},
		{"settings that reset one session", testReset},
		{"wrong AS", testWrongAS},
		{"nobody there", testNobody},
		{"port in use", testPortInUse},
		{"new configuration", testNewConfig},
		{"delete peer", testDeletePeer},
		{"stop with a Cease", testStop},
		{"stop gracefully", testGraceful},
		{"crash without graceful restart", testCrash},
		{"restart", testRestart},
		{"never back", testNeverBack},
		{"complete", testComplete},
		{"cut link", testCut},
	} {
		t.Run(c.name, func(t *testing.T) { around(t, c.test) })
	}
}

var (
	p4 = prefix("10.1.0.0/26")
	q4 = prefix("10.2.0.0/26")
	p6 = prefix("fd00:1::/122")
)

func testStopped(t *testing.T, w World) {
	n := node{w.Start(A), t, A}
	err := n.Peers().Write(t.Context(), map[netip.Addr]bgp.Peer{B.V4(): peer(A, as)}, []netip.Addr{C.V4()})
	checkKeyError(t, err, "set", B.V4(), bgp.ErrStopped)
	err = n.Paths().Write(t.Context(), map[netip.Prefix]bgp.Path{p4: own}, []netip.Prefix{q4})
	checkKeyError(t, err, "set", p4, bgp.ErrStopped)
	if err := n.Config().Write(t.Context(), nil, []struct{}{{}}); err != nil {
		t.Errorf("delete no configuration: %v", err)
	}
	if r := n.RIB(); r == nil || r.Complete || len(r.Routes) != 0 {
		t.Errorf("RIB without a configuration: %+v", r)
	}
	if s, err := n.Sessions(t.Context()); err != nil || len(s) != 0 {
		t.Errorf("sessions without a configuration: %v, %v", s, err)
	}
	if err := n.Stop(t.Context(), false); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func checkKeyError[K comparable](t *testing.T, err error, op string, key K, cause error) {
	t.Helper()
	var ke *kernel.KeyError[K]
	if !errors.As(err, &ke) || ke.Op != op || ke.Key != key || cause != nil && !errors.Is(err, cause) {
		t.Errorf("got error %v, want that %s %v fails: %v", err, op, key, cause)
	}
}

func testReadBack(t *testing.T, w World) {
	n := start(t, w, A, config(A, as))
	peers := map[netip.Addr]bgp.Peer{B.V4(): peer(A, as), C.V6(): peer6(A, as+1)}
	paths := map[netip.Prefix]bgp.Path{p4: own, p6: {NextHop: A.V6(), LocalPref: 200, Communities: "64512:1"}}
	for range 2 { // the second time nothing is to be done
		n.configure(config(A, as))
		n.peers(peers, D.V4())
		n.advertise(paths, q4)
		cfg, err := n.Config().Read(t.Context())
		if diff := cmp.Diff(map[struct{}]bgp.Config{{}: config(A, as)}, cfg, values); diff != "" || err != nil {
			t.Errorf("configuration: %v\n%s", err, diff)
		}
		gotPeers, err := n.Peers().Read(t.Context())
		if diff := cmp.Diff(peers, gotPeers, values); diff != "" || err != nil {
			t.Errorf("peers: %v\n%s", err, diff)
		}
		gotPaths, err := n.Paths().Read(t.Context())
		if diff := cmp.Diff(paths, gotPaths, values); diff != "" || err != nil {
			t.Errorf("paths: %v\n%s", err, diff)
		}
	}
	n.peers(nil, B.V4(), C.V6())
	n.advertise(nil, p4, p6)
	gotPeers, _ := n.Peers().Read(t.Context())
	gotPaths, _ := n.Paths().Read(t.Context())
	if len(gotPeers) != 0 || len(gotPaths) != 0 {
		t.Errorf("after deleting: %v, %v", gotPeers, gotPaths)
	}
}

// values lets cmp compare what Go compares with ==.
var values = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, bgp.AddrSet{}, bgp.PrefixSet{}),
}

func testBadInput(t *testing.T, w World) {
	n := start(t, w, A, config(A, as))
	for name, change := range map[string]func(*bgp.Config){
		"no AS":             func(c *bgp.Config) { c.AS = 0 },
		"router ID of IPv6": func(c *bgp.Config) { c.RouterID = A.V6() },
		"no router ID":      func(c *bgp.Config) { c.RouterID = netip.Addr{} },
		"no port":           func(c *bgp.Config) { c.Port = 0 },
	} {
		cfg := config(A, as)
		change(&cfg)
		err := n.Config().Write(t.Context(), map[struct{}]bgp.Config{{}: cfg}, nil)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		checkKeyError(t, err, "set", struct{}{}, nil)
	}
	good := peer(A, as)
	for name, change := range map[string]func(*bgp.Peer){
		"no AS":                func(p *bgp.Peer) { p.AS = 0 },
		"no port":              func(p *bgp.Peer) { p.Port = 0 },
		"no own address":       func(p *bgp.Peer) { p.Local = netip.Addr{} },
		"own address of IPv6":  func(p *bgp.Peer) { p.Local = A.V6() },
		"no family":            func(p *bgp.Peer) { p.IPv4 = false },
		"restart time border":  func(p *bgp.Peer) { p.RestartTime = 4096 * time.Second },
		"half a second":        func(p *bgp.Peer) { p.RestartTime = 1500 * time.Millisecond },
		"hold time border":     func(p *bgp.Peer) { p.HoldTime = 2 * time.Second },
		"hold time border + 1": func(p *bgp.Peer) { p.HoldTime = 65536 * time.Second },
	} {
		bad := good
		change(&bad)
		err := n.Peers().Write(t.Context(), map[netip.Addr]bgp.Peer{B.V4(): bad, C.V4(): good}, nil)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		checkKeyError(t, err, "set", B.V4(), nil)
	}
	if got, _ := n.Peers().Read(t.Context()); len(got) != 1 || got[C.V4()] != good {
		t.Errorf("the good neighbour of bad ones: %v", got)
	}
	err := n.Paths().Write(t.Context(), map[netip.Prefix]bgp.Path{p4: own, p6: {NextHop: A.V4()}}, nil)
	checkKeyError(t, err, "set", p6, nil)
	err = n.Paths().Write(t.Context(), map[netip.Prefix]bgp.Path{q4: {Communities: "1"}}, nil)
	checkKeyError(t, err, "set", q4, nil)
	if got, _ := n.Paths().Read(t.Context()); len(got) != 1 || got[p4] != own {
		t.Errorf("the good path beside bad ones: %v", got)
	}
}

func testExchange(t *testing.T, w World) {
	a, b := start(t, w, A, config(A, as)), start(t, w, B, config(B, as+1))
	a.advertise(map[netip.Prefix]bgp.Path{p4: own, p6: own})
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as+1), B.V6(): peer6(A, as+1)})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(B, as), A.V6(): peer6(B, as)})
	b.established(A.V4(), A.V6())
	b.learns(p4, A.V4())
	b.learns(p6, A.V6())
	b.until("complete", func() bool { return b.RIB().Complete })
	want := map[netip.Prefix][]bgp.LearnedPath{
		p4: {{Peer: A.V4(), NextHop: A.V4(), PeerAS: as, External: true, ASPath: "64512"}},
		p6: {{Peer: A.V6(), NextHop: A.V6(), PeerAS: as, External: true, ASPath: "64512"}},
	}
	if diff := cmp.Diff(want, b.RIB().Routes, values); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if first, second := b.RIB(), b.RIB(); first != second {
		t.Error("a new RIB though nothing changed")
	}
	if s := b.session(A.V4()); s.IPv4 != (bgp.Count{Received: 1, Accepted: 1}) || s.IPv6 != (bgp.Count{}) || !s.External || s.Flaps != 0 || s.LastError != "" {
		t.Errorf("IPv4 session: %+v", s)
	}
	a.established(B.V6())
	if s := a.session(B.V6()); s.IPv6 != (bgp.Count{Advertised: 1}) || s.IPv4 != (bgp.Count{}) {
		t.Errorf("IPv6 session: %+v", s)
	}
	before := b.RIB()
	a.advertise(map[netip.Prefix]bgp.Path{q4: own}, p4, p6)
	b.learns(q4, A.V4())
	b.learns(p4)
	b.learns(p6)
	if len(before.Routes) != 2 {
		t.Errorf("a snapshot changed: %+v", before)
	}
	if s := b.session(A.V4()); s.IPv4.Received != 1 || s.Flaps != 0 {
		t.Errorf("after a change: %+v", s)
	}
}

// testOneSession exchanges both families between IPv4 addresses: what has no
// IPv6 next hop of its own can't be told there.
func testOneSession(t *testing.T, w World) {
	a, b := start(t, w, A, config(A, as)), start(t, w, B, config(B, as))
	r6 := prefix("fd00:2::/122")
	a.advertise(map[netip.Prefix]bgp.Path{p4: own, p6: {NextHop: A.V6()}, r6: own})
	pa, pb := peer(A, as), peer(B, as)
	pa.IPv6, pb.IPv6 = true, true
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): pa})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): pb})
	b.learns(p4, A.V4())
	b.learns(p6, A.V4())
	b.until("complete", func() bool { return b.RIB().Complete })
	if got := b.RIB().Routes[p6][0].NextHop; got != A.V6() {
		t.Errorf("next hop %v", got)
	}
	if got := b.RIB().Routes[r6]; got != nil {
		t.Errorf("a path without a next hop arrived: %+v", got)
	}
	if s := a.session(B.V4()); s.IPv4.Advertised != 1 || s.IPv6.Advertised != 1 {
		t.Errorf("advertised: %+v", s)
	}
}

func testAttributes(t *testing.T, w World) {
	a, b := pair(t, w, as, as)
	learned := bgp.LearnedPath{Peer: A.V4(), NextHop: A.V4(), PeerAS: as, LocalPref: 100}
	for _, c := range []struct {
		name   string
		path   bgp.Path
		change func(*bgp.LearnedPath)
	}{
		{"none", own, func(*bgp.LearnedPath) {}},
		{"next hop", bgp.Path{NextHop: C.V4()}, func(l *bgp.LearnedPath) { l.NextHop = C.V4() }},
		{"local preference", bgp.Path{LocalPref: 300}, func(l *bgp.LearnedPath) { l.LocalPref = 300 }},
		{"communities", bgp.Path{Communities: "64512:1 64512:65535"}, func(l *bgp.LearnedPath) { l.Communities = "64512:1 64512:65535" }},
		{"none again", own, func(*bgp.LearnedPath) {}},
	} {
		want := learned
		c.change(&want)
		a.advertise(map[netip.Prefix]bgp.Path{p4: c.path})
		b.until(c.name, func() bool {
			got := b.RIB().Routes[p4]
			return len(got) == 1 && got[0] == want
		})
	}
	if s := a.session(B.V4()); s.Flaps != 0 {
		t.Errorf("a change of paths reset the session: %+v", s)
	}
}

func testInternal(t *testing.T, w World) {
	a, b := pair(t, w, 4200000000, 4200000000) // beyond two bytes
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	b.learns(p4, A.V4())
	want := []bgp.LearnedPath{{Peer: A.V4(), NextHop: A.V4(), PeerAS: 4200000000, LocalPref: 100}}
	if diff := cmp.Diff(want, b.RIB().Routes[p4], values); diff != "" {
		t.Errorf("path (-want +got):\n%s", diff)
	}
	if s := b.session(A.V4()); s.External {
		t.Errorf("session %+v", s)
	}
	// Both have it: the own path is best, and stays told.
	b.advertise(map[netip.Prefix]bgp.Path{p4: own})
	b.learns(p4)
	a.until("B's path counted", func() bool { return a.session(B.V4()).IPv4.Received == 1 })
	a.learns(p4)
	if s := a.session(B.V4()); s.IPv4.Advertised != 1 {
		t.Errorf("session %+v", s)
	}
	// One that is preferred hides the own one.
	b.advertise(map[netip.Prefix]bgp.Path{p4: {LocalPref: 200}})
	a.learns(p4, B.V4())
	if s := a.session(B.V4()); s.IPv4.Advertised != 0 {
		t.Errorf("session %+v", s)
	}
	b.until("A's path withdrawn", func() bool { return b.session(A.V4()).IPv4.Received == 0 })
}

func testPassive(t *testing.T, w World) {
	a, b := start(t, w, A, config(A, as)), start(t, w, B, config(B, as))
	pa, pb := peer(A, as), peer(B, as)
	pa.Passive, pb.Passive = true, true
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): pa})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): pb})
	a.until("both wait", func() bool { return a.session(B.V4()).State == bgp.Active && b.session(A.V4()).State == bgp.Active })
	// Who connects and who waits may change live.
	pb.Passive = false
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): pb})
	a.established(B.V4())
	b.established(A.V4())
	pa.Passive, pb.Passive = false, true
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): pa})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): pb})
	if s := a.session(B.V4()); s.State != bgp.Established || s.Flaps != 0 {
		t.Errorf("session %+v", s)
	}
}

// testNoTransit has B between A and C, once inside an AS and once between ASs.
func testNoTransit(t *testing.T, w World) {
	a, b, c := start(t, w, A, config(A, as)), start(t, w, B, config(B, as+1)), start(t, w, C, config(C, as+2))
	d := start(t, w, D, config(D, as+1))
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as+1)})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(B, as), C.V4(): peer(B, as+2), D.V4(): peer(B, as+1)})
	c.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(C, as+1)})
	d.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(D, as+1)})
	b.established(A.V4(), C.V4(), D.V4())
	b.advertise(map[netip.Prefix]bgp.Path{q4: own})
	a.advertise(map[netip.Prefix]bgp.Path{p4: own})
	b.learns(p4, A.V4())
	// What comes after it has passed it on the way.
	last := prefix("10.3.0.0/26")
	b.advertise(map[netip.Prefix]bgp.Path{last: own})
	for _, n := range []node{c, d} {
		n.learns(last, B.V4())
		n.learns(q4, B.V4())
		if got := n.RIB().Routes[p4]; got != nil {
			t.Errorf("host %d learned what B learned: %+v", n.host, got)
		}
	}
	if s := b.session(C.V4()); s.IPv4.Advertised != 2 {
		t.Errorf("B to C: %+v", s)
	}
}

func testMultipath(t *testing.T, w World) {
	a := start(t, w, A, config(A, as))
	b, c, d := start(t, w, B, config(B, as+1)), start(t, w, C, config(C, as+2)), start(t, w, D, config(D, as))
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, as+1), C.V4(): peer(A, as+2), D.V4(): peer(A, as)})
	for n, own := range map[node]bgp.Peer{b: peer(B, as), c: peer(C, as), d: peer(D, as)} {
		n.peers(map[netip.Addr]bgp.Peer{A.V4(): own})
	}
	a.established(B.V4(), C.V4(), D.V4())
	c.advertise(map[netip.Prefix]bgp.Path{p4: own})
	a.learns(p4, C.V4())
	b.advertise(map[netip.Prefix]bgp.Path{p4: own})
	a.learns(p4, B.V4(), C.V4())
	b.advertise(nil, p4)
	a.learns(p4, C.V4())
	// Inside the AS there is no AS path to be shorter.
	d.advertise(map[netip.Prefix]bgp.Path{p4: own})
	a.learns(p4, D.V4())
	d.advertise(nil, p4)
	a.learns(p4, C.V4())
}
