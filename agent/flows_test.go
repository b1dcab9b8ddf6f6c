package agent_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// shopPolicy is a policy of what the pod web takes in.
const shopPolicy = `
apiVersion: cairn.network/v1
kind: NetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  selector: all()
  types: [Ingress]
  ingress:
    - {action: Allow, protocol: TCP, destination: {ports: [80]}}
    - {action: Log, protocol: UDP}
`

// elsewhere is a pod of another node.
const elsewhere = `
apiVersion: cairn.network/v1
kind: WorkloadEndpoint
metadata: {name: far-eth0, namespace: default}
spec: {node: n2, pod: far, containerID: c, endpoint: eth0, interfaceName: cairn0, ipNetworks: [10.244.9.9/32]}
`

// logged is a packet that a rule of the policy shop logs, or its tier.
func logged(group uint16, action policy.Action, chain string, rule int, web protocol.Response) kernel.LoggedPacket {
	return kernel.LoggedPacket{
		Time: time.Now(), Group: group, Prefix: policy.Logged{Action: action, Chain: chain, Rule: rule}.Prefix(),
		InLink: "eth0", OutLink: kernel.PodLink("default", "web", "eth0"),
		Packet: kernel.Packet{Src: netip.MustParseAddr("10.244.9.9"), Dst: web.IPv4, Protocol: kernel.ProtoTCP, SrcPort: 1000, DstPort: 81},
	}
}

// told returns what the agent tells now.
func (s *solo) told(q localapi.FlowQuery) (flows []localapi.Flow) {
	s.t.Helper()
	if err := s.agent.Flows(s.t.Context(), q, func(f localapi.Flow) error { flows = append(flows, f); return nil }); err != nil {
		s.t.Error(err)
	}
	return flows
}

// shop is a node with the pod web and its policy.
func shop(t *testing.T, test func(*testing.T, *solo, protocol.Response)) {
	alone(t, func(t *testing.T, s *solo) {
		s.apply(shopPolicy)
		s.apply(elsewhere)
		s.start()
		web := s.add("web")
		s.settle(time.Second)
		test(t, s, web)
	})
}

// TestFlowsRemembered holds that denials and logs are remembered with all that there is
// to say about them.
func TestFlowsRemembered(t *testing.T) {
	shop(t, func(t *testing.T, s *solo, web protocol.Response) {
		denied := logged(policy.GroupDenied, policy.Deny, "tier/default/in", -1, web)
		denied.Lost = 4
		gone := logged(policy.GroupDenied, policy.Deny, "np/default/gone/out", 2, web)
		gone.Src = netip.MustParseAddr("192.0.2.11")
		other := logged(policy.GroupDenied, policy.Deny, "tier/default/in", -1, web)
		other.Prefix = "somebody's: "
		for _, p := range []kernel.LoggedPacket{
			denied, other, gone, logged(policy.GroupLogged, policy.Log, "np/default/shop/in", 1, web),
			logged(policy.GroupAllowed, policy.Allow, "np/default/shop/in", 0, web),
		} {
			s.kernel.LogPacket(p)
			synctest.Wait()
		}
		common := localapi.Flow{
			Node: "n1", Direction: "ingress", Src: denied.Src, Dst: web.IPv4, Protocol: 6, SrcPort: 1000, DstPort: 81,
			InLink: "eth0", OutLink: denied.OutLink, SrcEndpoint: "default/far", DstEndpoint: "default/web",
		}
		want := []localapi.Flow{common, common, common}
		want[0].Verdict, want[0].Tier, want[0].Lost = localapi.FlowDenied, "default", 4
		want[1].Verdict, want[1].Policy, want[1].Rule, want[1].Direction = localapi.FlowDenied, "np/default/gone/out", 3, "egress"
		want[1].Src, want[1].SrcEndpoint = gone.Src, "n1"
		want[2].Verdict, want[2].Tier, want[2].Policy, want[2].Rule = localapi.FlowLogged, "default", "NetworkPolicy default/shop", 2
		for _, tt := range []struct {
			name  string
			query localapi.FlowQuery
			want  []localapi.Flow
		}{
			{"all", localapi.FlowQuery{}, want},
			{"denied", localapi.FlowQuery{Denied: true}, want[:2]},
			{"of a pod", localapi.FlowQuery{Endpoint: "default/far"}, []localapi.Flow{want[0], want[2]}},
			{"of a node", localapi.FlowQuery{Endpoint: "n1"}, want[1:2]},
			{"of an address", localapi.FlowQuery{Address: gone.Src}, want[1:2]},
			{"of nobody", localapi.FlowQuery{Endpoint: "default/nobody"}, nil},
		} {
			if d := cmp.Diff(tt.want, s.told(tt.query), cmpopts.IgnoreFields(localapi.Flow{}, "Time"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, d)
			}
		}
	})
}

