//go:build linux

package linux

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

func testAttachment(netns, container string) kernel.Attachment {
	return kernel.Attachment{
		Netns: netns, PodLink: "eth0", HostLink: kernel.PodLink("default", "web", "eth0"), ContainerID: container,
		Namespace: "default", Pod: "web", MTU: 1450,
		IPv4: netip.MustParseAddr("10.9.0.7"), IPv6: netip.MustParseAddr("fd00:9::7"),
	}
}

func hostRoute(ip netip.Addr, link string) map[kernel.RouteKey]kernel.Route {
	return map[kernel.RouteKey]kernel.Route{kernel.HostRoute(ip): {Hops: kernel.Hops(kernel.NextHop{Link: link})}}
}

// TestPodIsReachable sends real packets right after Attach, in both directions.
func TestPodIsReachable(t *testing.T) {
	for _, tt := range []struct {
		name   string
		v4, v6 bool
	}{{"dual stack", true, true}, {"IPv4 only", true, false}, {"IPv6 only", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.AddLink(t, "east")
			w.AddAddr(t, kernel.Addr{Link: "east", Prefix: netip.MustParsePrefix("10.0.1.1/24")})
			w.AddAddr(t, kernel.Addr{Link: "east", Prefix: netip.MustParsePrefix("fd00:1::1/64")})
			a := testAttachment(w.NewPod(t), "c1")
			if !tt.v4 {
				a.IPv4 = netip.Addr{}
			}
			if !tt.v6 {
				a.IPv6 = netip.Addr{}
			}
			if _, err := w.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if err := w.Check(t.Context(), a); err != nil {
				t.Error(err)
			}
			if err := w.sysctls.Write(t.Context(), kernel.PodLinkSysctls(a.HostLink), nil); err != nil {
				t.Fatal(err)
			}
			host, pod := config{netns: int(w.netns.Fd())}, netnsOf(t, a.Netns)
			for _, pair := range [][2]netip.Addr{
				{a.IPv4, netip.MustParseAddr("10.0.1.1")}, {a.IPv6, netip.MustParseAddr("fd00:1::1")},
			} {
				podIP, hostIP := pair[0], pair[1]
				if !podIP.IsValid() {
					continue
				}
				if err := w.routes.Write(t.Context(), hostRoute(podIP, a.HostLink), nil); err != nil {
					t.Fatal(err)
				}
				if from := converse(t, host, pod, podIP); from != hostIP {
					t.Errorf("the pod sees the host as %v, want %v", from, hostIP)
				}
				if from := converse(t, pod, host, hostIP); from != podIP {
					t.Errorf("the host sees the pod as %v, want %v", from, podIP)
				}
			}
		})
	}
}

func netnsOf(t *testing.T, path string) config {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return config{netns: int(f.Fd())}
}

