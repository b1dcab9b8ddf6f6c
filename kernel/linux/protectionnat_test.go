//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// natPools are pools of both families: with natOutgoing, disabled, and without.
func natPools() []*v1.IPPool {
	nat := func(s *v1.IPPoolSpec) { s.NATOutgoing = true }
	disabled := func(s *v1.IPPoolSpec) { s.Disabled = true }
	return []*v1.IPPool{
		pool("10.1.0.0/16", nat), pool("10.2.0.0/16", disabled), pool("10.3.0.0/16", nil),
		pool("fd00:1::/64", nat), pool("fd00:2::/64", disabled), pool("fd00:3::/64", nil),
	}
}

// serveSource answers every connection from the outside with the address that it
// comes from, then echoes.
func serveSource(t *testing.T, w *protectedWorld, network string) (port int) {
	t.Helper()
	var l net.Listener
	within(t, w.outside, func() {
		var err error
		l, err = net.Listen(network, ":0")
		must(t, err)
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
				fmt.Fprintf(conn, "%39s", from)
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// connect connects from src in a namespace and returns the address that the other
// end sees.
func connect(t *testing.T, ns *os.File, src, dst string, port int) (net.Conn, string) {
	t.Helper()
	from := netip.MustParseAddr(src)
	d := net.Dialer{Timeout: protectedPatience, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	var conn net.Conn
	within(t, ns, func() {
		network := "tcp4"
		if from.Is6() {
			network = "tcp6"
			// Of two ways to dial at once only this thread is in the namespace.
			d.FallbackDelay = -1
		}
		var err error
		conn, err = d.DialContext(t.Context(), network, netip.AddrPortFrom(netip.MustParseAddr(dst), uint16(port)).String())
		must(t, err)
	})
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(protectedPatience)))
	b := make([]byte, 39)
	_, err := io.ReadFull(conn, b)
	must(t, err)
	return conn, strings.TrimSpace(string(b))
}

func echo(t *testing.T, conn net.Conn) {
	t.Helper()
	b := []byte("are you there?")
	must(t, conn.SetDeadline(time.Now().Add(protectedPatience)))
	_, err := conn.Write(b)
	must(t, err)
	_, err = io.ReadFull(conn, b)
	must(t, err)
}

func TestMasquerade(t *testing.T) {
	w := newProtectedWorld(t, natPools()...)
	ports := map[bool]int{false: serveSource(t, w, "tcp4"), true: serveSource(t, w, "tcp6")}
	const node, node6 = "192.0.2.1", "2001:db8::1"
	for _, tt := range []struct {
		name           string
		from           *os.File
		src, dst, seen string
	}{
		{"outside", w.pod, "10.1.0.2", "203.0.113.1", node},
		{"a node", w.pod, "10.1.0.2", "192.0.2.2", node},
		{"the same pool", w.pod, "10.1.0.2", "10.1.5.5", "10.1.0.2"},
		{"a disabled pool", w.pod, "10.1.0.2", "10.2.0.2", "10.1.0.2"},
		{"a pool without natOutgoing", w.pod, "10.1.0.2", "10.3.5.5", "10.1.0.2"},
		{"from a disabled pool", w.pod, "10.2.0.9", "203.0.113.1", "10.2.0.9"},
		{"from a pool without natOutgoing", w.pod, "10.3.0.2", "203.0.113.1", "10.3.0.2"},
		{"outside", w.pod, "fd00:1::2", "2001:db8:f::1", node6},
		{"a node", w.pod, "fd00:1::2", "2001:db8::2", node6},
		{"the same pool", w.pod, "fd00:1::2", "fd00:1::5:5", "fd00:1::2"},
		{"a disabled pool", w.pod, "fd00:1::2", "fd00:2::2", "fd00:1::2"},
		{"a pool without natOutgoing", w.pod, "fd00:1::2", "fd00:3::5:5", "fd00:1::2"},
		{"from a disabled pool", w.pod, "fd00:2::9", "2001:db8:f::1", "fd00:2::9"},
		{"from a pool without natOutgoing", w.pod, "fd00:3::2", "2001:db8:f::1", "fd00:3::2"},
		// The node itself, with its own address and with that of its tunnel device.
		{"from the node", w.netns, "192.0.2.1", "203.0.113.1", node},
		{"from the tunnel device, outside", w.netns, "10.1.0.1", "203.0.113.1", node},
		{"from the tunnel device, a pool", w.netns, "10.1.0.1", "10.1.5.5", "10.1.0.1"},
		{"from the tunnel device, outside", w.netns, "fd00:1::1", "2001:db8:f::1", node6},
		{"from the tunnel device, a pool", w.netns, "fd00:1::1", "fd00:1::5:5", "fd00:1::1"},
	} {
		t.Run(fmt.Sprintf("%s, %s to %s", tt.name, tt.src, tt.dst), func(t *testing.T) {
			_, seen := connect(t, tt.from, tt.src, tt.dst, ports[netip.MustParseAddr(tt.dst).Is6()])
			if seen != tt.seen {
				t.Errorf("seen as %s, want %s", seen, tt.seen)
			}
		})
	}
}

// TestConnectionsSurvive changes the rules under connections: they go on as they
// began, and new ones follow the new rules.
func TestConnectionsSurvive(t *testing.T) {
	w := newProtectedWorld(t, natPools()...)
	type flow struct{ src, dst, seen string }
	flows := []flow{
		{"10.1.0.2", "203.0.113.1", "192.0.2.1"}, {"10.3.0.2", "203.0.113.1", "10.3.0.2"},
		{"fd00:1::2", "2001:db8:f::1", "2001:db8::1"}, {"fd00:3::2", "2001:db8:f::1", "fd00:3::2"},
	}
	ports := map[bool]int{false: serveSource(t, w, "tcp4"), true: serveSource(t, w, "tcp6")}
	port := func(f flow) int { return ports[netip.MustParseAddr(f.dst).Is6()] }
	var open []net.Conn
	check := func(why string, want func(flow) string) {
		t.Helper()
		for _, conn := range open {
			echo(t, conn)
		}
		for _, f := range flows {
			conn, seen := connect(t, w.pod, f.src, f.dst, port(f))
			if seen != want(f) {
				t.Errorf("%s: from %s seen as %s, want %s", why, f.src, seen, want(f))
			}
			open = append(open, conn)
		}
	}
	swapped := func(f flow) string { // as if the pools with and without natOutgoing had changed places
		switch f.seen {
		case "192.0.2.1", "2001:db8::1":
			return f.src
		case "10.3.0.2":
			return "192.0.2.1"
		}
		return "2001:db8::1"
	}
	same := func(f flow) string { return f.seen }
	check("at first", same)
	chains, err := w.chains.Read(t.Context())
	must(t, err)
	for range 20 {
		kerneltest.Put(t, w.chains, chains)
	}
	check("written again", same)
	other := natPools()
	for _, p := range other {
		if !p.Spec.Disabled {
			p.Spec.NATOutgoing = !p.Spec.NATOutgoing
		}
	}
	w.set(t, other...)
	check("the other pools", swapped)
	w.set(t, natPools()...)
	check("as before", same)
}

// TestNoPacketMeetsHalfAChain replaces the rules of a chain again and again, while
// strangers' packets pour in and connections are made.
func TestNoPacketMeetsHalfAChain(t *testing.T) {
	w := newProtectedWorld(t, append(tunnelPools(false), pool("10.9.0.0/16", func(s *v1.IPPoolSpec) { s.NATOutgoing = true }))...)
	chains, err := w.chains.Read(t.Context())
	must(t, err)
	// The same rules, but each has grown a comment: all are replaced.
	changed := make(map[string]kernel.Chain)
	for name, c := range chains {
		rules := c.Rules.List()
		for i := range rules {
			rules[i].Comment += " (again)"
		}
		c.Rules = kernel.RulesOf(rules...)
		changed[name] = c
	}
	node := newListeners(t, w.netns)
	socket := openSocket(t, w.netns, vxlan4.network, vxlan4.address)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sent atomic.Int64
	poured := make(chan error, 1)
	go func() {
		poured <- config{netns: int(w.outside.Fd())}.in(func() error {
			fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			d := vxlan4.make("192.0.2.9", "192.0.2.1", "stranger")
			for ctx.Err() == nil {
				err := syscall.Sendto(fd, d.packets()[0], 0, &syscall.SockaddrInet4{Addr: d.dst.As4()})
				if err != nil && !errors.Is(err, syscall.ENOBUFS) {
					return err
				}
				sent.Add(1)
			}
			return nil
		})
	}()
	const times, atLeast = 200, 2000
	for i := 0; i < times || sent.Load() < atLeast; i++ {
		kerneltest.Put(t, w.chains, []map[string]kernel.Chain{changed, chains}[i%2])
	}
	cancel()
	must(t, <-poured)
	emit(t, w.outside, udp("192.0.2.9", "192.0.2.1", barrierPort, []byte("barrier")))
	heard(t, node.barrier[false], "barrier")
	emit(t, w.outside, vxlan4.make("192.0.2.2", "192.0.2.1", "mark"))
	if got := heard(t, socket, "mark"); len(got) > 0 {
		t.Errorf("%d of %d packets of strangers came through", len(got), sent.Load())
	}
}
