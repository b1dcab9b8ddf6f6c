package gobgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"cairn.network/cairn/bgp"
)

// keepAlive finds out that a peer's host is gone while no session is up; the
// hold timer does so later.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}
}

// listeners holds the sockets on which peers may connect. They outlive a change
// of the configuration that keeps their address.
type listeners struct {
	open map[netip.AddrPort]net.Listener
	hand func(*net.TCPConn) // called with each accepted connection
	wg   sync.WaitGroup
}

// add opens what cfg lists besides what is open already and returns the new
// ones, which don't accept yet. On an error it opens none.
func (l *listeners) add(ctx context.Context, cfg bgp.Config) (map[netip.AddrPort]net.Listener, error) {
	added := map[netip.AddrPort]net.Listener{}
	for _, addr := range cfg.Listen.List() {
		at := netip.AddrPortFrom(addr, cfg.Port)
		if _, ok := l.open[at]; ok {
			continue
		}
		lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
		lc.SetMultipathTCP(false)
		lis, err := lc.Listen(ctx, network(addr), at.String())
		if err != nil {
			for _, lis := range added {
				lis.Close()
			}
			return nil, fmt.Errorf("listen on %v: %s", at, osError(err))
		}
		added[at] = lis
	}
	return added, nil
}

// keep starts accepting on the new sockets and closes those that cfg doesn't list.
func (l *listeners) keep(cfg bgp.Config, added map[netip.AddrPort]net.Listener) {
	wanted := map[netip.AddrPort]bool{}
	for _, addr := range cfg.Listen.List() {
		wanted[netip.AddrPortFrom(addr, cfg.Port)] = true
	}
	for at, lis := range l.open {
		if !wanted[at] {
			lis.Close()
			delete(l.open, at)
		}
	}
	for at, lis := range added {
		l.open[at] = lis
		l.wg.Go(func() { l.accept(lis) })
	}
}

// close closes all and waits for their goroutines.
func (l *listeners) close() {
	l.keep(bgp.Config{}, nil)
	l.wg.Wait()
}

func (l *listeners) accept(lis net.Listener) {
	for {
		c, err := lis.Accept()
		switch {
		case err == nil:
			l.hand(c.(*net.TCPConn))
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of file descriptors or the like. It passes, or we go on trying.
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// network returns the name that net has for TCP in the family of addr.
func network(addr netip.Addr) string {
	if bgp.FamilyOf(addr) == bgp.IPv4 {
		return "tcp4"
	}
	return "tcp6"
}
