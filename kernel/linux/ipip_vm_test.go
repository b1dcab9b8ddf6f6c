//go:build linux

package linux

import (
	"net"
	"net/netip"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/linux/needs"
)

// TestTunl0VM shows that tunl0, which the kernel makes in each namespace, can be
// set up like any link.
func TestTunl0VM(t *testing.T) {
	needs.Link(t, "ipip")
	w := newWorld(t)
	w.SetUp(t, "tunl0", true)
	w.AddAddr(t, kernel.Addr{Link: "tunl0", Prefix: netip.MustParsePrefix("10.244.0.1/32")})
	if l := w.link(t, "tunl0"); l.Type() != "ipip" || l.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("tunl0 is a link of type %s with flags %v", l.Type(), l.Attrs().Flags)
	}
}
