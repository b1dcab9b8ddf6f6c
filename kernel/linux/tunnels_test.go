//go:build linux

package linux

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
	"cairn.network/cairn/kernel/linux/needs"
)

// tunnelWorld is a network namespace with the drivers of tunnels in it.
type tunnelWorld struct {
	*world
	tunnels    kernel.Table[string, kernel.Tunnel]
	addrs      kernel.Table[kernel.Addr, struct{}]
	neighbours kernel.Table[kernel.Neighbour, kernel.MAC]
	forwarding kernel.Table[kernel.Forwarding, netip.Addr]
}

func newTunnelWorld(t testing.TB) *tunnelWorld {
	w := newWorld(t)
	in := In(int(w.netns.Fd()))
	return &tunnelWorld{w, NewTunnels(in), NewAddrs(in), NewNeighbours(in), NewForwarding(in)}
}

func (w *tunnelWorld) Tunnels() kernel.Table[string, kernel.Tunnel]           { return w.tunnels }
func (w *tunnelWorld) Addrs() kernel.Table[kernel.Addr, struct{}]             { return w.addrs }
func (w *tunnelWorld) Neighbours() kernel.Table[kernel.Neighbour, kernel.MAC] { return w.neighbours }
func (w *tunnelWorld) Forwarding() kernel.Table[kernel.Forwarding, netip.Addr] {
	return w.forwarding
}

// config is the driver's, in this world.
func (w *tunnelWorld) config() config { return configure([]Option{In(int(w.netns.Fd()))}) }

// request sends what must be done.
func (w *tunnelWorld) request(t testing.TB, m netlink.Message, err error) {
	t.Helper()
	conn, dialErr := w.config().dial(unix.NETLINK_ROUTE)
	if dialErr != nil {
		t.Fatal(dialErr)
	}
	defer conn.Close()
	m.Header.Flags |= netlink.Request | netlink.Acknowledge
	if err := execute(conn)(m, err); err != nil {
		t.Fatal(err)
	}
}

// addVXLAN makes the device with more parameters, the last of each of which counts.
func (w *tunnelWorld) addVXLAN(t testing.TB, name string, tunnel kernel.Tunnel, more func(*netlink.AttributeEncoder)) {
	t.Helper()
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.IFLA_IFNAME, name)
	attrs.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
		info.String(unix.IFLA_INFO_KIND, "vxlan")
		info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
			vxlanParameters(data, tunnel)
			more(data)
			return nil
		})
		return nil
	})
	m, err := request(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, make([]byte, unix.SizeofIfInfomsg), attrs)
	w.request(t, m, err)
	w.ChangeTunnel(t, name, tunnel)
	w.SetUp(t, name, true)
}

func (w *tunnelWorld) AddTunnel(t testing.TB, name string, tunnel kernel.Tunnel) {
	t.Helper()
	if tunnel.Kind == kernel.VXLAN {
		w.addVXLAN(t, name, tunnel, func(*netlink.AttributeEncoder) {})
		return
	}
	attrs := vishnet.NewLinkAttrs()
	attrs.Name = name
	err := w.admin.LinkAdd(&vishnet.GenericLink{LinkAttrs: attrs, LinkType: string(tunnel.Kind)})
	if err != nil && !(name == kernel.LinkIPIP && errors.Is(err, unix.EEXIST)) {
		t.Fatal(err)
	}
	w.ChangeTunnel(t, name, tunnel)
	w.SetUp(t, name, true)
}

