//go:build linux

package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

const (
	// receiveBuffer holds the largest piece of a dump: the kernel fills what the
	// reader offers, up to 32 KiB.
	receiveBuffer = 32 << 10
	// batchMessages and batchBytes bound what goes into one send. The answers to
	// one batch must fit the socket's receive buffer, 208 KiB by default, where
	// each takes about 1 KiB and a refusal repeats the request.
	batchMessages = 128
	batchBytes    = 32 << 10
	// dumpTries bounds how often a dump that changes meanwhile is begun again.
	dumpTries = 10
)

// dial opens a netlink socket of the family with strict checking (dumps are
// filtered by the kernel) and refusals in words.
func (c config) dial(family int) (*netlink.Conn, error) {
	conn, err := netlink.Dial(family, &netlink.Config{NetNS: c.netns, Strict: true, MessageBufferSize: receiveBuffer})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", refusal(err))
	}
	return conn, nil
}

// dump sends a request for a list and calls each with the entries. A list that
// changed while it was read is read again; begin is called before each try.
func dump(ctx context.Context, conn *netlink.Conn, request netlink.Message, begin func(), each func(netlink.Message) error) error {
	request.Header.Flags = netlink.Request | netlink.Dump
	for range dumpTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		begin()
		request.Header.Sequence = 0
		if _, err := conn.Send(request); err != nil {
			return refusal(err)
		}
		interrupted, err := receiveDump(conn, each)
		if err != nil {
			return err
		}
		if !interrupted {
			return nil
		}
	}
	return fmt.Errorf("list kept changing while it was read: %w", kernel.ErrBusy)
}

// receiveDump reads a list to its end, whatever each says about an entry.
func receiveDump(conn *netlink.Conn, each func(netlink.Message) error) (interrupted bool, err error) {
	for m, rerr := range conn.ReceiveIter() {
		if rerr != nil {
			return false, refusal(rerr)
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		if err == nil {
			err = each(m)
		}
	}
	return interrupted, err
}

// batch sends the requests, many at a time, and calls answer with the index of
// each and what the kernel says to it: nil, or its refusal. The connection must
// be used for nothing else. An error means that some were not answered.
func batch(ctx context.Context, conn *netlink.Conn, requests []netlink.Message, answer func(i int, err error)) error {
	for start := 0; start < len(requests); {
		if err := ctx.Err(); err != nil {
			return err
		}
		end, size := start, 0
		for end < len(requests) && end-start < batchMessages && size < batchBytes {
			requests[end].Header.Flags |= netlink.Request
			requests[end].Header.Sequence = uint32(end) + 1
			size += len(requests[end].Data)
			end++
		}
		// Refusals come unasked and in order. So it is enough to have the last one
		// acknowledged: what was not refused until then was done.
		requests[end-1].Header.Flags |= netlink.Acknowledge
		if _, err := conn.SendMessages(requests[start:end]); err != nil {
			return refusal(err)
		}
		for next := start; next < end; {
			i, err := receiveAnswer(conn)
			if i < next || i >= end {
				return cmp.Or(err, fmt.Errorf("answer to request %d of %d to %d", i, next, end))
			}
			for ; next < i; next++ {
				answer(next, nil)
			}
			answer(i, err)
			next = i + 1
		}
		start = end
	}
	return nil
}

// receiveAnswer returns the kernel's answer to one request and the request's
// index, or -1 when the socket failed.
func receiveAnswer(conn *netlink.Conn) (int, error) {
	messages, err := conn.Receive()
	if refused, ok := errors.AsType[*netlink.OpError](err); ok && refused.Sequence != 0 {
		return int(refused.Sequence) - 1, refusal(err)
	}
	if err != nil {
		return -1, refusal(err)
	}
	if len(messages) != 1 {
		return -1, fmt.Errorf("%d messages in place of an answer", len(messages))
	}
	return int(messages[0].Header.Sequence) - 1, nil
}

// refusal turns the kernel's answer into an error of the seam: its own words
// when it has any, the errno, and the sentinel that fits.
func refusal(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	var cause error = errno
	var op *netlink.OpError
	if errors.As(err, &op) && op.Message != "" {
		cause = fmt.Errorf("%s: %w", sentence(op.Message), errno)
	}
	switch errno {
	case unix.EPERM, unix.EACCES, unix.EROFS:
		return fmt.Errorf("%w: %w", kernel.ErrPermission, cause)
	case unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT:
		return fmt.Errorf("%w: %w", kernel.ErrUnsupported, cause)
	case unix.EBUSY, unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return fmt.Errorf("%w: %w", kernel.ErrBusy, cause)
	}
	return cause
}

// sentence makes the kernel's message the beginning of an error: no capital, no
// full stop.
func sentence(s string) string {
	s = strings.TrimRight(s, ".\n ")
	first, n := utf8.DecodeRuneInString(s)
	if second, _ := utf8.DecodeRuneInString(s[n:]); unicode.IsUpper(second) {
		return s // an abbreviation
	}
	return string(unicode.ToLower(first)) + s[n:]
}
