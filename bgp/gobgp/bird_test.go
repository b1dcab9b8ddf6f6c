package gobgp_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/bgp/bgptest"
	"cairn.network/cairn/bgp/gobgp"
)

// bird is a BIRD 2 on a host, with a session per family to another.
type bird struct {
	t    testing.TB
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	log  bytes.Buffer
}

// birdConfig has two static routes and, per peer, both families' sessions. With
// strict bind it listens on the sessions' addresses only.
var birdConfig = template.Must(template.New("bird").Parse(`
router id {{.ID}};
graceful restart wait 5;
protocol device {}
protocol static static4 { ipv4; {{range .Routes4}} route {{.}} blackhole; {{end}} }
protocol static static6 { ipv6; {{range .Routes6}} route {{.}} blackhole; {{end}} }
{{range .Sessions}}
protocol bgp {{.Name}} {
	local {{.Local}} port {{.Port}} as {{$.AS}};
	neighbor {{.Peer}} port {{.Port}} as {{.PeerAS}};
	multihop;
	strict bind;
	{{if .Passive}}passive;{{end}}
	connect delay time 1; error wait time 1, 2;
	graceful restart; graceful restart time 5;
	hold time 9;
	{{.Channel}} { import all; export where source = RTS_STATIC; next hop self; };
}
{{end}}
`))

type birdSession struct {
	Name, Channel string
	Local, Peer   netip.Addr
	Port          int
	AS, PeerAS    uint32
	Passive       bool
}

// between returns BIRD's sessions with a peer, one per family.
func between(own, other bgptest.Host, otherAS uint32, passive bool) []birdSession {
	return []birdSession{
		{Name: fmt.Sprintf("v4_%d", other), Channel: "ipv4", Local: own.V4(), Peer: other.V4(), Port: bgptest.Port, PeerAS: otherAS, Passive: passive},
		{Name: fmt.Sprintf("v6_%d", other), Channel: "ipv6", Local: own.V6(), Peer: other.V6(), Port: bgptest.Port, PeerAS: otherAS, Passive: passive},
	}
}

func newBird(t testing.TB, own bgptest.Host, as uint32, routes []string, sessions []birdSession) *bird {
	t.Helper()
	b := &bird{t: t, dir: t.TempDir()}
	f, err := os.Create(filepath.Join(b.dir, "bird.conf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := map[string]any{"ID": own.V4(), "AS": as, "Sessions": sessions}
	var v4, v6 []string
	for _, r := range routes {
		if netip.MustParsePrefix(r).Addr().Is4() {
			v4 = append(v4, r)
		} else {
			v6 = append(v6, r)
		}
	}
	in["Routes4"], in["Routes6"] = v4, v6
	if err := birdConfig.Execute(f, in); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kill)
	return b
}

// start runs BIRD, which is killed with the test.
func (b *bird) start(args ...string) {
	b.t.Helper()
	args = append([]string{"-f", "-c", b.dir + "/bird.conf", "-s", b.dir + "/bird.ctl", "-P", b.dir + "/bird.pid"}, args...)
	b.cmd = exec.Command("bird", args...)
	b.cmd.Stdout, b.cmd.Stderr = &b.log, &b.log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatalf("start BIRD (Debian's package bird2): %v", err)
	}
	b.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(b.cmd, b.done)
	b.until("BIRD answers", func() bool { _, err := b.run("show status"); return err == nil })
}

// kill ends BIRD without a word to its peers.
func (b *bird) kill() {
	if b.cmd == nil {
		return
	}
	b.cmd.Process.Kill()
	<-b.done
	b.cmd = nil
}

func (b *bird) run(command string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "birdc", "-s", b.dir+"/bird.ctl", command).CombinedOutput()
	return string(out), err
}

func (b *bird) show(command string) string {
	b.t.Helper()
	out, err := b.run("show " + command)
	if err != nil {
		b.t.Fatalf("birdc show %s: %v: %s", command, err, out)
	}
	return out
}

func (b *bird) until(what string, is func() bool) {
	b.t.Helper()
	for over := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(over) {
			out, _ := b.run("show protocols all")
			routes, _ := b.run("show route all")
			b.t.Fatalf("never: %s\n%s\n%s\n%s", what, out, routes, b.log.String())
		}
	}
}

