//go:build linux

package linux

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

func (w *packetWorld) Send(t testing.TB, p kernel.Packet) {
	t.Helper()
	emit(t, w.netns, sent(p))
}

func TestTracerPassesTheSuite(t *testing.T) {
	kerneltest.RunTracer(t, func(t *testing.T) kerneltest.TracerWorld { return newPacketWorld(t) })
}

// tracedRules are tables of several hands.
const tracedRules = `
table ip four {
	chain pre { type filter hook prerouting priority -150; policy accept;
		ip daddr 192.0.2.100 counter comment "four counts"
	}
}
table inet six {
	chain early { type filter hook prerouting priority -450; policy accept;
		udp dport 6000 meta mark set 9
	}
	chain forward { type filter hook forward priority 5; policy drop;
		meta l4proto 6 drop
		udp dport 5000 jump checks comment "to the checks"
		udp dport { 5000, 6000 } goto last
	}
	chain checks {
		udp sport 1 drop
		udp sport 40000 return
	}
	chain last {
		udp dport 6000 drop
	}
	chain post { type filter hook postrouting priority 0; policy accept;
	}
}
`

// line says the event in short.
func line(e kernel.TraceEvent) string {
	s := fmt.Sprintf("%d %s", e.Packet, e.Kind)
	if e.Table != "" {
		s += fmt.Sprintf(" %s %s", e.Table, e.Chain)
	}
	if e.Hook != kernel.HookNone {
		s += fmt.Sprintf(" (%s %d)", e.Hook, e.Priority)
	}
	if e.Kind == kernel.TraceRule {
		s += fmt.Sprintf(" rule %d %q:", e.Rule, e.Comment)
	}
	if e.Verdict != "" {
		s += strings.TrimSuffix(fmt.Sprintf(" %s %s", e.Verdict, e.Target), " ")
	}
	s += fmt.Sprintf(" [%s>%s]", e.InLink, e.OutLink)
	if e.Mark != 0 {
		s += fmt.Sprintf(" mark %d", e.Mark)
	}
	return s
}

