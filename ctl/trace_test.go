package ctl

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
)

// steps are what agents saw: verdicts by node, and what goes before.
func steps(node string, reply bool, verdict, text string) []v1.TraceObservation {
	return []v1.TraceObservation{
		{Node: node, Step: v1.TraceStepLink, Text: "in eth0", Reply: reply},
		{Node: node, Step: v1.TraceStepVerdict, Verdict: verdict, Text: text, Reply: reply},
	}
}

// traced is a trace of a packet from n1 to n3, as agents tell it.
func traced(change func(*v1.PacketTraceStatus), seen ...[]v1.TraceObservation) *v1.PacketTrace {
	t := &v1.PacketTrace{ObjectMeta: metav1.ObjectMeta{Name: "t"}, Spec: v1.PacketTraceSpec{
		Source: v1.TraceEnd{Pod: "default/a"}, Destination: v1.TraceEnd{Pod: "default/b"}, Port: 80, Replies: true,
	}}
	t.Default()
	t.Status = v1.PacketTraceStatus{
		Packet: &v1.TracedPacket{Source: "10.0.0.1", Destination: "fd00::2", Protocol: "TCP", SourcePort: 1, DestinationPort: 80},
		Nodes:  []string{"n1", "n3"}, Ready: []string{"n3", "n1"}, SentAt: metav1.NowMicro(), Answer: v1.TraceNoAnswer,
	}
	for _, s := range seen {
		t.Status.Observations = append(t.Status.Observations, s...)
	}
	if change != nil {
		change(&t.Status)
	}
	return t
}

// TestTraceVerdicts holds what is said of a packet in the end, and whether there is
// anything more to wait for.
func TestTraceVerdicts(t *testing.T) {
	left := steps("n1", false, v1.TraceSent, "sent by eth0")
	came := steps("n3", false, v1.TraceDelivered, "delivered to pod default/b by cairn0")
	dropped := steps("n3", false, v1.TraceDropped, "dropped by tier default, its default action")
	backLeft := steps("n3", true, v1.TraceSent, "sent by eth0")
	backCame := steps("n1", true, v1.TraceDelivered, "delivered to pod default/a by cairn1")
	answer := func(a string) func(*v1.PacketTraceStatus) { return func(s *v1.PacketTraceStatus) { s.Answer = a } }
	for _, tt := range []struct {
		name  string
		trace *v1.PacketTrace
		want  string
		done  bool
	}{
		{"answered, and all is seen", traced(answer(v1.TraceAnswered), came, backCame, left, backLeft), "Delivered on n3. An answer came back.", true},
		{"answered, the way back is not known yet", traced(answer(v1.TraceAnswered), came, left, backLeft), "Delivered on n3. An answer came back.", false},
		{"delivered, no answer yet", traced(answer(""), came, left), "Delivered on n3. No answer came within 2s.", false},
		{"delivered, and no answer", traced(nil, came, left), "Delivered on n3. No answer came within 2s.", true},
		{"refused", traced(answer(v1.TraceRefused), came, left), "Delivered on n3. It was refused: nothing listens there, or somebody on the way says no.", true},
		{"dropped at its end", traced(answer(""), dropped, left), "Lost on n3: dropped by tier default, its default action.", true},
		{"dropped where it begins", traced(answer(""), steps("n1", false, v1.TraceDropped, "dropped by it")), "Lost on n1: dropped by it.", true},
		{"seen at its end only, so far", traced(nil, came), "Delivered on n3. No answer came within 2s.", false},
		{"lost in between", traced(nil, left), "Left n1 (sent by eth0); not seen on n3 within 2s.", false},
		{"to outside", traced(func(s *v1.PacketTraceStatus) { s.Nodes = s.Nodes[:1] }, left), "Left n1 (sent by eth0). No answer came within 2s.", true},
		{"the answer is dropped", traced(nil, left, came, steps("n3", true, v1.TraceDropped, "dropped by it")), "Delivered on n3. The answer was lost on n3: dropped by it.", true},
		{"nothing is seen", traced(nil), "Nothing was seen on n1, n3: the packet did not get out of default/a. No answer came within 2s.", false},
		{"not sent", traced(func(s *v1.PacketTraceStatus) { s.SentAt = metav1.MicroTime{} }), "The packet was not sent.", false},
		{"not taken up", traced(func(s *v1.PacketTraceStatus) { *s = v1.PacketTraceStatus{} }), "The packet was not sent.", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := verdictText(tt.trace); got != tt.want || complete(tt.trace) != tt.done {
				t.Errorf("%q, complete %v; want %q, %v", got, complete(tt.trace), tt.want, tt.done)
			}
		})
	}
}

