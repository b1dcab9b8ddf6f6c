//go:build linux

package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewProber returns what sends packets. To send from a pod takes CAP_SYS_ADMIN, to send
// an echo CAP_NET_RAW.
func NewProber(opts ...Option) kernel.Prober { return prober{configure(opts)} }

type prober struct{ config }

// probeText is what a datagram and an echo carry.
const probeText = "cairn trace"

func (p prober) Send(ctx context.Context, netns string, packet kernel.Packet) (kernel.Answer, error) {
	err := kernel.CheckProbe(packet)
	var c net.Conn
	if err == nil {
		err = p.inside(netns, func() (err error) {
			c, err = open(ctx, packet)
			return err
		})
	}
	if err == nil {
		defer c.Close()
		defer endWith(ctx, c)()
		if err = speak(c, packet); errors.Is(err, unix.EPERM) { // rules where it began dropped it
			return kernel.NoAnswer, nil
		}
	}
	answer, known := answerOf(ctx, err)
	if !known {
		return "", fmt.Errorf("send %v: %w", packet, refusal(err))
	}
	return answer, nil
}

// inside runs f on a thread in a network namespace, "" for the driver's.
func (p prober) inside(netns string, f func() error) error {
	if netns == "" {
		return p.in(f)
	}
	file, err := p.openNetns(netns)
	if err != nil {
		return err
	}
	defer file.Close()
	err = config{netns: int(file.Fd())}.in(f)
	if errors.Is(err, kernel.ErrPermission) {
		return fmt.Errorf("to send from inside a pod takes CAP_SYS_ADMIN: %w", err)
	}
	return err
}

// open connects a socket from the packet's source to its destination, by the calling
// thread: addresses that are no names are connected to at once. Of TCP that sends the
// packet.
func open(ctx context.Context, p kernel.Packet) (net.Conn, error) {
	switch p.Protocol {
	case kernel.ProtoTCP:
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Src, p.SrcPort)), KeepAlive: -1}
		return d.DialContext(ctx, "tcp", netip.AddrPortFrom(p.Dst, p.DstPort).String())
	case kernel.ProtoUDP:
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Src, p.SrcPort))}
		return d.DialContext(ctx, "udp", netip.AddrPortFrom(p.Dst, p.DstPort).String())
	}
	network := "ip4:icmp"
	if p.Src.Is6() {
		network = "ip6:ipv6-icmp"
	}
	c, err := net.DialIP(network, &net.IPAddr{IP: p.Src.AsSlice()}, &net.IPAddr{IP: p.Dst.AsSlice()})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("to send an echo takes CAP_NET_RAW: %w", err)
	}
	return c, err
}

// endWith has what waits for a connection return when ctx is done.
func endWith(ctx context.Context, c net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // of an open socket it can't fail
}

// speak sends what is not sent yet and waits for an answer.
func speak(c net.Conn, p kernel.Packet) error {
	switch c := c.(type) {
	case *net.TCPConn:
		// A reset at the end leaves no TIME_WAIT: the port is free again.
		return c.SetLinger(0)
	case *net.UDPConn:
		if _, err := c.Write([]byte(probeText)); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 1))
		return err
	case *net.IPConn:
		if _, err := c.Write(echoOf(p)); err != nil {
			return err
		}
		return awaitEcho(c, p)
	}
	return fmt.Errorf("unexpected %T", c)
}

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443, section 4).
const (
	echoReply    = 0
	echoRequest  = 8
	echoRequest6 = 128
	echoReply6   = 129
)

// echoOf returns an echo request.
func echoOf(p kernel.Packet) []byte {
	b := []byte{echoRequest, 0, 0, 0}
	if p.Src.Is6() {
		b[0] = echoRequest6
	}
	b = binary.BigEndian.AppendUint16(b, p.ICMPID)
	b = append(binary.BigEndian.AppendUint16(b, 1), probeText...)
	if p.Src.Is4() { // the kernel fills in the other's
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// awaitEcho waits for the reply to p.
func awaitEcho(c *net.IPConn, p kernel.Packet) error {
	want := byte(echoReply)
	if p.Src.Is6() {
		want = echoReply6
	}
	for buf := make([]byte, 2048); ; {
		n, _, err := c.ReadFromIP(buf) // unlike Read, without IP's header
		if err != nil {
			return err
		}
		if n >= 8 && buf[0] == want && binary.BigEndian.Uint16(buf[4:]) == p.ICMPID {
			return nil
		}
	}
}

// answerOf says what the end of a conversation means; false: the packet was not sent.
func answerOf(ctx context.Context, err error) (kernel.Answer, bool) {
	switch {
	case err == nil:
		return kernel.Answered, true
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		return kernel.Refused, true
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT), ctx.Err() != nil:
		return kernel.NoAnswer, true
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		// A router on the way says so, or this host, whose trace shows it.
		return kernel.Refused, true
	}
	return "", false
}
