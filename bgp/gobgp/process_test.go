package gobgp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/bgp/bgptest"
	"cairn.network/cairn/bgp/gobgp"
)

// childOf tells the test binary to be nothing but a speaker on host A: "start" or
// "restart".
const childOf = "CAIRN_GOBGP_TEST_CHILD"

// runChild speaks until it is killed. It ends only on an error.
func runChild() error {
	ctx := context.Background()
	s := gobgp.New(slog.New(slog.DiscardHandler))
	cfg := config(bgptest.A, 64512)
	cfg.Restarting = os.Getenv(childOf) == "restart"
	if err := s.Config().Write(ctx, map[struct{}]bgp.Config{{}: cfg}, nil); err != nil {
		return err
	}
	if err := s.Paths().Write(ctx, map[netip.Prefix]bgp.Path{childPrefix: {}}, nil); err != nil {
		return err
	}
	peers := map[netip.Addr]bgp.Peer{}
	for _, h := range bgptest.Hosts()[1:] {
		peers[h.V4()] = peer(bgptest.A.V4(), 64512)
	}
	if err := s.Peers().Write(ctx, peers, nil); err != nil {
		return err
	}
	for {
		<-s.Changed()
	}
}

var childPrefix = netip.MustParsePrefix("10.1.0.0/26")

// startChild runs a speaker of its own process.
func startChild(t testing.TB, how string) (pid int, kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childOf+"="+how)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(kill)
	return cmd.Process.Pid, kill
}

// TestKilledProcess does what Kill of the suite only plays: it kills a process
// with -9, and starts it again.
func TestKilledProcess(t *testing.T) {
	b := gobgp.New(logger(t))
	start(t, b, config(bgptest.B, 64512))
	p := peer(bgptest.B.V4(), 64512)
	write(t, b.Peers(), map[netip.Addr]bgp.Peer{bgptest.A.V4(): p})
	_, kill := startChild(t, "start")
	learned := func() bool { return len(b.RIB().Routes[childPrefix]) == 1 }
	until(t, "route", b, learned)
	kept := func() bool {
		if !learned() {
			t.Fatalf("lost the route: %+v", session(t, b, bgptest.A.V4()))
		}
		return true
	}
	kill()
	until(t, "session lost", b, func() bool { return kept() && session(t, b, bgptest.A.V4()).Flaps == 1 })
	_, kill = startChild(t, "restart")
	until(t, "session back", b, func() bool { return kept() && session(t, b, bgptest.A.V4()).State == bgp.Established })
	over := time.Now().Add(6 * time.Second) // RestartTime and a bit
	until(t, "restart time over", b, func() bool { return kept() && time.Now().After(over) })
	kill()
	until(t, "route gone", b, func() bool { return !learned() })
}

// BenchmarkAnnounce measures from the write of a path to its arrival in another
// speaker's RIB.
func BenchmarkAnnounce(b *testing.B) {
	s, r := gobgp.New(slog.New(slog.DiscardHandler)), gobgp.New(slog.New(slog.DiscardHandler))
	start(b, s, config(bgptest.A, 64512))
	start(b, r, config(bgptest.B, 64512))
	write(b, s.Peers(), map[netip.Addr]bgp.Peer{bgptest.B.V4(): peer(bgptest.A.V4(), 64512)})
	write(b, r.Peers(), map[netip.Addr]bgp.Peer{bgptest.A.V4(): peer(bgptest.B.V4(), 64512)})
	until(b, "session", r, func() bool { return allEstablished(b, r, 1) && r.RIB().Complete })
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		write(b, s.Paths(), map[netip.Prefix]bgp.Path{childPrefix: {}})
		for len(r.RIB().Routes) == 0 {
			<-r.Changed()
		}
		took = append(took, time.Since(begin))
		write(b, s.Paths(), nil, childPrefix)
		for len(r.RIB().Routes) == 1 {
			<-r.Changed()
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkEstablish measures from the first write of peers to sessions of both
// families on all of four nodes.
func BenchmarkEstablish(b *testing.B) {
	for b.Loop() {
		speakers := map[bgptest.Host]*gobgp.Speaker{}
		for _, h := range bgptest.Hosts() {
			speakers[h] = gobgp.New(slog.New(slog.DiscardHandler))
			write(b, speakers[h].Config(), map[struct{}]bgp.Config{{}: config(h, 64512)})
		}
		mesh(b, speakers, 64512)
		for _, s := range speakers {
			until(b, "mesh", s, func() bool { return allEstablished(b, s, 6) && s.RIB().Complete })
		}
		for _, s := range speakers {
			if err := s.Stop(b.Context(), false); err != nil {
				b.Error(err)
			}
		}
	}
}

// BenchmarkIdle prints the memory of a process that is an idle speaker with
// three peers, and little else.
func BenchmarkIdle(b *testing.B) {
	for _, h := range bgptest.Hosts()[1:] {
		s := gobgp.New(slog.New(slog.DiscardHandler))
		start(b, s, config(h, 64512))
		write(b, s.Peers(), map[netip.Addr]bgp.Peer{bgptest.A.V4(): peer(h.V4(), 64512)})
	}
	for b.Loop() {
		pid, kill := startChild(b, "start")
		b.ReportMetric(settled(b, pid), "RSS-MiB")
		kill()
	}
}

var rss = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// settled returns a process's resident memory in MiB, when it grows no more.
func settled(b *testing.B, pid int) float64 {
	last := -1
	for {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			b.Fatal(err)
		}
		kib, err := strconv.Atoi(strings.TrimSpace(string(rss.FindSubmatch(status)[1])))
		if err != nil {
			b.Fatal(err)
		}
		if kib == last {
			return float64(kib) / 1024
		}
		last = kib
		<-time.After(time.Second)
	}
}