func (w *tunnelWorld) ChangeTunnel(t testing.TB, name string, tunnel kernel.Tunnel) {
	t.Helper()
	err := w.admin.LinkSetMTU(w.link(t, name), tunnel.MTU)
	if tunnel.Kind == kernel.VXLAN {
		err = errors.Join(err, w.admin.LinkSetHardwareAddr(w.link(t, name), tunnel.MAC[:]),
			w.config().offloadChecksums(name, !tunnel.NoChecksumOffload))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *tunnelWorld) SetAlias(t testing.TB, name, alias string) {
	t.Helper()
	if err := w.admin.LinkSetAlias(w.link(t, name), alias); err != nil {
		t.Fatal(err)
	}
}

func (w *tunnelWorld) neighbour(t testing.TB, n kernel.Neighbour, mac kernel.MAC) *vishnet.Neigh {
	return &vishnet.Neigh{
		LinkIndex: w.link(t, n.Link).Attrs().Index, Family: int(family(n.IP)), State: unix.NUD_PERMANENT,
		IP: n.IP.AsSlice(), HardwareAddr: mac[:],
	}
}

func (w *tunnelWorld) PutNeighbour(t testing.TB, n kernel.Neighbour, mac kernel.MAC) {
	t.Helper()
	if err := w.admin.NeighSet(w.neighbour(t, n, mac)); err != nil {
		t.Fatal(err)
	}
}

func (w *tunnelWorld) DropNeighbour(t testing.TB, n kernel.Neighbour) {
	t.Helper()
	if err := w.admin.NeighDel(w.neighbour(t, n, kernel.MAC{})); err != nil {
		t.Fatal(err)
	}
}

func (w *tunnelWorld) entry(t testing.TB, f kernel.Forwarding, node netip.Addr) *vishnet.Neigh {
	return &vishnet.Neigh{
		LinkIndex: w.link(t, f.Link).Attrs().Index, Family: unix.AF_BRIDGE, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF,
		IP: node.AsSlice(), HardwareAddr: f.MAC[:],
	}
}

func (w *tunnelWorld) PutForwarding(t testing.TB, f kernel.Forwarding, node netip.Addr) {
	t.Helper()
	if err := w.admin.NeighSet(w.entry(t, f, node)); err != nil {
		t.Fatal(err)
	}
}

func (w *tunnelWorld) DropForwarding(t testing.TB, f kernel.Forwarding) {
	t.Helper()
	m, err := neighbourMessage{family: unix.AF_BRIDGE, index: uint32(w.link(t, f.Link).Attrs().Index), mac: f.MAC}.drop()
	w.request(t, m, err)
}

func anyTunnelWorld(t *testing.T) kerneltest.TunnelWorld { return newTunnelWorld(t) }

func TestTunnelsPassTheSuite(t *testing.T) {
	kerneltest.RunTunnels(t, []string{kernel.LinkVXLAN4, kernel.LinkVXLAN6}, anyTunnelWorld)
	kerneltest.RunEntries(t, anyTunnelWorld)
}

func TestIPIPPassesTheSuiteVM(t *testing.T) {
	needs.Link(t, "ipip")
	kerneltest.RunTunnels(t, []string{kernel.LinkIPIP}, anyTunnelWorld)
}

func TestWireGuardDevicePassesTheSuiteVM(t *testing.T) {
	needs.Link(t, "wireguard")
	kerneltest.RunTunnels(t, []string{kernel.LinkWireGuard}, anyTunnelWorld)
}

// wantUnsupported checks what is said of a kind that the kernel does not have.
func wantUnsupported(t *testing.T, err error, kind string) {
	t.Helper()
	text := "this kernel has no " + kind + " (module " + kind + ")"
	if !errors.Is(err, kernel.ErrUnsupported) || !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), text) {
		t.Errorf("error is %v, want kernel.ErrUnsupported and %q", err, text)
	}
}

// TestKindsOfThisKernel makes a device of each kind that not every kernel has. In
// the VM there are all; elsewhere those that lack must be said to.
func TestKindsOfThisKernel(t *testing.T) {
	for link, want := range map[string]kernel.Tunnel{
		kernel.LinkIPIP:      {Kind: kernel.IPIP, MTU: 1480},
		kernel.LinkWireGuard: {Kind: kernel.WireGuard, MTU: 1420, Port: 51820},
	} {
		w := newTunnelWorld(t)
		err := w.tunnels.Write(t.Context(), map[string]kernel.Tunnel{link: want}, nil)
		have, readErr := w.tunnels.Read(t.Context())
		switch {
		case readErr != nil:
			t.Error(readErr)
		case err == nil && have[link] != want:
			t.Errorf("%s is %v", link, have)
		case err != nil && (os.Getenv("CAIRN_VM") != "" || len(have) > 0):
			t.Errorf("%s: %v; there is %v", link, err, have)
		case err != nil:
			t.Logf("%s: %v", link, err)
			wantUnsupported(t, err, string(want.Kind))
		}
	}
	w := newTunnelWorld(t)
	conn, err := w.config().dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = tunnels{w.config()}.make(conn, "none.cairn", kernel.Tunnel{Kind: "cairn-none", MTU: 1400})
	wantUnsupported(t, err, "cairn-none")
}

func sampleVXLAN() kernel.Tunnel {
	return kernel.Tunnel{
		Kind: kernel.VXLAN, MTU: 1450, VNI: 4096, Port: 4789, Local: netip.MustParseAddr("10.0.1.1"), MAC: kernel.MAC{2, 1, 1, 1, 1, 1},
	}
}

