//go:build linux

package linux

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	vishnet "github.com/vishvananda/netlink"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
	"cairn.network/cairn/kernel/linux/needs"
)

// under is the link between two nodes.
const under = "under"

// twoNodes are two hosts with the addresses 10.0.1.1 and fd00:1::1, 10.0.1.2 and
// fd00:1::2 on the link between them.
func twoNodes(t *testing.T) (nodes [2]*tunnelWorld) {
	t.Helper()
	nodes = [2]*tunnelWorld{newTunnelWorld(t), newTunnelWorld(t)}
	attrs := vishnet.NewLinkAttrs()
	attrs.Name = under
	pair := &vishnet.Veth{LinkAttrs: attrs, PeerName: under, PeerNamespace: vishnet.NsFd(int(nodes[1].netns.Fd()))}
	if err := nodes[0].admin.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		for _, a := range []string{"10.0.1.1/24", "fd00:1::1/64"} {
			p := netip.MustParsePrefix(a)
			if i == 1 {
				p = netip.PrefixFrom(p.Addr().Next(), p.Bits())
			}
			n.AddAddr(t, kernel.Addr{Link: under, Prefix: p})
		}
		n.SetUp(t, under, true)
	}
	for _, n := range nodes {
		wait := listen(t, n.Watcher)
		wait("a carrier", func(e kernel.Event) bool { return e.Host.Links[under].Up })
	}
	return nodes
}

// way is how the first of two nodes reaches what is behind the second.
type way struct {
	link      string
	tunnel    kernel.Tunnel
	own       netip.Addr   // tunnel address, of the own block
	pods      netip.Prefix // the other's block
	hop       kernel.NextHop
	neighbour kernel.MAC // of the next hop; zero: it needs none
	node      netip.Addr // the other's
}

// lay makes all that the node has of the way.
func (n *tunnelWorld) lay(t *testing.T, w way) {
	t.Helper()
	own := kernel.Addr{Link: w.link, Prefix: netip.PrefixFrom(w.own, w.own.BitLen())}
	kerneltest.Put(t, n.tunnels, map[string]kernel.Tunnel{w.link: w.tunnel})
	kerneltest.Put(t, n.Sysctls(), kernel.TunnelLinkSysctls(w.link))
	kerneltest.Put(t, n.addrs, map[kernel.Addr]struct{}{own: {}})
	if w.neighbour != (kernel.MAC{}) {
		kerneltest.Put(t, n.neighbours, map[kernel.Neighbour]kernel.MAC{{Link: w.link, IP: w.hop.Gateway}: w.neighbour})
		kerneltest.Put(t, n.forwarding, map[kernel.Forwarding]netip.Addr{{Link: w.link, MAC: w.neighbour}: w.node})
	}
	r := kernel.Route{Hops: kernel.Hops(w.hop), Source: w.own}
	kerneltest.Put(t, n.Routes(), map[kernel.RouteKey]kernel.Route{
		{Table: kernel.MainTable, Dst: w.pods, Priority: kernel.RoutePriority}: r,
	})
}

