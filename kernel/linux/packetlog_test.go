//go:build linux

package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// packetWorld is a network namespace that sends packets to itself.
type packetWorld struct {
	kernel.PacketLog
	kernel.Tracer
	*rulesWorld
}

func newPacketWorld(t testing.TB) *packetWorld {
	t.Helper()
	w := &packetWorld{rulesWorld: newRulesWorld(t)}
	in := In(int(w.netns.Fd()))
	w.PacketLog, w.Tracer = NewPacketLog(in), NewTracer(in)
	h := admin(t, w.netns)
	lo, err := h.LinkByName("lo")
	must(t, err)
	must(t, h.LinkSetUp(lo))
	for _, a := range slices.Concat(kerneltest.PacketsFrom, kerneltest.PacketsTo) {
		must(t, h.AddrAdd(lo, &vishnet.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen())), Flags: unix.IFA_F_NODAD}))
	}
	return w
}

// sent returns a packet as it leaves.
func sent(p kernel.Packet) datagram {
	b := make([]byte, p.Length)
	switch p.Protocol {
	case kernel.ProtoICMP, kernel.ProtoICMPv6:
		b[0], b[1] = p.ICMPType, p.ICMPCode
		binary.BigEndian.PutUint16(b[4:], p.ICMPID)
	default:
		binary.BigEndian.PutUint16(b, p.SrcPort)
		binary.BigEndian.PutUint16(b[2:], p.DstPort)
	}
	switch p.Protocol {
	case kernel.ProtoTCP:
		b[12], b[13] = 5<<4, p.TCPFlags
	case kernel.ProtoUDP: // more than there is, so that nobody answers
		binary.BigEndian.PutUint16(b[4:], uint16(p.Length))
	}
	header := 20
	if p.Src.Is6() {
		header = 40
	}
	return datagram{src: p.Src, dst: p.Dst, protocol: p.Protocol, payload: b[:p.Length-header]}
}

func (w *packetWorld) Emit(t testing.TB, group uint16, prefix string, p kernel.Packet) {
	t.Helper()
	ip := "ip"
	if p.Src.Is6() {
		ip = "ip6"
	}
	w.nft(t, fmt.Sprintf(`table inet test { chain it { type filter hook output priority 0; }; }
flush chain inet test it
add rule inet test it %s saddr %s meta l4proto %d log prefix "%s" group %d`, ip, p.Src, p.Protocol, prefix, group))
	emit(t, w.netns, sent(p))
}

func TestPacketLogPassesTheSuite(t *testing.T) {
	kerneltest.RunPacketLog(t, func(t *testing.T) kerneltest.PacketLogWorld { return newPacketWorld(t) })
}

