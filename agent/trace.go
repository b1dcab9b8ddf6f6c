package agent

import (
	"context"
	"sync/atomic"
	"time"

	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/kernel"
)

// traceAhead is how many events of a trace wait to be told until more are lost.
const traceAhead = 10_000

// Trace has the kernel trace packets, and calls f with each step on their way through
// this node, first with StepReady, until ctx is done or f returns an error. ErrBusy
// says that another trace goes on.
func (a *Agent) Trace(ctx context.Context, q localapi.TraceQuery, f func(localapi.TraceHop) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events := make(chan kernel.TraceEvent, traceAhead)
	ended := make(chan error, 1)
	var lost atomic.Bool
	go func() {
		defer close(ended)
		ended <- a.drv.Packets.Tracer.Trace(ctx, kernel.TraceFilter(q), func(e kernel.TraceEvent) {
			e.Lost = lost.Swap(false) || e.Lost
			select {
			case events <- e:
			default:
				lost.Store(true)
			}
		})
	}()
	err := a.tellTrace(ctx, events, ended, f)
	stop()
	for range ended { // nobody else can trace before
	}
	return err
}

// tellTrace calls f with what events say until there are no more.
func (a *Agent) tellTrace(ctx context.Context, events <-chan kernel.TraceEvent, ended <-chan error, f func(localapi.TraceHop) error) error {
	ways := map[uint64]*way{}
	tell := func(hops []localapi.TraceHop) error {
		for _, h := range hops {
			if err := f(h); err != nil {
				return err
			}
		}
		return nil
	}
	quiet := time.NewTicker(wayQuiet / 2)
	defer quiet.Stop()
	for {
		var hops []localapi.TraceHop
		select {
		case err := <-ended:
			return err
		case e := <-events:
			switch w := ways[e.Packet]; {
			case e.Kind == kernel.TraceArmed:
				hops = []localapi.TraceHop{{Node: a.cfg.Node, Time: e.Time, Step: localapi.StepReady}}
			case e.Kind == kernel.TraceSeen:
				w = &way{a: a}
				ways[e.Packet] = w
				hops = w.step(ctx, e)
			case w != nil:
				hops = w.step(ctx, e)
				if w.dropped != "" {
					delete(ways, e.Packet)
				}
			}
		case now := <-quiet.C:
			for n, w := range ways {
				if now.Sub(w.told) >= wayQuiet {
					hops = append(hops, w.end(ctx)...)
					delete(ways, n)
				}
			}
		}
		if err := tell(hops); err != nil {
			return err
		}
	}
}
