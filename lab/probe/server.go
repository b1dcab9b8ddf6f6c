// Package probe asks from one network namespace whether another answers, by
// ping, TCP, UDP, SCTP and other ICMP, and answers such questions.
//
// It guarantees that every packet leaves from the namespace asked for, and that
// a server's answer says which address it saw, so that a translated one shows; by
// ICMP only where the kernel does not answer itself.
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
	"golang.org/x/sys/unix"
)

// Port is the port of the server, by each protocol that has ports.
const Port = 8080

// Serve answers these services at every address, of both families, until ctx is done.
// See Server.
func Serve(ctx context.Context, services ...Service) error {
	s, err := Listen(ctx, nil, services...)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// Server answers questions. On a TCP connection it first says the client's address,
// on a line, and then sends back whatever comes. A UDP datagram is answered by one
// with the client's address on a line, and the datagram's content behind it. An INIT
// of SCTP is answered by an INIT ACK whose cookie is the client's address, and on
// ports that are not served by an ABORT. Of ICMP it answers what an Exchange asks and
// the kernel does not answer, or not with that code.
type Server struct {
	closers []io.Closer
	serve   []func(context.Context) error
}

// Listen returns a server that listens in the calling thread's network namespace at
// these addresses; if there are none, at every address of both families.
func Listen(ctx context.Context, addrs []netip.Addr, services ...Service) (*Server, error) {
	if len(addrs) == 0 {
		addrs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	s := &Server{}
	for _, a := range addrs {
		err := s.listen(ctx, a, services)
		if a == netip.IPv6Unspecified() && errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel without IPv6
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("serve: %w", err)
		}
	}
	return s, nil
}

// listen adds the services at one address.
func (s *Server) listen(ctx context.Context, a netip.Addr, services []Service) error {
	family := "4"
	if a.Is6() {
		family = "6"
	}
	var config net.ListenConfig
	sctp := map[uint16]bool{}
	for _, of := range services {
		var err error
		switch address := net.JoinHostPort(a.String(), strconv.Itoa(int(of.Port))); of.Protocol {
		case TCP:
			var l net.Listener
			if l, err = config.Listen(ctx, "tcp"+family, address); err == nil {
				s.add(l, func(ctx context.Context) error { return serveTCP(ctx, l) })
			}
		case UDP:
			err = s.listenPackets(ctx, "udp"+family, address, answerUDP)
		case SCTP:
			sctp[of.Port] = true
		case ICMP:
			number := map[bool]int{false: numberICMP, true: numberICMPv6}[a.Is6()]
			err = s.listenPackets(ctx, rawNetwork(a, number), a.String(), answerICMP)
		default:
			err = fmt.Errorf("unknown protocol %q", of.Protocol)
		}
		if err != nil {
			return err
		}
	}
	if len(sctp) == 0 {
		return nil
	}
	return s.listenPackets(ctx, rawNetwork(a, numberSCTP), a.String(), func(packet []byte, from netip.Addr) []byte {
		return answerSCTP(packet, from, sctp)
	})
}

func (s *Server) listenPackets(ctx context.Context, network, address string, answer answerer) error {
	c, err := (&net.ListenConfig{}).ListenPacket(ctx, network, address)
	if err != nil {
		return err
	}
	local, err := withLocal(c)
	if err != nil {
		closeQuietly(c)
		return err
	}
	s.add(c, func(ctx context.Context) error { return servePackets(ctx, local, answer) })
	return nil
}

func (s *Server) add(c io.Closer, serve func(context.Context) error) {
	s.closers, s.serve = append(s.closers, c), append(s.serve, serve)
}

// Run answers until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		<-ctx.Done()
		s.close()
		return nil
	})
	for _, serve := range s.serve {
		group.Go(func() error { return serve(ctx) })
	}
	return group.Wait()
}

func (s *Server) close() {
	for _, c := range s.closers {
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
			if _, err := io.WriteString(c, seen(c.RemoteAddr()).String()+"\n"); err == nil {
				_, _ = io.Copy(c, c) // ends when the client has said and heard all, or is gone
			}
		}()
	}
}

// answerer returns the answer to a packet; nil: none.
type answerer func(packet []byte, from netip.Addr) []byte

func answerUDP(packet []byte, from netip.Addr) []byte {
	return append([]byte(from.String()+"\n"), packet...)
}

func servePackets(ctx context.Context, c localConn, answer answerer) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, local, err := c.receive(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve packets: %w", err)
		}
		packet := answer(buf[:n], seen(from))
		if packet == nil {
			continue
		}
		// One client that can't be answered must not stop the others.
		if err := c.send(packet, from, local); err != nil && errors.Is(err, net.ErrClosed) {
			return nil
		}
	}
}

// seen returns the address of a peer, without port and zone.
func seen(a net.Addr) netip.Addr {
	var ip netip.Addr
	switch a := a.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	case *net.IPAddr:
		ip, _ = netip.AddrFromSlice(a.IP)
	}
	return ip.Unmap().WithZone("")
}
