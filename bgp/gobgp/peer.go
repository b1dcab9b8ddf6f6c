package gobgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"cairn.network/cairn/bgp"
)

// peer is a neighbour of a running instance.
type peer struct {
	addr      netip.Addr
	session   *session
	connector *connector
	stop      context.CancelFunc // of the connector
	stopped   chan struct{}

	mu        sync.Mutex
	want      bgp.Peer
	prefixes  []netip.Prefix         // of want.Import
	restarted bool                   // GoBGP tells it that we restarted
	awaited   map[packet.Family]bool // families without an End-of-RIB; nil: not Established, or it sends none
}

func (p *peer) settings() bgp.Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.want
}

// adopt takes over settings that GoBGP need not know.
func (p *peer) adopt(want bgp.Peer) {
	p.mu.Lock()
	p.want, p.prefixes = want, want.Import.List()
	p.mu.Unlock()
	select {
	case p.connector.wake <- struct{}{}:
	default:
	}
}

// established notes what the peer's End-of-RIB are awaited for. A peer without
// graceful restart promises none.
func (p *peer) established(caps []packet.ParameterCapabilityInterface) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awaited = nil
	common, restarts := map[packet.Family]bool{}, false
	for _, c := range caps {
		switch c := c.(type) {
		case *packet.CapMultiProtocol:
			v4 := p.want.IPv4 && c.CapValue == packet.RF_IPv4_UC
			v6 := p.want.IPv6 && c.CapValue == packet.RF_IPv6_UC
			if v4 || v6 {
				common[c.CapValue] = true
			}
		case *packet.CapGracefulRestart:
			restarts = p.want.Graceful
		}
	}
	if restarts {
		p.awaited = common
	}
}

func (p *peer) endOfRIB(f packet.Family) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.awaited, f)
}

// synced says whether the peer has told all it had when the session began.
func (p *peer) synced() bool {
	state, _, _ := p.session.watch()
	p.mu.Lock()
	defer p.mu.Unlock()
	return state == bgp.Established && p.awaited != nil && len(p.awaited) == 0
}

// neighbour returns a peer as GoBGP wants it.
func (i *instance) neighbour(addr netip.Addr, p bgp.Peer, restarting bool) *api.Peer {
	hold := p.HoldTime
	if hold == 0 {
		hold = bgp.DefaultHoldTime
	}
	n := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: addr.String(), PeerAsn: p.AS},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: uint64(hold / time.Second), KeepaliveInterval: uint64(hold / time.Second / 3),
		}},
		// Passive always: the connector connects.
		Transport: &api.Transport{LocalAddress: p.Local.String(), RemotePort: uint32(p.Port), PassiveMode: true},
		// Nodes of other racks are routers away.
		EbgpMultihop: &api.EbgpMultihop{Enabled: true, MultihopTtl: 255},
	}
	if p.Graceful {
		restart := p.RestartTime
		if restart == 0 {
			restart = bgp.DefaultRestartTime
		}
		n.GracefulRestart = &api.GracefulRestart{
			Enabled:         true,
			RestartTime:     uint32(restart / time.Second),
			DeferralTime:    uint32((i.deferral() + time.Second - 1) / time.Second),
			LocalRestarting: restarting,
		}
	}
	for _, f := range []struct {
		on  bool
		afi api.Family_Afi
	}{{p.IPv4, api.Family_AFI_IP}, {p.IPv6, api.Family_AFI_IP6}} {
		if f.on {
			n.AfiSafis = append(n.AfiSafis, &api.AfiSafi{
				Config:            &api.AfiSafiConfig{Family: &api.Family{Afi: f.afi, Safi: api.Family_SAFI_UNICAST}, Enabled: true},
				MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: p.Graceful}},
			})
		}
	}
	return n
}

// add makes a new peer. session is that of its predecessor, if there was one.
func (i *instance) add(addr netip.Addr, want bgp.Peer, s *session) error {
	restarting := false
	if s == nil {
		// Who had a session in this life of ours knows that we are back.
		s, restarting = newSession(), i.config.Restarting && want.Graceful && !i.over()
	}
	ctx, stop := context.WithCancel(i.ctx)
	p := &peer{
		addr: addr, session: s, stop: stop, stopped: make(chan struct{}),
		want: want, prefixes: want.Import.List(), restarted: restarting,
	}
	p.connector = &connector{
		addr: addr, session: s, settings: p.settings, ready: i.lever.skipIdleHold, deliver: i.deliver,
		accepted: make(chan *net.TCPConn, 4), wake: make(chan struct{}, 1),
		failed: func(why string) {
			if s.failed(why) {
				i.notify()
			}
		},
	}
	i.mu.Lock()
	i.peers[addr] = p
	i.mu.Unlock()
	if err := i.server.AddPeer(ctx, &api.AddPeerRequest{Peer: i.neighbour(addr, want, restarting)}); err != nil {
		stop()
		i.mu.Lock()
		delete(i.peers, addr)
		i.mu.Unlock()
		return fmt.Errorf("add peer: %w", err)
	}
	i.wg.Go(func() {
		defer close(p.stopped)
		p.connector.run(ctx)
	})
	return nil
}

// remove ends a peer's session with a Cease.
func (i *instance) remove(ctx context.Context, p *peer) error {
	p.stop()
	<-p.stopped
	i.mu.Lock()
	delete(i.peers, p.addr)
	i.mu.Unlock()
	drain := i.lever.drain(p.addr)
	if err := i.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.addr.String()}); err != nil {
		return fmt.Errorf("delete peer: %w", err)
	}
	drain()
	return nil
}

// replace gives a peer a new session with other settings.
func (i *instance) replace(ctx context.Context, p *peer, want bgp.Peer) error {
	if err := i.remove(ctx, p); err != nil {
		return err
	}
	p.session.enter(bgp.Idle, "sent "+bgp.PeerDeconfigured.String())
	return i.add(p.addr, want, p.session)
}

// over says whether the peers' time is over.
func (i *instance) over() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.deferred || i.rib.finished()
}

// endDeferral ends the peers' time. Those that were to hear that we restarted
// and never came up are made anew: later it would no longer be true, and their
// End-of-RIB would be awaited for all the others'.
func (i *instance) endDeferral() {
	i.mu.Lock()
	i.deferred = true
	i.mu.Unlock()
	for _, p := range i.snapshotPeers() {
		if state, _, _ := p.session.watch(); p.restarted && state != bgp.Established {
			if err := i.replace(i.ctx, p, p.settings()); err != nil {
				p.session.failed(err.Error())
			}
		}
	}
	i.settle()
}
