package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

const (
	// flowsKept is how many flows are remembered: about half a megabyte.
	flowsKept = 1000
	// flowRate is how many packets of a group are told in a second. Whatever comes
	// beyond is not even asked for.
	flowRate = 1000
	// flowsAhead is how many flows wait for a listener until more are lost to it.
	flowsAhead = 1000
	// flowRetry is the time after which a group is tried again that can't be followed.
	flowRetry = 10 * time.Second
)

// flows tells what policies did with packets. What is denied, and what rules with the
// action Log match, it always follows, and remembers the last of it; what is allowed
// only while somebody listens. The kernel has one follower for a group, so all
// listeners share it.
type flows struct {
	a *Agent

	mu        sync.Mutex
	kept      []localapi.Flow // a ring once it is full
	next      int             // where in kept the next one goes
	listeners map[*listener]bool
	turned    chan struct{}     // closed when a listener comes or goes
	stop      func()            // ends following what is allowed
	faults    map[uint16]error  // groups that can't be followed, and why
	owed      map[uint16]uint64 // packets of a group that were lost and not told as such yet
	told      map[string]uint64 // by verdict
	lost      uint64
}

// listener is one call of Flows.
type listener struct {
	query localapi.FlowQuery
	flows chan localapi.Flow
	lost  uint64     // since it was told the last one
	fault chan error // holds why there is no more to come
}

func newFlows(a *Agent) *flows {
	return &flows{
		a: a, listeners: map[*listener]bool{}, turned: make(chan struct{}),
		faults: map[uint16]error{}, owed: map[uint16]uint64{}, told: map[string]uint64{},
	}
}

// run follows the kernel's log of packets until ctx is done.
func (f *flows) run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return f.follow(ctx, policy.GroupLogged) })
	g.Go(func() error { return f.follow(ctx, policy.GroupDenied) })
	g.Go(func() error { return f.followAllowed(ctx) })
	return g.Wait()
}

// followAllowed follows what is allowed while somebody wants it.
func (f *flows) followAllowed(ctx context.Context) error {
	for ctx.Err() == nil {
		listened, stop := context.WithCancel(ctx)
		if wanted, turned := f.wanted(stop); wanted {
			_ = f.follow(listened, policy.GroupAllowed) // always nil
		} else {
			select {
			case <-ctx.Done():
			case <-turned:
			}
		}
		stop()
	}
	return nil
}

// wanted says whether somebody wants to hear of what is allowed, and has stop called
// when nobody does any more. It returns what is closed when somebody comes or goes.
func (f *flows) wanted(stop func()) (bool, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop = stop
	return f.anyone(), f.turned
}

// anyone says whether somebody wants to hear of what is allowed. f.mu is held.
func (f *flows) anyone() bool {
	for l := range f.listeners {
		if !l.query.Denied {
			return true
		}
	}
	return false
}

// follow follows a group until ctx is done. What fails is tried again.
func (f *flows) follow(ctx context.Context, group uint16) error {
	logged := ""
	defer f.note(group, nil) // what comes later is another try
	for {
		f.note(group, nil)
		err := f.listen(ctx, group)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			continue
		}
		f.note(group, err)
		if err.Error() != logged {
			logged = err.Error()
			f.a.log.Warn("what policies do with packets can't be told", "group", group, "error", err)
		}
		if !pause(ctx, flowRetry) {
			return nil
		}
	}
}

// pause waits, and says whether ctx is not done.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// listen follows a group until ctx is done or too much comes. Then it lets go of the
// group for the rest of the second, so that a flood is work neither for the kernel nor
// for the agent.
func (f *flows) listen(ctx context.Context, group uint16) error {
	turn, enough := context.WithCancel(ctx)
	defer enough()
	var begun time.Time
	n := 0
	err := f.a.drv.Packets.Log.Follow(turn, []uint16{group}, func(p kernel.LoggedPacket) {
		if now := time.Now(); now.Sub(begun) >= time.Second {
			begun, n = now, 0
		}
		if n++; n > flowRate {
			f.lose(group, 1+p.Lost)
			enough()
			return
		}
		f.take(p)
	})
	if err == nil && turn.Err() != nil {
		pause(ctx, time.Until(begun.Add(time.Second)))
	}
	return err
}

// lose notes that packets of a group are not told.
func (f *flows) lose(group uint16, n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owed[group] += n
	f.lost += n
}

// note notes why a group can't be followed, nil: it can, as far as is known, and tells
// those who wait for it.
func (f *flows) note(group uint16, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.faults, group)
		return
	}
	f.faults[group] = err
	for l := range f.listeners {
		if l.wants(group) {
			select {
			case l.fault <- err:
			default: // one is enough
			}
		}
	}
}

// wants says whether a listener waits for packets of a group.
func (l *listener) wants(group uint16) bool { return group == policy.GroupDenied || !l.query.Denied }

