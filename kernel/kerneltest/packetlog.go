package kerneltest

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/kernel"
)

// PacketLogWorld is a host of its own with the addresses of PacketsFrom and PacketsTo
// on its loopback link.
type PacketLogWorld interface {
	kernel.PacketLog
	// Emit has the host send this packet, between addresses of its own, and a rule of
	// the hook output log it.
	Emit(t testing.TB, group uint16, prefix string, p kernel.Packet)
}

// Addresses of the host between which packets are sent, one a family.
var (
	PacketsFrom = []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00:9::1")}
	PacketsTo   = []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd00:9::2")}
)

// RunPacketLog runs the suite of logged packets.
func RunPacketLog(t *testing.T, newWorld func(t *testing.T) PacketLogWorld) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, PacketLogWorld)
	}{
		{"what is told of a packet", tellsPackets},
		{"to each its groups", tellsGroups},
		{"a group that is taken", refusesTakenGroups},
		{"no group", followsNothing},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, newWorld(t)) })
	}
}

// Datagram returns a packet of this protocol between addresses of PacketsFrom and
// PacketsTo.
func Datagram(v6 bool, protocol uint8, change func(*kernel.Packet)) kernel.Packet {
	family, header := 0, 20
	if v6 {
		family, header = 1, 40
	}
	above := 8
	if protocol == kernel.ProtoTCP {
		above = 20
	}
	p := kernel.Packet{Src: PacketsFrom[family], Dst: PacketsTo[family], Protocol: protocol, Length: header + above}
	if change != nil {
		change(&p)
	}
	return p
}

func ports(src, dst uint16) func(*kernel.Packet) {
	return func(p *kernel.Packet) { p.SrcPort, p.DstPort = src, dst }
}

// follower is one call of Follow.
type follower struct {
	t      *testing.T
	heard  chan kernel.LoggedPacket
	ended  chan error
	cancel context.CancelFunc
}

const readyPrefix = "ready"

// follow begins to follow groups, and returns when the kernel tells about them.
func follow(t *testing.T, w PacketLogWorld, groups ...uint16) *follower {
	t.Helper()
	f := &follower{t: t, heard: make(chan kernel.LoggedPacket, 10_000), ended: make(chan error, 1)}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	go func() { f.ended <- w.Follow(ctx, groups, func(p kernel.LoggedPacket) { f.heard <- p }) }()
	t.Cleanup(f.end)
	for _, group := range groups {
		limit := time.Now().Add(patience)
		for ready := false; !ready; {
			w.Emit(t, group, readyPrefix, Datagram(false, kernel.ProtoUDP, ports(9, 9)))
			select {
			case p := <-f.heard:
				ready = p.Group == group
			case err := <-f.ended:
				f.ended <- err
				t.Fatalf("Follow ended: %v", err)
			case <-time.After(10 * time.Millisecond):
				if time.Now().After(limit) {
					t.Fatalf("nothing is told of group %d", group)
				}
			}
		}
	}
	return f
}

// end ends it, unless it has.
func (f *follower) end() {
	f.t.Helper()
	f.cancel()
	select {
	case err := <-f.ended:
		if err != nil {
			f.t.Errorf("Follow returned %v after its context was done, want nil", err)
		}
		f.ended <- nil
	case <-time.After(patience):
		f.t.Error("Follow did not return when its context was done")
	}
}

// next returns the next packet that was not sent by follow.
func (f *follower) next() kernel.LoggedPacket {
	f.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case p := <-f.heard:
			if p.Prefix != readyPrefix {
				return p
			}
		case err := <-f.ended:
			f.ended <- err
			f.t.Fatalf("Follow ended: %v", err)
		case <-limit:
			f.t.Fatal("no packet is told")
		}
	}
}

// want checks the next packet.
func (f *follower) want(group uint16, prefix string, p kernel.Packet) {
	f.t.Helper()
	got := f.next()
	if age := time.Since(got.Time).Abs(); !got.Time.IsZero() && age > time.Minute {
		f.t.Errorf("%v has the time %v", got.Packet, got.Time)
	}
	want := kernel.LoggedPacket{Group: group, Prefix: prefix, OutLink: "lo", Hook: kernel.HookOutput, Packet: p}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(kernel.LoggedPacket{}, "Time"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		f.t.Errorf("told (-want +got):\n%s", d)
	}
}

func tellsPackets(t *testing.T, w PacketLogWorld) {
	f := follow(t, w, 5)
	for i, v6 := range []bool{false, true} {
		icmp := []uint8{kernel.ProtoICMP, kernel.ProtoICMPv6}[i]
		echo := []uint8{8, 128}[i]
		for _, p := range []kernel.Packet{
			Datagram(v6, kernel.ProtoUDP, ports(1000, 53)),
			Datagram(v6, kernel.ProtoUDP, ports(65535, 65535)),
			Datagram(v6, kernel.ProtoTCP, func(p *kernel.Packet) { p.SrcPort, p.DstPort, p.TCPFlags = 1, 80, 2 }),
			Datagram(v6, kernel.ProtoSCTP, ports(3, 4)),
			Datagram(v6, icmp, func(p *kernel.Packet) { p.ICMPType, p.ICMPID = echo, 77 }),
			Datagram(v6, icmp, func(p *kernel.Packet) { p.ICMPType, p.ICMPCode = 3, 1 }),
			Datagram(v6, 99, nil),
			Datagram(v6, kernel.ProtoUDP, func(p *kernel.Packet) { p.SrcPort, p.DstPort, p.Length = 1, 2, 1300 }),
		} {
			w.Emit(t, 5, "deny|default.web|3", p)
			f.want(5, "deny|default.web|3", p)
		}
	}
}

func tellsGroups(t *testing.T, w PacketLogWorld) {
	one, both := follow(t, w, 1), follow(t, w, 2, 65535)
	p := Datagram(false, kernel.ProtoUDP, ports(1, 2))
	for _, group := range []uint16{3, 65535, 1, 2} {
		w.Emit(t, group, "it", p)
	}
	one.want(1, "it", p)
	both.want(65535, "it", p)
	both.want(2, "it", p)
}

func refusesTakenGroups(t *testing.T, w PacketLogWorld) {
	f := follow(t, w, 7)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, groups := range [][]uint16{{7}, {8, 7}, {9, 9}} {
		if err := w.Follow(ctx, groups, func(kernel.LoggedPacket) {}); !errors.Is(err, kernel.ErrBusy) {
			t.Errorf("groups %v: %v, want ErrBusy", groups, err)
		}
	}
	f.end()
	again := follow(t, w, 7, 8, 9)
	p := Datagram(true, kernel.ProtoUDP, ports(1, 2))
	w.Emit(t, 7, "it", p)
	again.want(7, "it", p)
}

func followsNothing(t *testing.T, w PacketLogWorld) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Follow(ctx, nil, func(kernel.LoggedPacket) { t.Error("told something") }); err != nil {
		t.Errorf("Follow: %v, want nil", err)
	}
}
