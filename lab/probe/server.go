// Package probe asks from one network namespace whether another answers, by
// ping, TCP and UDP, and answers such questions.
//
// It guarantees that every packet leaves from the namespace asked for, and that
// a server's answer says which address it saw, so that a translated one shows.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sync/errgroup"
)

// Port is the TCP and UDP port of the server.
const Port = 8080

// Serve answers on Port of every address, of both families, until ctx is done. See
// Server.
func Serve(ctx context.Context) error {
	s, err := Listen(ctx)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// Server answers questions. On a TCP connection it first says the client's address,
// on a line, and then sends back whatever comes. A UDP datagram is answered by one
// with the client's address on a line, and the datagram's content behind it.
type Server struct {
	tcp []net.Listener
	udp []net.PacketConn
}

// Listen returns a server that listens in the calling thread's network namespace,
// on Port of these addresses; if there are none, of every address of both families.
// A host that has several must name those that it is asked at, for an answer by UDP
// bears the address of the way back.
func Listen(ctx context.Context, addrs ...netip.Addr) (*Server, error) {
	hosts := []string{""}
	if len(addrs) > 0 {
		hosts = nil
	}
	for _, a := range addrs {
		hosts = append(hosts, a.String())
	}
	s := &Server{}
	var config net.ListenConfig
	for _, host := range hosts {
		address := net.JoinHostPort(host, strconv.Itoa(Port))
		tcp, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("serve: %w", err)
		}
		s.tcp = append(s.tcp, tcp)
		udp, err := config.ListenPacket(ctx, "udp", address)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("serve: %w", err)
		}
		s.udp = append(s.udp, udp)
	}
	return s, nil
}

// Run answers until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		<-ctx.Done()
		s.close()
		return nil
	})
	for _, l := range s.tcp {
		group.Go(func() error { return serveTCP(ctx, l) })
	}
	for _, c := range s.udp {
		group.Go(func() error { return serveUDP(ctx, c) })
	}
	return group.Wait()
}

func (s *Server) close() {
	for _, l := range s.tcp {
		closeQuietly(l)
	}
	for _, c := range s.udp {
		closeQuietly(c)
	}
}

func serveTCP(ctx context.Context, l net.Listener) error {
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve TCP: %w", err)
		}
		go func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			if _, err := io.WriteString(c, seen(c.RemoteAddr())+"\n"); err == nil {
				_, _ = io.Copy(c, c) // ends when the client has said and heard all, or is gone
			}
		}()
	}
}

func serveUDP(ctx context.Context, c net.PacketConn) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve UDP: %w", err)
		}
		answer := append([]byte(seen(from)+"\n"), buf[:n]...)
		// One client that can't be answered must not stop the others.
		if _, err := c.WriteTo(answer, from); err != nil && errors.Is(err, net.ErrClosed) {
			return nil
		}
	}
}

// seen returns the address of a peer as text, without port.
func seen(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	return ap.Addr().Unmap().String()
}
