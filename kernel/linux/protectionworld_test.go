//go:build linux

package linux

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	vishnet "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/calc"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// The world of the tests of protection: a node with the rules that calc wants for
// it, a pod on it, and all that is outside it on one link.
//
//	outside  192.0.2.2, .3 (nodes), .100, .101       2001:db8::2, ::3, ::100, ::101
//	   |     and addresses of pools and of the world: outsideOthers
//	 net0
//	   |
//	 node    192.0.2.1, .8 (not its Node's)          2001:db8::1, ::8
//	   |     10.1.0.1, fd00:1::1 (of tunnel devices)
//	 cairnpod
//	   |
//	  pod    an address of each pool: guardedPodAddrs

// protectedPatience bounds the wait for a packet that must come.
const protectedPatience = 10 * time.Second

var (
	nodeAddrs       = []string{"192.0.2.1/24", "192.0.2.8/24", "2001:db8::1/64", "2001:db8::8/64", "10.1.0.1/32", "fd00:1::1/128"}
	outsideAddrs    = []string{"192.0.2.2/24", "192.0.2.3/24", "192.0.2.100/24", "192.0.2.101/24", "2001:db8::2/64", "2001:db8::3/64", "2001:db8::100/64", "2001:db8::101/64"}
	outsideOthers   = []string{"203.0.113.1/32", "10.1.5.5/32", "10.2.0.2/32", "10.3.5.5/32", "2001:db8:f::1/128", "fd00:1::5:5/128", "fd00:2::2/128", "fd00:3::5:5/128"}
	guardedPodAddrs = []string{"10.1.0.2/32", "10.2.0.9/32", "10.3.0.2/32", "fd00:1::2/128", "fd00:2::9/128", "fd00:3::2/128"}
)

type protectedWorld struct {
	*rulesWorld
	outside, pod *os.File
}

func newProtectedWorld(t testing.TB, pools ...*v1.IPPool) *protectedWorld {
	t.Helper()
	w := &protectedWorld{rulesWorld: newRulesWorld(t), outside: newNetns(t), pod: newNetns(t)}
	node := admin(t, w.netns)
	for link, peer := range map[string]*os.File{"net0": w.outside, "cairnpod": w.pod} {
		attrs := vishnet.NewLinkAttrs()
		attrs.Name = link
		must(t, node.LinkAdd(&vishnet.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: vishnet.NsFd(int(peer.Fd()))}))
	}
	give(t, w.netns, "net0", nodeAddrs...)
	// No source of new connections (RFC 6724, rule 3), and so of translated ones.
	l, err := node.LinkByName("net0")
	must(t, err)
	must(t, node.AddrReplace(l, &vishnet.Addr{IPNet: ipNet(netip.MustParsePrefix("2001:db8::8/64")), Flags: unix.IFA_F_NODAD, ValidLft: math.MaxInt32}))
	give(t, w.netns, "cairnpod", "10.200.0.1/24", "fd00:200::1/64")
	give(t, w.pod, "eth0", append([]string{"10.200.0.2/24", "fd00:200::2/64"}, guardedPodAddrs...)...)
	give(t, w.outside, "eth0", append(slices.Clone(outsideAddrs), outsideOthers...)...)
	for _, p := range guardedPodAddrs {
		route(t, w.netns, p, "10.200.0.2", "fd00:200::2")
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		route(t, w.pod, all, "10.200.0.1", "fd00:200::1")
		route(t, w.outside, all, "192.0.2.1", "2001:db8::1")
		route(t, w.netns, all, "192.0.2.2", "2001:db8::2")
	}
	within(t, w.netns, func() {
		for _, sysctl := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			must(t, os.WriteFile("/proc/sys/net/"+sysctl, []byte("1"), 0))
		}
		for _, sysctl := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/net0/rp_filter", "ipv4/conf/cairnpod/rp_filter"} {
			must(t, os.WriteFile("/proc/sys/net/"+sysctl, []byte("0"), 0))
		}
	})
	w.set(t, pools...)
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t testing.TB, ns *os.File, f func()) {
	t.Helper()
	must(t, config{netns: int(ns.Fd())}.in(func() error { f(); return nil }))
}

