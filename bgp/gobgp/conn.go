package gobgp

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"cairn.network/cairn/bgp"
)

// Layout of a BGP message (RFC 4271 4.1).
const (
	headerLen        = 19
	lengthAt         = 16
	typeAt           = 18
	typeNotification = 3
)

// conn is a session's connection. It listens in for what ends the session,
// because GoBGP tells it in some states only.
type conn struct {
	*net.TCPConn
	dialed bool          // by us, not by the peer
	done   chan struct{} // closed with the connection

	// Of Read; there is one reader at a time.
	in    scanner
	early []byte // read by vet

	mu    sync.Mutex
	cause string // the first
	once  sync.Once
}

func newConn(c *net.TCPConn, dialed bool) *conn {
	return &conn{TCPConn: c, dialed: dialed, done: make(chan struct{})}
}

// vet waits for the peer to say something, and says whether a session can come
// of it. While a peer restarts, GoBGP v4.8 drops its routes on the first
// connection that fails, so it must not get one that nobody listens to yet. A
// peer that waits for our OPEN is let through after a while.
func (c *conn) vet(ctx context.Context, patience time.Duration) error {
	defer context.AfterFunc(ctx, c.drop)()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	said := make([]byte, headerLen+2)
	n, err := io.ReadFull(c, said)
	switch why := c.failure(); {
	case why != "":
		return errors.New(why)
	case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	c.early = said[:n]
	return c.SetReadDeadline(time.Time{})
}

// Read is net.Conn's.
func (c *conn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	n, err := c.TCPConn.Read(b)
	if note, ok := c.in.scan(b[:n]); ok {
		c.fail("received " + note.String())
	}
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed):
	case errors.Is(err, io.EOF):
		c.fail("connection closed by the peer")
	default:
		c.fail(osError(err))
	}
	return n, err
}

// Write is net.Conn's. GoBGP writes one whole message at a time.
func (c *conn) Write(b []byte) (int, error) {
	var s scanner
	if note, ok := s.scan(b); ok {
		c.fail("sent " + note.String())
	}
	n, err := c.TCPConn.Write(b)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.fail(osError(err))
	}
	return n, err
}

// Close is net.Conn's.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.TCPConn.Close()
}

// abort closes the connection for a reason of ours.
func (c *conn) abort(cause string) {
	c.fail(cause)
	c.drop()
}

// drop closes the connection, whose end interests nobody.
func (c *conn) drop() { _ = c.Close() }

func (c *conn) fail(cause string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == "" {
		c.cause = cause
	}
}

// failure says why the connection ended, or "" if nothing is known.
func (c *conn) failure() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// osError returns the operating system's error in a few words, without the
// addresses that net puts before it.
func osError(err error) string {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	}
	return err.Error()
}

// scanner finds NOTIFICATIONs in a stream of BGP messages that arrives in pieces.
type scanner struct {
	head [headerLen + 2]byte // the beginning of a message: header, code, subcode
	have int                 // bytes of head
	skip int                 // bytes of the message left after what is in head
}

// scan takes the next piece and returns the NOTIFICATION that it completes.
func (s *scanner) scan(b []byte) (note bgp.Notification, ok bool) {
	for len(b) > 0 {
		if s.skip > 0 {
			n := min(s.skip, len(b))
			s.skip -= n
			b = b[n:]
			continue
		}
		want := headerLen
		if s.have >= headerLen {
			want = len(s.head)
		}
		n := copy(s.head[s.have:want], b)
		s.have += n
		b = b[n:]
		length := int(binary.BigEndian.Uint16(s.head[lengthAt:]))
		switch {
		case s.have == len(s.head):
			note, ok = bgp.Notification{Code: s.head[headerLen], Subcode: s.head[headerLen+1]}, true
			s.have, s.skip = 0, length-len(s.head)
		case s.have == headerLen && (s.head[typeAt] != typeNotification || length < len(s.head)):
			s.have, s.skip = 0, max(length-headerLen, 0)
		}
	}
	return note, ok
}