// listening is a call of Flows that goes on.
type listening struct {
	flows []localapi.Flow
	err   error
	stop  func()
	done  chan struct{}
}

func (s *solo) listen(q localapi.FlowQuery) *listening {
	q.Follow = true
	ctx, stop := context.WithCancel(s.t.Context())
	l := &listening{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.err = s.agent.Flows(ctx, q, func(f localapi.Flow) error { l.flows = append(l.flows, f); return nil })
	}()
	synctest.Wait()
	return l
}

// end returns the verdicts that were told.
func (l *listening) end(t *testing.T) (verdicts string) {
	t.Helper()
	synctest.Wait()
	l.stop()
	<-l.done
	if l.err != nil {
		t.Error(l.err)
	}
	for _, f := range l.flows {
		verdicts += f.Verdict[:1]
	}
	return verdicts
}

// TestFlowsFollowed holds that all listeners share what one follower of a group hears,
// and that nobody follows what is allowed while nobody listens.
func TestFlowsFollowed(t *testing.T) {
	shop(t, func(t *testing.T, s *solo, web protocol.Response) {
		allow := func() {
			s.kernel.LogPacket(logged(policy.GroupAllowed, policy.Allow, "np/default/shop/in", 0, web))
			synctest.Wait()
		}
		deny := func() {
			s.kernel.LogPacket(logged(policy.GroupDenied, policy.Deny, "np/default/shop/in", -1, web))
			synctest.Wait()
		}
		allow() // nobody hears
		one := s.listen(localapi.FlowQuery{})
		denials := s.listen(localapi.FlowQuery{Denied: true})
		allow()
		deny()
		two := s.listen(localapi.FlowQuery{Endpoint: "default/web"})
		other := s.listen(localapi.FlowQuery{Endpoint: "default/other"})
		allow()
		if got := one.end(t); got != "ada" {
			t.Errorf("the first heard %q", got)
		}
		allow()
		if got := two.end(t); got != "daa" {
			t.Errorf("the second heard %q", got)
		}
		if got := other.end(t) + denials.end(t); got != "d" {
			t.Errorf("those who want others heard %q", got)
		}
		// Nobody wants to hear of what is allowed: the group is free.
		free, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.kernel.Follow(free, []uint16{policy.GroupAllowed}, func(kernel.LoggedPacket) {}); err != nil {
			t.Errorf("follow the group of what is allowed: %v", err)
		}
		again := s.listen(localapi.FlowQuery{})
		allow()
		if got := again.end(t); got != "da" {
			t.Errorf("one more heard %q", got)
		}
	})
}

// TestFlowsOfAFlood holds that the agent lets go of a group of which too much comes, and
// hears it again.
func TestFlowsOfAFlood(t *testing.T) {
	shop(t, func(t *testing.T, s *solo, web protocol.Response) {
		p := logged(policy.GroupDenied, policy.Deny, "np/default/shop/in", -1, web)
		for range 3 {
			for range 500 {
				s.kernel.LogPacket(p)
			}
			synctest.Wait()
		}
		s.kernel.LogPacket(p) // nobody hears
		if got := len(s.told(localapi.FlowQuery{})); got != 1000 {
			t.Errorf("%d flows are remembered, want 1000", got)
		}
		s.settle(time.Second)
		s.kernel.LogPacket(p)
		synctest.Wait()
		flows := s.told(localapi.FlowQuery{})
		// How many it did not even hear of nobody knows.
		if last := flows[len(flows)-1]; len(flows) != 1000 || last.Lost == 0 || last.Lost > 501 {
			t.Errorf("%d flows are remembered, and before the last %d were lost, want 1000 and 1 to 501", len(flows), last.Lost)
		}
	})
}

