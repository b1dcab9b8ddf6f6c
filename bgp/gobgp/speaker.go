// Package gobgp is the driver of bgp.Speaker over GoBGP, in this process.
//
// It guarantees what bgp.Speaker says, and that nothing but the addresses of
// Config.Listen is listened on: GoBGP's gRPC server stays off. It opens and
// accepts all connections itself (lever says why) and leaves the protocol, the
// best path and graceful restart to GoBGP. One process should run one speaker:
// GoBGP keeps the switch for multipath in a package variable, which each start
// writes.
//
// Two limits of GoBGP v4.8 show. The forwarding bit of graceful restart is set
// only while Config.Restarting, so a peer other than GoBGP drops our routes for
// a moment when a session breaks and returns without a restart. And next hops
// are not looked up in the kernel: whoever reads the RIB resolves them.
package gobgp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// Speaker is a bgp.Speaker. Its methods may be called by several goroutines.
type Speaker struct {
	log     *slog.Logger
	changed chan struct{}
	running atomic.Pointer[instance] // nil: no configuration

	mu        sync.Mutex // held by whoever writes
	listeners listeners
}

var _ bgp.Speaker = (*Speaker)(nil)

// New returns a speaker without a configuration. It starts nothing. What GoBGP
// has to say goes to log, most of it for debugging.
func New(log *slog.Logger) *Speaker {
	s := &Speaker{log: log, changed: make(chan struct{}, 1)}
	s.listeners = listeners{open: map[netip.AddrPort]net.Listener{}, hand: s.handOver}
	return s
}

// Config is bgp.Speaker's.
func (s *Speaker) Config() kernel.Table[struct{}, bgp.Config] { return configTable{s} }

// Peers is bgp.Speaker's.
func (s *Speaker) Peers() kernel.Table[netip.Addr, bgp.Peer] { return peerTable{s} }

// Paths is bgp.Speaker's.
func (s *Speaker) Paths() kernel.Table[netip.Prefix, bgp.Path] { return pathTable{s} }

// Changed is bgp.Speaker's.
func (s *Speaker) Changed() <-chan struct{} { return s.changed }

// RIB is bgp.Speaker's.
func (s *Speaker) RIB() *bgp.RIB {
	if i := s.running.Load(); i != nil {
		return i.rib.take()
	}
	return &bgp.RIB{}
}

// Stop is bgp.Speaker's. It returns when no goroutine and no socket is left.
func (s *Speaker) Stop(ctx context.Context, graceful bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.halt(ctx, graceful)
	s.listeners.close()
	return err
}

// halt stops what runs; the sockets stay open.
func (s *Speaker) halt(ctx context.Context, graceful bool) error {
	i := s.running.Swap(nil)
	if i == nil {
		return nil
	}
	defer s.notify()
	return i.stop(ctx, graceful)
}

func (s *Speaker) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// handOver gives an accepted connection to the connector of its peer.
func (s *Speaker) handOver(c *net.TCPConn) {
	remote := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	local := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if i := s.running.Load(); i != nil {
		if p := i.peer(remote); p != nil && p.settings().Local == local {
			select {
			case p.connector.accepted <- c:
				return
			default:
			}
		}
	}
	_ = c.Close()
}

// configTable is the table of Config.
type configTable struct{ *Speaker }

// Read is kernel.Table's.
func (t configTable) Read(context.Context) (map[struct{}]bgp.Config, error) {
	out := map[struct{}]bgp.Config{}
	if i := t.running.Load(); i != nil {
		out[struct{}{}] = i.config
	}
	return out, nil
}

// Write is kernel.Table's.
func (t configTable) Write(ctx context.Context, set map[struct{}]bgp.Config, del []struct{}) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if cfg, ok := set[struct{}{}]; ok {
		if err := t.start(ctx, cfg); err != nil {
			return &kernel.KeyError[struct{}]{Op: "set", Err: err}
		}
		return nil
	}
	if len(del) == 0 {
		return nil
	}
	err := t.halt(ctx, false)
	t.listeners.close()
	if err != nil {
		return &kernel.KeyError[struct{}]{Op: "delete", Err: err}
	}
	return nil
}

// start makes cfg the configuration. What runs goes on if cfg can't be had.
func (s *Speaker) start(ctx context.Context, cfg bgp.Config) error {
	if i := s.running.Load(); i != nil && i.config == cfg {
		return nil
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	added, err := s.listeners.add(ctx, cfg)
	if err != nil {
		return err
	}
	if err := s.halt(ctx, false); err != nil {
		s.log.Error("stop BGP before a change of its configuration", "error", err)
	}
	i, err := newInstance(ctx, cfg, s.log, s.notify)
	if err != nil {
		for _, l := range added {
			l.Close()
		}
		return err
	}
	s.running.Store(i)
	s.listeners.keep(cfg, added)
	s.notify()
	return nil
}
