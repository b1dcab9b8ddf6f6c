// Package bgptest is the suite that every bgp.Speaker must pass, the fake and
// the driver alike.
package bgptest

import (
	"net/netip"
	"testing"
	"time"

	"cairn.network/cairn/bgp"
)

// World is where speakers run: hosts A to D, each with an address of both
// families, all in reach of one another.
type World struct {
	// Start returns a new speaker on a host. What the test doesn't end the world
	// does.
	Start func(host Host) bgp.Speaker
	// Kill ends a speaker as a crash of its process does.
	Kill func(bgp.Speaker)
	// Cut and Heal break and mend the link between two hosts. Nobody is told.
	Cut, Heal func(a, b Host)
	// Occupy takes Port of a host until the returned function is called.
	Occupy func(host Host) (free func())
}

// Host is a host of the world, by its last digit.
type Host int

// Hosts.
const (
	A Host = 1 + iota
	B
	C
	D
)

// Port is the TCP port that all speakers listen on.
const Port = 17917

// V4 and V6 are the host's addresses.
func (h Host) V4() netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, byte(h)}) }

// V6 is the host's IPv6 address.
func (h Host) V6() netip.Addr {
	a := netip.MustParseAddr("fd99::").As16()
	a[15] = byte(h)
	return netip.AddrFrom16(a)
}

// Hosts are all hosts of a world.
func Hosts() []Host { return []Host{A, B, C, D} }

// as is the AS of hosts that don't have one of their own.
const as = 64512

// timeout is how long a condition may take to come true.
const timeout = 20 * time.Second

// quick are times for tests.
const (
	restartTime = 3 * time.Second
	deferral    = 2 * time.Second
)

var everything = bgp.Prefixes(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))

// config returns the configuration of a host.
func config(h Host, as uint32) bgp.Config {
	return bgp.Config{
		AS: as, RouterID: h.V4(), Listen: bgp.Addrs(h.V4(), h.V6()), Port: Port,
		Deferral: deferral,
	}
}

// peer returns host own's view of a neighbour in an IPv4 session that takes in
// everything.
func peer(own Host, as uint32) bgp.Peer {
	return bgp.Peer{AS: as, Port: Port, Local: own.V4(), IPv4: true, HoldTime: 9 * time.Second, Graceful: true, RestartTime: restartTime, Import: everything}
}

// peer6 is peer for an IPv6 session.
func peer6(own Host, as uint32) bgp.Peer {
	p := peer(own, as)
	p.Local, p.IPv4, p.IPv6 = own.V6(), false, true
	return p
}

// node is a speaker on a host.
type node struct {
	bgp.Speaker
	t    *testing.T
	host Host
}

func start(t *testing.T, w World, h Host, cfg bgp.Config) node {
	t.Helper()
	n := node{w.Start(h), t, h}
	n.configure(cfg)
	return n
}

func (n node) configure(cfg bgp.Config) {
	n.t.Helper()
	if err := n.Config().Write(n.t.Context(), map[struct{}]bgp.Config{{}: cfg}, nil); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) peers(set map[netip.Addr]bgp.Peer, del ...netip.Addr) {
	n.t.Helper()
	if err := n.Peers().Write(n.t.Context(), set, del); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) advertise(set map[netip.Prefix]bgp.Path, del ...netip.Prefix) {
	n.t.Helper()
	if err := n.Paths().Write(n.t.Context(), set, del); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) session(peer netip.Addr) bgp.Session {
	n.t.Helper()
	all, err := n.Sessions(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return all[peer]
}

// until waits for a condition, which it names when it fails.
func (n node) until(what string, is func() bool) {
	n.t.Helper()
	n.within(timeout, what, is)
}

func (n node) within(d time.Duration, what string, is func() bool) {
	n.t.Helper()
	over := time.After(d)
	for !is() {
		select {
		case <-n.Changed():
		case <-time.After(10 * time.Millisecond): // what changes elsewhere
		case <-over:
			all, _ := n.Sessions(n.t.Context())
			n.t.Fatalf("host %d: not within %v: %s\nRIB %+v\nsessions %+v", n.host, d, what, n.RIB(), all)
		}
	}
}

// established waits for a session.
func (n node) established(peers ...netip.Addr) {
	n.t.Helper()
	for _, p := range peers {
		n.until("session with "+p.String(), func() bool { return n.session(p).State == bgp.Established })
	}
}

// learns waits until the best paths to a prefix are those of these peers.
func (n node) learns(prefix netip.Prefix, peers ...netip.Addr) {
	n.t.Helper()
	n.until("routes to "+prefix.String(), func() bool { return n.has(prefix, peers...) })
}

func (n node) has(prefix netip.Prefix, peers ...netip.Addr) bool {
	paths := n.RIB().Routes[prefix]
	if len(paths) != len(peers) {
		return false
	}
	for i, p := range peers {
		if paths[i].Peer != p {
			return false
		}
	}
	return true
}

// pair starts two speakers with a session.
func pair(t *testing.T, w World, asA, asB uint32) (a, b node) {
	t.Helper()
	a, b = start(t, w, A, config(A, asA)), start(t, w, B, config(B, asB))
	a.peers(map[netip.Addr]bgp.Peer{B.V4(): peer(A, asB)})
	b.peers(map[netip.Addr]bgp.Peer{A.V4(): peer(B, asA)})
	a.established(B.V4())
	b.established(A.V4())
	return a, b
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// own is a path with nothing set.
var own bgp.Path
