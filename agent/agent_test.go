package agent_test

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

func TestCleanup(t *testing.T) {
	f := kernel.NewFake()
	f.SetLink(kernel.Link{Name: "eth0", MTU: 1500, Up: true})
	ours := []kernel.RouteKey{kernel.HostRoute(netip.MustParseAddr("10.244.0.1")), kernel.HostRoute(netip.MustParseAddr("fd00:244::1"))}
	others := kernel.HostRoute(netip.MustParseAddr("10.244.0.2"))
	way := kernel.Route{Hops: kernel.Hops(kernel.NextHop{Link: "eth0"})}
	for _, k := range ours {
		f.PutRoute(k, way, kernel.RouteProtocol)
	}
	f.PutRoute(others, way, kernel.ProtocolStatic)
	for _, n := range []int{2, 0} {
		if got, err := agent.Cleanup(t.Context(), tablesOf(f)); err != nil || got.Routes != n {
			t.Errorf("Cleanup = %s, %v, want %d routes", got, err, n)
		}
	}
	if len(f.OurRoutes()) > 0 {
		t.Errorf("left: %v", f.OurRoutes())
	}
	if _, ok := f.Host().Foreign[others]; !ok {
		t.Error("another's route is gone")
	}
	f.Fail("read", "routes", kernel.ErrPermission)
	if _, err := agent.Cleanup(t.Context(), tablesOf(f)); err == nil {
		t.Error("no error where routes can't be read")
	}
}

// TestCleanupTunnels holds that devices and rules go too, and nothing of others.
func TestCleanupTunnels(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.create(&v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: v1.IPPoolSpec{CIDR: "10.9.0.0/24", VXLANMode: v1.EncapAlways, NATOutgoing: true}})
		s.create(&v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "i"}, Spec: v1.IPPoolSpec{CIDR: "10.8.0.0/24", IPIPMode: v1.EncapAlways}})
		s.create(&v1.AgentConfiguration{ObjectMeta: metav1.ObjectMeta{Name: v1.DefaultName}, Spec: v1.AgentConfigurationSpec{WireGuardEnabled: new(true)}})
		s.start()
		s.settle(time.Minute)
		s.halt()
		s.kernel.SetLink(kernel.Link{Name: "vxlan0", Kind: "vxlan", MTU: 1450, Up: true})
		got, err := agent.Cleanup(t.Context(), tablesOf(s.kernel))
		if err != nil || got.Tunnels != 3 || got.Chains == 0 || got.Sets == 0 || got.Routes == 0 {
			t.Errorf("Cleanup = %s, %v", got, err)
		}
		for _, name := range kernel.TunnelLinks() {
			if l, ok := s.kernel.Host().Links[name]; ok && l.Alias != "" {
				t.Errorf("left: %+v", l)
			}
		}
		if _, ok := s.kernel.Host().Links["vxlan0"]; !ok {
			t.Error("another's device is gone")
		}
		again, err := agent.Cleanup(t.Context(), tablesOf(s.kernel))
		if err != nil || again != (agent.Removed{}) {
			t.Errorf("a second Cleanup = %s, %v", again, err)
		}
	})
}

// recorder notes the configurations that a speaker is given.
type recorder struct {
	bgp.Speaker
	configs *[]bgp.Config
}

func (r recorder) Config() kernel.Table[struct{}, bgp.Config] {
	return recordedConfig{r.Speaker.Config(), r.configs}
}

type recordedConfig struct {
	kernel.Table[struct{}, bgp.Config]
	configs *[]bgp.Config
}

func (r recordedConfig) Write(ctx context.Context, set map[struct{}]bgp.Config, del []struct{}) error {
	for _, c := range set {
		*r.configs = append(*r.configs, c)
	}
	return r.Table.Write(ctx, set, del)
}

// TestRestarting holds that the speaker is started once, and told whether the
// kernel has the routes of an earlier run.
func TestRestarting(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		for _, run := range []struct {
			name       string
			before     func()
			restarting bool
		}{
			{"first start", func() {}, false},
			{"restart", func() {}, true},
			{"after a reboot", func() {
				for k := range s.kernel.OurRoutes() {
					s.kernel.DropRoute(k)
				}
			}, false},
		} {
			run.before()
			var configs []bgp.Config
			s.speaker = recorder{s.fabric.Speaker("n1", s.cfg.IPv4.Addr(), s.cfg.IPv6.Addr()), &configs}
			s.start()
			s.settle(5 * time.Minute)
			s.halt()
			if len(configs) != 1 || configs[0].Restarting != run.restarting {
				t.Errorf("%s: the speaker was started with %+v", run.name, configs)
			}
		}
	})
}

