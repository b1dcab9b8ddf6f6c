package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/icmp"

	"cairn.network/cairn/lab/netns"
)

// Traffic is what a Stream has seen of one sort of packets.
type Traffic struct {
	Sent     int           // messages sent
	Lost     int           // of these, never answered
	Longest  time.Duration // between two answers
	Error    string        // why it ended early; a TCP connection that broke
	received int
	last     time.Time
}

// Stream is a ping and a TCP connection that go on at a steady pace.
type Stream struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	ping   Traffic
	tcp    Traffic
}

// StreamPace is the usual time between two pings of a Stream, and two messages.
const StreamPace = 10 * time.Millisecond

// How much of a TCP message of a Stream there is, and how long it waits in the end for
// the last answers.
const (
	streamSize = 1000 // bytes
	streamWait = 3 * time.Second
)

// StartStream begins to ping dst, once each pace, and to send as many messages to the
// server there by TCP, from the namespace held at path. It returns once both have had
// their first answer.
func StartStream(ctx context.Context, path string, dst netip.Addr, pace time.Duration) (*Stream, error) {
	p, err := openPing(path, dst)
	if err != nil {
		return nil, fmt.Errorf("start stream: %w", err)
	}
	var c net.Conn
	err = netns.Do(path, func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(dst, Port).String())
		return err
	})
	if err != nil {
		closeQuietly(p)
		return nil, fmt.Errorf("start stream: %w", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	// A connection that is stuck takes no more in the end; what waits for it must not.
	context.AfterFunc(run, func() { _ = c.SetWriteDeadline(time.Now().Add(streamWait)) })
	s := &Stream{cancel: cancel}
	first := make(chan error, 2)
	s.done.Go(func() { s.ping = traffic(run, &pinger{c: p, dst: dst}, pace, first) })
	s.done.Go(func() { s.tcp = traffic(run, &messenger{c: c}, pace, first) })
	for range 2 {
		if err := <-first; err != nil {
			s.Stop()
			return nil, fmt.Errorf("start stream: %w", err)
		}
	}
	return s, nil
}

// Stop ends the stream, waits a while for the last answers, and returns what
// happened by ping and by TCP.
func (s *Stream) Stop() (ping, tcp Traffic) {
	s.cancel()
	s.done.Wait()
	return s.ping, s.tcp
}

func (t Traffic) String() string {
	text := fmt.Sprintf("sent %d, lost %d, longest gap %s", t.Sent, t.Lost, t.Longest.Round(time.Millisecond))
	if t.Error != "" {
		text += ", broke: " + t.Error
	}
	return text
}

// talker sends numbered messages and receives the answers.
type talker interface {
	send(n uint16) error
	receive() (uint16, error) // the number answered
	io.Closer
}

// traffic sends at this pace until ctx is done, and counts. To first it
// says once whether there was an answer.
func traffic(ctx context.Context, c talker, pace time.Duration, first chan<- error) Traffic {
	answers := make(chan time.Time, 1024)
	broke := make(chan error, 1)
	go func() {
		seen := [1 << 16]bool{}
		for {
			n, err := c.receive()
			if err != nil {
				broke <- err
				return
			}
			if !seen[n] { // a duplicate is no answer to another one
				answers <- time.Now()
			}
			seen[n], seen[n+1<<15] = true, false // numbers come round after eleven minutes
		}
	}()
	defer c.Close()
	t := Traffic{}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	patience := time.NewTimer(streamWait)
	defer patience.Stop()
	stop := ctx.Done()
	var stopped time.Time
	for {
		select {
		case <-tick.C:
			_ = c.send(uint16(t.Sent)) // what can't be sent, for want of a route, is lost as well
			t.Sent++
		case at := <-answers:
			if t.received == 0 {
				first <- nil
			} else {
				t.Longest = max(t.Longest, at.Sub(t.last))
			}
			t.received++
			t.last = at
			if stop == nil && t.received == t.Sent {
				return t.ended(stopped, nil)
			}
		case err := <-broke:
			if t.received == 0 {
				first <- err
			}
			return t.ended(stopped, err)
		case <-patience.C:
			if t.received == 0 {
				first <- errors.New("no answer")
				return t.ended(stopped, nil)
			}
			if stop == nil {
				return t.ended(stopped, nil)
			}
		case <-stop:
			stop, stopped = nil, time.Now()
			tick.Stop()
			if t.received == t.Sent {
				return t.ended(stopped, nil)
			}
			patience.Reset(streamWait)
		}
	}
}

// ended sums up. What was not answered makes a gap up to when the sending stopped, the
// zero time: just now.
func (t Traffic) ended(stopped time.Time, err error) Traffic {
	t.Lost = t.Sent - t.received
	if stopped.IsZero() {
		stopped = time.Now()
	}
	if t.received > 0 && t.Lost > 0 {
		t.Longest = max(t.Longest, stopped.Sub(t.last))
	}
	if err != nil {
		t.Error = err.Error()
	}
	return t
}

// pinger talks by ICMP echo.
type pinger struct {
	c   *icmp.PacketConn
	dst netip.Addr
}

func (p *pinger) send(n uint16) error      { return sendPing(p.c, p.dst, n, 56) }
func (p *pinger) receive() (uint16, error) { return receivePing(p.c, p.dst) }
func (p *pinger) Close() error             { return p.c.Close() }

// messenger talks through a TCP connection to Serve.
type messenger struct {
	c       net.Conn
	greeted bool
	next    uint16 // what must come next: TCP loses nothing and keeps the order
}

func (m *messenger) send(n uint16) error {
	b := make([]byte, streamSize)
	binary.BigEndian.PutUint16(b, n)
	_, err := m.c.Write(b)
	return err
}

func (m *messenger) receive() (uint16, error) {
	for b := make([]byte, 1); !m.greeted; m.greeted = b[0] == '\n' {
		if _, err := io.ReadFull(m.c, b); err != nil {
			return 0, err
		}
	}
	b := make([]byte, streamSize)
	if _, err := io.ReadFull(m.c, b); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint16(b)
	if n != m.next || slices.ContainsFunc(b[2:], func(c byte) bool { return c != 0 }) {
		return 0, fmt.Errorf("message %d came in the place of %d, or not whole", n, m.next)
	}
	m.next++
	return n, nil
}

func (m *messenger) Close() error { return m.c.Close() }
