package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/reconcile"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// loop turns snapshots into writes. Its run is the one goroutine that writes to
// the kernel and to the speaker.
type loop struct {
	a    *Agent
	log  *slog.Logger
	calc calc.Calculator
	wake chan struct{} // something changed
	tables

	synced     sync.Once     // the datastore was, and that was logged
	restarting bool          // set before recovered
	recovered  atomic.Bool   // the allocator agrees with datastore and kernel
	ready      atomic.Bool   // a full pass succeeded
	passing    atomic.Int64  // when the pass under way began, Unix nanoseconds; 0: none
	passes     atomic.Uint64 // done
	state      atomic.Pointer[calc.State]
	waiting    atomic.Pointer[string] // why there is no pass yet

	mu     sync.Mutex
	host   *kernel.Host
	turned chan struct{} // closed at the next end of a turn

	met atomic.Pointer[immutable.Map[kernel.WireGuardKey, bool]] // who has shaken hands; nil: not known yet

	lacking  immutable.Map[kernel.TunnelKind, bool] // what this kernel has not
	mtus     mtus
	reported map[v1.Issue]bool   // issues that were logged
	failing  map[string]string   // failures that were logged
	snapshot *datastore.Snapshot // of which the allocator was told
	sound    *datastore.Snapshot // the last with the own Node as it should be; nil: none was
	cutOff   string              // why the datastore is away, as logged
}

func newLoop(a *Agent) *loop {
	l := &loop{
		a: a, log: a.log, wake: make(chan struct{}, 1), turned: make(chan struct{}),
		reported: map[v1.Issue]bool{}, failing: map[string]string{},
	}
	l.tables = newTables(a.drv, podTable{a.drv.Pods, l.currentHost, a.pods.Assignments})
	return l
}

// kick makes the loop turn.
func (l *loop) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// turn returns a channel that is closed when the loop has turned next.
func (l *loop) turn() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.turned
}

// currentHost returns the host as last observed; nil before the first event.
func (l *loop) currentHost() *kernel.Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.host
}

// inputs returns what desired state depends on, or why it isn't complete. While
// it isn't, there is no desired state and nothing can be removed by mistake.
func (l *loop) inputs() (calc.Inputs, string) {
	in := calc.Inputs{
		Node: l.a.cfg.Node, Store: l.a.mirror.Snapshot(), Host: l.currentHost(), RIB: l.a.drv.Speaker.RIB(),
	}
	switch {
	case in.Store == nil:
		return in, "the datastore: " + cmp.Or(l.outage(), "not in sync yet")
	case in.Host == nil:
		return in, "the kernel has not been read yet"
	case !l.recovered.Load():
		return in, "the addresses in use are not reconciled with the datastore yet"
	}
	// Both are right only after the recovery.
	in.Pods, in.Restarting = l.a.pods.Assignments(), l.restarting
	in.Lacking, in.Met = l.lacking, *l.met.Load()
	why := l.nodeFault(in.Store)
	if why == "" {
		l.sound = in.Store
	} else if l.sound != nil {
		// Somebody spoilt the Node; all goes on until the publisher has mended it.
		in.Store, why = l.sound, ""
	}
	return in, why
}

// nodeFault says what is wrong with the own Node; "" if nothing is.
func (l *loop) nodeFault(s *datastore.Snapshot) string {
	node, ok := datastore.Get[*v1.Node](s, "", l.a.cfg.Node)
	switch {
	case !ok:
		return "the datastore holds no Node " + l.a.cfg.Node
	case addrsOf(node) != l.a.wantedAddrs(addrsOf(node)):
		return "the Node's addresses are being corrected"
	}
	return ""
}

// outage says why the datastore does not tell us everything; "" if it does.
func (l *loop) outage() string {
	var out *datastore.Outage
	if errors.As(l.a.mirror.Down(), &out) {
		return out.Err.Error()
	}
	return ""
}

// noteOutage logs once that the datastore went away, and why, and once that it
// is back.
func (l *loop) noteOutage() {
	switch why := l.outage(); {
	case why == l.cutOff:
		return
	case why == "":
		l.log.Info("the datastore is back")
		l.cutOff = ""
	default:
		l.log.Warn("the datastore is away; all goes on as it was", "error", why)
		l.cutOff = why
	}
}

// run turns until ctx is done.
func (l *loop) run(ctx context.Context) error {
	resync := time.NewTimer(l.jittered())
	defer resync.Stop()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	tidy := time.NewTimer(time.Hour)
	defer tidy.Stop()
	var tidying tidying
	for {
		retryAt := l.once(ctx)
		if wait, due := tidying.wait(l.changes(), time.Now()); due {
			tidy.Reset(wait)
		}
		retry.Stop()
		if !retryAt.IsZero() {
			retry.Reset(time.Until(retryAt))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-l.a.mirror.Changed():
		case <-l.a.pods.Changed():
		case <-l.a.drv.Speaker.Changed():
		case <-retry.C:
		case <-tidy.C:
			tidying.done(l.changes())
			go debug.FreeOSMemory()
		case <-resync.C:
			l.each(func(t table) { t.Doubt() })
			resync.Reset(l.jittered())
		}
	}
}