// TestTracerFollowsForwarded follows packets of a pod through tables of several hands,
// until they leave or are dropped.
func TestTracerFollowsForwarded(t *testing.T) {
	w := newProtectedWorld(t)
	w.nft(t, "delete table inet cairn\n"+tracedRules)
	tracer := NewTracer(In(int(w.netns.Fd())))
	for _, tt := range []struct {
		name   string
		filter kernel.TraceFilter
		send   datagram
		want   []string
	}{
		{"IPv4, dropped by a policy", kernel.TraceFilter{Protocol: kernel.ProtoUDP, DstPort: 5000}, udp("10.1.0.2", "192.0.2.100", 5000, nil), []string{
			`1 seen (prerouting 0) [cairnpod>]`,
			`1 rule ip four pre (prerouting -150) rule 1 "four counts": continue [cairnpod>]`,
			`1 policy ip four pre (prerouting -150) accept [cairnpod>]`,
			`1 rule inet six forward (forward 5) rule 2 "to the checks": jump checks [cairnpod>net0]`,
			`1 rule inet six checks rule 2 "": return [cairnpod>net0]`,
			`1 rule inet six forward (forward 5) rule 3 "": goto last [cairnpod>net0]`,
			`1 return inet six last return [cairnpod>net0]`,
			`1 policy inet six forward (forward 5) drop [cairnpod>net0]`,
		}},
		{"IPv6, by its mark, dropped by a rule", kernel.TraceFilter{Mark: 9}, udp("fd00:1::2", "2001:db8::100", 6000, nil), []string{
			`1 seen (prerouting 0) [cairnpod>] mark 9`,
			`1 rule inet six forward (forward 5) rule 3 "": goto last [cairnpod>net0] mark 9`,
			`1 rule inet six last rule 1 "": drop [cairnpod>net0] mark 9`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := kerneltest.Trace(t, tracer, tt.filter)
			emit(t, w.pod, udp(tt.send.src.String(), tt.send.dst.String(), 4999, nil)) // not meant
			emit(t, w.pod, tt.send)
			var got []string
			for range tt.want {
				e := tr.Next()
				got = append(got, line(e))
				if e.Kind == kernel.TraceRule && (e.Text == "" || e.Handle == 0) {
					t.Errorf("%s: rule %d says %q", line(e), e.Handle, e.Text)
				}
				if e.Headers.Src != tt.send.src || e.Headers.Dst != tt.send.dst || e.Headers.SrcPort != 40000 || e.Headers.Protocol != kernel.ProtoUDP {
					t.Errorf("%s: headers %+v", line(e), e.Headers)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("told (-want +got):\n%s", d)
			}
		})
	}
}

// TestTracerLeavesNothing looks at what is there while somebody traces, and after.
func TestTracerLeavesNothing(t *testing.T) {
	w := newPacketWorld(t)
	tr := kerneltest.Trace(t, w, kernel.TraceFilter{Dst: kerneltest.PacketsTo[1], Protocol: kernel.ProtoUDP, DstPort: 53})
	const want = `table inet cairn-trace {`
	if got := w.nft(t, "list ruleset"); !strings.Contains(got, want) || !strings.Contains(got, "meta nftrace set 1") || !strings.Contains(got, "udp dport 53") {
		t.Errorf("there is:\n%s\nwant %s and what it picks", got, want)
	}
	tr.End()
	if got := w.nft(t, "list ruleset"); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

// TestTracerOfOthers leaves out what others trace, and sees that a table of another
// hand has its name.
func TestTracerOfOthers(t *testing.T) {
	w := newPacketWorld(t)
	w.nft(t, `table inet other { chain it { type filter hook output priority -410; udp dport 9 meta nftrace set 1; }; }`)
	tr := kerneltest.Trace(t, w, kernel.TraceFilter{Protocol: kernel.ProtoUDP, DstPort: 53})
	for _, port := range []uint16{9, 53} {
		w.Send(t, kerneltest.Datagram(true, kernel.ProtoUDP, func(p *kernel.Packet) { p.SrcPort, p.DstPort = 1, port }))
	}
	if e := tr.Next(); e.Kind != kernel.TraceSeen || e.Headers.DstPort != 53 {
		t.Errorf("told %+v", e)
	}
	tr.End()
	w.nft(t, "add table inet cairn-trace")
	err := w.Trace(t.Context(), kernel.TraceFilter{Protocol: 1}, nil)
	if err == nil || !strings.Contains(err.Error(), "table inet cairn-trace is there") {
		t.Errorf("beside another's table: %v", err)
	}
}

// TestTracerRulesReplaced traces while rules are replaced.
func TestTracerRulesReplaced(t *testing.T) {
	w := newPacketWorld(t)
	tr := kerneltest.Trace(t, w, kernel.TraceFilter{Protocol: kernel.ProtoUDP, DstPort: 53})
	for i := range 3 {
		w.nft(t, fmt.Sprintf("table inet other { chain it { type filter hook input priority 0; }; }\nflush chain inet other it\n"+
			"add rule inet other it udp dport 53 drop comment \"round %d\"", i))
		w.Send(t, kerneltest.Datagram(false, kernel.ProtoUDP, func(p *kernel.Packet) { p.SrcPort, p.DstPort = 1, 53 }))
		for _, want := range []string{
			fmt.Sprintf(`%d seen (output 0) [>lo]`, 2*i+1),
			fmt.Sprintf(`%d seen (prerouting 0) [lo>]`, 2*i+2),
			fmt.Sprintf(`%d rule inet other it (input 0) rule 1 "round %d": drop [lo>]`, 2*i+2, i),
		} {
			if got := line(tr.Next()); got != want {
				t.Errorf("told %s, want %s", got, want)
			}
		}
	}
}