// TestOddVXLAN has devices that differ in what no Tunnel says.
func TestOddVXLAN(t *testing.T) {
	want := map[string]kernel.Tunnel{kernel.LinkVXLAN4: sampleVXLAN()}
	set := func(attribute uint16, value ...byte) func(*netlink.AttributeEncoder) {
		return func(a *netlink.AttributeEncoder) { a.Bytes(attribute, value) }
	}
	for name, more := range map[string]func(*netlink.AttributeEncoder){
		"as Cairn makes it": func(*netlink.AttributeEncoder) {},
		"learning":          set(unix.IFLA_VXLAN_LEARNING, 1),
		"ttl":               set(unix.IFLA_VXLAN_TTL, 7),
		"ttl inherit":       set(unix.IFLA_VXLAN_TTL_INHERIT),
		"tos":               set(unix.IFLA_VXLAN_TOS, 1),
		"df":                set(unix.IFLA_VXLAN_DF, 1),
		"proxy":             set(unix.IFLA_VXLAN_PROXY, 1),
		"rsc":               set(unix.IFLA_VXLAN_RSC, 1),
		"l2miss":            set(unix.IFLA_VXLAN_L2MISS, 1),
		"l3miss":            set(unix.IFLA_VXLAN_L3MISS, 1),
		"udpcsum":           set(unix.IFLA_VXLAN_UDP_CSUM, 1),
		"udp6zerocsumtx":    set(unix.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 1),
		"udp6zerocsumrx":    set(unix.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1),
		"remcsumtx":         set(unix.IFLA_VXLAN_REMCSUM_TX, 1),
		"remcsumrx":         set(unix.IFLA_VXLAN_REMCSUM_RX, 1),
		"gbp":               set(unix.IFLA_VXLAN_GBP),
		"group":             set(unix.IFLA_VXLAN_GROUP, 10, 0, 1, 9),
		"dev":               set(unix.IFLA_VXLAN_LINK, 1, 0, 0, 0),
		"srcport":           set(unix.IFLA_VXLAN_PORT_RANGE, 0x13, 0x88, 0x13, 0x89),
	} {
		t.Run(name, func(t *testing.T) {
			w := newTunnelWorld(t)
			w.addVXLAN(t, kernel.LinkVXLAN4, sampleVXLAN(), more)
			w.SetAlias(t, kernel.LinkVXLAN4, kernel.TunnelAlias)
			before := w.link(t, kernel.LinkVXLAN4).Attrs().Index
			have, err := w.tunnels.Read(t.Context())
			right := have[kernel.LinkVXLAN4] == sampleVXLAN()
			if err != nil || right != (name == "as Cairn makes it") || !right && !strings.Contains(string(have[kernel.LinkVXLAN4].Kind), "vxlan, "+name) {
				t.Errorf("read %v, %v", have, err)
			}
			kerneltest.Put(t, w.tunnels, want)
			have, err = w.tunnels.Read(t.Context())
			if err != nil || have[kernel.LinkVXLAN4] != sampleVXLAN() {
				t.Errorf("after it was written there is %v, %v", have, err)
			}
			if anew := w.link(t, kernel.LinkVXLAN4).Attrs().Index != before; anew == right {
				t.Errorf("made anew: %v", anew)
			}
		})
	}
}

// TestSmallMTU has a device whose MTU is too small for IPv6, which it has no part
// in.
func TestSmallMTU(t *testing.T) {
	w := newTunnelWorld(t)
	small := sampleVXLAN()
	small.MTU = 576
	kerneltest.Put(t, w.tunnels, map[string]kernel.Tunnel{kernel.LinkVXLAN4: small})
	kerneltest.Put(t, w.Sysctls(), kernel.TunnelLinkSysctls(kernel.LinkVXLAN4))
	if have, err := w.tunnels.Read(t.Context()); err != nil || have[kernel.LinkVXLAN4] != small {
		t.Errorf("read %v, %v", have, err)
	}
}