func (b *bird) has(prefix string) bool {
	out, _ := b.run("show route " + prefix) // an error when it is not there
	return strings.Contains(out, prefix)
}

// withBird starts a speaker on host A beside a BIRD on host B.
func withBird(t *testing.T, as, birdAS uint32, passive, birdPassive bool) (*gobgp.Speaker, *bird) {
	t.Helper()
	b := newBird(t, bgptest.B, birdAS, []string{"10.2.0.0/26", "fd00:2::/122"}, between(bgptest.B, bgptest.A, as, birdPassive))
	b.start()
	s := gobgp.New(logger(t))
	start(t, s, config(bgptest.A, as))
	advertise(t, s)
	write(t, s.Peers(), birdPeers(birdAS, passive))
	return s, b
}

func advertise(t *testing.T, s *gobgp.Speaker) {
	t.Helper()
	write(t, s.Paths(), map[netip.Prefix]bgp.Path{
		netip.MustParsePrefix("10.1.0.0/26"):  {Communities: "64512:7", LocalPref: 150},
		netip.MustParsePrefix("fd00:1::/122"): {Communities: "64512:7", LocalPref: 150},
	})
}

func birdPeers(as uint32, passive bool) map[netip.Addr]bgp.Peer {
	set := map[netip.Addr]bgp.Peer{bgptest.B.V4(): peer(bgptest.A.V4(), as), bgptest.B.V6(): peer(bgptest.A.V6(), as)}
	for addr, p := range set {
		p.Passive = passive
		set[addr] = p
	}
	return set
}

func TestBird(t *testing.T) {
	for _, c := range []struct {
		name                 string
		as, birdAS           uint32
		passive, birdPassive bool
	}{
		{"eBGP", 64512, 64513, false, false},
		{"iBGP", 64512, 64512, false, false},
		{"AS numbers of four bytes, BIRD passive", 4200000001, 4200000002, false, true},
		{"iBGP of four bytes, BIRD connects", 4200000001, 4200000001, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, b := withBird(t, c.as, c.birdAS, c.passive, c.birdPassive)
			until(t, "BIRD's routes", s, func() bool { return len(s.RIB().Routes) == 2 && s.RIB().Complete })
			for prefix, peer := range map[string]netip.Addr{"10.2.0.0/26": bgptest.B.V4(), "fd00:2::/122": bgptest.B.V6()} {
				want := bgp.LearnedPath{Peer: peer, NextHop: peer, PeerAS: c.birdAS, External: c.as != c.birdAS}
				if want.External {
					want.ASPath = fmt.Sprint(c.birdAS)
				} else {
					want.LocalPref = 100
				}
				if got := s.RIB().Routes[netip.MustParsePrefix(prefix)]; len(got) != 1 || got[0] != want {
					t.Errorf("%s: got %+v, want %+v", prefix, got, want)
				}
			}
			for prefix, hop := range map[string]netip.Addr{"10.1.0.0/26": bgptest.A.V4(), "fd00:1::/122": bgptest.A.V6()} {
				b.until("our route to "+prefix, func() bool { return b.has(prefix) })
				want := []string{"BGP.next_hop: " + hop.String(), "BGP.community: (64512,7)"}
				if c.as == c.birdAS {
					want = append(want, "BGP.local_pref: 150")
				} else {
					want = append(want, fmt.Sprint("BGP.as_path: ", c.as))
				}
				for _, w := range want {
					if got := b.show("route all " + prefix); !strings.Contains(got, w) {
						t.Errorf("BIRD's route lacks %q:\n%s", w, got)
					}
				}
			}
			for _, peer := range []netip.Addr{bgptest.B.V4(), bgptest.B.V6()} {
				if got := session(t, s, peer); got.IPv4.Received+got.IPv6.Received != 1 || got.IPv4.Advertised+got.IPv6.Advertised != 1 {
					t.Errorf("session %+v", got)
				}
			}
		})
	}
}

