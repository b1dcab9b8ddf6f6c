package gobgp

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"cairn.network/cairn/bgp"
)

// families are those that we exchange.
var families = map[bgp.Family]packet.Family{bgp.IPv4: packet.RF_IPv4_UC, bgp.IPv6: packet.RF_IPv6_UC}

// encode returns an own path as GoBGP wants it. An unspecified next hop stands
// for the address of each session.
func encode(prefix netip.Prefix, p bgp.Path) (*apiutil.Path, error) {
	if err := p.Validate(prefix); err != nil {
		return nil, err
	}
	family := bgp.FamilyOf(prefix.Addr())
	hop := p.NextHop
	switch {
	case hop.IsValid():
	case family == bgp.IPv4:
		hop = netip.IPv4Unspecified()
	default:
		hop = netip.IPv6Unspecified()
	}
	nlri, err := packet.NewIPAddrPrefix(prefix)
	if err != nil {
		return nil, err
	}
	attrs := []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(packet.BGP_ORIGIN_ATTR_TYPE_IGP)}
	if family == bgp.IPv4 {
		a, err := packet.NewPathAttributeNextHop(hop)
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, a)
	} else {
		a, err := packet.NewPathAttributeMpReachNLRI(families[family], []packet.PathNLRI{{NLRI: nlri}}, hop)
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, a)
	}
	if p.LocalPref != 0 {
		attrs = append(attrs, packet.NewPathAttributeLocalPref(p.LocalPref))
	}
	if p.Communities != "" {
		cs, err := bgp.ParseCommunities(p.Communities)
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, packet.NewPathAttributeCommunities(cs))
	}
	return &apiutil.Path{Family: families[family], Nlri: nlri, Attrs: attrs}, nil
}

// prefixOf returns the prefix of a path, if it is of a family that we exchange.
func prefixOf(p *apiutil.Path) (netip.Prefix, bool) {
	n, ok := p.Nlri.(*packet.IPAddrPrefix)
	if !ok {
		return netip.Prefix{}, false
	}
	return n.Prefix.Masked(), true
}

// decode returns a learned path as a value.
func decode(p *apiutil.Path, own uint32) bgp.LearnedPath {
	l := bgp.LearnedPath{Peer: p.PeerAddress.Unmap(), PeerAS: p.PeerASN, External: p.PeerASN != own}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *packet.PathAttributeNextHop:
			l.NextHop = a.Value
		case *packet.PathAttributeMpReachNLRI:
			l.NextHop = a.Nexthop
		case *packet.PathAttributeLocalPref:
			l.LocalPref = a.Value
		case *packet.PathAttributeAsPath:
			l.ASPath = asPath(a)
		case *packet.PathAttributeCommunities:
			l.Communities = bgp.Communities(a.Value...)
		}
	}
	return l
}

func asPath(a *packet.PathAttributeAsPath) string {
	var parts []string
	for _, segment := range a.Value {
		var as []string
		for _, n := range segment.GetAS() {
			as = append(as, strconv.FormatUint(uint64(n), 10))
		}
		switch segment.GetType() {
		case packet.BGP_ASPATH_ATTR_TYPE_SET, packet.BGP_ASPATH_ATTR_TYPE_CONFED_SET:
			parts = append(parts, "{"+strings.Join(as, ",")+"}")
		default:
			parts = append(parts, as...)
		}
	}
	return strings.Join(parts, " ")
}

// looped says whether GoBGP refuses a received path because it comes from us.
func looped(p *apiutil.Path, cfg bgp.Config) bool {
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *packet.PathAttributeAsPath:
			for _, segment := range a.Value {
				if slices.Contains(segment.GetAS(), cfg.AS) {
					return true
				}
			}
		case *packet.PathAttributeOriginatorId:
			if p.PeerASN == cfg.AS && a.Value == cfg.RouterID {
				return true
			}
		}
	}
	return false
}
