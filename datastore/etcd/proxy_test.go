package etcd_test

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a client and a server and can cut them off.
type proxy struct {
	t        testing.TB
	listener net.Listener

	mu    sync.Mutex
	to    string
	state proxyState
	conns map[net.Conn]bool
}

type proxyState int

const (
	passing proxyState = iota
	cutOff             // refuses and breaks connections
	silent             // accepts and keeps connections, passes nothing
)

func newProxy(t testing.TB, endpoint string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, conns: map[net.Conn]bool{}}
	p.target(endpoint)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "http://" + p.listener.Addr().String() }

func (p *proxy) target(endpoint string) {
	u, err := url.Parse(endpoint)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = u.Host
}

// cut breaks all connections and refuses new ones.
func (p *proxy) cut() { p.set(cutOff) }

// silence passes nothing on any more.
func (p *proxy) silence() { p.set(silent) }

// mend lets everything pass again, over new connections.
func (p *proxy) mend() { p.set(passing) }

func (p *proxy) set(state proxyState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	if state == silent {
		return
	}
	for conn := range p.conns {
		conn.Close()
	}
	clear(p.conns)
}

func (p *proxy) add(conn net.Conn) (state proxyState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == cutOff {
		conn.Close()
	} else {
		p.conns[conn] = true
	}
	return p.state
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if p.add(client) == cutOff {
		return
	}
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	if p.add(server) == cutOff {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.pass(server, client) })
	p.pass(client, server)
	wg.Wait()
}

// pass copies from one to the other; while silent it swallows what comes.
func (p *proxy) pass(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		swallow := p.state == silent
		p.mu.Unlock()
		if n > 0 && !swallow {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
