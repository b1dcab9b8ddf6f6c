//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewWatcher returns what tells about links, addresses and routes of the host, and
// about the entries on tunnel devices.
func NewWatcher(opts ...Option) kernel.Watcher { return watcher{configure(opts), watchBuffer} }

type watcher struct {
	config
	buffer int // of the socket, in bytes
}

// watchBuffer is the size of the socket's buffer in bytes: some ten thousand
// notifications may come before they are fetched.
const watchBuffer = 16 << 20

// burstPause is the least time from one event to the next, so that a burst is
// told by few. What comes alone is told at once. A turn that takes longer, as
// with very many routes, makes the pause longer too.
const burstPause = 5 * time.Millisecond

// watchGroups are the multicast groups of rtnetlink(7), as bits from group 1 on.
const watchGroups = 1<<(unix.RTNLGRP_LINK-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) |
	1<<(unix.RTNLGRP_NEIGH-1)

func (w watcher) Watch(ctx context.Context, f func(kernel.Event)) error {
	asking, err := w.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watch the host: %w", err)
	}
	defer asking.Close()
	listening, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: w.netns, Groups: watchGroups, MessageBufferSize: receiveBuffer})
	if err != nil {
		return fmt.Errorf("watch the host: %w", refusal(err))
	}
	if err := listening.SetReadBuffer(w.buffer); err != nil {
		listening.Close()
		return fmt.Errorf("watch the host: enlarge socket buffer: %w", err)
	}
	// The subscription comes before the first reading: what changes meanwhile is
	// told again afterwards, which does no harm.
	q := &queue{wake: make(chan struct{}, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		q.fill(listening)
	}()
	stopRules, err := w.watchRules(w.buffer, q.rulesChanged, q.fail)
	if err == nil {
		err = follow(ctx, asking, q, f)
		stopRules()
	}
	listening.Close()
	<-ended
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch the host: %w", err)
}

// follow tells f the host, then what q holds, until ctx is done or the kernel
// can't be asked.
func follow(ctx context.Context, asking *netlink.Conn, q *queue, f func(kernel.Event)) error {
	began := time.Now()
	release, err := kernelRelease()
	if err != nil {
		return err
	}
	s := hostState{release: release, driver: func(link string) string { return linkDriver(asking, link) }}
	if err := s.load(ctx, asking); err != nil {
		return err
	}
	for {
		if e, ok := s.take(); ok {
			f(e)
		}
		rest := time.NewTimer(max(burstPause, time.Since(began)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rest.C:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.wake:
		}
		began = time.Now()
		if err := s.follow(ctx, asking, q); err != nil {
			return err
		}
	}
}

// kernelRelease returns the kernel's release (uname(2)).
func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("read the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// follow takes what q holds, and reads again what that leaves in doubt.
func (s *hostState) follow(ctx context.Context, asking *netlink.Conn, q *queue) error {
	messages, overrun, err := q.take()
	if err != nil {
		return err
	}
	for _, m := range messages {
		if err := s.apply(m); err != nil {
			return err
		}
	}
	s.event.Overrun = overrun
	s.event.Rules = q.takeRules()
	switch {
	case overrun || s.doubtAll:
		return s.load(ctx, asking)
	case s.doubtRoutes:
		return s.loadRoutes(ctx, asking)
	}
	return nil
}

// queue holds what was received and not yet worked off, so that the socket is
// empty even while the consumer is busy, and what came together is told together.
type queue struct {
	wake chan struct{} // holds a token while there is something

	mu       sync.Mutex
	messages []netlink.Message
	overrun  bool // the kernel had to drop some
	rules    bool // another process changed our table of nftables
	err      error
}

// fill receives until the socket fails or is closed.
func (q *queue) fill(conn *netlink.Conn) {
	for {
		messages, err := conn.Receive()
		overrun := errors.Is(err, unix.ENOBUFS)
		q.note(func() {
			q.messages = append(q.messages, messages...)
			q.overrun = q.overrun || overrun
			if err != nil && !overrun {
				q.err = err
			}
		})
		if err != nil && !overrun {
			return
		}
	}
}

// rulesChanged notes that another process changed our table of nftables.
func (q *queue) rulesChanged() { q.note(func() { q.rules = true }) }

// fail notes why no more will come.
func (q *queue) fail(err error) { q.note(func() { q.err = err }) }

func (q *queue) note(what func()) {
	q.mu.Lock()
	what()
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// takeRules says whether our table of nftables was changed since the last call.
func (q *queue) takeRules() (changed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	changed, q.rules = q.rules, false
	return changed
}

func (q *queue) take() (messages []netlink.Message, overrun bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	messages, overrun = q.messages, q.overrun
	q.messages, q.overrun = nil, false
	return messages, overrun, q.err
}
