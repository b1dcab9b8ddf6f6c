//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewTracer returns what follows packets through nftables. The kernel must have tables
// that belong to a socket (Linux 5.12).
func NewTracer(opts ...Option) kernel.Tracer { return tracer{configure(opts), logBuffer} }

type tracer struct {
	config
	buffer int // of the socket, in bytes
}

// traceGroup is the multicast group of traces (NFNLGRP_NFTRACE), as a bit from group 1
// on.
const traceGroup = 1 << (unix.NFNLGRP_NFTRACE - 1)

func (t tracer) Trace(ctx context.Context, filter kernel.TraceFilter, f func(kernel.TraceEvent)) error {
	err := filter.Check()
	if err == nil {
		err = t.trace(ctx, filter, f)
	}
	if err != nil {
		return fmt.Errorf("trace packets: %w", err)
	}
	return nil
}

func (t tracer) trace(ctx context.Context, filter kernel.TraceFilter, f func(kernel.TraceEvent)) error {
	// To listen takes the capability, so that what is refused below is not for want of it.
	listening, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: t.netns, Groups: traceGroup, MessageBufferSize: receiveBuffer})
	if err != nil {
		return fmt.Errorf("listen: %w", refusal(err))
	}
	defer listening.Close()
	if err := listening.SetReadBuffer(t.buffer); err != nil {
		return fmt.Errorf("enlarge socket buffer: %w", refusal(err))
	}
	asking, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer asking.Close()
	owner, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer owner.Close() // and the table with it
	if err := makeTraceTable(owner, filter); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { listening.Close() })
	defer stop()
	r := traceReader{book: newRuleBook(asking), links: newLinkNames(asking), walks: make(map[uint32]*walk), tell: f}
	f(kernel.TraceEvent{Kind: kernel.TraceArmed, Time: time.Now()})
	for {
		messages, err := listening.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			r.lost = true
		case err != nil:
			return refusal(err)
		}
		for _, m := range messages {
			if err := r.hear(ctx, m); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// walk is the way of one packet, as far as it was told.
type walk struct {
	packet uint64
	// What a base chain's first event tells, and the others don't.
	inLink, outLink string
	headers         kernel.Packet
}

// maxWalks is how many packets are followed at once. The kernel does not tell when a
// packet's way ends, so when there are more all are forgotten.
const maxWalks = 1000

// traceReader makes events of what the kernel tells.
type traceReader struct {
	book    *ruleBook
	links   *linkNames
	walks   map[uint32]*walk // by the kernel's number of the packet
	packets uint64
	lost    bool
	tell    func(kernel.TraceEvent)
}

// hear takes a message in, and tells what it is. Packets that others trace did not
// begin in our table, and are left out.
func (r *traceReader) hear(ctx context.Context, m netlink.Message) error {
	if m.Header.Type != traceMessage {
		return nil
	}
	t, err := parseTrace(m.Data)
	if err != nil {
		return fmt.Errorf("decode trace: %w", err)
	}
	ours := t.family == unix.NFPROTO_INET && t.table == kernel.TraceTable
	if ours && t.event() == kernel.TraceRule {
		if len(r.walks) >= maxWalks {
			clear(r.walks)
		}
		r.packets++
		r.walks[t.id] = &walk{packet: r.packets}
	}
	w := r.walks[t.id]
	if w == nil {
		return nil
	}
	if t.headers.Src.IsValid() {
		w.inLink, w.outLink, w.headers = "", "", t.headers
		if t.in != 0 {
			w.inLink = r.links.name(t.in)
		}
		if t.out != 0 {
			w.outLink = r.links.name(t.out)
		}
	}
	e := kernel.TraceEvent{
		Time: time.Now(), Packet: w.packet, InLink: w.inLink, OutLink: w.outLink, Mark: t.mark, Headers: w.headers,
	}
	if ours {
		if t.event() == kernel.TraceRule {
			e.Kind, e.Hook = kernel.TraceSeen, kernel.Hook(t.chain)
			r.pass(e)
		}
		return nil
	}
	e.Table, e.Chain, e.Handle, e.Verdict, e.Target = familyName(t.family)+" "+t.table, t.chain, t.handle, t.verdict, t.target
	if err := r.book.explain(ctx, t, &e); err != nil {
		return err
	}
	if e.Kind = t.event(); e.Kind == kernel.TraceReturn {
		if e.Hook != kernel.HookNone {
			return nil // the policy is told next
		}
		e.Verdict = kernel.Return
	}
	r.pass(e)
	return nil
}

func (r *traceReader) pass(e kernel.TraceEvent) {
	e.Lost, r.lost = r.lost, false
	r.tell(e)
}