func admin(t testing.TB, ns *os.File) *vishnet.Handle {
	t.Helper()
	h, err := vishnet.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

// give sets a link up and gives it addresses.
func give(t testing.TB, ns *os.File, link string, addrs ...string) {
	t.Helper()
	h := admin(t, ns)
	for _, name := range []string{"lo", link} {
		l, err := h.LinkByName(name)
		must(t, err)
		must(t, h.LinkSetUp(l))
		for _, a := range addrs {
			if name == link {
				must(t, h.AddrAdd(l, &vishnet.Addr{IPNet: ipNet(netip.MustParsePrefix(a)), Flags: unix.IFA_F_NODAD}))
			}
		}
	}
}

// route routes a prefix via the gateway of its family.
func route(t testing.TB, ns *os.File, dst, via4, via6 string) {
	t.Helper()
	p, via := netip.MustParsePrefix(dst), via4
	if p.Addr().Is6() {
		via = via6
	}
	must(t, admin(t, ns).RouteAdd(&vishnet.Route{Dst: ipNet(p), Gw: net.ParseIP(via)}))
}

// pool returns a pool, changed by change unless that is nil.
func pool(cidr string, change func(*v1.IPPoolSpec)) *v1.IPPool {
	name := "pool-" + strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr)
	p := &v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.IPPoolSpec{CIDR: cidr}}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

// desired returns the rules that calc wants for the node with these pools.
func (w *protectedWorld) desired(t testing.TB, pools ...*v1.IPPool) calc.State {
	t.Helper()
	var objects []v1.Object
	for i, name := range []string{"n1", "n2", "n3"} {
		last := string(rune('1' + i))
		objects = append(objects, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NodeSpec{
			BGP: &v1.NodeBGP{IPv4Address: "192.0.2." + last + "/24", IPv6Address: "2001:db8::" + last + "/64"},
		}})
	}
	for _, p := range pools {
		objects = append(objects, p)
	}
	// The pod may send from anywhere: what stops it is not the check of its sources.
	pod := ipam.Assignment{
		Handle: ipam.Handle{ContainerID: "c1", Interface: "eth0"}, Namespace: "default", Pod: "pod", HostLink: "cairnpod",
		IPv4: netip.MustParseAddr("10.1.0.2"), IPv6: netip.MustParseAddr("fd00:1::2"),
	}
	objects = append(objects, &v1.WorkloadEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pod-eth0", Annotations: map[string]string{
			v1.AnnotationAllowedSourcePrefixes: `["0.0.0.0/0", "::/0"]`,
		}},
		Spec: v1.WorkloadEndpointSpec{
			Node: "n1", Pod: pod.Pod, ContainerID: pod.ContainerID, InterfaceName: pod.HostLink, IPNetworks: []string{"10.1.0.2/32", "fd00:1::2/128"},
		},
	})
	for _, o := range objects {
		o.Default()
	}
	host := &kernel.Host{Links: map[string]kernel.Link{"net0": {Name: "net0", Index: 2, MTU: 1500, Up: true}}, Addrs: map[kernel.Addr]struct{}{}}
	for _, a := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		host.Addrs[kernel.Addr{Link: "net0", Prefix: netip.MustParsePrefix(a)}] = struct{}{}
	}
	s := calc.Desired(calc.Inputs{Node: "n1", Store: datastore.NewSnapshot(objects...), Pods: ipam.NewAssignments(pod), Host: host})
	if len(s.Issues) > 0 {
		t.Fatalf("issues: %v", s.Issues)
	}
	return s
}

// set makes the rules those of the pools, as the agent would.
func (w *protectedWorld) set(t testing.TB, pools ...*v1.IPPool) {
	t.Helper()
	want := w.desired(t, pools...)
	have := struct {
		sets     map[string]kernel.Set
		elements map[kernel.Element]struct{}
		chains   map[string]kernel.Chain
	}{}
	var err error
	have.sets, err = w.sets.Read(t.Context())
	must(t, err)
	have.elements, err = w.elements.Read(t.Context())
	must(t, err)
	have.chains, err = w.chains.Read(t.Context())
	must(t, err)
	kerneltest.Put(t, w.sets, want.Sets.Plain())
	kerneltest.Put(t, w.elements, want.Elements.Plain())
	kerneltest.Put(t, w.chains, want.Chains.Plain())
	kerneltest.Put(t, w.chains, nil, surplus(have.chains, want.Chains.Has)...)
	kerneltest.Put(t, w.elements, nil, surplus(have.elements, want.Elements.Has)...)
	kerneltest.Put(t, w.sets, nil, surplus(have.sets, want.Sets.Has)...)
}

