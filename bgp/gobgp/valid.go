package gobgp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"cairn.network/cairn/bgp"
)

// Limits of the protocol.
const (
	maxRestartTime = 4095 * time.Second  // 12 bits (RFC 4724 3)
	maxHoldTime    = 65535 * time.Second // 16 bits (RFC 4271 4.2)
	minHoldTime    = 3 * time.Second
)

func validConfig(cfg bgp.Config) error {
	switch {
	case cfg.AS == 0:
		return errors.New("the AS number is missing")
	case !cfg.RouterID.Is4() || cfg.RouterID.IsUnspecified():
		return fmt.Errorf("the router ID must be an IPv4 address, not %v", cfg.RouterID)
	case cfg.Port == 0 && cfg.Listen != bgp.Addrs():
		return errors.New("the port to listen on is missing")
	case !seconds(cfg.RestartTime, 0, maxRestartTime):
		return fmt.Errorf("the restart time must be whole seconds up to %v, not %v", maxRestartTime, cfg.RestartTime)
	case cfg.Deferral < 0:
		return fmt.Errorf("the deferral is negative: %v", cfg.Deferral)
	}
	return nil
}

func validPeer(addr netip.Addr, p bgp.Peer) error {
	switch {
	case !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr.Is4In6():
		return errors.New("not an address to have a session with")
	case !p.Local.IsValid():
		return errors.New("the own address of the session is missing")
	case bgp.FamilyOf(p.Local) != bgp.FamilyOf(addr):
		return fmt.Errorf("the own address %v is of the other family", p.Local)
	case p.Local == addr:
		return errors.New("is the own address of the session, too")
	case p.AS == 0:
		return errors.New("the AS number is missing")
	case p.Port == 0:
		return errors.New("the port is missing")
	case !p.IPv4 && !p.IPv6:
		return errors.New("no family to exchange")
	case p.HoldTime != 0 && !seconds(p.HoldTime, minHoldTime, maxHoldTime):
		return fmt.Errorf("the hold time must be whole seconds from %v to %v, not %v", minHoldTime, maxHoldTime, p.HoldTime)
	}
	return nil
}

func seconds(d, least, most time.Duration) bool {
	return d%time.Second == 0 && least <= d && d <= most
}
