package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// conditions keeps when each condition last changed.
type conditions struct {
	mu   sync.Mutex
	list []metav1.Condition
}

// set takes the conditions as they are now and returns all of them.
func (c *conditions) set(now ...metav1.Condition) []metav1.Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range now {
		meta.SetStatusCondition(&c.list, n)
	}
	return slices.Clone(c.list)
}

// condition returns a condition that is true exactly when problem is "".
func condition(kind, good, bad, problem string) metav1.Condition {
	if problem == "" {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: good}
	}
	return metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: bad, Message: problem}
}

// Status returns what the agent says of itself as of now.
func (a *Agent) Status(ctx context.Context) (*v1.NodeStatus, error) {
	sessions, err := a.drv.Speaker.Sessions(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the BGP speaker: %w", err)
	}
	s := &v1.NodeStatus{TypeMeta: typeMeta("NodeStatus"), ObjectMeta: metav1.ObjectMeta{Name: a.cfg.Node}}
	st := &s.Status
	st.UpdatedAt = metav1.Now()
	st.Agent = v1.AgentStatus{Version: a.cfg.Version, StartedAt: metav1.NewTime(a.started)}
	st.Pods = a.pods.Assignments().Len()
	counts := a.loop.routes.Status()
	st.Routes = v1.RouteCounts{Wanted: counts.Wanted, Applied: counts.Applied, Failed: counts.Failed}
	if state := a.loop.state.Load(); state != nil {
		st.BGP = a.bgpStatus(state, sessions)
		st.Issues = state.Issues
	}
	st.Issues = append(slices.Clip(st.Issues), a.pods.Issues()...)
	st.Conditions = a.conditions.set(a.currentConditions(st)...)
	return s, nil
}

// statusText returns the status as JSON, without the time.
func (a *Agent) statusText(ctx context.Context) (string, error) {
	s, err := a.Status(ctx)
	if err != nil {
		return "", err
	}
	s.Status.UpdatedAt = metav1.Time{}
	text, err := json.Marshal(s.Status)
	return string(text), err
}

func (a *Agent) bgpStatus(state *calc.State, sessions map[netip.Addr]bgp.Session) v1.BGPStatus {
	var b v1.BGPStatus
	if c, ok := state.Speaker.Get(struct{}{}); ok {
		b.ASNumber, b.RouterID = c.AS, c.RouterID.String()
	}
	for _, f := range a.loop.speaker.Failures() {
		b.Error = f.Err.Error()
	}
	for addr, p := range state.Peers.All() {
		s, origin := sessions[addr], state.PeerOrigins.At(addr)
		if s.State == "" {
			s.State = bgp.Idle
		}
		b.Peers = append(b.Peers, v1.BGPPeerStatus{
			Address: addr.String(), ASNumber: p.AS, Type: origin.Type, Name: origin.Name,
			State: string(s.State), Since: metav1.NewTime(s.Since), Flaps: s.Flaps, LastError: s.LastError,
			IPv4: v1.PrefixCounts(s.IPv4), IPv6: v1.PrefixCounts(s.IPv6),
		})
	}
	slices.SortFunc(b.Peers, func(x, y v1.BGPPeerStatus) int {
		return netip.MustParseAddr(x.Address).Compare(netip.MustParseAddr(y.Address))
	})
	return b
}

// currentConditions sums up.
func (a *Agent) currentConditions(st *v1.NodeStatusStatus) []metav1.Condition {
	notReady := ""
	if err := a.canAdd(); err != nil {
		notReady = err.Error()
	}
	away := ""
	if err := a.mirror.Down(); err != nil {
		away = err.Error()
	}
	return []metav1.Condition{
		condition(v1.ConditionReady, "FirstPassDone", "Starting", notReady),
		condition(v1.ConditionDatastore, "Connected", "Unreachable", away),
		condition(v1.ConditionBGP, "AllEstablished", "NotEstablished", bgpProblem(st.BGP)),
		condition(v1.ConditionProgrammed, "AllApplied", "Failing", a.failureText()),
	}
}

func bgpProblem(b v1.BGPStatus) string {
	if b.Error != "" {
		return b.Error
	}
	down := 0
	for _, p := range b.Peers {
		if p.State != string(bgp.Established) {
			down++
		}
	}
	if down == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d sessions are not Established", down, len(b.Peers))
}

// failureText names the first of what is not applied and counts the others.
func (a *Agent) failureText() string {
	var first string
	all := a.loop.failures()
	for k, f := range all {
		if text := k + ": " + f.Err.Error(); first == "" || text < first {
			first = text
		}
	}
	for _, err := range []error{a.loop.sysctls.Err(), a.loop.routes.Err()} {
		if err != nil {
			return err.Error()
		}
	}
	if n := len(all) - 1; n > 0 {
		first += fmt.Sprintf(" (and %d more)", n)
	}
	return first
}

// Routes returns every route that is wanted, learned or in the kernel as Cairn's,
// in the order of destinations.
func (a *Agent) Routes(context.Context) ([]localapi.Route, error) {
	state := a.loop.state.Load()
	if state == nil {
		state = &calc.State{}
	}
	known, failures := a.loop.routes.Known(), a.loop.routes.Failures()
	type entry struct {
		dst netip.Prefix
		localapi.Route
	}
	var all []entry
	for k, r := range state.Routes.All() {
		o := state.Origins.At(k)
		e := entry{k.Dst, localapi.Route{Dst: k.Dst.String(), Origin: string(o.Kind), From: o.From, Type: r.Type.String(), NextHops: hops(r)}}
		have, there := known[k]
		if e.InKernel = there && have == r; !e.InKernel {
			e.Reason = "not written yet"
			if f, failed := failures[k]; failed {
				e.Reason = fmt.Sprintf("%v (tried %d times since %s)", f.Err, f.Tries, f.Since.Format(time.TimeOnly))
			} else if err := a.loop.routes.Err(); err != nil {
				e.Reason = err.Error()
			}
		}
		all = append(all, e)
	}
	for k, r := range known {
		if state.Routes.Has(k) {
			continue
		}
		e := entry{k.Dst, localapi.Route{Dst: k.Dst.String(), Type: r.Type.String(), NextHops: hops(r), InKernel: true, Reason: "no longer wanted"}}
		if f, failed := failures[k]; failed {
			e.Reason += ": " + f.Err.Error()
		} else if state.Tentative && learned(k, r) {
			e.Reason = "of an earlier run; stays until BGP has told everything"
		}
		all = append(all, e)
	}
	for dst, reason := range state.Unused.All() {
		all = append(all, entry{dst, localapi.Route{Dst: dst.String(), Reason: reason}})
	}
	slices.SortStableFunc(all, func(x, y entry) int {
		return cmp.Or(cmp.Compare(x.dst.Addr().BitLen(), y.dst.Addr().BitLen()), x.dst.Addr().Compare(y.dst.Addr()), cmp.Compare(x.dst.Bits(), y.dst.Bits()))
	})
	routes := make([]localapi.Route, len(all))
	for i, e := range all {
		routes[i] = e.Route
	}
	return routes, nil
}

func hops(r kernel.Route) []string {
	var texts []string
	for _, h := range r.Hops.List() {
		texts = append(texts, h.String())
	}
	return texts
}
