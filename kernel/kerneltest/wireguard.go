package kerneltest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

// WireGuardWorld is a host of its own without a WireGuard device, with what its
// administrator may do.
type WireGuardWorld interface {
	Encryption() kernel.Encryption

	// AddDevice makes the device as the table of tunnels does.
	AddDevice(t testing.TB)
	// AddForeignDevice makes one with its name, but not Cairn's alias.
	AddForeignDevice(t testing.TB)
	// DelLink deletes a link.
	DelLink(t testing.TB, name string)
	// AddPeer does what "wg set" does with the peer, and DropPeer what it does with
	// "remove".
	AddPeer(t testing.TB, k kernel.WireGuardKey, p kernel.WireGuardPeer)
	DropPeer(t testing.TB, k kernel.WireGuardKey)
}

// RunWireGuard runs the suite of WireGuard devices, each test on a world of its
// own.
func RunWireGuard(t *testing.T, newWorld func(t *testing.T) WireGuardWorld) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, w WireGuardWorld)
	}{
		{"no device", func(t *testing.T, w WireGuardWorld) { wantNoDevice(t, w, syscall.ENODEV) }},
		{"another's device", func(t *testing.T, w WireGuardWorld) {
			w.AddForeignDevice(t)
			wantNoDevice(t, w, syscall.ENODEV)
			wantNoDevice(t, w, kernel.ErrForeign)
		}},
		{"a device has a key of its own", deviceKey},
		{"peers read back equal", peersReadBack},
		{"every peer replaces every other", replaceEveryPeer},
		{"allowed prefixes move in any order", allowedMove},
		{"allowed prefixes wander", allowedWander},
		{"what another hand changed is read and mended", peersByAnotherHand},
		{"a bad peer does not stop its neighbours", badPeers},
		{"the own key is no peer", ownKey},
		{"many peers", manyPeers},
		{"traffic", func(t *testing.T, w WireGuardWorld) {
			w.AddDevice(t)
			peers := peerShapes()
			Put(t, w.Encryption().Peers(), peers)
			var want []kernel.PeerTraffic
			for k, p := range peers {
				want = append(want, kernel.PeerTraffic{Key: k, Endpoint: p.Endpoint})
			}
			slices.SortFunc(want, func(a, b kernel.PeerTraffic) int { return bytes.Compare(a.Key[:], b.Key[:]) })
			got, err := w.Encryption().Traffic(t.Context())
			for i := range got {
				got[i].Sent = 0 // it may have tried to shake hands
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("traffic is %v, %v; want %v", got, err, want)
			}
		}},
		{"done", func(t *testing.T, w WireGuardWorld) {
			w.AddDevice(t)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, readErr := w.Encryption().Peers().Read(ctx)
			_, keyErr := w.Encryption().Key(ctx)
			_, trafficErr := w.Encryption().Traffic(ctx)
			writeErr := w.Encryption().Peers().Write(ctx, peerShapes(), nil)
			for what, err := range map[string]error{"read": readErr, "write": writeErr, "key": keyErr, "traffic": trafficErr} {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s after the end: %v", what, err)
				}
			}
			WantPeers(t, w, nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, newWorld(t)) })
	}
}

// PeerKey returns a key that no device has, another one for each n.
func PeerKey(n int) kernel.WireGuardKey {
	k := kernel.WireGuardKey{31: 1}
	binary.BigEndian.PutUint32(k[:], uint32(n))
	return k
}

// Peer returns a peer with this endpoint and these allowed prefixes.
func Peer(endpoint string, allowed ...string) kernel.WireGuardPeer {
	var list []netip.Prefix
	for _, a := range allowed {
		list = append(list, netip.MustParsePrefix(a))
	}
	return kernel.WireGuardPeer{Endpoint: netip.MustParseAddrPort(endpoint), Allowed: kernel.PrefixesOf(list...)}
}

