package kerneltest

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"cairn.network/cairn/kernel"
)

// ProberWorld is a host with the addresses of PacketsFrom and PacketsTo, and a pod that
// has those of ProbesFrom and reaches them.
type ProberWorld interface {
	kernel.Prober
	// Pod is the path of the pod's network namespace.
	Pod() string
	// Listen has the host answer TCP and UDP on a port of all its addresses. It answers
	// echo requests in any case, and refuses other ports.
	Listen(t testing.TB, port uint16)
	// Silence has the host drop UDP to a port.
	Silence(t testing.TB, port uint16)
}

// ProbesFrom are the pod's addresses, one a family.
var ProbesFrom = []netip.Addr{netip.MustParseAddr("10.9.1.2"), netip.MustParseAddr("fd00:91::2")}

// RunProber runs the suite of what sends packets.
func RunProber(t *testing.T, newWorld func(t *testing.T) ProberWorld) {
	w := newWorld(t)
	const open, closed, silent = 8000, 8001, 8002
	w.Listen(t, open)
	w.Silence(t, silent)
	for family := range ProbesFrom {
		icmp := uint8(kernel.ProtoICMP)
		if family == 1 {
			icmp = kernel.ProtoICMPv6
		}
		for _, tt := range []struct {
			name     string
			protocol uint8
			port     uint16
			want     kernel.Answer
		}{
			{"TCP, open", kernel.ProtoTCP, open, kernel.Answered},
			{"TCP, closed", kernel.ProtoTCP, closed, kernel.Refused},
			{"UDP, open", kernel.ProtoUDP, open, kernel.Answered},
			{"UDP, closed", kernel.ProtoUDP, closed, kernel.Refused},
			{"UDP, silence", kernel.ProtoUDP, silent, kernel.NoAnswer},
			{"echo", icmp, 0, kernel.Answered},
		} {
			for from, src := range map[string]netip.Addr{w.Pod(): ProbesFrom[family], "": PacketsFrom[family]} {
				t.Run(tt.name+" "+src.String(), func(t *testing.T) {
					patience := patience
					if tt.want == kernel.NoAnswer {
						patience = 100 * time.Millisecond
					}
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					p := kernel.Packet{Src: src, Dst: PacketsTo[family], Protocol: tt.protocol, ICMPID: 77}
					if tt.port != 0 {
						p.SrcPort, p.DstPort = 40000, tt.port
					}
					if got, err := w.Send(ctx, from, p); err != nil || got != tt.want {
						t.Errorf("%q, %v, want %q", got, err, tt.want)
					}
				})
			}
		}
	}
	four, six := ProbesFrom[0], ProbesFrom[1]
	for name, p := range map[string]kernel.Packet{
		"no port":         {Src: four, Dst: PacketsTo[0], Protocol: kernel.ProtoTCP, SrcPort: 1},
		"two families":    {Src: four, Dst: PacketsTo[1], Protocol: kernel.ProtoUDP, SrcPort: 1, DstPort: 1},
		"no source":       {Dst: PacketsTo[1], Protocol: kernel.ProtoICMPv6},
		"another's ICMP":  {Src: six, Dst: PacketsTo[1], Protocol: kernel.ProtoICMP},
		"what is unknown": {Src: six, Dst: PacketsTo[1], Protocol: kernel.ProtoSCTP, SrcPort: 1, DstPort: 1},
	} {
		if _, err := w.Send(t.Context(), "", p); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", name, err)
		}
	}
}