// opens returns a UDP socket of the node, which is open as long as the test.
func (n *tunnelWorld) opens(t *testing.T, open func() (*net.UDPConn, error)) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := n.config().in(func() (err error) {
		conn, err = open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (n *tunnelWorld) listens(t *testing.T, ip netip.Addr) *net.UDPConn {
	t.Helper()
	return n.opens(t, func() (*net.UDPConn, error) {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	})
}

func (n *tunnelWorld) dials(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	return n.opens(t, func() (*net.UDPConn, error) { return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) })
}

// talks sends a packet of the host there and back, and returns the address from
// which it was sent.
func talks(t *testing.T, from, to *tunnelWorld, pod netip.Addr) netip.Addr {
	t.Helper()
	at := to.listens(t, pod)
	by := from.dials(t, at.LocalAddr().(*net.UDPAddr).AddrPort())
	b := make([]byte, 2000)
	deadline := time.Now().Add(20 * time.Second)
	if err := errors.Join(at.SetDeadline(deadline), by.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	question := make([]byte, 1300)
	if _, err := by.Write(question); err != nil {
		t.Fatal(err)
	}
	n, source, err := at.ReadFromUDPAddrPort(b)
	if err != nil || n != len(question) {
		t.Fatalf("%d bytes arrived at %v: %v", n, pod, err)
	}
	if _, err := at.WriteToUDPAddrPort(b[:n], source); err != nil {
		t.Fatal(err)
	}
	if n, err := by.Read(b); err != nil || n != len(question) {
		t.Fatalf("%d bytes came back from %v: %v", n, pod, err)
	}
	return source.Addr()
}

// podOf returns the address of a pod to which the way leads.
func podOf(w way) netip.Addr { return w.pods.Addr().Next().Next() }

// across lays the way to both sides and talks both ways, to an address behind
// each node.
func across(t *testing.T, nodes [2]*tunnelWorld, ways [2]way) {
	t.Helper()
	for i, n := range nodes {
		pod := podOf(ways[1-i])
		n.AddAddr(t, kernel.Addr{Link: "lo", Prefix: netip.PrefixFrom(pod, pod.BitLen())})
		n.lay(t, ways[i])
	}
	for i, n := range nodes {
		before := n.link(t, ways[i].link).Attrs().Statistics.TxPackets
		if source := talks(t, n, nodes[1-i], podOf(ways[i])); source != ways[i].own {
			t.Errorf("the host sends from %v, want its tunnel address %v", source, ways[i].own)
		}
		if n.link(t, ways[i].link).Attrs().Statistics.TxPackets == before {
			t.Errorf("no packet went through %s", ways[i].link)
		}
	}
}

// linkLocal returns the address that IPv6 makes of a MAC address (RFC 4291,
// appendix A).
func linkLocal(m kernel.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// TestVXLANPackets sends through VXLAN devices that the tables made.
func TestVXLANPackets(t *testing.T) {
	ip, prefix := netip.MustParseAddr, netip.MustParsePrefix
	macs := [2]kernel.MAC{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}
	for _, family := range []struct {
		name, link   string
		nodes, peers [2]netip.Addr
		pods         [2]netip.Prefix // behind each
	}{
		{
			"IPv4", kernel.LinkVXLAN4, [2]netip.Addr{ip("10.0.1.1"), ip("10.0.1.2")},
			[2]netip.Addr{ip("10.244.0.1"), ip("10.244.1.1")}, [2]netip.Prefix{prefix("10.244.0.0/26"), prefix("10.244.1.0/26")},
		},
		{
			"IPv6", kernel.LinkVXLAN6, [2]netip.Addr{ip("fd00:1::1"), ip("fd00:1::2")},
			[2]netip.Addr{ip("fd00:244::1"), ip("fd00:244:1::1")}, [2]netip.Prefix{prefix("fd00:244::/122"), prefix("fd00:244:1::/122")},
		},
	} {
		for _, offload := range []bool{true, false} {
			name := family.name + " with checksum offload"
			if !offload {
				name = family.name + " without checksum offload"
			}
			t.Run(name, func(t *testing.T) {
				var ways [2]way
				for i := range ways {
					other := 1 - i
					hop := kernel.NextHop{Link: family.link, Gateway: family.peers[other], OnLink: true}
					if hop.Gateway.Is6() {
						hop.Gateway, hop.OnLink = linkLocal(macs[other]), false
					}
					ways[i] = way{
						link: family.link, own: family.peers[i], node: family.nodes[other],
						pods: family.pods[other], hop: hop, neighbour: macs[other],
						tunnel: kernel.Tunnel{
							Kind: kernel.VXLAN, MTU: 1430, VNI: 4096, Port: 4789, Local: family.nodes[i], MAC: macs[i], NoChecksumOffload: !offload,
						},
					}
				}
				across(t, twoNodes(t), ways)
			})
		}
	}
}

// TestIPIPPacketsVM sends through tunl0.
func TestIPIPPacketsVM(t *testing.T) {
	needs.Link(t, "ipip")
	ip, prefix := netip.MustParseAddr, netip.MustParsePrefix
	nodes := [2]netip.Addr{ip("10.0.1.1"), ip("10.0.1.2")}
	peers := [2]netip.Addr{ip("10.244.0.1"), ip("10.244.1.1")}
	pods := [2]netip.Prefix{prefix("10.244.0.0/26"), prefix("10.244.1.0/26")}
	var ways [2]way
	for i := range ways {
		ways[i] = way{
			link: kernel.LinkIPIP, own: peers[i], pods: pods[1-i],
			hop:    kernel.NextHop{Link: kernel.LinkIPIP, Gateway: nodes[1-i], OnLink: true},
			tunnel: kernel.Tunnel{Kind: kernel.IPIP, MTU: 1480},
		}
	}
	across(t, twoNodes(t), ways)
}

// TestTunnelAddressIsNoSource has a host send by a link that has no address: it
// takes that of another link, but not of a tunnel, though that came first and is
// more like the destination's.
func TestTunnelAddressIsNoSource(t *testing.T) {
	w := newTunnelWorld(t)
	kerneltest.Put(t, w.tunnels, map[string]kernel.Tunnel{kernel.LinkVXLAN4: sampleVXLAN()})
	w.AddLink(t, "east")
	w.AddLink(t, "west")
	for _, tt := range []struct{ tunnel, node, to string }{
		{"10.244.0.1", "10.0.2.1", "10.244.0.9"},
		{"fd00:244::1", "fd00:2::1", "fd00:244::9"},
	} {
		tunnel, node, to := netip.MustParseAddr(tt.tunnel), netip.MustParseAddr(tt.node), netip.MustParseAddr(tt.to)
		w.AddAddr(t, kernel.Addr{Link: "west", Prefix: netip.PrefixFrom(node, node.BitLen())})
		a := kernel.Addr{Link: kernel.LinkVXLAN4, Prefix: netip.PrefixFrom(tunnel, tunnel.BitLen())}
		kerneltest.Put(t, w.addrs, map[kernel.Addr]struct{}{a: {}})
		wait := listen(t, w)
		wait("the carrier", func(e kernel.Event) bool { return e.Host.Links["east"].Up })
		kerneltest.Put(t, w.Routes(), map[kernel.RouteKey]kernel.Route{
			kernel.HostRoute(to): {Hops: kernel.Hops(kernel.NextHop{Link: "east"})},
		})
		source := w.dials(t, netip.AddrPortFrom(to, 9)).LocalAddr().(*net.UDPAddr).AddrPort().Addr()
		if source != node {
			t.Errorf("to %v the host sends from %v, want %v", to, source, node)
		}
	}
}
