package gobgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"cairn.network/cairn/bgp"
)

// counts remembers how many routes of a peer are let in: GoBGP counts those that
// the import policy refuses as accepted, and going through all of them is not for
// each look at the status.
type counts struct {
	updates uint64 // messages received when this was counted
	set     bgp.PrefixSet
	sure    bool // counted a second time: the messages may be ahead of the table
	ipv4    uint64
	ipv6    uint64
}

// Sessions is bgp.Speaker's.
func (s *Speaker) Sessions(ctx context.Context) (map[netip.Addr]bgp.Session, error) {
	out := map[netip.Addr]bgp.Session{}
	i := s.running.Load()
	if i == nil {
		return out, nil
	}
	told := map[netip.Addr]*api.Peer{}
	err := i.server.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		if addr, err := netip.ParseAddr(p.GetState().GetNeighborAddress()); err == nil {
			told[addr] = p
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list peers: %w", err)
	}
	for addr, p := range i.snapshotPeers() {
		want := p.settings()
		session := bgp.Session{Peer: addr, AS: want.AS, External: want.External(i.config.AS)}
		p.session.fill(&session)
		if t := told[addr]; t != nil && session.State == bgp.Established {
			if err := i.count(p, t, &session); err != nil {
				return nil, err
			}
		}
		out[addr] = session
	}
	return out, nil
}

// count fills in the numbers of an established session.
func (i *instance) count(p *peer, told *api.Peer, out *bgp.Session) error {
	var refused bool // a loop
	for _, a := range told.GetAfiSafis() {
		c := i.counter(out, a.GetConfig().GetFamily())
		c.Received = a.GetState().GetReceived()
		refused = refused || a.GetState().GetAccepted() != c.Received
		if !told.GetGracefulRestart().GetLocalRestarting() {
			c.Advertised = i.advertised(p, a.GetConfig().GetFamily().GetAfi())
		}
	}
	n, err := i.accepted(p, told.GetState().GetMessages().GetReceived().GetUpdate(), refused)
	if err != nil {
		return err
	}
	out.IPv4.Accepted, out.IPv6.Accepted = min(n.ipv4, out.IPv4.Received), min(n.ipv6, out.IPv6.Received)
	return nil
}

func (i *instance) counter(s *bgp.Session, f *api.Family) *bgp.Count {
	if f.GetAfi() == api.Family_AFI_IP6 {
		return &s.IPv6
	}
	return &s.IPv4
}

// advertised counts what the peer was told: the own paths of the family, less
// those that lost to a learned one, or whose next hop the session can't offer.
func (i *instance) advertised(p *peer, afi api.Family_Afi) (n uint64) {
	family := bgp.IPv4
	if afi == api.Family_AFI_IP6 {
		family = bgp.IPv6
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for prefix, path := range i.paths {
		tellable := path.NextHop.IsValid() || family == bgp.FamilyOf(p.addr)
		if bgp.FamilyOf(prefix.Addr()) == family && tellable && !i.rib.hides(prefix) {
			n++
		}
	}
	return n
}

// accepted counts the peer's routes that its Import lets in.
func (i *instance) accepted(p *peer, updates uint64, loops bool) (counts, error) {
	p.mu.Lock()
	want, prefixes := p.want, p.prefixes
	p.mu.Unlock()
	p.session.mu.Lock()
	n := p.session.counts
	p.session.mu.Unlock()
	same := n.updates == updates && n.set == want.Import
	if same && n.sure {
		return n, nil
	}
	n = counts{updates: updates, set: want.Import, sure: same}
	for family, on := range map[packet.Family]bool{packet.RF_IPv4_UC: want.IPv4, packet.RF_IPv6_UC: want.IPv6} {
		if !on {
			continue
		}
		sum := &n.ipv4
		if family == packet.RF_IPv6_UC {
			sum = &n.ipv6
		}
		err := i.server.ListPath(apiutil.ListPathRequest{
			TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: p.addr.String(), Family: family,
		}, func(nlri packet.NLRI, paths []*apiutil.Path) {
			for _, path := range paths {
				prefix, ok := prefixOf(path)
				if ok && covered(prefixes, prefix) && !(loops && looped(path, i.config)) {
					*sum++
				}
			}
		})
		if err != nil {
			return n, fmt.Errorf("list routes of %v: %w", p.addr, err)
		}
	}
	p.session.mu.Lock()
	p.session.counts = n
	p.session.mu.Unlock()
	return n, nil
}

func covered(by []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(by, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
}