// TestBirdKeepsOurRoutes restarts us.
func TestBirdKeepsOurRoutes(t *testing.T) {
	s, b := withBird(t, 64512, 64513, false, false)
	here := func() bool { return b.has("10.1.0.0/26") && b.has("fd00:1::/122") }
	b.until("our routes", here)
	if err := s.Stop(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	kept := func() bool {
		if !here() {
			t.Fatalf("BIRD lost our routes:\n%s", b.show("protocols all"))
		}
		return true
	}
	b.until("BIRD lost the sessions", func() bool { return kept() && !strings.Contains(b.show("protocols"), "Established") })

	s = gobgp.New(logger(t))
	cfg := config(bgptest.A, 64512)
	cfg.Restarting = true
	start(t, s, cfg)
	advertise(t, s)
	begin := time.Now()
	write(t, s.Peers(), birdPeers(64513, false))
	until(t, "sessions", s, func() bool { return kept() && allEstablished(t, s, 2) })
	if took := time.Since(begin); took > 3*time.Second { // BIRD waits for a second after an error
		t.Errorf("the sessions took %v", took)
	}
	until(t, "complete", s, func() bool { return kept() && s.RIB().Complete && len(s.RIB().Routes) == 2 })
	// Nothing of ours is left stale.
	b.until("our routes are fresh", func() bool {
		return kept() && !strings.Contains(b.show("route all"), "STALE") && !strings.Contains(b.show("protocols all"), "Restarting")
	})
}

// TestBirdRestarts kills BIRD and starts it again: we keep its routes.
func TestBirdRestarts(t *testing.T) {
	s, b := withBird(t, 64512, 64513, false, false)
	until(t, "BIRD's routes", s, func() bool { return len(s.RIB().Routes) == 2 && allEstablished(t, s, 2) })
	kept := func() bool {
		if len(s.RIB().Routes) != 2 {
			t.Fatalf("lost BIRD's routes: %+v", s.RIB())
		}
		return true
	}
	b.kill()
	until(t, "sessions lost", s, func() bool { return kept() && !allEstablished(t, s, 2) })
	b.start("-R")
	until(t, "sessions", s, func() bool { return kept() && allEstablished(t, s, 2) })
	b.until("our routes", func() bool { return kept() && b.has("10.1.0.0/26") && b.has("fd00:1::/122") })
	// For good this time.
	b.kill()
	until(t, "routes gone", s, func() bool { return len(s.RIB().Routes) == 0 })
}

// TestBirdMultipath has two BIRDs tell the same route.
func TestBirdMultipath(t *testing.T) {
	s := gobgp.New(logger(t))
	start(t, s, config(bgptest.A, 64512))
	peers := map[netip.Addr]bgp.Peer{}
	for n, h := range []bgptest.Host{bgptest.B, bgptest.C} {
		as := uint32(64513 + n)
		newBird(t, h, as, []string{"10.2.0.0/26", "fd00:2::/122"}, between(h, bgptest.A, 64512, false)).start()
		peers[h.V4()], peers[h.V6()] = peer(bgptest.A.V4(), as), peer(bgptest.A.V6(), as)
	}
	write(t, s.Peers(), peers)
	until(t, "two paths to each", s, func() bool {
		r := s.RIB().Routes
		return len(r[netip.MustParsePrefix("10.2.0.0/26")]) == 2 && len(r[netip.MustParsePrefix("fd00:2::/122")]) == 2
	})
}

// TestBirdWrongAS reads the reason from either side. BIRD does not run while peers
// change: GoBGP 4.8 deletes a neighbour in the middle of its OPEN without the lock
// that the message is stored under, which the race detector minds.
func TestBirdWrongAS(t *testing.T) {
	s, b := withBird(t, 64512, 64513, false, false)
	quiet := func() {
		b.kill()
		until(t, "no session under way", s, func() bool {
			resting := []bgp.State{bgp.Idle, bgp.Connect, bgp.Active}
			return slices.Contains(resting, session(t, s, bgptest.B.V4()).State) && slices.Contains(resting, session(t, s, bgptest.B.V6()).State)
		})
	}
	quiet()
	write(t, s.Peers(), birdPeers(64999, false))
	b.start()
	until(t, "ours of BIRD", s, func() bool {
		return session(t, s, bgptest.B.V4()).LastError == "sent Bad Peer AS (OPEN Message Error)"
	})
	quiet()
	write(t, s.Config(), map[struct{}]bgp.Config{{}: config(bgptest.A, 64600)}) // BIRD expects 64512
	write(t, s.Peers(), birdPeers(64513, false))
	b.start()
	until(t, "BIRD's of us", s, func() bool {
		return session(t, s, bgptest.B.V4()).LastError == "received Bad Peer AS (OPEN Message Error)"
	})
}
