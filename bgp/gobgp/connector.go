package gobgp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"cairn.network/cairn/bgp"
)

// Times of connecting.
const (
	firstDelay   = 100 * time.Millisecond // before the second attempt, doubled for each later one
	dialDelay    = 800 * time.Millisecond // at most, while there is no connection
	sessionDelay = 5 * time.Second        // at most, while the peer refuses the session
	dialTimeout  = 3 * time.Second
	vetTime      = time.Second // for the peer's OPEN
	// settling is how long after Established another connection of the peer is
	// still taken for one that crossed ours on its way, not for a restart.
	settling = time.Second
	// doubt is how long to believe that GoBGP is in the state it last told.
	doubt = 5 * time.Second
)

// connector gives GoBGP, which is passive for every peer, one peer's connections:
// those that the peer opens and, unless Passive, those that it opens itself.
type connector struct {
	addr     netip.Addr
	session  *session
	settings func() bgp.Peer    // the present ones
	ready    func(netip.Addr)   // called before GoBGP gets a connection
	deliver  chan<- net.Conn    // to GoBGP
	accepted chan *net.TCPConn  // from the listeners
	wake     chan struct{}      // settings changed
	failed   func(why string)   // no connection could be had
	dials    chan dialResult    // of the one attempt under way
	now      *conn              // delivered and not closed
	pending  *conn              // accepted, to be delivered
	stopDial context.CancelFunc // nil: no attempt under way
	failures int                // since the last session
	next     time.Time          // when to try again
}

type dialResult struct {
	conn *conn
	err  error
}

// run works until ctx is done.
func (c *connector) run(ctx context.Context) {
	c.dials = make(chan dialResult, 1)
	defer c.close()
	for {
		state, since, changed := c.session.watch()
		c.step(ctx, state, state == bgp.Active || time.Since(since) > doubt)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-c.wake:
		case <-c.closed():
			c.now = nil
			c.backOff(sessionDelay)
		case tcp := <-c.accepted:
			c.take(newConn(tcp, false), state, since)
		case r := <-c.dials:
			c.dialed(r)
		case <-c.timer(state):
		}
	}
}

// step does what the state calls for.
func (c *connector) step(ctx context.Context, state bgp.State, active bool) {
	switch {
	case state == bgp.Established:
		c.failures, c.next = 0, time.Time{}
	case !active || c.now != nil:
	case c.pending != nil && c.stopDial == nil:
		c.handOver(ctx, c.pending)
		c.pending = nil
	case c.stopDial == nil && !c.settings().Passive && !time.Now().Before(c.next):
		c.dial(ctx)
	}
}

// timer fires when step may have something to do though nothing happened.
func (c *connector) timer(state bgp.State) <-chan time.Time {
	switch {
	case state == bgp.Established || c.stopDial != nil:
		return nil
	case state == bgp.Active && c.now == nil && !c.settings().Passive:
		return time.After(time.Until(c.next))
	}
	return time.After(doubt)
}

func (c *connector) closed() <-chan struct{} {
	if c.now == nil {
		return nil
	}
	return c.now.done
}

func (c *connector) dial(ctx context.Context) {
	ctx, c.stopDial = context.WithCancel(ctx)
	p := c.settings()
	d := net.Dialer{
		LocalAddr:       net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Local, 0)),
		Timeout:         dialTimeout,
		KeepAliveConfig: keepAlive(),
	}
	d.SetMultipathTCP(false)
	go func() {
		conn, err := open(ctx, d, netip.AddrPortFrom(c.addr, p.Port))
		c.dials <- dialResult{conn, err}
	}()
}

// open connects to a peer that is there to speak BGP.
func open(ctx context.Context, d net.Dialer, to netip.AddrPort) (*conn, error) {
	tcp, err := d.DialContext(ctx, network(to.Addr()), to.String())
	if err != nil {
		return nil, fmt.Errorf("connect to %v: %s", to, osError(err))
	}
	c := newConn(tcp.(*net.TCPConn), true)
	if err := c.vet(ctx, vetTime); err != nil {
		c.drop()
		return nil, err
	}
	return c, nil
}

// dialed ends the attempt under way.
func (c *connector) dialed(r dialResult) {
	c.stopDial()
	c.stopDial = nil
	switch {
	case r.err != nil:
		c.failed(r.err.Error())
		c.backOff(dialDelay)
	case c.now != nil:
		r.conn.drop()
	default:
		// Ours goes first: where the peer's should have, take stopped us.
		if c.pending != nil {
			c.pending.drop()
		}
		c.pending = r.conn
	}
}

// take decides about a connection that the peer opened.
func (c *connector) take(conn *conn, state bgp.State, since time.Time) {
	// Of two that crossed each other both ends keep that of the higher address,
	// as RFC 4271 6.8 does with the router IDs, which we don't know yet.
	theirs := c.addr.Compare(c.settings().Local) > 0
	switch {
	case c.now == nil:
	case state == bgp.Established && (!c.settings().Graceful || time.Since(since) < settling):
		conn.drop()
		return
	case state == bgp.Established:
		// RFC 4724 4.2: it lost the session and we didn't notice.
		c.now.abort("the peer connected again")
	case c.now.dialed && !theirs:
		conn.drop()
		return
	default:
		c.now.abort(bgp.Notification{Code: 6, Subcode: 7}.String())
	}
	if c.stopDial != nil && theirs {
		c.cancelDial()
	}
	if c.pending != nil {
		c.pending.drop()
	}
	c.pending = conn
}

func (c *connector) cancelDial() {
	c.stopDial()
	c.stopDial = nil
	if r := <-c.dials; r.conn != nil {
		r.conn.drop()
	}
}

func (c *connector) handOver(ctx context.Context, conn *conn) {
	c.ready(c.addr)
	c.session.use(conn)
	c.now = conn
	select {
	case c.deliver <- conn:
	case <-ctx.Done():
		conn.drop()
	}
}

// backOff sets the time of the next attempt, with some jitter.
func (c *connector) backOff(most time.Duration) {
	d := min(firstDelay<<min(c.failures, 10), most)
	c.failures++
	c.next = time.Now().Add(d*3/4 + rand.N(d/4))
}

func (c *connector) close() {
	if c.stopDial != nil {
		c.cancelDial()
	}
	if c.pending != nil {
		c.pending.drop()
	}
	// What GoBGP has it closes itself, perhaps after a NOTIFICATION.
	for {
		select {
		case tcp := <-c.accepted:
			_ = tcp.Close()
		default:
			return
		}
	}
}
