// Package bgp holds a BGP speaker's configuration, peers, paths and session
// states as comparable values, and the seam to the speaker itself.
//
// It guarantees that equal configurations are equal values. It speaks no BGP:
// the driver is bgp/gobgp, and Fabric joins any number of fakes in memory.
package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cairn.network/cairn/kernel"
)

// Family is an address family whose routes are exchanged, as unicast (RFC 4760).
type Family uint8

// Families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// FamilyOf returns the family of an address; an IPv4-mapped one is IPv6.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// Config is what belongs to the speaker as a whole. Any change makes it start
// anew, all sessions with it.
type Config struct {
	AS       uint32     // own autonomous system
	RouterID netip.Addr // IPv4 address, unique in the AS (RFC 4271 1.1)
	// Listen holds the addresses to listen on; only these, never the wildcard.
	// Empty: sessions are only opened, never accepted.
	Listen AddrSet
	Port   uint16 // TCP port to listen on; 179 by custom
	// Restarting says that this start follows another within the restart time and
	// that the kernel still has the routes: the peers are asked to keep theirs
	// (RFC 4724 restart state), and End-of-RIB waits for the peers', or for
	// Deferral.
	Restarting bool
	// Deferral is how long RIB.Complete waits for the peers' End-of-RIB at most,
	// counted from the first write of peers; our own End-of-RIB too when
	// Restarting. 0: DefaultDeferral.
	Deferral time.Duration
}

// Defaults of Config and Peer.
const (
	DefaultRestartTime = 120 * time.Second
	DefaultDeferral    = 5 * time.Second
	DefaultHoldTime    = 90 * time.Second // RFC 4271 10
)

// ErrStopped says that a table can't be written because the speaker has no
// configuration.
var ErrStopped = errors.New("the BGP speaker is not running")

// Peer is a neighbour to have a session with. Its key is its address.
type Peer struct {
	AS      uint32
	Port    uint16     // TCP port to connect to
	Local   netip.Addr // own address of the session
	Passive bool       // only wait for the peer's connection
	// Families to exchange, in one session.
	IPv4, IPv6 bool
	HoldTime   time.Duration // whole seconds, at least 3 (RFC 4271 4.2); 0: DefaultHoldTime; keepalives go every third of it
	Graceful   bool          // announce and honour graceful restart (RFC 4724)
	// RestartTime is how long the peer is asked to keep our routes while we
	// restart: whole seconds, at most 4095; 0: DefaultRestartTime.
	RestartTime time.Duration
	// Import holds the prefixes that may be learned from this peer: a route
	// inside one of them, or the same. Others are counted as received and
	// dropped.
	Import PrefixSet
}

// External says whether a session of own AS as with p is eBGP.
func (p Peer) External(as uint32) bool { return p.AS != as }

// Resets says whether a change from p to q needs a new session.
func (p Peer) Resets(q Peer) bool {
	p.Import, p.Passive = q.Import, q.Passive
	return p != q
}

// Path is a way to a prefix that this speaker advertises. Its key is the prefix.
type Path struct {
	// NextHop has the prefix's family. Invalid: the speaker's own address of each
	// session; the path then isn't told over sessions of the other family.
	NextHop     netip.Addr
	LocalPref   uint32 // 0: none given
	Communities string // canonical: sorted "aa:nn" joined by blanks
}

// LearnedPath is a way to a prefix that a peer told us.
type LearnedPath struct {
	Peer        netip.Addr
	NextHop     netip.Addr
	PeerAS      uint32
	External    bool   // learned by eBGP
	LocalPref   uint32 // 0: none, as always by eBGP
	ASPath      string // the AS numbers joined by blanks, nearest first, a set as {1,2}; "" within the AS
	Communities string // as in Path
}

// RIB is the table of best routes at one moment. It is immutable.
type RIB struct {
	// Routes holds for each prefix the best paths, which are equally good, in the
	// order of their peers. A prefix whose best path is our own is not among them.
	// Never change the map or a slice.
	Routes map[netip.Prefix][]LearnedPath
	// Complete says that nothing is missing because of a start: peers have been
	// written, and each has sent its End-of-RIB or had its time (Config.Deferral).
	// Once true it stays so until Config changes.
	Complete bool
}