// TestPortInUse makes a device that can't come up yet.
func TestPortInUse(t *testing.T) {
	w := newTunnelWorld(t)
	set := map[string]kernel.Tunnel{kernel.LinkVXLAN4: sampleVXLAN()}
	taken := w.opens(t, func() (*net.UDPConn, error) { return net.ListenUDP("udp4", &net.UDPAddr{Port: 4789}) })
	if err := w.tunnels.Write(t.Context(), set, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("error is %v, want that the port is taken", err)
	}
	if have, err := w.tunnels.Read(t.Context()); err != nil || have[kernel.LinkVXLAN4].Kind != "vxlan, down" {
		t.Errorf("read %v, %v", have, err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	kerneltest.Put(t, w.tunnels, set)
	if have, err := w.tunnels.Read(t.Context()); err != nil || have[kernel.LinkVXLAN4] != sampleVXLAN() {
		t.Errorf("read %v, %v", have, err)
	}
}

// TestAddressOfAnotherShape makes an address anew that the kernel would choose as
// a source.
func TestAddressOfAnotherShape(t *testing.T) {
	w := newTunnelWorld(t)
	kerneltest.Put(t, w.tunnels, map[string]kernel.Tunnel{kernel.LinkVXLAN4: sampleVXLAN()})
	link := w.link(t, kernel.LinkVXLAN4)
	for _, text := range []string{"10.244.0.1/32", "fd00:244::1/128"} {
		a := kernel.Addr{Link: kernel.LinkVXLAN4, Prefix: netip.MustParsePrefix(text)}
		w.AddAddr(t, a)
		for range 2 { // the second time it is as it should be
			kerneltest.Put(t, w.addrs, map[kernel.Addr]struct{}{a: {}})
			on, err := w.admin.AddrList(link, int(family(a.Prefix.Addr()))) // no link-local address either
			if err != nil || len(on) != 1 {
				t.Fatalf("addresses are %v, %v", on, err)
			}
			if got := on[0]; got.IPNet.String() != text ||
				a.Prefix.Addr().Is4() && got.Scope != unix.RT_SCOPE_LINK ||
				a.Prefix.Addr().Is6() && (got.Flags&unix.IFA_F_DEPRECATED == 0 || got.Flags&unix.IFA_F_TENTATIVE != 0 || got.PreferedLft != 0) {
				t.Errorf("address is %+v", got)
			}
		}
	}
}

// TestEntriesThatAreNotOurs has entries on our device that the kernel or another
// made.
func TestEntriesThatAreNotOurs(t *testing.T) {
	w := newTunnelWorld(t)
	kerneltest.Put(t, w.tunnels, map[string]kernel.Tunnel{kernel.LinkVXLAN4: sampleVXLAN()})
	n := kernel.Neighbour{Link: kernel.LinkVXLAN4, IP: netip.MustParseAddr("10.244.0.2")}
	f := kernel.Forwarding{Link: kernel.LinkVXLAN4, MAC: kernel.MAC{2, 2, 2, 2, 2, 2}}
	stale := w.neighbour(t, n, kernel.MAC{2, 9, 9, 9, 9, 9})
	stale.State = unix.NUD_STALE
	elsewhere := w.entry(t, f, netip.MustParseAddr("10.0.1.2"))
	elsewhere.VNI = 7
	everything := w.entry(t, kernel.Forwarding{Link: kernel.LinkVXLAN4}, netip.MustParseAddr("10.0.1.3"))
	for _, e := range []*vishnet.Neigh{stale, elsewhere, everything} {
		if err := w.admin.NeighSet(e); err != nil && e != everything {
			t.Fatal(err)
		}
	}
	if err := w.admin.NeighAppend(everything); err != nil {
		t.Fatal(err)
	}
	neighbours, err := w.neighbours.Read(t.Context())
	if err != nil || len(neighbours) > 0 {
		t.Errorf("neighbours are %v, %v", neighbours, err)
	}
	forwarding, err := w.forwarding.Read(t.Context())
	if want := (netip.Addr{}); err != nil || len(forwarding) != 1 || forwarding[f] != want {
		t.Errorf("forwarding entries are %v, %v", forwarding, err)
	}
	mac, node := kernel.MAC{2, 2, 2, 2, 2, 2}, netip.MustParseAddr("10.0.1.2")
	kerneltest.Put(t, w.neighbours, map[kernel.Neighbour]kernel.MAC{n: mac})
	kerneltest.Put(t, w.forwarding, map[kernel.Forwarding]netip.Addr{f: node})
	neighbours, err = w.neighbours.Read(t.Context())
	if err != nil || len(neighbours) != 1 || neighbours[n] != mac {
		t.Errorf("neighbours are %v, %v", neighbours, err)
	}
	forwarding, err = w.forwarding.Read(t.Context())
	if err != nil || len(forwarding) != 1 || forwarding[f] != node {
		t.Errorf("forwarding entries are %v, %v", forwarding, err)
	}
}
