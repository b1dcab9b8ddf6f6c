//go:build linux

package linux

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	vishnet "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	v1 "cairn.network/cairn/api/v1"
)

// tunnelPools are pools of each kind of tunnel.
func tunnelPools(natOutgoing bool) []*v1.IPPool {
	return []*v1.IPPool{
		pool("10.1.0.0/16", func(s *v1.IPPoolSpec) { s.VXLANMode, s.NATOutgoing = v1.EncapAlways, natOutgoing }),
		pool("10.3.0.0/16", func(s *v1.IPPoolSpec) { s.IPIPMode = v1.EncapAlways }),
		pool("fd00:1::/64", func(s *v1.IPPoolSpec) { s.VXLANMode, s.NATOutgoing = v1.EncapAlways, natOutgoing }),
	}
}

func vxlan(vni uint32, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, vni<<8), text...)
}

// Kinds of packets; each has a socket of its own that receives it.
type kind struct {
	name, network, address string
	make                   func(src, dst, text string) datagram
}

const long = 400 // bytes of what is to be sent in fragments

var (
	ipip = kind{"IPIP", "ip4:4", "0.0.0.0", func(src, dst, text string) datagram {
		return datagram{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), protocol: unix.IPPROTO_IPIP, payload: []byte(text)}
	}}
	ipipInIPv6 = kind{"IPv4 in IPv6", "ip6:4", "::", func(src, dst, text string) datagram {
		return datagram{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), protocol: unix.IPPROTO_IPIP, payload: []byte(text)}
	}}
	vxlan4     = vxlanKind("VXLAN", "udp4", 4789, 4096, 0)
	vxlan6     = vxlanKind("VXLAN", "udp6", 4789, 4096, 0)
	otherVNI4  = vxlanKind("VXLAN of another VNI", "udp4", 4789, 4097, 0)
	otherVNI6  = vxlanKind("VXLAN of another VNI", "udp6", 4789, 4097, 0)
	otherPort4 = vxlanKind("UDP to another port", "udp4", 4790, 4096, 0)
	otherPort6 = vxlanKind("UDP to another port", "udp6", 4790, 4096, 0)
	// A first fragment of 8 bytes ends before the VNI.
	small4, small6 = vxlanKind("VXLAN in small fragments", "udp4", 4789, 4096, 8), vxlanKind("VXLAN in small fragments", "udp6", 4789, 4096, 8)
	large4, large6 = vxlanKind("VXLAN in large fragments", "udp4", 4789, 4096, 200), vxlanKind("VXLAN in large fragments", "udp6", 4789, 4096, 200)
	smallOther4    = vxlanKind("UDP to another port in small fragments", "udp4", 4790, 4096, 8)
	smallOther6    = vxlanKind("UDP to another port in small fragments", "udp6", 4790, 4096, 8)
	ipipFragments  = kind{"IPIP in fragments", "ip4:4", "0.0.0.0", func(src, dst, text string) datagram {
		d := ipip.make(src, dst, strings.Repeat(".", long)+text)
		d.fragment = 16
		return d
	}}
)

func vxlanKind(name, network string, port uint16, vni uint32, fragment int) kind {
	return kind{name, network, fmt.Sprintf(":%d", port), func(src, dst, text string) datagram {
		if fragment > 0 {
			text = strings.Repeat(".", long) + text
		}
		d := udp(src, dst, port, vxlan(vni, text))
		d.fragment = fragment
		return d
	}}
}

// journey is a packet and whether it arrives.
type journey struct {
	kind
	src, dst string
	arrives  bool
}

// listeners are the sockets of the kinds in a namespace.
type listeners struct {
	testing.TB // as long as which they are open
	ns         *os.File
	sockets    map[[2]string]net.PacketConn
	barrier    map[bool]net.PacketConn // by whether it is IPv6
	sent       int
}

const barrierPort = 9999

func newListeners(t *testing.T, ns *os.File) *listeners {
	return &listeners{TB: t, ns: ns, sockets: map[[2]string]net.PacketConn{}, barrier: map[bool]net.PacketConn{
		false: openSocket(t, ns, "udp4", fmt.Sprintf(":%d", barrierPort)), true: openSocket(t, ns, "udp6", fmt.Sprintf(":%d", barrierPort)),
	}}
}

// try sends a packet and says whether it arrived. Behind it goes one that is not
// touched on its way; then certain sends one to the same socket that must arrive.
func (l *listeners) try(t *testing.T, j journey, from *os.File, certain func(k kind, text string)) bool {
	t.Helper()
	where := [2]string{j.network, j.address}
	if l.sockets[where] == nil {
		l.sockets[where] = openSocket(l.TB, l.ns, j.network, j.address)
	}
	l.sent++
	text, mark := fmt.Sprintf("packet %d.", l.sent), fmt.Sprintf("mark %d.", l.sent)
	d := j.make(j.src, j.dst, text)
	d.id = uint16(2 * l.sent)
	emit(t, from, d, udp(j.src, j.dst, barrierPort, []byte(mark)))
	heard(t, l.barrier[netip.MustParseAddr(j.dst).Is6()], mark)
	certain(j.kind, mark)
	for _, before := range heard(t, l.sockets[where], mark) {
		if strings.HasSuffix(before, text) {
			return true
		}
	}
	return false
}

