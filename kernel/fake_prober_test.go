package kernel_test

import (
	"errors"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// proberFake answers as a host does that has nothing but what the suite asks for.
type proberFake struct {
	*kernel.Fake
	open, silent map[uint16]bool
}

func (w proberFake) Pod() string                       { return "/fake/netns" }
func (w proberFake) Listen(_ testing.TB, port uint16)  { w.open[port] = true }
func (w proberFake) Silence(_ testing.TB, port uint16) { w.silent[port] = true }

func TestFakeProberPassesTheSuite(t *testing.T) {
	kerneltest.RunProber(t, func(*testing.T) kerneltest.ProberWorld {
		w := proberFake{kernel.NewFake(), map[uint16]bool{}, map[uint16]bool{}}
		w.OnSend(func(_ string, p kernel.Packet) kernel.Answer {
			switch {
			case p.DstPort == 0 || w.open[p.DstPort]:
				return kernel.Answered
			case w.silent[p.DstPort]:
				return kernel.NoAnswer
			}
			return kernel.Refused
		})
		return w
	})
}

func TestFakeProberFails(t *testing.T) {
	f := kernel.NewFake()
	f.Fail("send", "/pod", syscall.EPERM)
	p := kernel.Packet{Src: kerneltest.PacketsFrom[0], Dst: kerneltest.PacketsTo[0], Protocol: kernel.ProtoICMP}
	if _, err := f.Send(t.Context(), "/pod", p); !errors.Is(err, syscall.EPERM) {
		t.Errorf("Send: %v, want the fault", err)
	}
}
