package gobgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"cairn.network/cairn/bgp"
)

// instance is GoBGP's server for one configuration; a server can't be started
// twice.
type instance struct {
	config  bgp.Config
	server  *server.BgpServer
	lever   lever
	deliver chan<- net.Conn
	rib     *rib
	notify  func()
	silent  *atomic.Bool // nothing more to log

	ctx    context.Context // ends with the instance
	cancel context.CancelFunc
	wg     sync.WaitGroup // connectors and the deferral

	mu       sync.Mutex
	peers    map[netip.Addr]*peer
	paths    map[netip.Prefix]bgp.Path
	written  bool // peers have been written once
	deferred bool // the peers' time is over
}

// newInstance starts a server without peers and paths.
func newInstance(ctx context.Context, cfg bgp.Config, log *slog.Logger, notify func()) (*instance, error) {
	silent := new(atomic.Bool)
	s := server.NewBgpServer(server.LoggerOption(newLogger(log, silent), nil))
	l, deliver, err := newLever(s)
	if err != nil {
		return nil, err
	}
	i := &instance{
		config: cfg, server: s, lever: l, deliver: deliver, rib: newRIB(cfg.AS), notify: notify, silent: silent,
		peers: map[netip.Addr]*peer{}, paths: map[netip.Prefix]bgp.Path{},
	}
	i.ctx, i.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go s.Serve()
	if err := i.launch(ctx); err != nil {
		return nil, errors.Join(err, i.stop(ctx, false))
	}
	return i, nil
}

func (i *instance) launch(ctx context.Context) error {
	err := i.server.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn:              i.config.AS,
		RouterId:         i.config.RouterID.String(),
		ListenPort:       -1,             // we listen
		Families:         []uint32{0, 1}, // GoBGP's numbers of IPv4 and IPv6 unicast; without any it makes tables for all it knows
		UseMultiplePaths: true,
	}})
	if err != nil {
		return fmt.Errorf("start GoBGP: %w", err)
	}
	if err := i.assignPolicies(ctx); err != nil {
		return err
	}
	// One watcher for all, so that events come in the order in which they happened.
	err = i.server.WatchEvent(i.ctx, server.WatchEventMessageCallbacks{
		OnBestPath:   i.onBestPath,
		OnPathEor:    i.onEndOfRIB,
		OnPeerUpdate: i.onPeer,
	}, server.WatchBestPath(true), server.WatchEor(true), server.WatchPeer())
	if err != nil {
		return fmt.Errorf("watch GoBGP: %w", err)
	}
	return nil
}

// stop ends the server and waits for what it started.
func (i *instance) stop(ctx context.Context, graceful bool) error {
	i.cancel() // watchers and connectors; a watcher that outlives the server is leaked
	i.wg.Wait()
	var drains []func()
	for addr := range i.snapshotPeers() {
		drains = append(drains, i.lever.drain(addr))
	}
	err := i.server.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: graceful})
	if err == nil {
		for _, drain := range drains {
			drain()
		}
	}
	i.silent.Store(true) // StopBgp leaves the BFD server running; Stop ends it, and complains that the rest has stopped
	i.server.Stop()
	if err != nil {
		return fmt.Errorf("stop GoBGP: %w", err)
	}
	return nil
}

func (i *instance) onBestPath(paths []*apiutil.Path, _ time.Time) {
	if i.rib.update(paths) {
		i.notify()
	}
}

func (i *instance) onEndOfRIB(p *apiutil.Path, _ time.Time) {
	if peer := i.peer(p.PeerAddress); peer != nil {
		peer.endOfRIB(p.Family)
		i.settle()
	}
}

func (i *instance) onPeer(ev *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
	if ev.Type != apiutil.PEER_EVENT_STATE {
		return
	}
	state := ev.Peer.State
	peer := i.peer(state.NeighborAddress)
	if peer == nil {
		return
	}
	to := states[state.SessionState]
	if to == bgp.Established {
		peer.established(state.RemoteCap)
	}
	if peer.session.enter(to, state.DisconnectMessage) {
		i.notify()
	}
	i.settle()
}

// states maps GoBGP's to ours.
var states = map[packet.FSMState]bgp.State{
	packet.BGP_FSM_IDLE:        bgp.Idle,
	packet.BGP_FSM_CONNECT:     bgp.Connect,
	packet.BGP_FSM_ACTIVE:      bgp.Active,
	packet.BGP_FSM_OPENSENT:    bgp.OpenSent,
	packet.BGP_FSM_OPENCONFIRM: bgp.OpenConfirm,
	packet.BGP_FSM_ESTABLISHED: bgp.Established,
}

// peer returns the peer of that address, or nil.
func (i *instance) peer(addr netip.Addr) *peer {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.peers[addr.Unmap()]
}

func (i *instance) snapshotPeers() map[netip.Addr]*peer {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.peers)
}

// settle makes the RIB complete when it is.
func (i *instance) settle() {
	if i.rib.finished() {
		return
	}
	i.mu.Lock()
	done := i.written
	for _, p := range i.peers {
		done = done && (i.deferred || p.synced())
	}
	i.mu.Unlock()
	if done && i.rib.finish() {
		i.notify()
	}
}

// startDeferral gives the peers their time, from their first write on. over is
// called at its end.
func (i *instance) startDeferral(over func()) {
	i.mu.Lock()
	first := !i.written
	i.written = true
	i.mu.Unlock()
	if !first {
		return
	}
	i.wg.Go(func() {
		t := time.NewTimer(i.deferral())
		defer t.Stop()
		select {
		case <-i.ctx.Done():
		case <-t.C:
			go over() // it takes the speaker's lock, which who waits for us holds
		}
	})
}

func (i *instance) deferral() time.Duration {
	if i.config.Deferral == 0 {
		return bgp.DefaultDeferral
	}
	return i.config.Deferral
}
