package kernel_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

func TestFakeLookupPassesTheSuite(t *testing.T) {
	kerneltest.RunLookup(t, func(*testing.T) kerneltest.LookupWorld { return fakeWorld{kernel.NewFake()} })
}

func TestFakeLookupFails(t *testing.T) {
	f := kernel.NewFake()
	dst := netip.MustParseAddr("fd00::1")
	f.Fail("route", dst, syscall.EIO)
	if _, err := f.Route(t.Context(), kernel.RouteQuery{Dst: dst}); !errors.Is(err, syscall.EIO) {
		t.Errorf("Route: %v, want the fault", err)
	}
}
