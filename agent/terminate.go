package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// terminator ends the connections of this node's pods that policies have come to
// refuse, where the administrator wants that (policyChange: Terminate). It does so
// behind the loop's back: the kernel walks its table of connections. Changes that come
// meanwhile share the next walk. It looks at the connections only of pods that a change
// may concern; of all of them first, for it can't know what was in force before.
//
// To end a connection is to have the kernel forget it. That its packets don't begin it
// anew is up to the rules (policy.Settings, EndRefused).
type terminator struct {
	table kernel.Conntrack
	log   *slog.Logger
	wake  chan struct{}

	mu  sync.Mutex
	now *inForce // nil: nothing is to be ended

	done *inForce // of which all that is refused was ended; nil: of nothing
}

// inForce is what the kernel enforces.
type inForce struct {
	sets     immutable.Map[string, kernel.Set]
	elements immutable.Map[kernel.Element, struct{}]
	chains   immutable.Map[string, kernel.Chain]
	locals   immutable.Map[policy.ID, *policy.Enforced]
	host     *kernel.Host
	failed   int // how much of it can't be written

	walked *policy.Table // see table
}

func newTerminator(table kernel.Conntrack, log *slog.Logger) *terminator {
	return &terminator{table: table, log: log, wake: make(chan struct{}, 1)}
}

// follow takes in what is in the kernel by now; failed says how much of it is not.
func (t *terminator) follow(s *calc.State, host *kernel.Host, failed int) {
	var now *inForce
	if s.EndRefused {
		now = &inForce{sets: s.Sets, elements: s.Elements, chains: s.Chains, locals: s.Locals, host: host, failed: failed}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now == t.now || now != nil && t.now != nil && now.same(t.now) {
		return
	}
	t.now = now
	t.again()
}

// same says whether nothing that could refuse a connection differs.
func (f *inForce) same(o *inForce) bool {
	return f.sets == o.sets && f.elements == o.elements && f.chains == o.chains && f.failed == o.failed
}

// run works until ctx is done. What fails is tried again, unless this kernel tracks no
// connections.
func (t *terminator) run(ctx context.Context) error {
	const minDelay, maxDelay = time.Second, 10 * time.Second
	delay := minDelay
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		began := time.Now()
		ended, err := t.once(ctx)
		pause := 10 * time.Since(began) // however often policies change, most of the time is others'
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, kernel.ErrUnsupported):
			t.log.Warn("connections that policies refuse are left for now", "error", err)
			pause = max(pause, delay)
			delay = min(2*delay, maxDelay)
			t.again()
		case ended > 0:
			t.log.Info("ended connections that policies refuse", "number", ended)
			fallthrough
		default:
			delay = minDelay
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// again has run work once more.
func (t *terminator) again() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// once ends what is refused, and returns how many connections that were.
func (t *terminator) once(ctx context.Context) (int, error) {
	t.mu.Lock()
	now := t.now
	t.mu.Unlock()
	if now == nil {
		t.done = nil
		return 0, nil
	}
	j := newJudge(now, now.concerned(t.done))
	if len(j.addrs) == 0 {
		t.done = now
		return 0, nil
	}
	var refused []kernel.Connection
	err := t.table.List(ctx, func(c kernel.Connection) bool {
		if j.refused(c) {
			refused = append(refused, c)
		}
		return true
	}, j.addrs...)
	if err == nil {
		err = t.table.Delete(ctx, refused)
	}
	if err == nil || errors.Is(err, kernel.ErrUnsupported) {
		t.done = now
	}
	return len(refused), err
}

// concerned returns the pods whose packets may meet other rules than before. One that
// has come since has no connections that are older.
func (f *inForce) concerned(was *inForce) []*policy.Endpoint {
	var pods []*policy.Endpoint
	var changes policy.Changes
	if was != nil {
		changes = policy.ChangesOf(was.table(), f.table())
	}
	for id, l := range f.locals.All() {
		switch {
		case id.Kind != policy.KindPod:
		case was == nil || was.failed != f.failed, was.locals.Has(id) && changes.TouchPod(l.Endpoint.Link):
			pods = append(pods, l.Endpoint)
		}
	}
	return pods
}

// table returns the rules as packets can be walked through them; for run only.
func (f *inForce) table() *policy.Table {
	if f.walked == nil {
		f.walked = policy.NewTable(f.sets, f.elements, f.chains)
	}
	return f.walked
}

// judge says of connections whether policies refuse them.
type judge struct {
	table *policy.Table
	links map[netip.Addr]string // of all pods of this node, by address
	own   map[netip.Addr]bool   // the host's addresses
	addrs []netip.Addr          // whose connections are to be looked at
}

func newJudge(f *inForce, concerned []*policy.Endpoint) *judge {
	j := &judge{table: f.table(), links: map[netip.Addr]string{}, own: map[netip.Addr]bool{}}
	for _, l := range f.locals.All() {
		if l.Endpoint.Kind == policy.KindPod {
			for _, a := range l.Endpoint.Addrs {
				j.links[a] = l.Endpoint.Link
			}
		}
	}
	for a := range f.host.Addrs {
		j.own[a.Prefix.Addr()] = true
	}
	for _, e := range concerned {
		j.addrs = append(j.addrs, e.Addrs...)
	}
	return j
}

// refused asks the rules what they would do with the connection's first packet.
func (j *judge) refused(c kernel.Connection) bool {
	p := policy.PacketAt{Translated: c.DstTranslated, Packet: policy.Packet{
		Src: c.Original.Src, Dst: c.Reply.Src, Protocol: c.Original.Protocol,
		SrcPort: c.Original.SrcPort, DstPort: c.Reply.SrcPort, ICMPType: c.Original.ICMPType, ICMPCode: c.Original.ICMPCode,
	}}
	p.InLink, p.OutLink = j.links[p.Src], j.links[p.Dst]
	if p.InLink != "" && j.own[p.Dst] {
		out, err := j.table.Trace(kernel.HookInput, p)
		return err == nil && out.Dropped
	}
	return j.drops(policy.Egress, p.InLink, p) || !j.own[p.Src] && j.drops(policy.Ingress, p.OutLink, p)
}

// drops says whether a pod's policies drop a packet; without a link there is none.
func (j *judge) drops(d policy.Direction, link string, p policy.PacketAt) bool {
	out, known, err := j.table.Pod(d, link, p)
	return err == nil && known && out.Dropped
}