func surplus[K, V comparable](have map[K]V, wanted func(K) bool) (del []K) {
	for k := range have {
		if !wanted(k) {
			del = append(del, k)
		}
	}
	return del
}

// datagram is a packet as it leaves: protocol and what is above IP.
type datagram struct {
	src, dst netip.Addr
	protocol uint8
	payload  []byte
	// fragment is the size of the pieces to send it in, a multiple of 8 bytes; 0: whole.
	fragment int
	id       uint16 // of the fragments: what was left of others must not mix with it
}

// udp returns a datagram to a port.
func udp(src, dst string, port uint16, payload []byte) datagram {
	d := datagram{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), protocol: unix.IPPROTO_UDP}
	b := binary.BigEndian.AppendUint16(nil, 40000)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(append(b, 0, 0), payload...)
	pseudo := append(append(d.src.AsSlice(), d.dst.AsSlice()...), 0, 0, b[4], b[5], 0, unix.IPPROTO_UDP)
	binary.BigEndian.PutUint16(b[6:], ^sum(append(pseudo, b...)))
	d.payload = b
	return d
}

// sum is the sum of RFC 1071.
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// packets returns the datagram's IP packets.
func (d datagram) packets() (out [][]byte) {
	size := d.fragment
	if size == 0 {
		size = len(d.payload)
	}
	for at := 0; at < len(d.payload); at += size {
		piece := d.payload[at:min(at+size, len(d.payload))]
		more := at+len(piece) < len(d.payload)
		out = append(out, d.packet(piece, at, more))
	}
	return out
}

func (d datagram) packet(piece []byte, at int, more bool) []byte {
	if d.src.Is4() {
		b := make([]byte, 20, 20+len(piece))
		b[0], b[8], b[9] = 0x45, 64, d.protocol
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(piece)))
		binary.BigEndian.PutUint16(b[4:], d.id)
		flags := uint16(at / 8)
		if more {
			flags |= 1 << 13
		}
		binary.BigEndian.PutUint16(b[6:], flags)
		copy(b[12:], d.src.AsSlice())
		copy(b[16:], d.dst.AsSlice())
		return append(b, piece...) // the kernel computes the checksum
	}
	var extension []byte
	next := d.protocol
	if d.fragment > 0 {
		extension = binary.BigEndian.AppendUint16([]byte{next, 0}, uint16(at))
		if more {
			extension[3] |= 1
		}
		extension = binary.BigEndian.AppendUint32(extension, uint32(d.id))
		next = unix.IPPROTO_FRAGMENT
	}
	b := make([]byte, 40)
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(extension)+len(piece)))
	copy(b[8:], d.src.AsSlice())
	copy(b[24:], d.dst.AsSlice())
	return append(append(b, extension...), piece...)
}

// emit sends datagrams from a namespace, whatever their source, all from one CPU,
// so that they stay in order.
func emit(t testing.TB, from *os.File, datagrams ...datagram) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	within(t, from, func() {
		var mine, one unix.CPUSet
		must(t, unix.SchedGetaffinity(0, &mine))
		for cpu := 0; one.Count() == 0; cpu++ {
			if mine.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		must(t, unix.SchedSetaffinity(0, &one))
		defer unix.SchedSetaffinity(0, &mine)
		for _, d := range datagrams {
			family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(d.dst.AsSlice()[:4])})
			if d.dst.Is6() {
				family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: d.dst.As16()}
			}
			fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			must(t, err)
			for _, p := range d.packets() {
				must(t, unix.Sendto(fd, p, 0, to))
			}
			must(t, unix.Close(fd))
		}
	})
}

// openSocket opens a socket in a namespace.
func openSocket(t testing.TB, ns *os.File, network, address string) (conn net.PacketConn) {
	t.Helper()
	within(t, ns, func() {
		var err error
		conn, err = net.ListenPacket(network, address)
		must(t, err)
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// heard reads until a payload ends in this mark, and returns what came before.
func heard(t testing.TB, conn net.PacketConn, mark string) (before []string) {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(protectedPatience)))
	b := make([]byte, 9000)
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			t.Fatalf("wait for %q, after %d others: %v", mark, len(before), err)
		}
		text := string(b[:n])
		if len(text) >= len(mark) && text[len(text)-len(mark):] == mark {
			return before
		}
		before = append(before, text)
	}
}