// peerShapes are peers that can be there at once.
func peerShapes() map[kernel.WireGuardKey]kernel.WireGuardPeer {
	probed := Peer("192.0.2.8:51820", "10.8.0.0/26")
	probed.Probe = true
	return map[kernel.WireGuardKey]kernel.WireGuardPeer{
		PeerKey(8): probed,
		PeerKey(1): Peer("192.0.2.1:51820"),
		PeerKey(2): Peer("[2001:db8::2]:51820"),
		PeerKey(3): Peer("192.0.2.3:1", "10.3.0.0/26"),
		PeerKey(4): Peer("[2001:db8::4]:65535", "fd00:4::/122"),
		PeerKey(5): Peer("192.0.2.5:51820", "10.5.0.1/32", "10.5.0.64/26", "10.5.1.0/24", "fd00:5::/122", "fd00:5::1:1/128"),
		PeerKey(6): Peer("192.0.2.5:51820", "0.0.0.0/0", "::/0"),                            // the same endpoint
		PeerKey(7): Peer("192.0.2.7:51820", "10.5.0.66/32", "10.5.0.0/16", "fd00:5::1/128"), // inside and around another's
	}
}

// WantPeers fails the test unless the table of peers reads these.
func WantPeers(t testing.TB, w WireGuardWorld, want map[kernel.WireGuardKey]kernel.WireGuardPeer) {
	t.Helper()
	wantTable(t, "peers", w.Encryption().Peers(), want)
}

func wantNoDevice(t *testing.T, w WireGuardWorld, why error) {
	e := w.Encryption()
	if _, err := e.Key(t.Context()); !errors.Is(err, why) {
		t.Errorf("key: %v, want %v", err, why)
	}
	if traffic, err := e.Traffic(t.Context()); err != nil || len(traffic) > 0 {
		t.Errorf("traffic is %v, %v; want none", traffic, err)
	}
	WantPeers(t, w, nil)
	peers := peerShapes()
	want := make(map[kernel.WireGuardKey]error)
	for k := range peers {
		want[k] = why
	}
	wantFailures(t, e.Peers().Write(t.Context(), peers, []kernel.WireGuardKey{PeerKey(9)}), "set", want)
	Put(t, e.Peers(), nil)
	Put(t, e.Peers(), nil, PeerKey(1))
	WantPeers(t, w, nil)
}

func deviceKey(t *testing.T, w WireGuardWorld) {
	seen := map[kernel.WireGuardKey]bool{{}: true}
	for range 2 { // the second is made anew
		w.AddDevice(t)
		key, err := w.Encryption().Key(t.Context())
		if err != nil || seen[key] {
			t.Fatalf("key is %v, %v; want a new one", key, err)
		}
		seen[key] = true
		WantPeers(t, w, nil)
		Put(t, w.Encryption().Peers(), peerShapes())
		WantPeers(t, w, peerShapes())
		if again, err := w.Encryption().Key(t.Context()); again != key || err != nil {
			t.Errorf("key became %v, %v; want %v", again, err, key)
		}
		w.DelLink(t, kernel.LinkWireGuard)
		wantNoDevice(t, w, syscall.ENODEV)
	}
}

func peersReadBack(t *testing.T, w WireGuardWorld) {
	w.AddDevice(t)
	WantPeers(t, w, nil)
	Put(t, w.Encryption().Peers(), nil)
	for range 2 {
		Put(t, w.Encryption().Peers(), peerShapes())
		WantPeers(t, w, peerShapes())
	}
	for range 2 { // the second time they are gone already
		Put(t, w.Encryption().Peers(), nil, slices.Collect(maps.Keys(peerShapes()))...)
		WantPeers(t, w, nil)
	}
}

func replaceEveryPeer(t *testing.T, w WireGuardWorld) {
	w.AddDevice(t)
	k := PeerKey(100)
	for _, from := range peerShapes() {
		for _, to := range peerShapes() {
			Put(t, w.Encryption().Peers(), map[kernel.WireGuardKey]kernel.WireGuardPeer{k: from})
			Put(t, w.Encryption().Peers(), map[kernel.WireGuardKey]kernel.WireGuardPeer{k: to})
			WantPeers(t, w, map[kernel.WireGuardKey]kernel.WireGuardPeer{k: to})
		}
	}
}

