package gobgp_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/bgp/bgptest"
	"cairn.network/cairn/bgp/gobgp"
)

func config(h bgptest.Host, as uint32) bgp.Config {
	return bgp.Config{
		AS: as, RouterID: h.V4(), Listen: bgp.Addrs(h.V4(), h.V6()), Port: bgptest.Port,
		Deferral: 2 * time.Second,
	}
}

// peer returns the settings of a session with a neighbour on Port; both
// families have their own.
func peer(local netip.Addr, as uint32) bgp.Peer {
	return bgp.Peer{
		AS: as, Port: bgptest.Port, Local: local, IPv4: local.Is4(), IPv6: local.Is6(), HoldTime: 9 * time.Second, Graceful: true, RestartTime: 5 * time.Second,
		Import: bgp.Prefixes(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")),
	}
}

// start returns a running speaker that is stopped with the test.
func start(t testing.TB, s *gobgp.Speaker, cfg bgp.Config) {
	t.Helper()
	write(t, s.Config(), map[struct{}]bgp.Config{{}: cfg})
	t.Cleanup(func() {
		if err := s.Stop(context.Background(), false); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

func write[K, V comparable](t testing.TB, table interface {
	Write(context.Context, map[K]V, []K) error
}, set map[K]V, del ...K) {
	t.Helper()
	if err := table.Write(t.Context(), set, del); err != nil {
		t.Fatal(err)
	}
}

func session(t testing.TB, s bgp.Speaker, peer netip.Addr) bgp.Session {
	t.Helper()
	all, err := s.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all[peer]
}

// until waits for a condition.
func until(t testing.TB, what string, s bgp.Speaker, is func() bool) {
	t.Helper()
	over := time.After(20 * time.Second)
	for !is() {
		select {
		case <-s.Changed():
		case <-time.After(5 * time.Millisecond): // what changes elsewhere
		case <-over:
			all, _ := s.Sessions(t.Context())
			t.Fatalf("never: %s\nRIB %+v\nsessions %+v", what, s.RIB(), all)
		}
	}
}

// mesh gives each speaker a session with each other in both families, one side
// of each passive.
func mesh(t testing.TB, speakers map[bgptest.Host]*gobgp.Speaker, as uint32) {
	t.Helper()
	for h, s := range speakers {
		set := map[netip.Addr]bgp.Peer{}
		for o := range speakers {
			if o != h {
				for addr, local := range map[netip.Addr]netip.Addr{o.V4(): h.V4(), o.V6(): h.V6()} {
					p := peer(local, as)
					p.Passive = h < o
					set[addr] = p
				}
			}
		}
		write(t, s.Peers(), set)
	}
}

func allEstablished(t testing.TB, s bgp.Speaker, n int) bool {
	t.Helper()
	all, err := s.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, session := range all {
		if session.State != bgp.Established {
			return false
		}
	}
	return len(all) == n
}
