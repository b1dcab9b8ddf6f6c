package kernel_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// Emit logs a packet of the fake's own.
func (w fakeWorld) Emit(_ testing.TB, group uint16, prefix string, p kernel.Packet) {
	w.LogPacket(kernel.LoggedPacket{Group: group, Prefix: prefix, OutLink: "lo", Hook: kernel.HookOutput, Packet: p})
}

func TestFakePacketLogPassesTheSuite(t *testing.T) {
	kerneltest.RunPacketLog(t, func(*testing.T) kerneltest.PacketLogWorld { return fakeWorld{kernel.NewFake()} })
}

// TestFakePacketLogLoses logs more than a follower takes that does not come back.
func TestFakePacketLogLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := kernel.NewFake()
		ctx, cancel := context.WithCancel(t.Context())
		goOn := make(chan struct{})
		var lost []uint64
		ended := make(chan error, 1)
		go func() {
			ended <- f.Follow(ctx, []uint16{1}, func(p kernel.LoggedPacket) {
				lost = append(lost, p.Lost)
				<-goOn
			})
		}()
		synctest.Wait()
		for range 1002 { // one is taken, 1000 wait, one is lost
			f.LogPacket(kernel.LoggedPacket{Group: 1})
			synctest.Wait()
		}
		close(goOn)
		synctest.Wait()
		f.LogPacket(kernel.LoggedPacket{Group: 1, Lost: 5})
		synctest.Wait()
		want := make([]uint64, 1002)
		want[1001] = 6
		if d := cmp.Diff(want, lost); d != "" {
			t.Errorf("lost (-want +got):\n%s", d)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		f.Fail("follow", uint16(1), syscall.EIO)
		if err := f.Follow(t.Context(), []uint16{1}, nil); !errors.Is(err, syscall.EIO) {
			t.Errorf("Follow: %v, want the fault", err)
		}
	})
}