func allowedMove(t *testing.T, w WireGuardWorld) {
	w.AddDevice(t)
	table := w.Encryption().Peers()
	type peers = map[kernel.WireGuardKey]kernel.WireGuardPeer
	peer := func(allowed ...string) kernel.WireGuardPeer { return Peer("192.0.2.1:51820", allowed...) }
	const x, x6, y, z = "10.0.0.0/26", "fd00::/122", "10.0.0.64/26", "10.0.0.128/26"
	one, two, three := PeerKey(1), PeerKey(2), PeerKey(3)
	for _, to := range []peers{
		{one: peer(x, x6), two: peer(y)},
		{one: peer(), two: peer(x, x6, y)},
		{one: peer(x, x6), two: peer(y)},
		{one: peer(y), two: peer(x, x6)},
		{one: peer(x6, z), two: peer(x, y)},
		{one: peer(x), two: peer(y), three: peer(x6, z)},
		{one: peer(y), two: peer(x6, z), three: peer(x)},
	} {
		Put(t, table, to)
		WantPeers(t, w, to)
	}

	// A prefix that goes to one is another's no more, though nothing was said of it.
	Put(t, table, peers{one: peer(x, x6, y)})
	WantPeers(t, w, peers{one: peer(x, x6, y), two: peer(z), three: peer()})
	// And what it lost it gets back, without a Read between.
	Put(t, table, peers{three: peer(x)})
	Put(t, table, peers{two: peer(z, y)})
	WantPeers(t, w, peers{one: peer(x6), two: peer(y, z), three: peer(x)})
	Put(t, table, peers{one: peer(x, x6), two: peer(z)})
	WantPeers(t, w, peers{one: peer(x, x6), two: peer(z), three: peer()})
	Put(t, table, peers{two: peer(x, z)}, one)
	WantPeers(t, w, peers{two: peer(x, z), three: peer()})
	Put(t, table, peers{one: peer(x, y)})
	WantPeers(t, w, peers{one: peer(x, y), two: peer(z), three: peer()})
}

// allowedWander gives prefixes to peers at random, and reads from time to time.
func allowedWander(t *testing.T, w WireGuardWorld) {
	w.AddDevice(t)
	random := rand.New(rand.NewPCG(1, 2))
	endpoint := netip.MustParseAddrPort("192.0.2.1:51820")
	want := make(map[kernel.WireGuardKey]kernel.WireGuardPeer)
	for step := range 200 {
		set, del := make(map[kernel.WireGuardKey]kernel.WireGuardPeer), []kernel.WireGuardKey(nil)
		given := make(map[kernel.WireGuardKey][]netip.Prefix)
		taken := make(map[netip.Prefix]bool)
		for n := range 4 {
			switch k := PeerKey(n); random.IntN(8) {
			case 0, 1, 2, 3:
				given[k] = nil
			case 4:
				del = append(del, k)
				delete(want, k)
			}
		}
		for n := range 6 {
			p, k := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 32), PeerKey(random.IntN(4))
			if list, gets := given[k]; gets {
				given[k], taken[p] = append(list, p), true
			}
		}
		for k, was := range want {
			was.Allowed = kernel.PrefixesOf(slices.DeleteFunc(was.Allowed.List(), func(p netip.Prefix) bool { return taken[p] })...)
			want[k] = was
		}
		for k, list := range given {
			set[k] = kernel.WireGuardPeer{Endpoint: endpoint, Allowed: kernel.PrefixesOf(list...)}
			want[k] = set[k]
		}
		Put(t, w.Encryption().Peers(), set, del...)
		if step%4 == 3 {
			WantPeers(t, w, want)
		}
	}
}

func peersByAnotherHand(t *testing.T, w WireGuardWorld) {
	w.AddDevice(t)
	table, ours := w.Encryption().Peers(), peerShapes()
	Put(t, table, ours)
	w.AddPeer(t, PeerKey(50), Peer("192.0.2.50:1", "10.50.0.0/26"))
	w.AddPeer(t, PeerKey(3), Peer("192.0.2.99:9", "10.99.0.0/26"))
	w.DropPeer(t, PeerKey(4))
	theirs := peerShapes()
	theirs[PeerKey(50)] = Peer("192.0.2.50:1", "10.50.0.0/26")
	theirs[PeerKey(3)] = Peer("192.0.2.99:9", "10.99.0.0/26")
	delete(theirs, PeerKey(4))
	WantPeers(t, w, theirs)
	Put(t, table, map[kernel.WireGuardKey]kernel.WireGuardPeer{PeerKey(3): ours[PeerKey(3)], PeerKey(4): ours[PeerKey(4)]}, PeerKey(50))
	WantPeers(t, w, ours)
}

