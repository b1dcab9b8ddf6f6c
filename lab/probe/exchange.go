package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab/netns"
)

// Exchange is a packet, or as many as it takes, and the answer of the server at the
// other end. Each is a flow of its own.
type Exchange struct {
	// Netns is the path of the file that holds the namespace it leaves from; empty: the
	// calling process's.
	Netns    string
	Protocol Protocol       // TCP, UDP, SCTP or ICMP
	Addr     netip.AddrPort // the server's; with ICMP the port is 0
	// SourcePort is where TCP, UDP and SCTP come from; 0: any port.
	SourcePort uint16
	Type, Code uint8 // of ICMP or ICMPv6: one of those of ICMPTypes, and any code
}

// Answer is what came back.
type Answer struct {
	From netip.Addr // who answered
	Saw  netip.Addr // the client's address as the server saw it; invalid: it did not say
}

func (a Answer) String() string {
	if !a.Saw.IsValid() {
		return fmt.Sprintf("answered by %s", a.From)
	}
	return fmt.Sprintf("answered by %s, which saw %s", a.From, a.Saw)
}

// Failures of an exchange, for errors.Is. Any other is that nothing could be sent.
var (
	// ErrNoAnswer says that nothing came back in time, or that the packet was dropped
	// before it left.
	ErrNoAnswer = errors.New("no answer")
	// ErrRefused says that the other end was reached and refuses: TCP's reset, ICMP's
	// port unreachable, SCTP's abort.
	ErrRefused = errors.New("refused")
)

// ParseExchange reads a protocol, and an address with a port; with ICMP, an address
// alone. The ICMP is an echo request.
func ParseExchange(proto, where string) (Exchange, error) {
	e := Exchange{Protocol: Protocol(proto)}
	switch e.Protocol {
	case ICMP:
		a, err := netip.ParseAddr(where)
		if err != nil {
			return e, fmt.Errorf("icmp: want an address: %w", err)
		}
		e.Addr = netip.AddrPortFrom(a.Unmap(), 0)
		e.Type = echoType(a)
	case TCP, UDP, SCTP:
		ap, err := netip.ParseAddrPort(where)
		if err != nil {
			return e, fmt.Errorf("%s: want an address and port such as 10.244.0.1:8080 or [fd00::1]:8080: %w", proto, err)
		}
		e.Addr = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		if ap.Port() == 0 {
			return e, fmt.Errorf("%s: port 0 is none", proto)
		}
	default:
		return e, fmt.Errorf("unknown protocol %q; there are tcp, udp, icmp and sctp", proto)
	}
	return e, nil
}

func (e Exchange) String() string {
	if e.Protocol == ICMP {
		return "icmp " + e.Addr.Addr().String()
	}
	return string(e.Protocol) + " " + e.Addr.String()
}

// Try tries it once, and returns the answer that came before ctx was done.
func (e Exchange) Try(ctx context.Context) (Answer, error) {
	var a Answer
	var err error
	switch e.Protocol {
	case TCP, UDP:
		a, err = e.converse(ctx)
	case SCTP:
		a, err = e.tryRaw(ctx, newInit(e))
	case ICMP:
		a, err = e.tryRaw(ctx, newRequest(e))
	default:
		return a, fmt.Errorf("unknown protocol %q", e.Protocol)
	}
	return a, failure(ctx, err)
}

// failure words an error as what it means.
func failure(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return ErrNoAnswer
	case errors.Is(err, unix.EPERM): // a chain at the output hook dropped it
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.ENOPROTOOPT):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// inside runs f in the exchange's namespace.
func (e Exchange) inside(f func() error) error {
	if e.Netns == "" {
		return f()
	}
	return netns.Do(e.Netns, f)
}

// converse asks by TCP or UDP.
func (e Exchange) converse(ctx context.Context) (Answer, error) {
	a := Answer{From: e.Addr.Addr()}
	dialer := net.Dialer{}
	switch {
	case e.SourcePort == 0:
	case e.Protocol == TCP:
		dialer.LocalAddr = &net.TCPAddr{Port: int(e.SourcePort)}
	default:
		dialer.LocalAddr = &net.UDPAddr{Port: int(e.SourcePort)}
	}
	var c net.Conn
	err := e.inside(func() (err error) {
		// An address that is no name is connected to from the calling thread.
		c, err = dialer.DialContext(ctx, string(e.Protocol), e.Addr.String())
		return err
	})
	if err != nil {
		return a, err
	}
	defer c.Close()
	defer closeWhenDone(ctx, c)()
	if tcp, ok := c.(*net.TCPConn); ok {
		// A reset at the end leaves no TIME_WAIT, so that the next may come from the same
		// port, and many a second do not use all ports up.
		if err := tcp.SetLinger(0); err != nil {
			return a, err
		}
	} else if _, err := c.Write([]byte("?")); err != nil {
		return a, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return a, err
	}
	if a.Saw, err = netip.ParseAddr(strings.TrimSuffix(line, "\n")); err != nil {
		return a, fmt.Errorf("answer of another sort of server: %w", err)
	}
	return a, nil
}

// question is a packet of a protocol that raw sockets speak.
type question interface {
	number() int    // of the protocol
	packet() []byte // without the IP header
	// answers says whether a packet is the answer, what address the server saw if it
	// says so, and whether it refuses.
	answers(packet []byte) (saw netip.Addr, refused, ok bool)
}

// tryRaw asks through a raw socket.
func (e Exchange) tryRaw(ctx context.Context, q question) (Answer, error) {
	a := Answer{From: e.Addr.Addr()}
	var c *net.IPConn
	err := e.inside(func() (err error) {
		c, err = net.DialIP(rawNetwork(a.From, q.number()), nil, &net.IPAddr{IP: a.From.AsSlice(), Zone: a.From.Zone()})
		return err
	})
	if err != nil {
		return a, err
	}
	defer c.Close()
	defer closeWhenDone(ctx, c)()
	if _, err := c.Write(q.packet()); err != nil {
		return a, err
	}
	for buf := make([]byte, 64<<10); ; {
		n, _, err := c.ReadFromIP(buf) // unlike Read, without the header
		if err != nil {
			return a, err
		}
		saw, refused, ok := q.answers(buf[:n])
		switch {
		case !ok:
		case refused:
			return a, ErrRefused
		default:
			a.Saw = saw
			return a, nil
		}
	}
}

// rawNetwork names a protocol for package net, in the family of the address.
func rawNetwork(a netip.Addr, number int) string {
	if a.Is6() {
		return fmt.Sprintf("ip6:%d", number)
	}
	return fmt.Sprintf("ip4:%d", number)
}
