package kernel_test

import (
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// Connect puts an entry into the fake's table of connections.
func (w fakeWorld) Connect(_ testing.TB, c kernel.Connection) { w.AddConnection(c) }

func TestFakeConntrackPassesTheSuite(t *testing.T) {
	kerneltest.RunConntrack(t, func(*testing.T) kerneltest.ConntrackWorld { return fakeWorld{kernel.NewFake()} })
}