func badPeers(t *testing.T, w WireGuardWorld) {
	w.AddDevice(t)
	good := peerShapes()
	bad := map[kernel.WireGuardKey]kernel.WireGuardPeer{
		{}:          Peer("192.0.2.1:51820", "10.9.0.0/26"),
		PeerKey(81): {Allowed: kernel.PrefixesOf(netip.MustParsePrefix("10.9.0.0/26"))},
		PeerKey(82): Peer("192.0.2.1:0", "10.9.0.0/26"),
		PeerKey(83): Peer("0.0.0.0:51820", "10.9.0.0/26"),
		PeerKey(84): Peer("[::]:51820", "10.9.0.0/26"),
		PeerKey(85): Peer("[::ffff:192.0.2.1]:51820", "10.9.0.0/26"),
		PeerKey(86): Peer("[fe80::1%eth0]:51820", "10.9.0.0/26"),
		PeerKey(87): Peer("192.0.2.1:51820", "10.9.0.0/26", "::ffff:10.9.0.0/122"),
	}
	all, want := maps.Clone(good), make(map[kernel.WireGuardKey]error)
	for k, p := range bad {
		all[k], want[k] = p, syscall.EINVAL
	}
	wantFailures(t, w.Encryption().Peers().Write(t.Context(), all, nil), "set", want)
	WantPeers(t, w, good)
}

func ownKey(t *testing.T, w WireGuardWorld) {
	w.AddDevice(t)
	key, err := w.Encryption().Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := peerShapes()
	all[key] = Peer("192.0.2.1:51820", "10.9.0.0/26")
	Put(t, w.Encryption().Peers(), all)
	WantPeers(t, w, peerShapes())
	Put(t, w.Encryption().Peers(), nil, key)
	WantPeers(t, w, peerShapes())
}

// ManyPeers returns n peers, each with some of the prefixes that a node has.
func ManyPeers(n int) map[kernel.WireGuardKey]kernel.WireGuardPeer {
	peers := make(map[kernel.WireGuardKey]kernel.WireGuardPeer, n)
	for i := range n {
		hi, lo := i/256, i%256
		peers[PeerKey(i)] = Peer(fmt.Sprintf("192.168.%d.%d:51820", hi, lo),
			fmt.Sprintf("10.%d.%d.0/26", hi, lo), fmt.Sprintf("10.%d.%d.64/32", hi, lo), fmt.Sprintf("fd00::%x:0/122", i))
	}
	return peers
}

func manyPeers(t *testing.T, w WireGuardWorld) {
	w.AddDevice(t)
	const n = 1000
	peers := ManyPeers(n)
	var allowed []string // more than fit one message
	for i := range n {
		allowed = append(allowed, fmt.Sprintf("10.200.%d.%d/32", i/256, i%256))
	}
	peers[PeerKey(n)] = Peer("[2001:db8::1]:51820", allowed...)
	table := w.Encryption().Peers()
	Put(t, table, peers)
	WantPeers(t, w, peers)
	peers[PeerKey(n)] = Peer("[2001:db8::1]:51820", allowed[1:]...)
	peers[PeerKey(0)] = Peer("192.0.2.1:51820", allowed[:1]...)
	Put(t, table, map[kernel.WireGuardKey]kernel.WireGuardPeer{PeerKey(0): peers[PeerKey(0)], PeerKey(n): peers[PeerKey(n)]})
	WantPeers(t, w, peers)
	traffic, err := w.Encryption().Traffic(t.Context())
	if len(traffic) != len(peers) || err != nil {
		t.Errorf("traffic of %d peers, %v; want %d", len(traffic), err, len(peers))
	}
	Put(t, table, nil, slices.Collect(maps.Keys(peers))...)
	WantPeers(t, w, nil)
}
