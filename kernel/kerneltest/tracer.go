package kerneltest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/kernel"
)

// TracerWorld is a host of its own with the addresses of PacketsFrom and PacketsTo on
// its loopback link, and no rules.
type TracerWorld interface {
	kernel.Tracer
	// Send has the host send this packet to itself.
	Send(t testing.TB, p kernel.Packet)
}

// RunTracer runs the suite of traces.
func RunTracer(t *testing.T, newWorld func(t *testing.T) TracerWorld) {
	t.Run("what a filter picks", func(t *testing.T) { tracesWhatMatches(t, newWorld(t)) })
	t.Run("one at a time", func(t *testing.T) { tracesOneAtATime(t, newWorld(t)) })
	t.Run("bad filters", func(t *testing.T) { refusesFilters(t, newWorld(t)) })
}

// Tracing is one call of Trace.
type Tracing struct {
	t      testing.TB
	told   chan kernel.TraceEvent
	ended  chan error
	cancel context.CancelFunc
}

// Trace begins to trace, and returns when packets are picked.
func Trace(t testing.TB, w kernel.Tracer, filter kernel.TraceFilter) *Tracing {
	t.Helper()
	tr := &Tracing{t: t, told: make(chan kernel.TraceEvent, 10_000), ended: make(chan error, 1)}
	var ctx context.Context
	ctx, tr.cancel = context.WithCancel(context.Background())
	go func() { tr.ended <- w.Trace(ctx, filter, func(e kernel.TraceEvent) { tr.told <- e }) }()
	t.Cleanup(tr.End)
	if e := tr.Next(); e.Kind != kernel.TraceArmed {
		t.Fatalf("the first word is %+v, want %v", e, kernel.TraceArmed)
	}
	return tr
}

// Next returns the next event.
func (tr *Tracing) Next() kernel.TraceEvent {
	tr.t.Helper()
	select {
	case e := <-tr.told:
		return e
	case err := <-tr.ended:
		tr.ended <- err
		tr.t.Fatalf("Trace ended: %v", err)
	case <-time.After(patience):
		tr.t.Fatal("nothing is told")
	}
	return kernel.TraceEvent{}
}

// End ends it, unless it has.
func (tr *Tracing) End() {
	tr.t.Helper()
	tr.cancel()
	select {
	case err := <-tr.ended:
		if err != nil {
			tr.t.Errorf("Trace returned %v after its context was done, want nil", err)
		}
		tr.ended <- nil
	case <-time.After(patience):
		tr.t.Error("Trace did not return when its context was done")
	}
}

// tracedPackets are what is sent for each filter.
func tracedPackets() []kernel.Packet {
	back := func(p *kernel.Packet) { p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, 53, 1000 }
	return []kernel.Packet{
		Datagram(false, kernel.ProtoUDP, ports(1000, 53)), Datagram(true, kernel.ProtoUDP, ports(1000, 53)),
		Datagram(false, kernel.ProtoUDP, ports(1001, 53)), Datagram(true, kernel.ProtoUDP, ports(1001, 53)),
		Datagram(false, kernel.ProtoUDP, ports(1000, 54)), Datagram(true, kernel.ProtoUDP, ports(1000, 54)),
		Datagram(false, kernel.ProtoUDP, back), Datagram(true, kernel.ProtoUDP, back),
		Datagram(false, kernel.ProtoSCTP, ports(1000, 53)), Datagram(true, kernel.ProtoSCTP, ports(1000, 53)),
		Datagram(false, kernel.ProtoICMP, func(p *kernel.Packet) { p.ICMPType, p.ICMPID = 0, 7 }),
		Datagram(true, kernel.ProtoICMPv6, func(p *kernel.Packet) { p.ICMPType, p.ICMPID = 129, 7 }),
	}
}

