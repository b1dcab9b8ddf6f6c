package router

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.network/cairn/agent/reconcile"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// port is the TCP port of BGP.
const port = 179

// settle is how long a stop may take.
const settle = 5 * time.Second

// Drivers are a router's ways to the world: those of its network namespace.
type Drivers struct {
	Speaker bgp.Speaker
	Routes  kernel.Table[kernel.RouteKey, kernel.Route]
	Host    kernel.Watcher
}

// Run speaks BGP and keeps the kernel's routes as learned, until ctx is done;
// then it tells its peers so. The routes stay.
func Run(ctx context.Context, c Config, d Drivers, log *slog.Logger) error {
	speaker := reconcile.NewTracker("BGP speaker", d.Speaker.Config())
	paths := reconcile.NewTracker("BGP paths", d.Speaker.Paths())
	peers := reconcile.NewTracker("BGP peers", d.Speaker.Peers())
	routes := reconcile.NewTracker("routes", d.Routes)
	speaker.Voids(paths, peers)
	speaker.Want(immutable.Of(map[struct{}]bgp.Config{{}: {
		AS: c.AS, RouterID: c.routerID(), Listen: bgp.Addrs(c.Listen...), Port: port,
	}}), nil)
	paths.Want(immutable.Of(c.paths()), nil)
	peers.Want(immutable.Of(c.peers()), nil)

	var host atomic.Pointer[kernel.Host]
	wake := make(chan struct{}, 1)
	kick := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return d.Host.Watch(ctx, func(e kernel.Event) {
			for k, r := range e.Routes {
				routes.Observe(k, r)
			}
			if e.Overrun || len(e.Down) > 0 {
				routes.Doubt()
			}
			host.Store(e.Host)
			kick()
		})
	})
	group.Go(func() error {
		base, top := []reconcile.Step{routes}, []reconcile.Step{speaker, paths, peers}
		retry := time.NewTimer(0)
		defer retry.Stop()
		for {
			select {
			case <-ctx.Done():
				stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), settle)
				defer cancel()
				return d.Speaker.Stop(stop, false)
			case <-retry.C:
			case <-wake:
			case <-d.Speaker.Changed():
			}
			h := host.Load()
			if h == nil {
				continue
			}
			routes.Want(immutable.Of(learned(d.Speaker.RIB(), h)), nil)
			at, err := reconcile.Pass(ctx, base, top)
			if err != nil && ctx.Err() == nil {
				log.Error("not all is as it should be", "error", err)
			}
			if !at.IsZero() {
				retry.Reset(time.Until(at))
			}
		}
	})
	return group.Wait()
}

func (c Config) paths() map[netip.Prefix]bgp.Path {
	paths := map[netip.Prefix]bgp.Path{}
	for _, p := range c.Announce {
		paths[p] = bgp.Path{}
	}
	return paths
}

func (c Config) peers() map[netip.Addr]bgp.Peer {
	any := bgp.Prefixes(netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	peers := map[netip.Addr]bgp.Peer{}
	for _, s := range c.Sessions {
		peers[s.Addr] = bgp.Peer{
			AS: c.NodeAS, Port: port, Local: s.Local, IPv4: s.Addr.Is4(), IPv6: s.Addr.Is6(),
			Graceful: true, Import: any,
		}
	}
	return peers
}

// learned returns the routes of a RIB whose next hops are on the host's links;
// others have no way here.
func learned(rib *bgp.RIB, h *kernel.Host) map[kernel.RouteKey]kernel.Route {
	routes := map[kernel.RouteKey]kernel.Route{}
	for dst, paths := range rib.Routes {
		var hops []kernel.NextHop
		for _, p := range paths {
			if link, ok := linkTo(p.NextHop, h); ok {
				hops = append(hops, kernel.NextHop{Gateway: p.NextHop, Link: link})
			}
		}
		if len(hops) > 0 {
			k := kernel.RouteKey{Table: kernel.MainTable, Dst: dst, Priority: kernel.RoutePriority}
			routes[k] = kernel.Route{Hops: kernel.Hops(hops...)}
		}
	}
	return routes
}

// linkTo returns the link in whose subnet the address lies.
func linkTo(a netip.Addr, h *kernel.Host) (string, bool) {
	for own := range h.Addrs {
		if own.Prefix.Contains(a) && !own.Prefix.IsSingleIP() {
			return own.Link, true
		}
	}
	return "", false
}
