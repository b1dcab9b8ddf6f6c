package bgp_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/bgp/bgptest"
)

func world() bgptest.World {
	f := bgp.NewFabric()
	name := func(h bgptest.Host) string { return fmt.Sprint(h) }
	return bgptest.World{
		Start:  func(h bgptest.Host) bgp.Speaker { return f.Speaker(name(h), h.V4(), h.V6()) },
		Kill:   func(s bgp.Speaker) { s.(*bgp.FakeSpeaker).Kill() },
		Cut:    func(a, b bgptest.Host) { f.Cut(name(a), name(b)) },
		Heal:   func(a, b bgptest.Host) { f.Heal(name(a), name(b)) },
		Occupy: func(h bgptest.Host) func() { return f.Occupy(netip.AddrPortFrom(h.V4(), bgptest.Port)) },
	}
}

func TestFabric(t *testing.T) {
	bgptest.Run(t, func(t *testing.T, test func(*testing.T, bgptest.World)) {
		synctest.Test(t, func(t *testing.T) { test(t, world()) })
	})
}