// TestFlowsOfASlowListener loses some, and says so.
func TestFlowsOfASlowListener(t *testing.T) {
	shop(t, func(t *testing.T, s *solo, web protocol.Response) {
		wake := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var lost []uint64
		go func() {
			done <- s.agent.Flows(ctx, localapi.FlowQuery{Follow: true}, func(f localapi.Flow) error {
				<-wake
				lost = append(lost, f.Lost)
				return nil
			})
		}()
		synctest.Wait()
		tell := func(n int) {
			for range n {
				s.kernel.LogPacket(logged(policy.GroupAllowed, policy.Allow, "np/default/shop/in", 0, web))
			}
			s.settle(2 * time.Second)
		}
		tell(600)
		tell(600)
		close(wake)
		synctest.Wait()
		tell(1)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		// One is with the listener and 1,000 wait.
		if n := len(lost); n != 1002 || lost[n-1] != 199 {
			t.Errorf("told %d, and before the last %d were lost, want 1002 and 199", n, lost[len(lost)-1])
		}
	})
}

// TestFlowsThatCannotBeFollowed holds that who asks is told why, and that the group is
// tried again.
func TestFlowsThatCannotBeFollowed(t *testing.T) {
	shop(t, func(t *testing.T, s *solo, web protocol.Response) {
		s.kernel.Fail("follow", policy.GroupAllowed, kernel.ErrBusy)
		l := s.listen(localapi.FlowQuery{})
		<-l.done
		if l.err == nil || !strings.Contains(l.err.Error(), "busy") {
			t.Errorf("Flows: %v, want that the group is busy", l.err)
		}
		denials := s.listen(localapi.FlowQuery{Denied: true})
		s.kernel.Fail("follow", policy.GroupAllowed, nil)
		s.settle(20 * time.Second)
		again := s.listen(localapi.FlowQuery{})
		s.settle(20 * time.Second)
		s.kernel.LogPacket(logged(policy.GroupAllowed, policy.Allow, "np/default/shop/in", 0, web))
		if got := again.end(t) + denials.end(t); got != "a" {
			t.Errorf("heard %q", got)
		}
	})
}

func mustRead(t *testing.T, table kernel.Table[string, kernel.Chain]) map[string]kernel.Chain {
	t.Helper()
	all, err := table.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCounters sums up what rules have counted.
func TestCounters(t *testing.T) {
	shop(t, func(t *testing.T, s *solo, web protocol.Response) {
		for name := range mustRead(t, s.kernel.Chains()) {
			if policy.Unversioned(name) == "np/default/shop/in" {
				s.kernel.AddCount(name, "0", 3, 180)
			}
		}
		s.kernel.AddCount("raw-prerouting", "not the pod's own address", 1, 60) // in the rule of each family
		got, err := s.agent.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		shop := localapi.Counter{Kind: "NetworkPolicy", Namespace: "default", Name: "shop", Tier: "default", Direction: "ingress"}
		want := []localapi.Counter{{Tier: "default", Direction: "ingress", Action: "Deny"}, shop, shop, {Reason: "no pod of this node"}, {Reason: "not the pod's own address", Packets: 2, Bytes: 120}}
		want[1].Rule, want[1].Action, want[1].Packets, want[1].Bytes = 1, "Allow", 3, 180
		want[2].Rule, want[2].Action = 2, "Log"
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("counters (-want +got):\n%s", d)
		}
		s.kernel.Fail("read", "counters", kernel.ErrPermission)
		if _, err := s.agent.Counters(t.Context()); err == nil {
			t.Error("counters that can't be read are no error")
		}
	})
}
