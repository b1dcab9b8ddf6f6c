package probe_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/probe"
	"cairn.network/cairn/lab/topology"
)

const pair = `racks: [{name: r1, subnets: [10.1.0.0/24, "fd00:1::/64"], nodes: [a, b]}]`

// hosts builds two hosts of which b serves, and returns the folder of their
// namespaces, their addresses, and how to end b's server.
func hosts(t *testing.T) (dir string, a, b []netip.Addr, stop func()) {
	t.Helper()
	topo, err := topology.Parse([]byte(pair))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	t.Cleanup(func() {
		if err := netns.DeleteAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := fabric.Build(topo, dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- netns.Do(fabric.Path(dir, "b"), func() error {
			return probe.Serve(ctx, append(probe.Services(probe.Port), probe.Service{Protocol: probe.ICMP})...)
		})
	}()
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	addrs := func(h topology.Host) (as []netip.Addr) {
		for _, p := range h.Addrs {
			as = append(as, p.Addr())
		}
		return as
	}
	return dir, addrs(topo.Nodes[0]), addrs(topo.Nodes[1]), stop
}

func always(as []netip.Addr) func() []netip.Addr { return func() []netip.Addr { return as } }

func TestAskUntil(t *testing.T) {
	dir, a, b, _ := hosts(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, dst := range b {
		for _, proto := range probe.Protocols() {
			if err := probe.AskUntil(ctx, fabric.Path(dir, "a"), proto, dst, always(a)); err != nil {
				t.Errorf("%s %s: %v", proto, dst, err)
			}
			err := probe.Ask(ctx, fabric.Path(dir, "a"), proto, dst, b)
			if proto == probe.Ping {
				continue // a ping's answer does not say what was seen
			}
			if !errors.Is(err, probe.ErrSource) {
				t.Errorf("%s %s, and another source than ours is wanted: %v", proto, dst, err)
			}
		}
	}
}

func TestAskFails(t *testing.T) {
	dir, a, b, _ := hosts(t)
	for _, proto := range probe.Protocols() {
		// Nobody has this address.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := probe.AskUntil(ctx, fabric.Path(dir, "a"), proto, netip.MustParseAddr("10.1.0.99"), always(a))
		cancel()
		if err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%s nobody: %v, want no answer", proto, err)
		}
		if err := probe.Ask(t.Context(), dir+"/none", proto, b[0], a); err == nil {
			t.Errorf("%s from nowhere: no error", proto)
		}
	}
	// a has no server.
	err := probe.Ask(t.Context(), fabric.Path(dir, "b"), probe.TCP, a[0], b)
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("tcp without a server: %v, want refused", err)
	}
}

func TestAskAll(t *testing.T) {
	dir, a, b, _ := hosts(t)
	var questions []probe.Question
	for _, c := range []struct {
		name, host string
		own        []netip.Addr
	}{
		{"a", "a", a}, {"b", "b", b}, {"liar", "a", b}, {"alone", topology.Fabric, a},
	} {
		for _, dst := range append(slices.Clone(b), a[0]) {
			server := "b"
			if dst == a[0] {
				server = "a"
			}
			questions = append(questions, probe.Question{Client: c.name, Server: server, Netns: fabric.Path(dir, c.host), Addr: dst, Own: always(c.own)})
		}
	}
	questions = append(questions, probe.Question{Client: "four", Server: "b", Netns: fabric.Path(dir, "a"), Addr: b[0], Own: always(a)})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	m := probe.AskAll(ctx, questions)
	var text strings.Builder
	if err := m.Write(&text); err != nil {
		t.Fatal(err)
	}
	want := `FROM \ TO  b          a
a          ✓          tu4
b          ✓          tu4
liar       s4,s6      tu4
alone      ptu4,ptu6  ptu4
four       ✓          -
`
	matrix, _, _ := strings.Cut(text.String(), "\n\n")
	squeeze := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(lines, "\n")
	}
	if d := cmp.Diff(squeeze(want), squeeze(matrix)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if !strings.Contains(text.String(), "\nfailed: ") {
		t.Errorf("no line that counts failures:\n%s", text.String())
	}
}

func TestStream(t *testing.T) {
	dir, _, b, stop := hosts(t)
	for _, dst := range b {
		var s *probe.Stream
		for s == nil { // the server may not listen yet
			s, _ = probe.StartStream(t.Context(), fabric.Path(dir, "a"), dst, probe.StreamPace)
			if t.Context().Err() != nil {
				t.Fatal("no stream")
			}
		}
		ping, tcp := s.Stop()
		for name, tr := range map[string]probe.Traffic{"ping": ping, "tcp": tcp} {
			if tr.Sent == 0 || tr.Lost != 0 || tr.Error != "" {
				t.Errorf("%s %s: %s; want some sent, none lost", name, dst, tr)
			}
		}
	}
	for _, dst := range b {
		for _, size := range []int{0, 1, 1 << 20} {
			if err := probe.Transfer(t.Context(), fabric.Path(dir, "a"), dst, size); err != nil {
				t.Errorf("to %s: %v", dst, err)
			}
		}
	}

	stop()
	if err := probe.Transfer(t.Context(), fabric.Path(dir, "a"), b[0], 1); err == nil {
		t.Error("a transfer without a server: no error")
	}
	if _, err := probe.StartStream(t.Context(), fabric.Path(dir, "a"), b[0], probe.StreamPace); err == nil {
		t.Error("a stream without a server: no error")
	}
}