// marker returns a packet of a kind that is told from the one before it.
func (l *listeners) marker(k kind, src, dst, text string) datagram {
	d := k.make(src, dst, text)
	d.id = uint16(2*l.sent + 1)
	return d
}

// TestStrangersStayOut sends encapsulated packets to the node from outside.
func TestStrangersStayOut(t *testing.T) {
	var journeys []journey
	for _, k := range []kind{ipip, vxlan4, small4, large4, ipipFragments} {
		journeys = append(journeys,
			journey{k, "192.0.2.2", "192.0.2.1", true}, journey{k, "192.0.2.3", "192.0.2.1", true},
			journey{k, "192.0.2.9", "192.0.2.1", false}, journey{k, "192.0.2.2", "192.0.2.8", false},
			journey{k, "192.0.2.2", "10.1.0.1", false}, journey{k, "203.0.113.1", "192.0.2.1", false})
	}
	for _, k := range []kind{vxlan6, small6, large6} {
		journeys = append(journeys,
			journey{k, "2001:db8::2", "2001:db8::1", true}, journey{k, "2001:db8::3", "2001:db8::1", true},
			journey{k, "2001:db8::9", "2001:db8::1", false}, journey{k, "2001:db8::2", "2001:db8::8", false},
			journey{k, "2001:db8::2", "fd00:1::1", false}, journey{k, "2001:db8:f::1", "2001:db8::1", false})
	}
	for _, k := range []kind{otherVNI4, otherPort4, smallOther4} {
		journeys = append(journeys, journey{k, "192.0.2.9", "192.0.2.1", true}, journey{k, "192.0.2.2", "192.0.2.8", true})
	}
	for _, k := range []kind{otherVNI6, otherPort6, smallOther6, ipipInIPv6} {
		journeys = append(journeys, journey{k, "2001:db8::9", "2001:db8::1", true}, journey{k, "2001:db8::2", "2001:db8::8", true})
	}
	// With natOutgoing connections are tracked, and fragments put together early.
	for _, nat := range []bool{false, true} {
		w := newProtectedWorld(t, tunnelPools(nat)...)
		l := newListeners(t, w.netns)
		for _, j := range journeys {
			t.Run(fmt.Sprintf("natOutgoing %t, %s, %s to %s", nat, j.name, j.src, j.dst), func(t *testing.T) {
				arrived := l.try(t, j, w.outside, func(k kind, text string) {
					src, dst := "192.0.2.2", "192.0.2.1"
					if netip.MustParseAddr(j.dst).Is6() {
						src, dst = "2001:db8::2", "2001:db8::1"
					}
					emit(t, w.outside, l.marker(k, src, dst, text))
				})
				if arrived != j.arrives {
					t.Errorf("arrived: %t, want %t", arrived, j.arrives)
				}
			})
		}
	}
}