// jittered returns the time to the next resync, so that nodes don't all do it at
// once.
func (l *loop) jittered() time.Duration {
	d := l.a.cfg.Resync
	return d - d/10 + rand.N(d/5+1)
}

// once computes and reconciles once, and says when to do so again at the latest.
func (l *loop) once(ctx context.Context) time.Time {
	defer l.tell()
	in, missing := l.inputs()
	if in.Store != nil {
		l.synced.Do(func() { l.log.Info("in sync", "after", time.Since(l.a.started)) })
		l.noteOutage()
	}
	if missing != "" {
		if old := l.waiting.Swap(&missing); old == nil || *old != missing {
			l.log.Info("waiting", "reason", missing)
		}
		return time.Time{}
	}
	l.waiting.Store(nil)
	l.offerPools(in)
	l.passing.Store(time.Now().UnixNano())
	defer l.passing.Store(0)
	state := l.calc.Desired(in)
	l.want(&state, l.wantedMTUs(in, &state))
	retry, err := reconcile.Pass(ctx, steps(l.base), steps(l.top))
	l.state.Store(&state)
	l.passes.Add(1)
	l.noteLacking(&state)
	if ctx.Err() == nil {
		l.report(&state, err)
		if whole, failed := l.rulesInForce(); whole {
			l.a.terminate.follow(&state, in.Host, failed)
		}
	}
	if l.baseErr() == nil && !l.ready.Swap(true) {
		l.log.Info("ready", "after", time.Since(l.a.started), "routes", state.Routes.Len(), "peers", state.Peers.Len())
	}
	return retry
}

// noteLacking takes down which kinds of tunnels this kernel turned out not to have,
// or to have by now; desired state depends on it.
func (l *loop) noteLacking(s *calc.State) {
	var lacking immutable.Editor[kernel.TunnelKind, bool]
	for link, f := range l.tunnels.Failures() {
		if t, ok := s.Tunnels.Get(link); ok && errors.Is(f.Err, kernel.ErrUnsupported) {
			lacking.Set(t.Kind, true)
		}
	}
	if now := lacking.Map(); !immutable.Equal(now, l.lacking) {
		l.lacking = now
		l.kick()
	}
}

// wantedMTUs returns the MTU that each pod's link should have. While the node's
// addresses are on no link, none is known: then pods keep what they have.
func (l *loop) wantedMTUs(in calc.Inputs, s *calc.State) immutable.Map[ipam.Handle, int] {
	mtu := l.a.podMTU(s)
	if l.a.cfg.MTU == 0 && !located(in) {
		mtu = 0
	}
	want, again := l.mtus.next(in.Pods, in.Host, mtu)
	if again {
		l.podMTUs.Doubt() // reading costs nothing
	}
	return want
}

// located says whether a link has an address of the own Node.
func located(in calc.Inputs) bool {
	node, ok := datastore.Get[*v1.Node](in.Store, "", in.Node)
	if !ok {
		return false
	}
	own := node.Addresses()
	for a := range in.Host.Addrs {
		if slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr() == a.Prefix.Addr() }) {
			return true
		}
	}
	return false
}

// offerPools tells the allocator of the pools when they or a node changed.
func (l *loop) offerPools(in calc.Inputs) {
	old := l.snapshot
	if old != nil && old.Part("IPPool") == in.Store.Part("IPPool") && old.Part("Node") == in.Store.Part("Node") {
		return
	}
	l.snapshot = in.Store
	l.a.offerPools(in.Store)
}

// offerPools tells the allocator of the pools and the own Node.
func (a *Agent) offerPools(s *datastore.Snapshot) {
	node, _ := datastore.Get[*v1.Node](s, "", a.cfg.Node)
	a.pods.SetPools(datastore.Sorted[*v1.IPPool](s), node)
}

// tell wakes those who wait for a turn.
func (l *loop) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.turned)
	l.turned = make(chan struct{})
}

// report logs each issue and each failure once, when it comes up.
func (l *loop) report(s *calc.State, err error) {
	now := map[v1.Issue]bool{}
	for _, i := range l.a.issues(s) {
		now[i] = true
		if !l.reported[i] {
			l.log.Warn("bad resource", "object", i.Object, "field", i.Field, "reason", i.Reason)
		}
	}
	l.reported = now
	failing := map[string]string{}
	if err != nil {
		failing["pass"] = err.Error()
	}
	for _, f := range l.allFailures() {
		failing[f.name] = f.Err.Error()
	}
	for k, text := range failing {
		if l.failing[k] != text {
			l.log.Error("not applied", "object", k, "error", text)
		}
	}
	for k := range l.failing {
		if _, still := failing[k]; !still {
			l.log.Info("applied after failure", "object", k)
		}
	}
	l.failing = failing
}