// take tells everybody of a packet.
func (f *flows) take(p kernel.LoggedPacket) {
	flow, ok := f.a.flowOf(p)
	if !ok {
		return // another's rule
	}
	if flow.Verdict == localapi.FlowLogged {
		f.a.log.Info("policy log", "node", flow.Node, "direction", flow.Direction,
			"src", endpointText(flow.Src, flow.SrcPort, flow.SrcEndpoint), "dst", endpointText(flow.Dst, flow.DstPort, flow.DstEndpoint),
			"protocol", flow.Protocol, "tier", flow.Tier, "policy", flow.Policy, "rule", flow.Rule)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost += flow.Lost
	flow.Lost += f.owed[p.Group]
	delete(f.owed, p.Group)
	f.told[flow.Verdict]++
	if flow.Verdict != localapi.FlowAllowed {
		f.keep(flow)
	}
	for l := range f.listeners {
		l.tell(flow)
	}
}

// sums returns how many flows were told, by verdict, and how many were lost.
func (f *flows) sums() (told map[string]uint64, lost uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.told), f.lost
}

// keep remembers a flow, in place of the oldest. f.mu is held.
func (f *flows) keep(flow localapi.Flow) {
	if len(f.kept) < flowsKept {
		f.kept = append(f.kept, flow)
		return
	}
	f.kept[f.next] = flow
	f.next = (f.next + 1) % flowsKept
}

// tell queues a flow if it is wanted. The flows' mu is held.
func (l *listener) tell(flow localapi.Flow) {
	if !l.query.Matches(flow) {
		l.lost += flow.Lost
		return
	}
	flow.Lost += l.lost
	select {
	case l.flows <- flow:
		l.lost = 0
	default:
		l.lost = 1 + flow.Lost
	}
}

// begin adds a listener if it wants what is to come, and returns what is remembered,
// oldest first.
func (f *flows) begin(l *listener) []localapi.Flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.query.Follow {
		f.listeners[l] = true
		f.turn()
	}
	for group, err := range f.faults {
		if l.wants(group) {
			l.fault <- fmt.Errorf("group %d: %w", group, err)
			break
		}
	}
	return append(append([]localapi.Flow{}, f.kept[f.next:]...), f.kept[:f.next]...)
}

func (f *flows) end(l *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listeners, l)
	f.turn()
}

// turn tells that a listener came or went. f.mu is held.
func (f *flows) turn() {
	close(f.turned)
	f.turned = make(chan struct{})
	if f.stop != nil && !f.anyone() {
		f.stop()
	}
}

// Flows calls fn with the flows that are remembered, oldest first, then with those to
// come if they are wanted, until ctx is done. It is an error if packets can't be
// followed.
func (a *Agent) Flows(ctx context.Context, q localapi.FlowQuery, fn func(localapi.Flow) error) error {
	l := &listener{query: q, flows: make(chan localapi.Flow, flowsAhead), fault: make(chan error, 1)}
	kept := a.flows.begin(l)
	defer a.flows.end(l)
	for _, flow := range kept {
		if !q.Matches(flow) {
			continue
		}
		if err := fn(flow); err != nil {
			return err
		}
	}
	for q.Follow {
		select {
		case <-ctx.Done():
			return nil
		case flow := <-l.flows:
			if err := fn(flow); err != nil {
				return err
			}
		case err := <-l.fault:
			return err
		}
	}
	select {
	case err := <-l.fault:
		return err
	default:
		return nil
	}
}

// flowOf returns what a logged packet says; false: it was no rule of a policy.
func (a *Agent) flowOf(p kernel.LoggedPacket) (localapi.Flow, bool) {
	logged, ok := policy.ParsePrefix(p.Prefix)
	if !ok {
		return localapi.Flow{}, false
	}
	state := a.loop.state.Load()
	if state == nil {
		state = &calc.State{}
	}
	verdicts := map[policy.Action]string{policy.Allow: localapi.FlowAllowed, policy.Deny: localapi.FlowDenied, policy.Log: localapi.FlowLogged}
	flow := localapi.Flow{
		Time: p.Time, Node: a.cfg.Node, Verdict: verdicts[logged.Action],
		Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, SrcPort: p.SrcPort, DstPort: p.DstPort,
		ICMPType: p.ICMPType, ICMPCode: p.ICMPCode, InLink: p.InLink, OutLink: p.OutLink, Lost: p.Lost,
		SrcEndpoint: a.owner(p.Src, p.InLink), DstEndpoint: a.owner(p.Dst, p.OutLink),
	}
	if o, ok := policy.OriginOfLog(logged, state.Policies); ok {
		flow.Direction, flow.Tier, flow.Policy, flow.Rule = o.Direction.String(), o.Tier, o.Name(), o.Number()
	}
	return flow, true
}

// endpointText returns one end of a flow as people read it.
func endpointText(a netip.Addr, port uint16, name string) string {
	text := a.String()
	if port != 0 {
		text = netip.AddrPortFrom(a, port).String()
	}
	if name != "" {
		text = name + " (" + text + ")"
	}
	return text
}