// TestPodsCannotSpeakAsNodes sends encapsulated packets from a pod to nodes.
func TestPodsCannotSpeakAsNodes(t *testing.T) {
	for _, nat := range []bool{false, true} {
		w := newProtectedWorld(t, tunnelPools(nat)...)
		if nat {
			// As Services are: what the pod sends to the one goes to the other.
			w.nft(t, `table ip services { chain it { type nat hook prerouting priority dstnat
					ip daddr 10.96.0.1 dnat to 192.0.2.2
					ip daddr 10.96.0.2 dnat to 192.0.2.101
					ip daddr 10.96.0.3 dnat to 192.0.2.1
				}
				}
				table ip6 services { chain it { type nat hook prerouting priority dstnat
					ip6 daddr fd00:96::1 dnat to 2001:db8::2
					ip6 daddr fd00:96::2 dnat to 2001:db8::101
				}
				}`)
		}
		outside, node := newListeners(t, w.outside), newListeners(t, w.netns)
		for _, tt := range []struct {
			listeners *listeners
			src, dst  string
			kinds     []kind
			arrives   bool
			services  bool
		}{
			{outside, "10.1.0.2", "192.0.2.2", []kind{ipip, ipipFragments, vxlan4, otherVNI4, small4, large4}, false, false},
			{outside, "10.1.0.2", "192.0.2.2", []kind{otherPort4, smallOther4}, true, false},
			{outside, "10.1.0.2", "192.0.2.100", []kind{ipip, ipipFragments, vxlan4, otherVNI4, small4, large4}, true, false},
			{outside, "fd00:1::2", "2001:db8::2", []kind{vxlan6, otherVNI6, small6, large6}, false, false},
			{outside, "fd00:1::2", "2001:db8::2", []kind{otherPort6, smallOther6, ipipInIPv6}, true, false},
			{outside, "fd00:1::2", "2001:db8::100", []kind{vxlan6, otherVNI6, small6, large6}, true, false},
			{outside, "10.1.0.2", "10.96.0.1", []kind{ipip, vxlan4, otherVNI4, small4}, false, true},
			{outside, "10.1.0.2", "10.96.0.2", []kind{ipip, vxlan4, otherVNI4, small4}, true, true},
			{outside, "fd00:1::2", "fd00:96::1", []kind{vxlan6, otherVNI6, small6}, false, true},
			{outside, "fd00:1::2", "fd00:96::2", []kind{vxlan6, otherVNI6, small6}, true, true},
			{node, "10.1.0.2", "192.0.2.1", []kind{ipip, ipipFragments, vxlan4, otherVNI4, small4, large4}, false, false},
			{node, "10.1.0.2", "192.0.2.8", []kind{ipip, vxlan4, small4}, false, false},
			{node, "10.1.0.2", "10.96.0.3", []kind{ipip, vxlan4, small4}, false, true},
			{node, "192.0.2.2", "192.0.2.1", []kind{ipip, vxlan4, small4}, false, false}, // with a node's address as its own
			{node, "2001:db8::2", "2001:db8::1", []kind{vxlan6, small6}, false, false},
			{node, "2001:db8::2", "fd00:1::1", []kind{vxlan6, small6}, false, false},
			{node, "10.1.0.2", "192.0.2.1", []kind{otherPort4}, true, false},
			{node, "fd00:1::2", "2001:db8::1", []kind{otherPort6, ipipInIPv6}, true, false},
		} {
			if tt.services && !nat {
				continue
			}
			for _, k := range tt.kinds {
				t.Run(fmt.Sprintf("natOutgoing %t, %s, %s to %s", nat, k.name, tt.src, tt.dst), func(t *testing.T) {
					j := journey{k, tt.src, tt.dst, tt.arrives}
					arrived := tt.listeners.try(t, j, w.pod, func(k kind, text string) {
						// From a node that the pod has sent nothing to: it might be
						// taken for an answer.
						src, dst, from := "192.0.2.3", "192.0.2.1", w.outside
						if netip.MustParseAddr(j.dst).Is6() {
							src, dst = "2001:db8::3", "2001:db8::1"
						}
						if tt.listeners == outside { // to itself
							dst = src
						}
						emit(t, from, tt.listeners.marker(k, src, dst, text))
					})
					if arrived != tt.arrives {
						t.Errorf("arrived: %t, want %t", arrived, tt.arrives)
					}
				})
			}
		}
	}
}

// TestEncapsulatedIsNotTracked looks for the outer packets among the connections.
func TestEncapsulatedIsNotTracked(t *testing.T) {
	w := newProtectedWorld(t, tunnelPools(true)...)
	l := newListeners(t, w.netns)
	for _, tt := range []struct {
		kind
		from     *os.File
		src, dst string
		tracked  bool
	}{
		{vxlan4, w.outside, "192.0.2.2", "192.0.2.1", false},
		{vxlan6, w.outside, "2001:db8::2", "2001:db8::1", false},
		{vxlan4, w.netns, "192.0.2.1", "192.0.2.3", false},
		{vxlan6, w.netns, "2001:db8::1", "2001:db8::3", false},
		{otherVNI4, w.outside, "192.0.2.3", "192.0.2.1", true},
		{otherVNI6, w.outside, "2001:db8::3", "2001:db8::1", true},
		{otherPort4, w.netns, "192.0.2.1", "192.0.2.100", true},
	} {
		l.sent++
		mark := fmt.Sprintf("mark %d.", l.sent)
		emit(t, tt.from, tt.make(tt.src, tt.dst, "it"))
		if tt.from == w.outside {
			emit(t, tt.from, udp(tt.src, tt.dst, barrierPort, []byte(mark)))
			heard(t, l.barrier[netip.MustParseAddr(tt.dst).Is6()], mark)
		}
		if got := w.tracked(t, tt.src, tt.dst, tt.address); got != tt.tracked {
			t.Errorf("%s from %s to %s: tracked: %t, want %t", tt.name, tt.src, tt.dst, got, tt.tracked)
		}
	}
}

// tracked says whether there is a connection to a port, given as ":port".
func (w *protectedWorld) tracked(t *testing.T, src, dst, port string) bool {
	t.Helper()
	h, err := vishnet.NewHandleAt(netns.NsHandle(w.netns.Fd()), unix.NETLINK_NETFILTER)
	must(t, err)
	defer h.Close()
	for _, family := range []vishnet.InetFamily{unix.AF_INET, unix.AF_INET6} {
		flows, err := h.ConntrackTableList(vishnet.ConntrackTable, family)
		must(t, err)
		for _, f := range flows {
			if f.Forward.SrcIP.String() == src && f.Forward.DstIP.String() == dst && fmt.Sprintf(":%d", f.Forward.DstPort) == port {
				return true
			}
		}
	}
	return false
}
