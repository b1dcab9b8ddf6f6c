package gobgp_test

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/bgp/bgptest"
	"cairn.network/cairn/bgp/gobgp"
)

// TestMesh brings up four nodes at once, as an installation does. GoBGP alone
// takes about two seconds; seconds more when a session has failed once.
func TestMesh(t *testing.T) {
	speakers := map[bgptest.Host]*gobgp.Speaker{}
	for _, h := range bgptest.Hosts() {
		speakers[h] = gobgp.New(logger(t))
		start(t, speakers[h], config(h, 64512))
	}
	begin := time.Now()
	mesh(t, speakers, 64512)
	for _, s := range speakers {
		until(t, "mesh", s, func() bool { return allEstablished(t, s, 6) && s.RIB().Complete })
	}
	took := time.Since(begin)
	t.Logf("24 ends of sessions Established and complete after %v", took)
	if took > 1400*time.Millisecond { // GoBGP's own first connection is 1.5 s away
		t.Errorf("the mesh took %v", took)
	}
	for h, s := range speakers {
		for addr, session := range must(t, s.Sessions) {
			if session.Flaps != 0 {
				t.Errorf("host %d: session with %v flapped: %+v", h, addr, session)
			}
		}
	}
}

func must(t *testing.T, sessions func(context.Context) (map[netip.Addr]bgp.Session, error)) map[netip.Addr]bgp.Session {
	t.Helper()
	all, err := sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestBothActive lets connections cross each other on their way. Whichever wins,
// the session comes up soon and stays.
func TestBothActive(t *testing.T) {
	for range 20 {
		a, b := gobgp.New(logger(t)), gobgp.New(logger(t))
		cfg := config(bgptest.A, 64512)
		write(t, a.Config(), map[struct{}]bgp.Config{{}: cfg})
		write(t, b.Config(), map[struct{}]bgp.Config{{}: config(bgptest.B, 64513)})
		go func() {
			err := a.Peers().Write(t.Context(), map[netip.Addr]bgp.Peer{bgptest.B.V4(): peer(bgptest.A.V4(), 64513)}, nil)
			if err != nil {
				t.Error(err)
			}
		}()
		write(t, b.Peers(), map[netip.Addr]bgp.Peer{bgptest.A.V4(): peer(bgptest.B.V4(), 64512)})
		begin := time.Now()
		until(t, "session", a, func() bool { return allEstablished(t, a, 1) && allEstablished(t, b, 1) })
		if took := time.Since(begin); took > 3*time.Second { // GoBGP's own stay in Idle is 5 s
			t.Errorf("the session took %v", took)
		}
		for _, s := range []*gobgp.Speaker{a, b} {
			if err := s.Stop(t.Context(), false); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestNothingLeft starts and changes speakers, and looks for goroutines that
// outlive them.
func TestNothingLeft(t *testing.T) {
	count := func() int {
		buf := make([]byte, 1<<20)
		return strings.Count(string(buf[:runtime.Stack(buf, true)]), "\ngoroutine ")
	}
	before := count()
	log := slog.New(slog.DiscardHandler)
	for _, graceful := range []bool{true, false} {
		a, b := gobgp.New(log), gobgp.New(log)
		for as := uint32(64512); as < 64516; as++ { // each a new server
			write(t, a.Config(), map[struct{}]bgp.Config{{}: config(bgptest.A, as)})
			write(t, b.Config(), map[struct{}]bgp.Config{{}: config(bgptest.B, as)})
			write(t, a.Paths(), map[netip.Prefix]bgp.Path{netip.MustParsePrefix("10.1.0.0/26"): {}})
			write(t, a.Peers(), map[netip.Addr]bgp.Peer{
				bgptest.B.V4(): peer(bgptest.A.V4(), as), bgptest.D.V4(): peer(bgptest.A.V4(), as), // D is not there
			})
			write(t, b.Peers(), map[netip.Addr]bgp.Peer{bgptest.A.V4(): peer(bgptest.B.V4(), as)})
			until(t, "route", b, func() bool { return len(b.RIB().Routes) == 1 })
		}
		for _, s := range []*gobgp.Speaker{a, b} {
			if err := s.Stop(t.Context(), graceful); err != nil {
				t.Error(err)
			}
		}
	}
	for over := time.Now().Add(10 * time.Second); count() > before; runtime.Gosched() {
		if time.Now().After(over) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines became %d:\n%s", before, count(), buf[:runtime.Stack(buf, true)])
		}
	}
}
