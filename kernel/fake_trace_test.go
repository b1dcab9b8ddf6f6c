package kernel_test

import (
	"errors"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// Send lets a packet leave the fake and come back.
func (w fakeWorld) Send(_ testing.TB, p kernel.Packet) {
	w.TracePacket(kernel.TraceEvent{Hook: kernel.HookOutput, OutLink: "lo", Headers: p})
	w.TracePacket(kernel.TraceEvent{Hook: kernel.HookPrerouting, InLink: "lo", Headers: p})
}

func TestFakeTracerPassesTheSuite(t *testing.T) {
	kerneltest.RunTracer(t, func(*testing.T) kerneltest.TracerWorld { return fakeWorld{kernel.NewFake()} })
}

// TestFakeTracesRules follows a packet through rules that the test says.
func TestFakeTracesRules(t *testing.T) {
	f := kernel.NewFake()
	p := kerneltest.Datagram(true, kernel.ProtoUDP, nil)
	tr := kerneltest.Trace(t, f, kernel.TraceFilter{Mark: 7})
	f.TracePacket(kernel.TraceEvent{Headers: p})
	f.TracePacket(kernel.TraceEvent{Headers: p, Mark: 7}, kernel.TraceEvent{Kind: kernel.TraceRule, Chain: "it", Verdict: kernel.Drop})
	for _, want := range []kernel.TraceEvent{
		{Kind: kernel.TraceSeen, Packet: 1, Headers: p, Mark: 7},
		{Kind: kernel.TraceRule, Packet: 1, Chain: "it", Verdict: kernel.Drop},
	} {
		if got := tr.Next(); got != want {
			t.Errorf("told %+v, want %+v", got, want)
		}
	}
	tr.End()
	f.Fail("trace", nil, syscall.EIO)
	if err := f.Trace(t.Context(), kernel.TraceFilter{Mark: 7}, nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("Trace: %v, want the fault", err)
	}
}
