package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

const (
	// traceLife is how old a PacketTrace may be until nobody takes part in it any more.
	traceLife = time.Minute
	// traceReady bounds the wait for the nodes on a packet's way until it is sent.
	traceReady = 2 * time.Second
	// traceOthers is the time for nodes of which the source does not know that they are on
	// the way, a Service's endpoint for one: they are not waited for.
	traceOthers = 250 * time.Millisecond
)

// traces takes part in the PacketTraces that the datastore holds. They have a mirror of
// their own, so that they are no reason for the loop to turn.
type traces struct {
	a      *Agent
	mirror *datastore.Mirror
}

func newTraces(a *Agent) *traces {
	return &traces{a, datastore.NewMirror(a.drv.Store, "PacketTrace")}
}

// run takes part until ctx is done.
func (t *traces) run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		if err := t.mirror.Run(ctx); err != nil && ctx.Err() == nil {
			t.a.log.Warn("this node takes part in no trace", "error", err)
		}
	})
	running := map[types.UID]*tracing{}
	for {
		if s := t.mirror.Snapshot(); s != nil {
			t.update(ctx, &all, running, s)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.mirror.Changed():
		}
	}
}

// update begins what is new, tells what changed, and ends what is gone.
func (t *traces) update(ctx context.Context, all *sync.WaitGroup, running map[types.UID]*tracing, s *datastore.Snapshot) {
	there := map[types.UID]bool{}
	for trace := range datastore.All[*v1.PacketTrace](s) {
		there[trace.UID] = true
		run, ok := running[trace.UID]
		if !ok {
			run = &tracing{a: t.a, key: datastore.KeyOf(trace), uid: trace.UID, latest: make(chan *v1.PacketTrace, 1)}
			running[trace.UID] = run
			left := traceLife - time.Since(trace.CreationTimestamp.Time).Abs()
			var limited context.Context
			limited, run.stop = context.WithTimeout(ctx, left)
			all.Go(func() { run.run(limited, trace) })
		}
		select { // of two that wait the newer counts
		case <-run.latest:
		default:
		}
		run.latest <- trace
	}
	for uid, run := range running {
		if !there[uid] {
			run.stop()
			delete(running, uid)
		}
	}
}

// tracing is this node's part in one PacketTrace.
type tracing struct {
	a      *Agent
	key    datastore.Key
	uid    types.UID
	latest chan *v1.PacketTrace
	stop   context.CancelFunc
}

// run takes part until ctx is done: the trace is deleted, or too old.
func (t *tracing) run(ctx context.Context, trace *v1.PacketTrace) {
	defer t.stop()
	defer t.tidy(ctx, trace)
	if ctx.Err() != nil {
		return
	}
	var from origin
	if t.mine(trace) {
		var err error
		if from, err = t.claim(ctx, trace); err != nil {
			t.complain(ctx, err)
			return
		}
	}
	for trace = range t.news(ctx) {
		if trace.Status.Packet != nil {
			break
		}
	}
	if ctx.Err() != nil || trace.Status.Packet == nil {
		return
	}
	if err := t.take(ctx, trace, from); err != nil && ctx.Err() == nil && slices.Contains(trace.Status.Nodes, t.a.cfg.Node) {
		t.complain(ctx, err)
	}
}

// news yields the trace as it is by now, each time that it changed, until ctx is done.
func (t *tracing) news(ctx context.Context) func(func(*v1.PacketTrace) bool) {
	return func(yield func(*v1.PacketTrace) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case trace := <-t.latest:
				if !yield(trace) {
					return
				}
			}
		}
	}
}

// mine says whether the packet is sent from this node.
func (t *tracing) mine(trace *v1.PacketTrace) bool {
	if trace.Spec.Source.Pod == "" {
		return trace.Spec.Source.Node == t.a.cfg.Node
	}
	_, ok := t.a.ownPod(trace.Spec.Source.Pod)
	return ok
}

// tidy deletes a trace of this node's that nobody has deleted in time.
func (t *tracing) tidy(ctx context.Context, trace *v1.PacketTrace) {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) || !t.mine(trace) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	if err := t.a.drv.Store.Delete(ctx, t.key, ""); err != nil && !errors.Is(err, datastore.ErrNotFound) {
		t.a.log.Warn("an old trace is left", "trace", t.key.Name, "error", err)
	}
}

// write changes the trace's status. One that is gone needs none.
func (t *tracing) write(ctx context.Context, change func(*v1.PacketTraceStatus)) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	_, err := datastore.Update(ctx, t.a.drv.Store, t.key, func(trace *v1.PacketTrace) error {
		if trace.UID != t.uid {
			return datastore.ErrAbort
		}
		change(&trace.Status)
		return nil
	})
	if errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	return err
}

