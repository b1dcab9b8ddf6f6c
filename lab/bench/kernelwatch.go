package bench

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/netns"
)

// kernelWatch counts what the kernel of a node tells of what is Cairn's, on a thread
// of its own with real-time priority.
type kernelWatch struct {
	ctx    context.Context
	cancel context.CancelFunc
	told   chan told
	ended  chan error
}

// told is one change.
type told struct {
	at     time.Time
	what   change
	mac    kernel.MAC // of neighbours and forwarding
	count  int        // of elements
	delete bool
}

// watched is what of a kernel's is watched.
type watched struct {
	protocol int // of netlink(7)
	groups   []uint
	// parse returns what a message tells; false if it is of no interest.
	parse func(syscall.NetlinkMessage) (told, bool)
}

// change says what changed.
type change int

const (
	other change = iota // a link or an address
	route
	neighbour
	forwarding
	rule
	element
	generation // the end of a transaction of nftables
)

// watchBuffer holds, in bytes, what the kernel tells at once of a large cluster.
const watchBuffer = 256 << 20

// network is what rtnetlink(7) tells.
var network = watched{
	unix.NETLINK_ROUTE, []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE}, parse,
}

// watch starts to watch n1.
func (c *large) watch(ctx context.Context) (*kernelWatch, error) { return watch(ctx, c.lab, network) }

// watch starts to watch n1 of a lab.
func watch(ctx context.Context, l *lab.Lab, what watched) (*kernelWatch, error) {
	path, err := l.Netns("n1")
	if err != nil {
		return nil, err
	}
	w := &kernelWatch{told: make(chan told, 64<<10), ended: make(chan error, 1)}
	w.ctx, w.cancel = context.WithTimeoutCause(ctx, scaleTime, fmt.Errorf("took longer than %s", scaleTime))
	listening := make(chan error, 1)
	go func() {
		w.ended <- netns.Do(path, func() error {
			fd, err := listenAll(what)
			listening <- err
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return w.read(fd, what.parse)
		})
	}()
	return w, <-listening
}

// listenAll returns a socket on which the kernel tells of everything watched. A
// read from it ends after a moment.
func listenAll(what watched) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, what.protocol)
	if err != nil {
		return -1, err
	}
	var groups uint32
	for _, g := range what.groups {
		groups |= 1 << (g - 1)
	}
	limit := unix.Timeval{Usec: 20000}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}),
		unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}, 0))
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// read tells of what comes until the watch is stopped and nothing is left.
func (w *kernelWatch) read(fd int, parse func(syscall.NetlinkMessage) (told, bool)) error {
	defer close(w.told)
	buf := make([]byte, 64<<10)
	for {
		n, err := read(fd, buf)
		now := time.Now()
		switch {
		case errors.Is(err, unix.EAGAIN):
			if w.ctx.Err() != nil {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("watch the kernel: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("watch the kernel: %w", err)
		}
		for _, m := range msgs {
			if t, ok := parse(m); ok {
				t.at = now
				w.told <- t
			}
		}
	}
}

// parse returns what a message of rtnetlink(7) tells; false if it is of no interest.
func parse(m syscall.NetlinkMessage) (told, bool) {
	t := told{}
	switch m.Header.Type {
	case unix.RTM_DELROUTE, unix.RTM_DELNEIGH, unix.RTM_DELLINK, unix.RTM_DELADDR:
		t.delete = true
	}
	switch m.Header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		// rtmsg: the prefix's length is its second byte, the protocol its sixth.
		t.what = route
		return t, len(m.Data) >= unix.SizeofRtMsg && m.Data[5] == kernel.RouteProtocol
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		// ndmsg: the family is its first byte, the state begins at its ninth.
		if len(m.Data) < unix.SizeofNdMsg {
			return t, false
		}
		state := uint16(m.Data[8]) | uint16(m.Data[9])<<8
		t.what = neighbour
		if m.Data[0] == unix.AF_BRIDGE {
			t.what = forwarding
		}
		t.mac = hardwareAddress(m)
		return t, state&unix.NUD_PERMANENT != 0
	}
	return t, true
}

// hardwareAddress returns that of a neighbour's message (NDA_LLADDR).
func hardwareAddress(m syscall.NetlinkMessage) kernel.MAC {
	for b := m.Data[unix.SizeofNdMsg:]; len(b) >= unix.SizeofRtAttr; {
		size, kind := int(b[0])|int(b[1])<<8, int(b[2])|int(b[3])<<8
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		if value := b[unix.SizeofRtAttr:size]; kind == unix.NDA_LLADDR && len(value) == len(kernel.MAC{}) {
			return kernel.MAC(value)
		}
		b = b[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
	return kernel.MAC{}
}

// wait returns when the kernel had a route to every block, and a neighbour and a
// forwarding entry for every node, and ends the watch.
func (w *kernelWatch) wait(nodes int) (time.Time, error) {
	left := map[change]int{route: scaleBlocks, neighbour: nodes, forwarding: nodes}
	return w.until(func(t told) bool {
		if t.delete {
			left[t.what]++
		} else {
			left[t.what]--
		}
		return left[route] <= 0 && left[neighbour] <= 0 && left[forwarding] <= 0
	})
}

// waitMAC returns when the kernel had a node's hardware address, as neighbour and
// in the forwarding database, and ends the watch.
func (w *kernelWatch) waitMAC(mac kernel.MAC) (time.Time, error) {
	seen := map[change]bool{}
	return w.until(func(t told) bool {
		if t.mac == mac && !t.delete {
			seen[t.what] = true
		}
		return seen[neighbour] && seen[forwarding]
	})
}

// until returns when the change came for which enough says so, and ends the watch.
func (w *kernelWatch) until(enough func(told) bool) (at time.Time, err error) {
	for t := range w.told {
		if enough(t) {
			_, err := w.stop()
			return t.at, err
		}
	}
	return at, errors.Join(context.Cause(w.ctx), <-w.ended)
}

// stop ends the watch and returns how many changes were told that nobody has asked
// for yet.
func (w *kernelWatch) stop() (int, error) {
	w.cancel()
	n := 0
	for range w.told {
		n++
	}
	return n, <-w.ended
}
