package agent_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// traceOf returns a trace of TCP to port 80.
func traceOf(from, to v1.TraceEnd) *v1.PacketTrace {
	return &v1.PacketTrace{
		TypeMeta: metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "PacketTrace"}, ObjectMeta: metav1.ObjectMeta{Name: "trace-1"},
		Spec: v1.PacketTraceSpec{Source: from, Destination: to, Port: 80, SourcePort: 40000},
	}
}

// asked creates a trace and returns its status some time later.
func (c *cluster) asked(trace *v1.PacketTrace, after time.Duration) v1.PacketTraceStatus {
	c.t.Helper()
	c.create(trace)
	time.Sleep(after)
	synctest.Wait()
	o, err := c.store.Get(c.t.Context(), datastore.KeyOf(trace))
	if err != nil {
		c.t.Fatal(err)
	}
	return o.(*v1.PacketTrace).Status
}

// story returns what was observed, one step a line, sorted by nodes. Each node tells of
// the packet and of what answers it side by side.
func story(s v1.PacketTraceStatus, nodes ...string) (lines []string) {
	for _, node := range nodes {
		var answers []string
		for _, o := range s.Observations {
			switch line := o.Node + ": " + o.Text; {
			case o.Node != node:
			case o.Reply:
				answers = append(answers, "answer: "+line)
			default:
				lines = append(lines, line)
			}
		}
		lines = append(lines, answers...)
	}
	return lines
}

// carry makes the fakes pass a packet from one to the next, through the rules that the
// test says.
func carry(from, to *node, drop bool) func(netns string, p kernel.Packet) kernel.Answer {
	return func(_ string, p kernel.Packet) kernel.Answer {
		in := kernel.PodLink("default", "one", "eth0")
		accept := func(hook kernel.Hook, out string) kernel.TraceEvent {
			return kernel.TraceEvent{Kind: kernel.TracePolicy, Table: "inet cairn", Chain: "filter-" + string(hook), Hook: hook, Verdict: kernel.Accept, OutLink: out, Headers: p}
		}
		from.kernel.TracePacket(kernel.TraceEvent{Hook: kernel.HookPrerouting, InLink: in, Headers: p},
			kernel.TraceEvent{Kind: kernel.TraceRule, Table: "inet cairn", Chain: "filter-forward", Hook: kernel.HookForward, Rule: 2, Verdict: kernel.Goto, Target: "pods/unconcerned", InLink: in, OutLink: "eth0", Headers: p},
			kernel.TraceEvent{Kind: kernel.TraceReturn, Table: "inet cairn", Chain: "pods/unconcerned", Verdict: kernel.Return},
			accept(kernel.HookForward, "eth0"))
		last := accept(kernel.HookForward, kernel.PodLink("default", "two", "eth0"))
		if drop {
			last = kernel.TraceEvent{Kind: kernel.TraceRule, Table: "ip other", Chain: "pre", Hook: kernel.HookPrerouting, Rule: 3, Comment: "no", Text: "drop", Verdict: kernel.Drop, Headers: p}
		}
		to.kernel.TracePacket(kernel.TraceEvent{Hook: kernel.HookPrerouting, InLink: "eth0", Headers: p}, last)
		if drop {
			return kernel.NoAnswer
		}
		back := p
		back.Src, back.Dst, back.SrcPort, back.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
		from.kernel.TracePacket(kernel.TraceEvent{Hook: kernel.HookPrerouting, InLink: "eth0", Headers: back},
			kernel.TraceEvent{Kind: kernel.TracePolicy, Table: "inet cairn", Chain: "filter-forward", Hook: kernel.HookForward, Verdict: kernel.Accept, OutLink: in, Headers: back})
		return kernel.Answered
	}
}