// complain says in the trace why this node takes no part.
func (t *tracing) complain(ctx context.Context, why error) {
	err := t.write(ctx, func(s *v1.PacketTraceStatus) {
		s.Problems = append(s.Problems, v1.TraceProblem{Node: t.a.cfg.Node, Reason: why.Error()})
	})
	if err != nil && ctx.Err() == nil {
		t.a.log.Warn("a trace goes without this node", "trace", t.key.Name, "reason", why, "error", err)
	}
}

// claim says in the trace which packet it is.
func (t *tracing) claim(ctx context.Context, trace *v1.PacketTrace) (origin, error) {
	from, packet, nodes, err := t.a.planTrace(ctx, &trace.Spec)
	if err != nil {
		return from, err
	}
	return from, t.write(ctx, func(s *v1.PacketTraceStatus) {
		s.Packet = &v1.TracedPacket{
			Source: packet.Src.String(), Destination: packet.Dst.String(), Protocol: trace.Spec.Protocol,
			SourcePort: int32(packet.SrcPort), DestinationPort: int32(packet.DstPort),
		}
		s.Nodes = nodes
	})
}

// take traces the packet and, where it begins, sends it.
func (t *tracing) take(ctx context.Context, trace *v1.PacketTrace, from origin) error {
	packet, err := parsePacket(trace.Status.Packet)
	if err != nil {
		return err
	}
	q := localapi.TraceQuery{Src: packet.Src, Protocol: packet.Protocol, SrcPort: packet.SrcPort, Replies: trace.Spec.Replies}
	if q.SrcPort == 0 { // the destination may be translated: without need it is not asked for
		q.Dst = packet.Dst
	}
	seen := observed{node: t.a.cfg.Node, packet: packet, say: t.a.say}
	sent := make(chan struct{})
	var sender sync.WaitGroup
	defer sender.Wait()
	return t.a.Trace(ctx, q, func(hop localapi.TraceHop) error {
		if hop.Step == localapi.StepReady {
			if from.node {
				sender.Go(func() {
					defer close(sent)
					if err := t.send(ctx, trace, from, packet); err != nil && ctx.Err() == nil {
						t.complain(ctx, err)
					}
				})
			}
			return t.ready(ctx, trace)
		}
		if news := seen.take(hop); news != nil {
			return t.write(ctx, func(s *v1.PacketTraceStatus) { s.Observations = append(s.Observations, news...) })
		}
		return nil
	})
}

// ready says that this node traces, if it is one of those that the source waits for.
func (t *tracing) ready(ctx context.Context, trace *v1.PacketTrace) error {
	if !slices.Contains(trace.Status.Nodes, t.a.cfg.Node) {
		return nil
	}
	return t.write(ctx, func(s *v1.PacketTraceStatus) { s.Ready = append(s.Ready, t.a.cfg.Node) })
}

// send sends the packet when all nodes on its way trace it, or were waited for long
// enough, and says what came back.
func (t *tracing) send(ctx context.Context, trace *v1.PacketTrace, from origin, packet kernel.Packet) error {
	limited, cancel := context.WithTimeout(ctx, traceReady)
	defer cancel()
	for now := range t.news(limited) {
		if !slices.ContainsFunc(now.Status.Nodes, func(n string) bool { return !slices.Contains(now.Status.Ready, n) }) {
			break
		}
	}
	if !pause(ctx, traceOthers) {
		return nil
	}
	if err := t.write(ctx, func(s *v1.PacketTraceStatus) { s.SentAt = metav1.NowMicro() }); err != nil {
		return err
	}
	waiting, enough := context.WithTimeout(ctx, trace.Spec.Wait())
	defer enough()
	answer, err := t.a.drv.Packets.Prober.Send(waiting, from.netns, packet)
	if err != nil {
		return err
	}
	return t.write(ctx, func(s *v1.PacketTraceStatus) { s.Answer = string(answer) })
}

// parsePacket returns the packet that a trace's status says.
func parsePacket(p *v1.TracedPacket) (kernel.Packet, error) {
	src, err := netip.ParseAddr(p.Source)
	if err != nil {
		return kernel.Packet{}, fmt.Errorf("read the packet's source: %w", err)
	}
	dst, err := netip.ParseAddr(p.Destination)
	if err != nil {
		return kernel.Packet{}, fmt.Errorf("read the packet's destination: %w", err)
	}
	return kernel.Packet{
		Src: src, Dst: dst, Protocol: p.Protocol.Number(), SrcPort: uint16(p.SourcePort), DstPort: uint16(p.DestinationPort), ICMPID: traceEchoID,
	}, nil
}

// traceEchoID is the identifier of echo requests that are traced.
const traceEchoID = 0x7261
