package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of the protocol.
const (
	maxRestartTime = 4095 * time.Second  // 12 bits (RFC 4724 3)
	maxHoldTime    = 65535 * time.Second // 16 bits (RFC 4271 4.2)
	minHoldTime    = 3 * time.Second
)

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	switch {
	case c.AS == 0:
		return errors.New("the AS number is missing")
	case !c.RouterID.Is4() || c.RouterID.IsUnspecified():
		return fmt.Errorf("the router ID must be an IPv4 address, not %v", c.RouterID)
	case c.Port == 0 && c.Listen != Addrs():
		return errors.New("the port to listen on is missing")
	case c.Deferral < 0:
		return fmt.Errorf("the deferral is negative: %v", c.Deferral)
	}
	return nil
}

// Validate says what is wrong with the peer at addr.
func (p Peer) Validate(addr netip.Addr) error {
	switch {
	case !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr.Is4In6():
		return errors.New("not an address to have a session with")
	case !p.Local.IsValid():
		return errors.New("the own address of the session is missing")
	case FamilyOf(p.Local) != FamilyOf(addr):
		return fmt.Errorf("the own address %v is of the other family", p.Local)
	case p.Local == addr:
		return errors.New("is the own address of the session, too")
	case p.AS == 0:
		return errors.New("the AS number is missing")
	case p.Port == 0:
		return errors.New("the port is missing")
	case !p.IPv4 && !p.IPv6:
		return errors.New("no family to exchange")
	case !seconds(p.RestartTime, 0, maxRestartTime):
		return fmt.Errorf("the restart time must be whole seconds up to %v, not %v", maxRestartTime, p.RestartTime)
	case p.HoldTime != 0 && !seconds(p.HoldTime, minHoldTime, maxHoldTime):
		return fmt.Errorf("the hold time must be whole seconds from %v to %v, not %v", minHoldTime, maxHoldTime, p.HoldTime)
	}
	return nil
}

// Validate says what is wrong with the path to prefix.
func (p Path) Validate(prefix netip.Prefix) error {
	if !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
		return errors.New("not a prefix to advertise")
	}
	if p.NextHop.IsValid() && FamilyOf(p.NextHop) != FamilyOf(prefix.Addr()) {
		return fmt.Errorf("the next hop %v is of the other family", p.NextHop)
	}
	_, err := ParseCommunities(p.Communities)
	return err
}

func seconds(d, least, most time.Duration) bool {
	return d%time.Second == 0 && least <= d && d <= most
}

// ParseCommunities returns the numbers of communities "aa:nn" joined by blanks
// (RFC 1997).
func ParseCommunities(text string) ([]uint32, error) {
	var cs []uint32
	for _, f := range strings.Fields(text) {
		a, b, ok := strings.Cut(f, ":")
		high, err1 := strconv.ParseUint(a, 10, 16)
		low, err2 := strconv.ParseUint(b, 10, 16)
		if !ok || err1 != nil || err2 != nil {
			return nil, fmt.Errorf("not a community: %q", f)
		}
		cs = append(cs, uint32(high)<<16|uint32(low))
	}
	return cs, nil
}

// Communities returns the canonical text of these communities, as in Path.
func Communities(cs ...uint32) string {
	cs = slices.Clone(cs)
	slices.Sort(cs)
	cs = slices.Compact(cs)
	parts := make([]string, len(cs))
	for i, c := range cs {
		parts[i] = fmt.Sprintf("%d:%d", c>>16, c&0xffff)
	}
	return strings.Join(parts, " ")
}