// State is a session's state (RFC 4271 8.2.2).
type State string

// Session states.
const (
	Idle        State = "Idle"
	Connect     State = "Connect"
	Active      State = "Active"
	OpenSent    State = "OpenSent"
	OpenConfirm State = "OpenConfirm"
	Established State = "Established"
)

// Count is how many prefixes of one family a session carries.
type Count struct {
	Received   uint64 // told by the peer
	Accepted   uint64 // of these, let in by Import
	Advertised uint64 // told to the peer
}

// Session is a peer's session at one moment.
type Session struct {
	Peer     netip.Addr
	AS       uint32
	External bool
	State    State
	Since    time.Time // when the state began
	Flaps    uint64    // how often it left Established
	// LastError says why the session last ended or can't come up: "sent" or
	// "received" and a Notification, or the operating system's error; "" if it
	// never failed.
	LastError string
	IPv4      Count
	IPv6      Count
}

// Speaker is a BGP speaker. Its configuration, peers and own paths are tables as
// those of the kernel are, so that one loop makes them what they should be.
type Speaker interface {
	// Config is the table with the one key struct{}{}. Writing another value
	// stops the speaker and starts a new one without peers and paths; deleting it
	// stops it with a Cease. A port in use is the key's error.
	Config() kernel.Table[struct{}, Config]
	// Peers has a session for each key. Only a change that must resets a session.
	Peers() kernel.Table[netip.Addr, Peer]
	// Paths is all that is advertised, to every peer: routes learned from peers
	// are not passed on. An own path yields only to one learned with a higher
	// local preference (100 where none is given), and is withdrawn meanwhile.
	Paths() kernel.Table[netip.Prefix, Path]
	// RIB returns the routes learned so far.
	RIB() *RIB
	// Sessions returns the peers' sessions by address; each call asks the speaker.
	Sessions(ctx context.Context) (map[netip.Addr]Session, error)
	// Changed yields a value after the RIB or a session's state changed; changes
	// in quick succession yield one.
	Changed() <-chan struct{}
	// Stop ends the speaker. Graceful closes the connections without a
	// NOTIFICATION, so that peers keep the routes (RFC 4724); otherwise each peer
	// is sent a Cease (RFC 4486) and forgets them at once.
	Stop(ctx context.Context, graceful bool) error
}

// AddrSet is a set of addresses in canonical form, comparable with ==.
type AddrSet struct{ text string }

// Addrs returns the set of these addresses.
func Addrs(as ...netip.Addr) AddrSet { return AddrSet{join(as, netip.Addr.Compare)} }

// List returns the addresses in order.
func (s AddrSet) List() []netip.Addr { return split(s.text, netip.MustParseAddr) }

func (s AddrSet) String() string { return s.text }

// PrefixSet is a set of prefixes in canonical form, comparable with ==.
type PrefixSet struct{ text string }

// Prefixes returns the set of these prefixes, masked.
func Prefixes(ps ...netip.Prefix) PrefixSet {
	masked := make([]netip.Prefix, len(ps))
	for i, p := range ps {
		masked[i] = p.Masked()
	}
	return PrefixSet{join(masked, netip.Prefix.Compare)}
}

// List returns the prefixes in order.
func (s PrefixSet) List() []netip.Prefix { return split(s.text, netip.MustParsePrefix) }

func (s PrefixSet) String() string { return s.text }

// Covers says whether p lies inside one of the prefixes, or is one.
func (s PrefixSet) Covers(p netip.Prefix) bool {
	return slices.ContainsFunc(s.List(), func(q netip.Prefix) bool {
		return q.Bits() <= p.Bits() && q.Contains(p.Addr())
	})
}

func join[T interface {
	comparable
	String() string
}](vs []T, compare func(T, T) int) string {
	vs = slices.Clone(vs)
	slices.SortFunc(vs, compare)
	vs = slices.Compact(vs)
	parts := make([]string, len(vs))
	for i, v := range vs {
		parts[i] = v.String()
	}
	return strings.Join(parts, " ")
}

func split[T any](text string, parse func(string) T) []T {
	var vs []T
	for _, f := range strings.Fields(text) {
		vs = append(vs, parse(f))
	}
	return vs
}
