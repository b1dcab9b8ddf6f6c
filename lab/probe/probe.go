package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"cairn.network/cairn/lab/netns"
)

// Protocol is a way to ask.
type Protocol string

// Protocols.
const (
	Ping Protocol = "ping" // ICMP echo, as anybody may send it
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp" // an INIT, through a raw socket; exchanges only
	ICMP Protocol = "icmp" // any request, through a raw socket; exchanges only
)

// Protocols returns those that every pair of hosts is asked by.
func Protocols() []Protocol { return []Protocol{Ping, TCP, UDP} }

// ErrSource says that the server answered, but saw an address that is not the
// client's.
var ErrSource = errors.New("another source address")

// Ask asks the server at dst once, from the namespace held at path, and returns
// nil when it answered until ctx was done. With TCP and UDP it is an ErrSource if
// the server saw an address that is not one of own.
func Ask(ctx context.Context, path string, proto Protocol, dst netip.Addr, own []netip.Addr) error {
	if proto == Ping {
		return ping(ctx, path, dst)
	}
	a, err := Exchange{Netns: path, Protocol: proto, Addr: netip.AddrPortFrom(dst, Port)}.Try(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(own, a.Saw) {
		return fmt.Errorf("%w: %s saw %s, not one of %v", ErrSource, dst, a.Saw, own)
	}
	return nil
}

// closeQuietly closes what holds nothing that could be lost.
func closeQuietly(c io.Closer) { _ = c.Close() }

// closeWhenDone makes reads end when ctx is done. The result undoes that.
func closeWhenDone(ctx context.Context, c interface{ SetDeadline(time.Time) error }) func() {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// ping sends one echo request and waits for its reply (RFC 792, RFC 4443 4).
func ping(ctx context.Context, path string, dst netip.Addr) error {
	c, err := openPing(path, dst)
	if err != nil {
		return err
	}
	defer closeQuietly(c)
	defer closeWhenDone(ctx, c)()
	// The kernel gives each socket an identifier of its own; the number tells a
	// reply to an earlier request apart.
	seq := uint16(rand.Uint32())
	if err := sendPing(c, dst, seq, 8); err != nil {
		return err
	}
	for {
		got, err := receivePing(c, dst)
		if err != nil {
			return err
		}
		if got == seq {
			return nil
		}
	}
}

// openPing opens a ping socket in the namespace held at path (icmp(7)).
func openPing(path string, dst netip.Addr) (*icmp.PacketConn, error) {
	network, any := "udp4", "0.0.0.0"
	if dst.Is6() {
		network, any = "udp6", "::"
	}
	var c *icmp.PacketConn
	err := netns.Do(path, func() (err error) {
		c, err = icmp.ListenPacket(network, any)
		return err
	})
	return c, err
}

// sendPing sends an echo request with size bytes of content.
func sendPing(c *icmp.PacketConn, dst netip.Addr, seq uint16, size int) error {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{Seq: int(seq), Data: bytes.Repeat([]byte("c"), size)}}
	if dst.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = c.WriteTo(b, &net.UDPAddr{IP: dst.AsSlice()})
	return err
}

// receivePing waits for an echo reply and returns its number.
func receivePing(c *icmp.PacketConn, dst netip.Addr) (uint16, error) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		reply := byte(0) // ICMP type of an echo reply
		if dst.Is6() {
			reply = 129
		}
		if n >= 8 && buf[0] == reply {
			return binary.BigEndian.Uint16(buf[6:8]), nil
		}
	}
}

// AskUntil asks again and again until there is a good answer or ctx is done; then
// it returns the last failure. For each try it asks own for the client's addresses. A single try takes at most a moment: what a try
// waits for may have been sent before there was a route.
func AskUntil(ctx context.Context, path string, proto Protocol, dst netip.Addr, own func() []netip.Addr) error {
	wait := 10 * time.Millisecond
	for {
		try, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
		err := Ask(try, path, proto, dst, own())
		cancel()
		if err == nil || ctx.Err() != nil {
			return noAnswer(err)
		}
		select {
		case <-ctx.Done():
			return noAnswer(err)
		case <-time.After(wait):
			wait = min(2*wait, 200*time.Millisecond)
		}
	}
}

// noAnswer words a time-out of ours as what it means.
func noAnswer(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer")
	}
	return err
}
