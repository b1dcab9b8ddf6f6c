package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/reconcile"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// loop turns snapshots into writes. Its run is the one goroutine that writes to
// the kernel and to the speaker.
type loop struct {
	a    *Agent
	log  *slog.Logger
	calc calc.Calculator
	wake chan struct{} // something changed

	sysctls *reconcile.Tracker[kernel.Sysctl, string]
	routes  *reconcile.Tracker[kernel.RouteKey, kernel.Route]
	speaker *reconcile.Tracker[struct{}, bgp.Config]
	paths   *reconcile.Tracker[netip.Prefix, bgp.Path]
	peers   *reconcile.Tracker[netip.Addr, bgp.Peer]

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

	reported map[v1.Issue]bool   // issues that were logged
	failing  map[string]string   // failures that were logged
	snapshot *datastore.Snapshot // of which the allocator was told
	sound    *datastore.Snapshot // the last with the own Node as it should be; nil: none was
	cutOff   string              // why the datastore is away, as logged
}

func newLoop(a *Agent) *loop {
	l := &loop{
		a: a, log: a.log, wake: make(chan struct{}, 1), turned: make(chan struct{}),
		sysctls: reconcile.NewTracker("sysctls", a.drv.Sysctls),
		routes:  reconcile.NewTracker("routes", a.drv.Routes),
		speaker: reconcile.NewTracker("BGP speaker", a.drv.Speaker.Config()),
		paths:   reconcile.NewTracker("BGP paths", a.drv.Speaker.Paths()),
		peers:   reconcile.NewTracker("BGP peers", a.drv.Speaker.Peers()),

		reported: map[v1.Issue]bool{}, failing: map[string]string{},
	}
	l.speaker.Voids(l.paths, l.peers)
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

// observe takes an event of the host. It does not block.
func (l *loop) observe(e kernel.Event) {
	news := false
	for k, v := range e.Routes {
		news = l.routes.Observe(k, v) || news
	}
	if len(e.Down) > 0 {
		l.forgetLinks(e.Down)
	}
	if e.Overrun {
		l.routes.Doubt()
		l.sysctls.Doubt()
	}
	l.mu.Lock()
	news = news || e.Overrun || e.Host != l.host
	l.host = e.Host
	l.mu.Unlock()
	if news {
		l.kick()
	}
}

// forgetLinks puts in doubt what the kernel drops with a link.
func (l *loop) forgetLinks(names []string) {
	l.routes.Forget(func(_ kernel.RouteKey, r kernel.Route) bool {
		return slices.ContainsFunc(names, r.Hops.Uses)
	})
	gone := map[kernel.Sysctl]bool{}
	for _, name := range names {
		for k := range kernel.PodLinkSysctls(name) {
			gone[k] = true
		}
	}
	l.sysctls.Forget(func(k kernel.Sysctl, _ string) bool { return gone[k] })
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
	for {
		retryAt := l.once(ctx)
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
		case <-resync.C:
			l.doubtAll()
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

func (l *loop) doubtAll() {
	l.sysctls.Doubt()
	l.routes.Doubt()
	l.speaker.Doubt()
	l.paths.Doubt()
	l.peers.Doubt()
}

// once computes and reconciles once, and says when to do so again at the latest.
func (l *loop) once(ctx context.Context) time.Time {
	defer l.tell()
	in, missing := l.inputs()
	if in.Store != nil {
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
	l.want(&state)
	retry, err := reconcile.Pass(ctx,
		[]reconcile.Step{l.sysctls, l.routes},
		[]reconcile.Step{l.speaker, l.paths, l.peers})
	l.state.Store(&state)
	l.passes.Add(1)
	if ctx.Err() == nil {
		l.report(&state, err)
	}
	if l.routes.Err() == nil && l.sysctls.Err() == nil && !l.ready.Swap(true) {
		l.log.Info("ready", "after", time.Since(l.a.started), "routes", state.Routes.Len(), "peers", state.Peers.Len())
	}
	return retry
}

func (l *loop) want(s *calc.State) {
	var keep func(kernel.RouteKey, kernel.Route) bool
	if s.Tentative {
		keep = learned
	}
	l.sysctls.Want(s.Sysctls, nil)
	l.routes.Want(s.Routes, keep)
	l.speaker.Want(s.Speaker, nil)
	l.paths.Want(s.Paths, nil)
	l.peers.Want(s.Peers, nil)
}

// learned says whether a route is of the sort that BGP gives: while BGP has not
// told everything, such a route of an earlier run stays.
func learned(_ kernel.RouteKey, r kernel.Route) bool {
	hops := r.Hops.List()
	return len(hops) > 0 && hops[0].Gateway.IsValid()
}

// offerPools tells the allocator of the pools when they or the node changed.
func (l *loop) offerPools(in calc.Inputs) {
	old := l.snapshot
	if old != nil && old.Part("IPPool") == in.Store.Part("IPPool") && old.Part("Node") == in.Store.Part("Node") {
		return
	}
	l.snapshot = in.Store
	node, _ := datastore.Get[*v1.Node](in.Store, "", in.Node)
	l.a.pods.SetPools(datastore.Sorted[*v1.IPPool](in.Store), node)
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
	for _, i := range slices.Concat(s.Issues, l.a.pods.Issues()) {
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
	for k, f := range l.failures() {
		failing[k] = f.Err.Error()
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

// failures returns what can't be applied, by a text that names it.
func (l *loop) failures() map[string]reconcile.Failure {
	all := map[string]reconcile.Failure{}
	for k, f := range l.sysctls.Failures() {
		if !errors.Is(f.Err, kernel.ErrUnsupported) { // a kernel without IPv6 lacks nothing
			all["sysctl "+string(k)] = f
		}
	}
	for k, f := range l.routes.Failures() {
		all["route "+k.String()] = f
	}
	for _, f := range l.speaker.Failures() {
		all["BGP speaker"] = f
	}
	// Without a speaker nothing else of BGP can be written: that is no news.
	consequence := func(f reconcile.Failure) bool {
		_, broken := all["BGP speaker"]
		return broken && errors.Is(f.Err, bgp.ErrStopped)
	}
	for k, f := range l.paths.Failures() {
		if !consequence(f) {
			all["BGP path "+k.String()] = f
		}
	}
	for k, f := range l.peers.Failures() {
		if !consequence(f) {
			all["BGP peer "+k.String()] = f
		}
	}
	return all
}