// TestPacketLogLinks logs what is forwarded, with its links and its mark, and what
// comes in fragments.
func TestPacketLogLinks(t *testing.T) {
	w := newProtectedWorld(t)
	w.nft(t, `table inet test { chain forwarded { type filter hook forward priority 0; udp dport 5000 meta mark set 7 log prefix "fwd" group 5; }; }`)
	heard := make(chan kernel.LoggedPacket, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	log := NewPacketLog(In(int(w.netns.Fd())))
	go func() { ended <- log.Follow(ctx, []uint16{5}, func(p kernel.LoggedPacket) { heard <- p }) }()
	for _, to := range [][2]string{{"10.1.0.2", "192.0.2.100"}, {"fd00:1::2", "2001:db8::100"}} {
		d := udp(to[0], to[1], 5000, []byte("payload"))
		var got kernel.LoggedPacket
		for got.Dst != d.dst {
			emit(t, w.pod, d)
			select {
			case got = <-heard:
			case <-time.After(10 * time.Millisecond): // not bound yet
			case err := <-ended:
				t.Fatal(err)
			}
		}
		length := 20 + 8 + 7
		if d.dst.Is6() {
			length += 20
		}
		want := kernel.LoggedPacket{
			Time: got.Time, Group: 5, Prefix: "fwd", InLink: "cairnpod", OutLink: "net0", Hook: kernel.HookForward, Mark: 7,
			Packet: kernel.Packet{Src: d.src, Dst: d.dst, Protocol: kernel.ProtoUDP, SrcPort: 40000, DstPort: 5000, Length: length},
		}
		if got != want {
			t.Errorf("told %+v, want %+v", got, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPacketLogLoses listens too slowly: what is lost is counted, and it goes on.
func TestPacketLogLoses(t *testing.T) {
	w := newPacketWorld(t)
	w.nft(t, `table inet test { chain it { type filter hook output priority 0; udp dport 7 log group 5; }; }`)
	log := packetLog{config{netns: int(w.netns.Fd())}, 1}
	const all = 500
	begun, goOn := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	told, lost, ended := uint64(0), uint64(0), make(chan error, 1)
	go func() {
		ended <- log.Follow(ctx, []uint16{5}, func(p kernel.LoggedPacket) {
			if told == 0 {
				close(begun)
				<-goOn
			}
			told++
			lost += p.Lost
			if p.SrcPort == 2 {
				cancel()
			}
		})
	}()
	packet := func(src uint16) datagram {
		return sent(kerneltest.Datagram(false, kernel.ProtoUDP, func(p *kernel.Packet) { p.SrcPort, p.DstPort = src, 7 }))
	}
	sentCount := uint64(0)
	for waiting := true; waiting; {
		emit(t, w.netns, packet(1))
		select {
		case <-begun:
			waiting = false
		case <-time.After(10 * time.Millisecond):
		case err := <-ended:
			t.Fatal(err)
		}
	}
	many := make([]datagram, all)
	for i := range many {
		many[i] = packet(1)
	}
	emit(t, w.netns, many...)
	sentCount += all
	close(goOn)
	for ctx.Err() == nil {
		emit(t, w.netns, packet(2))
		sentCount++
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if lost == 0 || told+lost < all || told+lost > 2*all {
		t.Errorf("told %d and lost %d of some %d", told, lost, sentCount)
	}
}

// TestPacketLogWithoutCapability says that it is the capability, not another follower.
func TestPacketLogWithoutCapability(t *testing.T) {
	w := newPacketWorld(t)
	within(t, w.netns, func() {
		withoutNetAdmin(t, func() {
			err := NewPacketLog().Follow(t.Context(), []uint16{5}, nil)
			if !errors.Is(err, kernel.ErrPermission) || errors.Is(err, kernel.ErrBusy) {
				t.Errorf("Follow: %v, want ErrPermission", err)
			}
			err = NewTracer().Trace(t.Context(), kernel.TraceFilter{Protocol: 1}, nil)
			if !errors.Is(err, kernel.ErrPermission) || errors.Is(err, kernel.ErrBusy) {
				t.Errorf("Trace: %v, want ErrPermission", err)
			}
		})
	})
}

// withoutNetAdmin runs f without CAP_NET_ADMIN on this thread.
func withoutNetAdmin(t testing.TB, f func()) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, fewer [2]unix.CapUserData
	must(t, unix.Capget(&header, &all[0]))
	fewer = all
	fewer[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	must(t, unix.Capset(&header, &fewer[0]))
	defer unix.Capset(&header, &all[0])
	f()
}

// TestLinkNamesOutliveLinks has a link's name when the link is gone.
func TestLinkNamesOutliveLinks(t *testing.T) {
	w := newWorld(t)
	w.AddLink(t, "east")
	index := uint32(w.link(t, "east").Attrs().Index)
	conn, err := config{netns: int(w.netns.Fd())}.dial(unix.NETLINK_ROUTE)
	must(t, err)
	defer conn.Close()
	links := newLinkNames(conn)
	got := []string{links.name(index)}
	w.DelLink(t, "east")
	links.asked = time.Time{}
	got = append(got, links.name(index), links.name(index+1000))
	if d := cmp.Diff([]string{"east", "east", fmt.Sprintf("#%d", index+1000)}, got); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
}