func tracesWhatMatches(t *testing.T, w TracerWorld) {
	from4, to6 := PacketsFrom[0], PacketsTo[1]
	for _, tt := range []struct {
		name   string
		filter kernel.TraceFilter
		picked int
	}{
		{"source", kernel.TraceFilter{Src: from4}, 5},
		{"destination", kernel.TraceFilter{Dst: to6}, 5},
		{"both addresses", kernel.TraceFilter{Src: PacketsFrom[1], Dst: to6}, 5},
		{"protocol", kernel.TraceFilter{Protocol: kernel.ProtoUDP}, 8},
		{"ICMP and its source", kernel.TraceFilter{Src: from4, Protocol: kernel.ProtoICMP}, 1},
		{"ICMPv6 and its destination", kernel.TraceFilter{Protocol: kernel.ProtoICMPv6, Dst: to6}, 1},
		{"source port", kernel.TraceFilter{Protocol: kernel.ProtoUDP, SrcPort: 1000}, 4},
		{"destination port", kernel.TraceFilter{Protocol: kernel.ProtoUDP, DstPort: 53}, 4},
		{"port of SCTP", kernel.TraceFilter{Protocol: kernel.ProtoSCTP, DstPort: 53}, 2},
		{"all of it", kernel.TraceFilter{Src: from4, Dst: PacketsTo[0], Protocol: kernel.ProtoUDP, SrcPort: 1000, DstPort: 53}, 1},
		{"and what comes back", kernel.TraceFilter{Src: from4, Dst: PacketsTo[0], Protocol: kernel.ProtoUDP, SrcPort: 1000, DstPort: 53, Replies: true}, 2},
		{"a mark that none has", kernel.TraceFilter{Dst: to6, Mark: 5}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := Trace(t, w, tt.filter)
			var want []kernel.TraceEvent
			for _, p := range tracedPackets() {
				w.Send(t, p)
				if !tt.filter.Matches(p, 0) {
					continue
				}
				n := uint64(len(want))
				want = append(want,
					kernel.TraceEvent{Kind: kernel.TraceSeen, Packet: n + 1, Hook: kernel.HookOutput, OutLink: "lo", Headers: p},
					kernel.TraceEvent{Kind: kernel.TraceSeen, Packet: n + 2, Hook: kernel.HookPrerouting, InLink: "lo", Headers: p})
			}
			if len(want) != 2*tt.picked {
				t.Fatalf("the filter matches %d packets, want %d", len(want)/2, tt.picked)
			}
			var got []kernel.TraceEvent
			for range want {
				got = append(got, tr.Next())
			}
			tr.End()
			if len(tr.told) > 0 {
				t.Errorf("more is told: %+v", <-tr.told)
			}
			if d := cmp.Diff(want, got, cmpopts.IgnoreFields(kernel.TraceEvent{}, "Time"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Errorf("told (-want +got):\n%s", d)
			}
		})
	}
}

func tracesOneAtATime(t *testing.T, w TracerWorld) {
	filter := kernel.TraceFilter{Dst: PacketsTo[1]}
	tr := Trace(t, w, filter)
	err := w.Trace(t.Context(), filter, func(kernel.TraceEvent) { t.Error("told something") })
	if !errors.Is(err, kernel.ErrBusy) {
		t.Errorf("a second trace: %v, want ErrBusy", err)
	}
	w.Send(t, tracedPackets()[1])
	if e := tr.Next(); e.Kind != kernel.TraceSeen {
		t.Errorf("told %+v", e)
	}
	tr.End()
	Trace(t, w, filter)
}

func refusesFilters(t *testing.T, w TracerWorld) {
	four, six := PacketsFrom[0], PacketsFrom[1]
	for name, filter := range map[string]kernel.TraceFilter{
		"nothing":                {},
		"replies to nothing":     {Replies: true},
		"two families":           {Src: four, Dst: six},
		"a port of ICMP":         {Protocol: kernel.ProtoICMP, DstPort: 1},
		"a port of no protocol":  {Dst: four, SrcPort: 1},
		"an address in IPv6":     {Dst: netip.AddrFrom16(four.As16())},
		"an address with a zone": {Dst: netip.MustParseAddr("fe80::1%east")},
	} {
		if err := w.Trace(t.Context(), filter, func(kernel.TraceEvent) { t.Error("told something") }); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", name, err)
		}
	}
	if slices.ContainsFunc([]kernel.TraceFilter{{Dst: six}, {Mark: 1}, {Protocol: 1}}, func(f kernel.TraceFilter) bool { return f.Check() != nil }) {
		t.Error("a good filter is refused")
	}
}
