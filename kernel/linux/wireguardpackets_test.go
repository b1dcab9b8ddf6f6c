//go:build linux

package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
	"cairn.network/cairn/kernel/linux/needs"
)

// wireGuardPatience bounds the wait for a packet that must come.
const wireGuardPatience = 20 * time.Second

// wireGuardNode is a node with a WireGuard device and addresses behind it.
type wireGuardNode struct {
	*wireGuardWorld
	key kernel.WireGuardKey
}

func newWireGuardNode(t *testing.T, behind ...string) *wireGuardNode {
	t.Helper()
	n := &wireGuardNode{wireGuardWorld: newWireGuardWorld(t)}
	n.AddDevice(t)
	addrs := make(map[kernel.Addr]struct{})
	for _, a := range behind {
		ip := netip.MustParseAddr(a)
		addrs[kernel.Addr{Link: kernel.LinkWireGuard, Prefix: netip.PrefixFrom(ip, ip.BitLen())}] = struct{}{}
	}
	kerneltest.Put(t, NewAddrs(n.in()), addrs)
	var err error
	if n.key, err = n.encryption.Key(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// connect joins the nodes by a pair of links with these subnets, of which n has
// the first address and m the second.
func (n *wireGuardNode) connect(t *testing.T, name string, m *wireGuardNode, subnets ...string) {
	t.Helper()
	attrs := vishnet.NewLinkAttrs()
	attrs.Name = name
	pair := &vishnet.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: vishnet.NsFd(int(m.netns.Fd()))}
	if err := n.admin.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	for _, s := range subnets {
		p := netip.MustParsePrefix(s)
		first := p.Addr().Next()
		n.AddAddr(t, kernel.Addr{Link: name, Prefix: netip.PrefixFrom(first, p.Bits())})
		m.AddAddr(t, kernel.Addr{Link: name, Prefix: netip.PrefixFrom(first.Next(), p.Bits())})
	}
	for _, end := range []*wireGuardNode{n, m} {
		hear := listen(t, end.Watcher)
		end.SetUp(t, name, true)
		defer hear("the carrier of "+name, func(e kernel.Event) bool { return e.Host.Links[name].Up })
	}
}

// peers sets the node's peers.
func (n *wireGuardNode) peers(t *testing.T, set map[kernel.WireGuardKey]kernel.WireGuardPeer) {
	t.Helper()
	kerneltest.Put(t, n.encryption.Peers(), set)
}

// routeTo sends what is for these addresses through the WireGuard device.
func (n *wireGuardNode) routeTo(t *testing.T, addrs ...string) {
	t.Helper()
	set := make(map[kernel.RouteKey]kernel.Route)
	for _, a := range addrs {
		set[kernel.HostRoute(netip.MustParseAddr(a))] = kernel.Route{Hops: kernel.Hops(kernel.NextHop{Link: kernel.LinkWireGuard})}
	}
	kerneltest.Put(t, n.Routes(), set)
}

// socket returns a UDP socket on this address of the node's.
func (n *wireGuardNode) socket(t *testing.T, ip string) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := n.config().in(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func addrPort(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func send(t *testing.T, from, to *net.UDPConn, text string) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte(text), addrPort(to)); err != nil {
		t.Fatal(err)
	}
}

// arrives checks that the next packet at the socket has this text and sender.
func arrives(t *testing.T, at, from *net.UDPConn, text string) {
	t.Helper()
	b := make([]byte, 1500)
	at.SetReadDeadline(time.Now().Add(wireGuardPatience))
	n, sender, err := at.ReadFromUDPAddrPort(b)
	if err != nil || sender != addrPort(from) || string(b[:n]) != text {
		t.Fatalf("at %v arrived %q from %v, %v; want %q from %v", addrPort(at), b[:n], sender, err, text, addrPort(from))
	}
}

// exchange sends a packet each way.
func exchange(t *testing.T, a, b *net.UDPConn, text string) {
	t.Helper()
	send(t, a, b, text)
	arrives(t, b, a, text)
	send(t, b, a, text)
	arrives(t, a, b, text)
}

// wire returns a socket that sees the frames of both directions on a link of the
// node.
func (n *wireGuardNode) wire(t *testing.T, link string) (fd int) {
	t.Helper()
	const everything = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the network's order
	err := n.config().in(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: n.link(t, link).Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// encrypted returns how many packets for WireGuard's port went over the wire, by
// IPv4 or IPv6, and checks that none of any kind shows the text.
func encrypted(t *testing.T, wire int, v6 bool, text string) (found int) {
	t.Helper()
	const etherLen, udpProtocol = 14, 17
	etherType, protocolAt, udpAt := uint16(unix.ETH_P_IP), etherLen+9, etherLen+20
	if v6 {
		etherType, protocolAt, udpAt = unix.ETH_P_IPV6, etherLen+6, etherLen+40
	}
	b := make([]byte, 2000)
	for {
		n, _, err := unix.Recvfrom(wire, b, unix.MSG_DONTWAIT) // a frame is there before it arrives
		if errors.Is(err, unix.EAGAIN) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		frame := b[:n]
		if bytes.Contains(frame, []byte(text)) {
			t.Errorf("%q can be read on the wire: %x", text, frame)
		}
		if n > udpAt+8 && binary.BigEndian.Uint16(frame[12:]) == etherType && frame[protocolAt] == udpProtocol &&
			binary.BigEndian.Uint16(frame[udpAt+2:]) == wireGuardTestPort {
			found++
		}
	}
}

// TestWireGuardPacketsVM sends packets of both families between two nodes, over
// either family.
func TestWireGuardPacketsVM(t *testing.T) {
	needs.Link(t, "wireguard")
	for _, tt := range []struct {
		name   string
		v6     bool
		ea, eb string // endpoints
	}{
		{"over IPv4", false, "192.0.2.1:51820", "192.0.2.2:51820"},
		{"over IPv6", true, "[2001:db8::1]:51820", "[2001:db8::2]:51820"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newWireGuardNode(t, "10.0.1.1", "fd00::1:1"), newWireGuardNode(t, "10.0.2.1", "fd00::2:1")
			a.connect(t, "east", b, "192.0.2.0/24", "2001:db8::/64")
			a.peers(t, map[kernel.WireGuardKey]kernel.WireGuardPeer{b.key: kerneltest.Peer(tt.eb, "10.0.2.0/26", "fd00::2:0/122")})
			b.peers(t, map[kernel.WireGuardKey]kernel.WireGuardPeer{a.key: kerneltest.Peer(tt.ea, "10.0.1.0/26", "fd00::1:0/122")})
			a.routeTo(t, "10.0.2.1", "fd00::2:1")
			b.routeTo(t, "10.0.1.1", "fd00::1:1")

			wire := a.wire(t, "east")
			before := time.Now().Add(-time.Second)
			const text = "nobody on the way may read this"
			exchange(t, a.socket(t, "10.0.1.1"), b.socket(t, "10.0.2.1"), text)
			exchange(t, b.socket(t, "fd00::2:1"), a.socket(t, "fd00::1:1"), text)
			if encrypted(t, wire, tt.v6, text) < 4 {
				t.Errorf("packets went another way than by port %d", wireGuardTestPort)
			}

			traffic, err := a.encryption.Traffic(t.Context())
			if err != nil || len(traffic) != 1 {
				t.Fatalf("traffic is %v, %v", traffic, err)
			}
			if p := traffic[0]; p.Key != b.key || p.Endpoint.String() != tt.eb || p.LastHandshake.Before(before) ||
				p.Sent < 2*int64(len(text)) || p.Received < 2*int64(len(text)) {
				t.Errorf("traffic is %+v", p)
			}
		})
	}
}

// TestWireGuardProbeVM shows that two nodes which probe each other shake hands
// though nothing was sent: at once when the second of them knows the first, who was
// refused until then and would not try again for 5 s.
func TestWireGuardProbeVM(t *testing.T) {
	needs.Link(t, "wireguard")
	a, b := newWireGuardNode(t), newWireGuardNode(t)
	a.connect(t, "east", b, "192.0.2.0/24")
	toB, toA := kerneltest.Peer("192.0.2.2:51820", "10.0.2.0/26"), kerneltest.Peer("192.0.2.1:51820", "10.0.1.0/26")
	met := func(n *wireGuardNode) bool {
		traffic, err := n.encryption.Traffic(t.Context())
		if err != nil || len(traffic) != 1 {
			t.Fatalf("traffic is %v, %v", traffic, err)
		}
		return !traffic[0].LastHandshake.IsZero()
	}
	wire := a.wire(t, "east")
	set := func(n, other *wireGuardNode, p kernel.WireGuardPeer, probe bool) {
		p.Probe = probe
		n.peers(t, map[kernel.WireGuardKey]kernel.WireGuardPeer{other.key: p})
	}
	set(a, b, toB, true)
	for start := time.Now(); encrypted(t, wire, false, "nothing was sent") == 0; {
		if time.Since(start) > wireGuardPatience {
			t.Fatal("the peer is not probed")
		}
	}
	set(b, a, toA, false)
	start := time.Now()
	set(b, a, toA, true) // of one that is known too
	for !met(a) || !met(b) {
		if time.Since(start) > 4*time.Second {
			t.Fatal("no handshake")
		}
	}
	t.Logf("the handshake took %v", time.Since(start))
	set(a, b, toB, false)
	set(b, a, toA, false)
	kerneltest.WantPeers(t, a, map[kernel.WireGuardKey]kernel.WireGuardPeer{b.key: toB})
}

// TestWireGuardMovesVM has one address at two nodes, and shows that the peer to
// which it is allowed gets the packets, and that packets from the other, or from
// any address that is not allowed, are dropped.
func TestWireGuardMovesVM(t *testing.T) {
	needs.Link(t, "wireguard")
	const moving = "10.0.9.1"
	a := newWireGuardNode(t, "10.0.1.1")
	b, c := newWireGuardNode(t, "10.0.2.1", moving, "10.0.8.8"), newWireGuardNode(t, "10.0.3.1", moving)
	a.connect(t, "east", b, "192.0.2.0/24")
	a.connect(t, "west", c, "198.51.100.0/24")
	b.peers(t, map[kernel.WireGuardKey]kernel.WireGuardPeer{a.key: kerneltest.Peer("192.0.2.1:51820", "10.0.1.1/32")})
	c.peers(t, map[kernel.WireGuardKey]kernel.WireGuardPeer{a.key: kerneltest.Peer("198.51.100.1:51820", "10.0.1.1/32")})
	a.routeTo(t, "10.0.2.1", "10.0.3.1", moving)
	b.routeTo(t, "10.0.1.1")
	c.routeTo(t, "10.0.1.1")

	at := a.socket(t, "10.0.1.1")
	fixed := map[*wireGuardNode]*net.UDPConn{b: b.socket(t, "10.0.2.1"), c: c.socket(t, "10.0.3.1")}
	mobile := map[*wireGuardNode]*net.UDPConn{b: b.socket(t, moving), c: c.socket(t, moving)}
	stray := b.socket(t, "10.0.8.8")
	for i, step := range []struct {
		owner, other   *wireGuardNode
		toOne, toOther string
	}{
		{b, c, "10.0.9.1/32", ""},
		{c, b, "", "10.0.9.1/32"},
		{b, c, "10.0.9.0/26", ""}, // larger ones too
	} {
		allow := func(own, more string) []string {
			if more == "" {
				return []string{own}
			}
			return []string{own, more}
		}
		a.peers(t, map[kernel.WireGuardKey]kernel.WireGuardPeer{
			b.key: kerneltest.Peer("192.0.2.2:51820", allow("10.0.2.1/32", step.toOne)...),
			c.key: kerneltest.Peer("198.51.100.2:51820", allow("10.0.3.1/32", step.toOther)...),
		})
		exchange(t, at, mobile[step.owner], fmt.Sprintf("step %d", i))
		// What follows those that are dropped is the first to arrive.
		send(t, mobile[step.other], at, "from the wrong node")
		exchange(t, fixed[step.other], at, "from the other node")
		send(t, stray, at, "from an address of nobody")
		exchange(t, fixed[b], at, "from the same node")
	}
}

// TestWireGuardLosesNothingVM changes a peer while packets go to it and come from
// it: whoever gets other prefixes besides, loses them, or has another endpoint of
// the same node, loses no packet.
func TestWireGuardLosesNothingVM(t *testing.T) {
	needs.Link(t, "wireguard")
	a, b := newWireGuardNode(t, "10.0.1.1"), newWireGuardNode(t, "10.0.2.1")
	a.connect(t, "east", b, "192.0.2.0/24", "2001:db8::/64")
	endpoints := []string{"192.0.2.2:51820", "[2001:db8::2]:51820"}
	const stays = "10.0.2.0/26"
	a.peers(t, map[kernel.WireGuardKey]kernel.WireGuardPeer{b.key: kerneltest.Peer(endpoints[0], stays)})
	b.peers(t, map[kernel.WireGuardKey]kernel.WireGuardPeer{a.key: kerneltest.Peer("192.0.2.1:51820", "10.0.1.0/26")})
	a.routeTo(t, "10.0.2.1")
	b.routeTo(t, "10.0.1.1")
	near, far := a.socket(t, "10.0.1.1"), b.socket(t, "10.0.2.1")
	exchange(t, near, far, "first")

	done := make(chan error, 1)
	go func() {
		var allowed []string
		for i := range 200 {
			if allowed = append(allowed, fmt.Sprintf("10.1.%d.0/26", i)); i%3 == 2 {
				allowed = allowed[2:]
			}
			err := a.encryption.Peers().Write(t.Context(), map[kernel.WireGuardKey]kernel.WireGuardPeer{
				b.key: kerneltest.Peer(endpoints[i%2], append(allowed, stays)...),
			}, nil)
			if err != nil {
				done <- err
				return
			}
		}
		close(done)
	}()
	for n := 0; ; n++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d packets went each way meanwhile", n)
			return
		default:
			exchange(t, near, far, fmt.Sprintf("packet %d", n))
		}
	}
}