// TestTraces follows packets from node to node.
func TestTraces(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		n1, n2 := c.nodes["a1"], c.nodes["b2"]
		n1.add("one")
		two := n2.add("two")
		c.settle()
		link1, link2 := kernel.PodLink("default", "one", "eth0"), kernel.PodLink("default", "two", "eth0")
		left := []string{
			"a1: in " + link1 + " from default/one", "a1: route: via 192.0.2.1 dev eth0",
			"a1: filter-forward: -> pods/unconcerned", "a1: sent by eth0",
		}
		came := []string{"b2: in eth0", "b2: route: dev " + link2, "b2: delivered to pod default/two by " + link2}
		answer := []string{"answer: a1: in eth0", "answer: a1: route: dev " + link1, "answer: a1: delivered to pod default/one by " + link1}
		for _, tt := range []struct {
			name    string
			to      v1.TraceEnd
			drop    bool
			replies bool
			nodes   []string
			answer  string
			want    []string
		}{
			{"delivered to a pod", v1.TraceEnd{Pod: "default/two"}, false, false, []string{"a1", "b2"}, v1.TraceAnswered, append(left[:4:4], came...)},
			{"to a pod's address, and back", v1.TraceEnd{Address: two.IPv4.String()}, false, true, []string{"a1", "b2"}, v1.TraceAnswered, append(append(left[:4:4], answer...), came...)},
			{"to nobody's address, dropped", v1.TraceEnd{Address: "203.0.113.7"}, true, false, []string{"a1"}, v1.TraceNoAnswer,
				append(left[:4:4], "b2: in eth0", "b2: ip other pre: rule 3 (no): drop", "b2: dropped by ip other pre rule 3: no")},
			{"to a node, dropped", v1.TraceEnd{Node: "b2"}, true, false, []string{"a1", "b2"}, v1.TraceNoAnswer,
				append(left[:4:4], "b2: in eth0", "b2: ip other pre: rule 3 (no): drop", "b2: dropped by ip other pre rule 3: no")},
		} {
			n1.kernel.OnSend(carry(n1, n2, tt.drop))
			trace := traceOf(v1.TraceEnd{Pod: "default/one"}, tt.to)
			trace.Spec.Replies = tt.replies
			s := c.asked(trace, 5*time.Second)
			if d := cmp.Diff(tt.want, story(s, "a1", "b2")); d != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, d)
			}
			if d := cmp.Diff(tt.nodes, s.Nodes); d != "" || s.Answer != tt.answer || len(s.Problems) > 0 || len(s.Ready) != len(tt.nodes) {
				t.Errorf("%s: answer %q, ready %v, problems %v, nodes (-want +got):\n%s", tt.name, s.Answer, s.Ready, s.Problems, d)
			}
			if err := c.store.Delete(t.Context(), datastore.KeyOf(trace), ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
	}, "a1", "b2")
}

// TestTracesThatFail holds that who asks is told what is in the way.
func TestTracesThatFail(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		n1, n2 := c.nodes["a1"], c.nodes["a2"]
		n1.add("one")
		c.settle()
		for _, tt := range []struct {
			name    string
			to      v1.TraceEnd
			prepare func() (undo func())
			want    string
		}{
			{"there is no such pod", v1.TraceEnd{Pod: "default/two"}, nil, "a1: find the destination: there is no pod default/two"},
			{"there is no such node", v1.TraceEnd{Node: "c3"}, nil, "a1: find the destination: there is no Node c3"},
			{"no way into the pod", v1.TraceEnd{Node: "a2"}, func() func() {
				n1.kernel.Fail("send", nil, kernel.ErrPermission)
				return func() { n1.kernel.Fail("send", nil, nil) }
			}, "a1: send "},
			{"another trace", v1.TraceEnd{Node: "a2"}, func() func() {
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					done <- n2.agent.Trace(ctx, localapi.TraceQuery{Src: netip.MustParseAddr("192.0.2.99")}, func(localapi.TraceHop) error { return nil })
				}()
				synctest.Wait()
				return func() { stop(); <-done }
			}, "a2: trace packets: another trace is going on: busy"},
		} {
			undo := func() {}
			if tt.prepare != nil {
				undo = tt.prepare()
			}
			trace := traceOf(v1.TraceEnd{Pod: "default/one"}, tt.to)
			s := c.asked(trace, 5*time.Second)
			if len(s.Problems) != 1 || !strings.HasPrefix(s.Problems[0].Node+": "+s.Problems[0].Reason, tt.want) {
				t.Errorf("%s: problems %v, want %q", tt.name, s.Problems, tt.want)
			}
			undo()
			if err := c.store.Delete(t.Context(), datastore.KeyOf(trace), ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
	}, "a1", "a2")
}

// TestTracesThatAreLeft holds that nobody takes part in an old trace, and that its
// source's agent removes it.
func TestTracesThatAreLeft(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		c.nodes["a1"].add("one")
		c.settle()
		trace := traceOf(v1.TraceEnd{Pod: "default/one"}, v1.TraceEnd{Node: "a2"})
		if s := c.asked(trace, 5*time.Second); s.Packet == nil {
			t.Error("nobody takes part in a new trace")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if all, err := c.store.List(t.Context(), "PacketTrace"); err != nil || len(all) > 0 {
			t.Errorf("left: %v, %v", all, err)
		}
	}, "a1", "a2")
}