// TestStopKeepsAll holds that stopping takes nothing from the kernel, and that
// peers keep the node's routes.
func TestStopKeepsAll(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		router := s.fabric.Speaker("router", netip.MustParseAddr("192.0.2.1"))
		cfg := bgp.Config{AS: 65000, RouterID: netip.MustParseAddr("192.0.2.1"), Listen: bgp.Addrs(netip.MustParseAddr("192.0.2.1")), Port: 179}
		peers := map[netip.Addr]bgp.Peer{s.cfg.IPv4.Addr(): {
			AS: v1.DefaultAS, Port: 179, Local: netip.MustParseAddr("192.0.2.1"), IPv4: true, Graceful: true,
			Import: bgp.Prefixes(netip.MustParsePrefix("0.0.0.0/0")),
		}}
		if err := router.Config().Write(t.Context(), map[struct{}]bgp.Config{{}: cfg}, nil); err != nil {
			t.Fatal(err)
		}
		if err := router.Peers().Write(t.Context(), peers, nil); err != nil {
			t.Fatal(err)
		}
		s.create(&v1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "router"}, Spec: v1.BGPPeerSpec{PeerIP: "192.0.2.1", ASNumber: 65000}})
		s.start()
		s.add("one")
		s.settle(time.Minute)
		before, told := s.kernel.OurRoutes(), len(router.RIB().Routes)
		if told == 0 {
			t.Fatal("the router knows no block")
		}
		writes := s.kernel.Writes()
		s.halt()
		s.settle(time.Minute)
		if after := s.kernel.OurRoutes(); !maps.Equal(before, after) || s.kernel.Writes() != writes {
			t.Errorf("%d writes to the kernel at the stop; routes before %v, after %v", s.kernel.Writes()-writes, before, after)
		}
		if now := len(router.RIB().Routes); now != told {
			t.Errorf("the router knows %d blocks, knew %d", now, told)
		}
		sessions, _ := router.Sessions(t.Context())
		if e := sessions[s.cfg.IPv4.Addr()].LastError; strings.HasPrefix(e, "received") {
			t.Errorf("the router was told: %s", e)
		}
	})
}

// TestRunFails holds that an agent which can't go on says why, and leaves the
// kernel as it is.
func TestRunFails(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.add("one")
		before := len(s.kernel.OurRoutes())
		s.kernel.Fail("watch", nil, kernel.ErrPermission)
		s.kernel.SetLink(kernel.Link{Name: "eth1", Up: true})
		err := <-s.done
		s.stop = nil
		if err == nil || !strings.Contains(err.Error(), "host: ") {
			t.Errorf("Run = %v", err)
		}
		if got := len(s.kernel.OurRoutes()); got != before {
			t.Errorf("%d routes, before %d", got, before)
		}
	})
}

func TestSecondAgent(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		if _, err := agent.New(s.cfg, agent.Drivers{Store: s.store, Speaker: s.fabric.Speaker("n2")}); err == nil {
			t.Error("a second agent has the same journal")
		}
		synctest.Wait()
	})
}

// TestSockets asks a real agent over its sockets.
func TestSockets(t *testing.T) {
	dir := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	health := free.Addr().String()
	free.Close()
	store, host := datastore.NewMemory(), kernel.NewFake()
	host.Fail("read", "routes", kernel.ErrBusy)
	peer := &v1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "router"}, Spec: v1.BGPPeerSpec{PeerIP: "192.0.2.1", ASNumber: 65000}}
	peer.Default()
	if _, err := store.Create(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	fabric := bgp.NewFabric()
	cfg := agent.Config{
		Node: "n1", IPv4: netip.MustParsePrefix("192.0.2.11/24"), Journal: filepath.Join(dir, "journal"), Health: health,
		CNISocket: filepath.Join(dir, "cni.sock"), APISocket: filepath.Join(dir, "agent.sock"),
		Resync: time.Minute, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	a, err := agent.New(cfg, agent.Drivers{
		Store: store, Kernel: tablesOf(host), Host: host, Conntrack: host, Pods: host, Packets: packetsOf(host),
		Speaker: fabric.Speaker("n1", cfg.IPv4.Addr()),
	})
	fabric.Occupy(netip.AddrPortFrom(cfg.IPv4.Addr(), 179)) // so the session never begins
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	client := http.Client{Timeout: 5 * time.Second}
	// until asks until the answer has the code.
	until := func(path string, code int) string {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			resp, err := client.Get("http://" + health + path)
			if err == nil {
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode == code {
					return string(body)
				}
			}
			if time.Now().After(end) {
				t.Fatalf("GET %s: %+v, %v", path, resp, err)
			}
		}
	}
	if got := until("/readyz", http.StatusServiceUnavailable); !strings.Contains(got, "not ready: ") {
		t.Errorf("/readyz before the first pass: %s", got)
	}
	until("/livez", http.StatusOK)
	if got := until("/metrics", http.StatusOK); !strings.Contains(got, "\ncairn_ready 0\n") {
		t.Errorf("/metrics before the first pass: %s", got)
	}
	ask := protocol.Client{Socket: cfg.CNISocket}
	if _, err := ask.Call(t.Context(), protocol.Request{Verb: protocol.VerbStatus}); err == nil {
		t.Error("STATUS before the first pass: success")
	}
	host.Fail("read", "routes", nil)
	until("/readyz", http.StatusOK)
	if _, err := ask.Call(t.Context(), protocol.Request{Verb: protocol.VerbStatus}); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	metrics := until("/metrics", http.StatusOK)
	if strings.Contains(metrics, "cairn_bgp_peer_state_seconds") {
		t.Error("/metrics tells the age of a session that never began")
	}
	for _, line := range []string{`cairn_bgp_peer_up{peer="192.0.2.1",type="global"} 0`, "cairn_ready 1", "cairn_datastore_up 1", `cairn_objects{state="failed",table="routes"} 0`, `cairn_foreign_changes_total{table="routes"} 0`} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	until("/nowhere", http.StatusNotFound)
}
