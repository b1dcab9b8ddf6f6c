package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/reconcile"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// Pace of the status in the datastore.
const (
	statusFirst = 5 * time.Second // after the start, if the agent isn't ready before
	statusPause = time.Second     // at least, between two writes
	statusBeat  = time.Minute     // at most, changed or not
)

// publisher writes to the datastore what others must know of this node: its
// Node, its pods' WorkloadEndpoints, its NodeStatus. It has its own goroutine, so
// that an absent datastore holds nothing up.
type publisher struct {
	a         *Agent
	log       *slog.Logger
	node      *reconcile.Tracker[struct{}, nodeFields]
	endpoints *reconcile.Tracker[datastore.Key, endpoint]
	status    *reconcile.Tracker[struct{}, statusText]
	fields    nodeFields        // that the Node had when it was last there
	offered   offers            // of this turn
	host      *kernel.Host      // of which the endpoints are wanted, with
	pods      *ipam.Assignments // these
	key       deviceKey
	wireguard *v1.WireGuardStatus // as published last
	lastError string

	away  bool      // the datastore was, when last looked at
	dirty bool      // the status may have changed since it was taken
	pause time.Time // no status before
	beat  time.Time // the next status at the latest
}

func newPublisher(a *Agent) *publisher {
	store, name := a.drv.Store, a.cfg.Node
	p := &publisher{
		a: a, log: a.log, dirty: true,
		status: reconcile.NewTracker("NodeStatus", statusTable{store, name}),
	}
	told := func(h ipam.Handle) (ipam.Assignment, bool) { return a.pods.Assignments().Get(h) }
	p.endpoints = reconcile.NewTracker("WorkloadEndpoints", endpointTable{store, name, a.mirror.Snapshot, told})
	p.node = reconcile.NewTracker("Node", nodeTable{store, name, a.mirror.Snapshot, p.wanted})
	return p
}

// wanted returns what the agent's fields of the own Node should be, from what they
// are.
func (p *publisher) wanted(have nodeFields) nodeFields {
	want := nodeFields{p.a.wantedAddrs(have.nodeAddrs), have.details}
	if want.nodeAddrs != (nodeAddrs{}) { // of a node without addresses nothing else is valid
		want.details = p.offered.over(have.details)
	}
	return want
}

// run publishes after each turn of the loop until ctx is done.
func (p *publisher) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		turn := p.a.loop.turn()
		timer.Reset(time.Until(p.once(ctx)))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-turn:
			p.dirty = true
		}
	}
}

// once publishes what changed and returns when to do so again at the latest.
func (p *publisher) once(ctx context.Context) time.Time {
	now := time.Now()
	snapshot := p.a.mirror.Snapshot()
	if snapshot == nil {
		return now.Add(statusBeat) // a turn comes before
	}
	away := p.a.mirror.Down() != nil
	if p.away && !away {
		p.node.RetryNow()
		p.endpoints.RetryNow()
		p.status.RetryNow()
	}
	p.away = away
	p.node.Doubt() // read from the mirror, so it costs nothing
	if n, ok := datastore.Get[*v1.Node](snapshot, "", p.a.cfg.Node); ok {
		p.fields = fieldsOf(n)
	}
	p.offered = p.offers(ctx)
	p.node.Want(immutable.Of(map[struct{}]nodeFields{{}: p.wanted(p.fields)}), nil)
	p.takeStatus(ctx, now)
	steps := []reconcile.Step{p.status}
	if p.a.loop.recovered.Load() {
		p.wantEndpoints()
		steps = []reconcile.Step{p.endpoints, p.status}
	}
	retry, err := reconcile.Pass(ctx, []reconcile.Step{p.node}, steps)
	p.report(ctx, err)
	next := p.beat
	if p.dirty {
		next = p.pause
	}
	if !retry.IsZero() && retry.Before(next) {
		next = retry
	}
	return next
}

// wantEndpoints wants the endpoints of the pods that are attached by now.
func (p *publisher) wantEndpoints() {
	host, pods := p.a.loop.currentHost(), p.a.pods.Assignments()
	if host != p.host || pods != p.pods {
		p.host, p.pods = host, pods
		p.endpoints.Want(immutable.Of(wantedEndpoints(host, pods)), nil)
	}
}

// takeStatus wants the status as it is now, if it may have changed and the last
// is old enough, or if the last is too old.
func (p *publisher) takeStatus(ctx context.Context, now time.Time) {
	beat := !now.Before(p.beat)
	if !beat && (!p.dirty || now.Before(p.pause)) {
		return
	}
	if first := p.a.started.Add(statusFirst); !p.a.loop.ready.Load() && now.Before(first) {
		p.dirty, p.pause = true, first
		return
	}
	p.dirty, p.pause = true, now.Add(statusPause)
	text, err := p.statusText(ctx, beat)
	if err != nil {
		p.log.Warn("can't take the status", "error", err)
		return
	}
	if beat {
		p.beat = now.Add(statusBeat)
	}
	p.dirty = false
	p.status.Want(immutable.Of(map[struct{}]statusText{{}: {text: text, beat: p.beat.Unix()}}), nil)
}

// statusText returns the status to be published as JSON, without the time. Fresh
// asks for what changes all the time as it is now.
func (p *publisher) statusText(ctx context.Context, fresh bool) (string, error) {
	s, err := p.a.Status(ctx)
	if err != nil {
		return "", err
	}
	s.Status.UpdatedAt = metav1.Time{}
	s.Status.WireGuard = steady(s.Status.WireGuard, p.wireguard, fresh)
	p.wireguard = s.Status.WireGuard
	text, err := json.Marshal(s.Status)
	return string(text), err
}

// report logs a failure once, and its end.
func (p *publisher) report(ctx context.Context, err error) {
	text := ""
	for _, f := range p.node.Failures() {
		text = f.Err.Error()
	}
	for _, f := range p.endpoints.Failures() {
		text = f.Err.Error()
	}
	for _, f := range p.status.Failures() {
		text = f.Err.Error()
	}
	if err != nil {
		text = err.Error()
	}
	if text == p.lastError || ctx.Err() != nil {
		return
	}
	if p.lastError = text; text == "" {
		p.log.Info("published after failure")
	} else {
		p.log.Warn("can't publish", "error", text)
	}
}