// TestTraceText writes steps in the order of the way, and who took no part.
func TestTraceText(t *testing.T) {
	trace := traced(func(s *v1.PacketTraceStatus) {
		s.Ready = []string{"n1"}
		s.Problems = []v1.TraceProblem{{Node: "node-between", Reason: "it is busy"}}
	}, steps("n3", false, v1.TraceDelivered, "delivered"), steps("node-between", false, v1.TraceSent, "sent by eth1"),
		steps("n1", false, v1.TraceSent, "sent by eth0"), steps("n1", true, v1.TraceDelivered, "delivered"))
	var got bytes.Buffer
	if err := writeTrace(&got, trace); err != nil {
		t.Fatal(err)
	}
	want := `TCP default/a (10.0.0.1:1) -> default/b ([fd00::2]:80)
n1             in eth0
n1             sent by eth0
node-between   in eth0
node-between   sent by eth1
n3             in eth0
n3             delivered
The answer:
n1             in eth0
n1             delivered
Node node-between takes no part: it is busy
Node n3 takes no part: its agent does not answer
Delivered on n3. No answer came within 2s.
`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// agents answers the first trace that comes with what it says, part by part.
func agents(ctx context.Context, store datastore.Store, parts ...v1.PacketTraceStatus) {
	for begun := false; !begun && ctx.Err() == nil; time.Sleep(time.Millisecond) { // the bubble's clock
		all, _ := store.List(ctx, "PacketTrace")
		for _, o := range all {
			begun = true
			for _, part := range parts {
				time.Sleep(100 * time.Millisecond)
				_, _ = datastore.Update(ctx, store, datastore.KeyOf(o), func(t *v1.PacketTrace) error { t.Status = part; return nil })
			}
		}
	}
}

// TestTraceCommand holds how a trace ends, and that none is left behind.
func TestTraceCommand(t *testing.T) {
	packet := v1.PacketTraceStatus{Packet: &v1.TracedPacket{Source: "10.0.0.1", Destination: "10.0.0.2", Protocol: "UDP"}, Nodes: []string{"n1"}, Ready: []string{"n1"}}
	sent := packet
	sent.SentAt, sent.Observations = metav1.NowMicro(), steps("n1", false, v1.TraceSent, "sent by eth0")
	answered := sent
	answered.Answer = v1.TraceAnswered
	failed := packet
	failed.Problems = []v1.TraceProblem{{Node: "n1", Reason: "no permission"}}
	early := v1.PacketTraceStatus{Problems: failed.Problems}
	for _, tt := range []struct {
		name  string
		args  string
		parts []v1.PacketTraceStatus
		out   string // what is written
		err   string
	}{
		{"answered", "node/n1 10.0.0.2 --protocol UDP --port 53", []v1.PacketTraceStatus{packet, sent, answered}, "An answer came back.", ""},
		{"as JSON", "node/n1 10.0.0.2 --port 53 -o json", []v1.PacketTraceStatus{answered}, `"answer": "answered"`, ""},
		{"no answer", "node/n1 10.0.0.2 --port 53", []v1.PacketTraceStatus{packet, sent}, "No answer came within 2s.", ""},
		{"no agent", "node/n1 10.0.0.2 --protocol icmp", nil, "", "no agent takes up the trace within 5s"},
		{"an agent that can't", "node/n1 fd00::2 --protocol icmp", []v1.PacketTraceStatus{failed}, "", "the agent of node n1 can't trace: no permission"},
		{"one that can't say what it is", "node/n1 fd00::2 --protocol icmp", []v1.PacketTraceStatus{early}, "", "can't trace: no permission"},
		{"no such node", "node/n2 10.0.0.2 --port 1", nil, "", "Node n2: not found"},
		{"no such pod", "a 10.0.0.2 --port 1", nil, "", "pod default/a: not found"},
		{"two families", "node/n1 a -4 -6 --port 1", nil, "", "exclude each other"},
		{"no port", "node/n1 10.0.0.2", nil, "", "--port: must be given for TCP"},
		{"one end", "node/n1", nil, "", "wants a source and a destination"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := datastore.NewMemory()
				node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
				node.Default()
				if _, err := store.Create(t.Context(), node); err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				var others sync.WaitGroup
				defer others.Wait()
				defer stop()
				if tt.parts != nil {
					others.Go(func() { agents(ctx, store, tt.parts...) })
				}
				var out bytes.Buffer
				cmd := New(Options{Open: func(config.Datastore) (datastore.Store, error) { return store, nil }, Out: &out, Err: &out})
				config.Bind(cmd, config.Sources{})
				cmd.SilenceErrors, cmd.SilenceUsage = true, true
				cmd.SetArgs(append([]string{"trace"}, strings.Fields(tt.args)...))
				err := cmd.ExecuteContext(ctx)
				if text := errorOf(err); !strings.Contains(text, tt.err) || tt.err == "" && text != "" || !strings.Contains(out.String(), tt.out) {
					t.Errorf("%q, error %q; want %q, %q", out.String(), text, tt.out, tt.err)
				}
				if left, err := store.List(t.Context(), "PacketTrace"); err != nil || len(left) > 0 {
					t.Errorf("left: %v, %v", left, err)
				}
			})
		})
	}
}

func errorOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
