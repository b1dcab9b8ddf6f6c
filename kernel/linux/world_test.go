//go:build linux

package linux

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	vishnet "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// newNetns makes a network namespace that lives as long as the returned file.
func newNetns(t testing.TB) *os.File {
	t.Helper()
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	// To enter one's own namespace is to come back to it afterwards.
	var f *os.File
	err = config{netns: int(home.Fd())}.in(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if f, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		// Links have their own addresses at once, not after RFC 4862's detection of
		// duplicates: until then they ask no neighbour for what they forward.
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
	})
	if err != nil {
		t.Fatalf("make a network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// world is a network namespace with the driver in it.
type world struct {
	kernel.Watcher
	kernel.Attacher
	kernel.Conntrack
	routes  kernel.Table[kernel.RouteKey, kernel.Route]
	sysctls kernel.Table[kernel.Sysctl, string]
	admin   *vishnet.Handle
	netns   *os.File
}

func newWorld(t testing.TB) *world {
	t.Helper()
	f := newNetns(t)
	in := In(int(f.Fd()))
	admin, err := vishnet.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	w := &world{
		Watcher: NewWatcher(in), Attacher: NewAttacher(in), Conntrack: NewConntrack(in),
		routes: NewRoutes(in), sysctls: NewSysctls(in), admin: admin, netns: f,
	}
	w.SetUp(t, "lo", true)
	return w
}

func (w *world) Routes() kernel.Table[kernel.RouteKey, kernel.Route] { return w.routes }
func (w *world) Sysctls() kernel.Table[kernel.Sysctl, string]        { return w.sysctls }

func (w *world) NewPod(t testing.TB) string {
	return fmt.Sprintf("/proc/self/fd/%d", newNetns(t).Fd())
}

func (w *world) link(t testing.TB, name string) vishnet.Link {
	t.Helper()
	l, err := w.admin.LinkByName(name)
	if err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
	return l
}

// AddLink makes a pair of links whose other end lies in the same namespace.
func (w *world) AddLink(t testing.TB, name string) {
	t.Helper()
	peer := "p" + name[1:]
	attrs := vishnet.NewLinkAttrs()
	attrs.Name = name
	if err := w.admin.LinkAdd(&vishnet.Veth{LinkAttrs: attrs, PeerName: peer}); err != nil {
		t.Fatal(err)
	}
	w.SetUp(t, peer, true)
	w.SetUp(t, name, true)
}

func (w *world) SetUp(t testing.TB, name string, up bool) {
	t.Helper()
	set := w.admin.LinkSetDown
	if up {
		set = w.admin.LinkSetUp
	}
	if err := set(w.link(t, name)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) DelLink(t testing.TB, name string) {
	t.Helper()
	if err := w.admin.LinkDel(w.link(t, name)); err != nil {
		t.Fatal(err)
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (w *world) AddAddr(t testing.TB, a kernel.Addr) {
	t.Helper()
	addr := &vishnet.Addr{IPNet: ipNet(a.Prefix)}
	if a.Prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := w.admin.AddrAdd(w.link(t, a.Link), addr); err != nil {
		t.Fatal(err)
	}
}

func (w *world) DelAddr(t testing.TB, a kernel.Addr) {
	t.Helper()
	if err := w.admin.AddrDel(w.link(t, a.Link), &vishnet.Addr{IPNet: ipNet(a.Prefix)}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) route(t testing.TB, k kernel.RouteKey, r kernel.Route, protocol uint8) *vishnet.Route {
	t.Helper()
	out := &vishnet.Route{
		Dst: ipNet(k.Dst), Table: int(k.Table), Priority: int(k.Priority), Protocol: vishnet.RouteProtocol(protocol),
		MTU: int(r.MTU), Src: r.Source.AsSlice(),
	}
	gateways := false
	for _, h := range r.Hops.List() {
		hop := &vishnet.NexthopInfo{LinkIndex: w.link(t, h.Link).Attrs().Index, Hops: int(h.Weight) - 1, Gw: h.Gateway.AsSlice()}
		if h.OnLink {
			hop.Flags = unix.RTNH_F_ONLINK
		}
		gateways = gateways || h.Gateway.IsValid()
		out.MultiPath = append(out.MultiPath, hop)
	}
	if len(out.MultiPath) == 1 {
		hop := out.MultiPath[0]
		out.LinkIndex, out.Gw, out.Flags, out.MultiPath = hop.LinkIndex, hop.Gw, hop.Flags, nil
	}
	if !gateways && k.Dst.Addr().Is4() {
		out.Scope = vishnet.SCOPE_LINK
	}
	return out
}

func (w *world) PutRoute(t testing.TB, k kernel.RouteKey, r kernel.Route, protocol uint8) {
	t.Helper()
	if err := w.admin.RouteReplace(w.route(t, k, r, protocol)); err != nil {
		t.Fatalf("replace %v with %v: %v", k, r, err)
	}
}

func (w *world) DropRoute(t testing.TB, k kernel.RouteKey) {
	t.Helper()
	out := &vishnet.Route{Dst: ipNet(k.Dst), Table: int(k.Table), Priority: int(k.Priority), Scope: vishnet.SCOPE_NOWHERE}
	if err := w.admin.RouteDel(out); err != nil {
		t.Fatalf("delete %v: %v", k, err)
	}
}

func TestDriverPassesTheSuite(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) kerneltest.World { return newWorld(t) })
}

func nsHandle(w *world) netns.NsHandle { return netns.NsHandle(w.netns.Fd()) }
