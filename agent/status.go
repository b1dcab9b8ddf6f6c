package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/calc"
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
	for as := range a.pods.Assignments().All() {
		if !as.IsTunnel() {
			st.Pods++
		}
	}
	counts := a.loop.routes.Status()
	st.Routes = v1.RouteCounts{Wanted: counts.Wanted, Applied: counts.Applied, Failed: counts.Failed}
	state := a.loop.state.Load()
	if state != nil {
		st.BGP = a.bgpStatus(state, sessions)
		st.Tunnels = a.tunnelStatus(state)
		if st.WireGuard, err = a.wireguardStatus(ctx, state); err != nil { // it may have gone just now
			st.Issues = append(st.Issues, v1.Issue{Object: "tunnel " + kernel.LinkWireGuard, Reason: "its peers can't be told: " + err.Error()})
		}
	} else {
		state = &calc.State{}
	}
	st.Issues = append(a.issues(state), st.Issues...)
	st.Conditions = a.conditions.set(a.currentConditions(st)...)
	return s, nil
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
		condition(v1.ConditionBGP, bgpReason(st.BGP), "NotEstablished", bgpProblem(st.BGP)),
		condition(v1.ConditionProgrammed, "AllApplied", "Failing", a.failureText()),
	}
}

// bgpReason is the reason for which nothing is wrong with BGP.
func bgpReason(b v1.BGPStatus) string {
	if len(b.Peers) == 0 {
		return "NoPeers"
	}
	return "AllEstablished"
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
	if err := a.loop.baseErr(); err != nil {
		return err.Error()
	}
	all := a.loop.allFailures()
	if len(all) == 0 {
		return ""
	}
	text := all[0].name + ": " + all[0].Err.Error()
	if n := len(all) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}