// converse connects from one namespace to an address of another and returns the
// address that the server saw.
func converse(t *testing.T, from, to config, ip netip.Addr) netip.Addr {
	t.Helper()
	var server net.Listener
	err := to.in(func() (err error) {
		server, err = net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	seen := make(chan netip.Addr, 1)
	go func() {
		defer close(seen)
		if conn, err := server.Accept(); err == nil {
			seen <- conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	err = from.in(func() error {
		conn, err := net.DialTimeout("tcp", server.Addr().String(), 10*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		t.Fatalf("connect to %v: %v", ip, err)
	}
	return <-seen
}

func TestBadNetns(t *testing.T) {
	w := newWorld(t)
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, text string }{
		{"missing", "/nowhere/netns", "no such file"},
		{"a plain file", plain, "is no network namespace"},
		{"of another kind", "/proc/self/ns/uts", "is no network namespace"},
		{"the host's own", fmt.Sprintf("/proc/self/fd/%d", w.netns.Fd()), "the host's own"},
		{"none", "", "no such file"},
	} {
		a := testAttachment(tt.path, "c1")
		if _, err := w.Attach(t.Context(), a); err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: Attach: %v, want %q", tt.name, err, tt.text)
		}
		if err := w.Check(t.Context(), a); err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: Check: %v, want %q", tt.name, err, tt.text)
		}
		if err := w.Detach(t.Context(), a); err != nil {
			t.Errorf("%s: Detach: %v", tt.name, err)
		}
	}
	if _, err := w.Attach(t.Context(), testAttachment("/nowhere/netns", "c1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v is not ErrNotExist", err)
	}
}

// TestFailedAttachLeavesNothing lets Attach fail at its first and its last step.
func TestFailedAttachLeavesNothing(t *testing.T) {
	w := newWorld(t)
	a := testAttachment(w.NewPod(t), "c1")
	pod, err := netnsOf(t, a.Netns).handle()
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()

	attrs := vishnet.NewLinkAttrs()
	attrs.Name = a.PodLink
	theirs := &vishnet.Bridge{LinkAttrs: attrs}
	if err := pod.LinkAdd(theirs); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Attach(t.Context(), a); err == nil || !strings.Contains(err.Error(), "has a link eth0 already") {
		t.Errorf("Attach beside another eth0: %v", err)
	}
	if l, err := findLink(pod, a.PodLink); err != nil || l == nil || l.Type() != "bridge" {
		t.Errorf("their link became %v, %v", l, err)
	}
	if err := pod.LinkDel(theirs); err != nil {
		t.Fatal(err)
	}

	bad := a
	bad.IPv4 = netip.MustParseAddr("224.0.0.1") // no address for a host: the kernel refuses it
	bad.IPv6 = netip.MustParseAddr("ff02::1")
	if _, err := w.Attach(t.Context(), bad); err == nil {
		t.Error("Attach took multicast addresses")
	}
	if l, err := findLink(w.admin, a.HostLink); l != nil || err != nil {
		t.Errorf("a failed Attach left %v, %v on the host", l, err)
	}
	if l, err := findLink(pod, a.PodLink); l != nil || err != nil {
		t.Errorf("a failed Attach left %v, %v in the pod", l, err)
	}
}

// TestRepair spoils one thing at a time: Check names it, Attach mends it without
// making the link anew.
func TestRepair(t *testing.T) {
	w := newWorld(t)
	a := testAttachment(w.NewPod(t), "c1")
	mac, err := w.Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := netnsOf(t, a.Netns).handle()
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	eth0, err := pod.LinkByName(a.PodLink)
	if err != nil {
		t.Fatal(err)
	}
	index := w.link(t, a.HostLink).Attrs().Index
	neighs, err := podNeighs(a, eth0.Attrs().Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, text string
		spoil      func() error
	}{
		{"host MTU", "MTU of " + a.HostLink, func() error { return w.admin.LinkSetMTU(w.link(t, a.HostLink), 1400) }},
		{"pod MTU", "MTU of eth0", func() error { return pod.LinkSetMTU(eth0, 1400) }},
		{"host down", a.HostLink + " is down", func() error { return w.admin.LinkSetDown(w.link(t, a.HostLink)) }},
		{"pod down", "eth0 is down", func() error { return pod.LinkSetDown(eth0) }},
		{"IPv4 address", "address 10.9.0.7/32", func() error { return pod.AddrDel(eth0, podAddrs(a)[0]) }},
		{"IPv6 address", "address fd00:9::7/128", func() error { return pod.AddrDel(eth0, podAddrs(a)[1]) }},
		{"gateway of the host", "fe80::ecee:eeff:feee:eeee/64", func() error { return w.admin.AddrDel(w.link(t, a.HostLink), hostGateway()) }},
		{"IPv4 neighbour", "neighbour 169.254.1.1", func() error { return pod.NeighDel(neighs[0]) }},
		{"IPv6 neighbour", "neighbour fe80::ecee", func() error { return pod.NeighDel(neighs[1]) }},
		{"routes", "route 0.0.0.0/0", func() error {
			var keys []kernel.RouteKey
			for k := range podRoutes(a) {
				keys = append(keys, k)
			}
			return (&routes{config: netnsOf(t, a.Netns)}).Write(t.Context(), nil, keys)
		}},
	} {
		if err := tt.spoil(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if err := w.Check(t.Context(), a); err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: Check says %v, want %q in it", tt.name, err, tt.text)
		}
		if again, err := w.Attach(t.Context(), a); err != nil || again != mac {
			t.Errorf("%s: Attach again: %q, %v, want %q", tt.name, again, err, mac)
		}
		if err := w.Check(t.Context(), a); err != nil {
			t.Errorf("%s: after repair: %v", tt.name, err)
		}
		if now := w.link(t, a.HostLink).Attrs().Index; now != index {
			t.Errorf("%s: link %d was replaced by %d", tt.name, index, now)
		}
	}
}

// TestManyPodsAtOnce attaches and detaches pods concurrently.
func TestManyPodsAtOnce(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 50 {
		a := testAttachment(w.NewPod(t), "c1")
		a.HostLink = kernel.PodLink("default", fmt.Sprint(i), "eth0")
		wg.Go(func() {
			if _, err := w.Attach(t.Context(), a); err != nil {
				t.Error(err)
				return
			}
			if err := w.Check(t.Context(), a); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := w.Detach(t.Context(), a); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	links, err := w.admin.LinkList()
	links = slices.DeleteFunc(links, func(l vishnet.Link) bool { return l.Type() != "veth" }) // lo, and tunl0 with its module
	if err != nil || len(links) != 25 {
		t.Errorf("%d links, %v, want 25 of pods", len(links), err)
	}
}

// TestThreadsStayAtHome makes sure that goroutines elsewhere never run in a
// pod's namespace.
func TestThreadsStayAtHome(t *testing.T) {
	var want unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &want); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for i := range 20 {
		a := testAttachment(w.NewPod(t), "c1")
		a.HostLink = kernel.PodLink("default", fmt.Sprint(i), "eth0")
		if _, err := w.Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	// Other tests' threads that were locked for good may still be on their way out.
	strays := func() (found []string) {
		tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil || len(tasks) == 0 {
			t.Fatal(tasks, err)
		}
		for _, task := range tasks {
			var got unix.Stat_t
			if err := unix.Stat(task, &got); err == nil && got.Ino != want.Ino {
				found = append(found, task)
			}
		}
		return found
	}
	for limit := time.Now().Add(10 * time.Second); len(strays()) > 0; runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatalf("%v are in other namespaces", strays())
		}
	}
}

func BenchmarkAttach(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		b.StopTimer()
		a := testAttachment(w.NewPod(b), "c1")
		b.StartTimer()
		if _, err := w.Attach(b.Context(), a); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := w.Detach(b.Context(), a); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
