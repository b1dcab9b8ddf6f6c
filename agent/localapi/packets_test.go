package localapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// packetSource tells fixed values, then waits or fails.
type packetSource struct {
	source
	flows []Flow
	hops  []TraceHop
	err   error // after these
	wait  bool  // until the client goes

	flowQuery  chan FlowQuery
	traceQuery chan TraceQuery
	ended      chan error // with what the last callback or the context said
}

func newPacketSource() *packetSource {
	return &packetSource{flowQuery: make(chan FlowQuery, 10), traceQuery: make(chan TraceQuery, 10), ended: make(chan error, 10)}
}

func tell[T any](ctx context.Context, s *packetSource, values []T, f func(T) error) error {
	for _, v := range values {
		if err := f(v); err != nil {
			s.ended <- err
			return err
		}
	}
	if s.wait {
		<-ctx.Done()
		s.ended <- ctx.Err()
		return ctx.Err()
	}
	return s.err
}

func (s *packetSource) Flows(ctx context.Context, q FlowQuery, f func(Flow) error) error {
	s.flowQuery <- q
	return tell(ctx, s, s.flows, f)
}

func (s *packetSource) Trace(ctx context.Context, q TraceQuery, f func(TraceHop) error) error {
	s.traceQuery <- q
	return tell(ctx, s, s.hops, f)
}

func someFlows() []Flow {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	return []Flow{
		{
			Time: at, Node: "n1", Verdict: "deny", Direction: "ingress", Src: netip.MustParseAddr("10.244.0.1"), Dst: netip.MustParseAddr("10.244.0.2"),
			Protocol: 6, SrcPort: 1000, DstPort: 80, InLink: "eth0", OutLink: "cairn0", SrcEndpoint: "a/web", DstEndpoint: "b/db",
			Tier: "default", Policy: "NetworkPolicy b/deny", Rule: 3, Lost: 7,
		},
		{
			Time: at, Node: "n1", Verdict: "log", Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"),
			Protocol: 58, ICMPType: 128, ICMPCode: 1,
		},
	}
}

func someHops() []TraceHop {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	return []TraceHop{
		{Node: "n1", Time: at, Step: StepReady},
		{Node: "n1", Time: at, Step: StepLink, Packet: 1, Src: netip.MustParseAddr("fd00::1"), Protocol: 17, DstPort: 53, InLink: "cairn0", Endpoint: "a/web", Mark: 9},
		{Node: "n1", Time: at, Step: StepRule, Packet: 1, Hook: "forward", Table: "inet cairn", Chain: "forward", Rule: 2, Comment: "why", Verdict: "jump", Target: "it", Text: "jump it", Lost: true},
		{Node: "n1", Time: at, Step: StepRoute, Packet: 1, Route: &TraceRoute{Type: "unicast", Gateway: netip.MustParseAddr("fd00::9"), Link: "eth0", Table: 254}},
		{Node: "n1", Time: at, Step: StepVerdict, Packet: 1, Verdict: "accept", OutLink: "eth0"},
	}
}

// collect returns what is told and how it ends.
func collect[T any](run func(f func(T) error) error) ([]T, error) {
	var got []T
	err := run(func(v T) error { got = append(got, v); return nil })
	return got, err
}

func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty())
}

func TestFlows(t *testing.T) {
	for name, tt := range map[string]struct {
		query FlowQuery
		flows []Flow
		err   error
		want  string
	}{
		"none":              {},
		"of one":            {query: FlowQuery{Endpoint: "a/web", Address: netip.MustParseAddr("fd00::1")}},
		"one":               {FlowQuery{Denied: true}, someFlows()[:1], nil, ""},
		"both families":     {FlowQuery{Follow: true}, someFlows(), nil, ""},
		"an error at once":  {FlowQuery{Follow: true, Denied: true}, nil, errors.New("not ready"), "read the agent's flows: the agent at SOCKET answered: not ready"},
		"an error later on": {FlowQuery{}, someFlows(), errors.New("the kernel is silent"), "read the agent's flows: the agent at SOCKET answered: the kernel is silent"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPacketSource()
			s.flows, s.err = tt.flows, tt.err
			socket := serve(t, Handler(s))
			got, err := collect(func(f func(Flow) error) error { return NewClient(socket).Flows(t.Context(), tt.query, f) })
			if d := diff(tt.flows, got); d != "" {
				t.Errorf("flows (-want +got):\n%s", d)
			}
			if text := errorText(err); text != strings.ReplaceAll(tt.want, "SOCKET", socket) {
				t.Errorf("error %q, want %q", text, tt.want)
			}
			if q := <-s.flowQuery; q != tt.query {
				t.Errorf("the source was asked for %+v, want %+v", q, tt.query)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestTrace(t *testing.T) {
	for name, query := range map[string]TraceQuery{
		"anything": {},
		"IPv4":     {Src: netip.MustParseAddr("10.244.0.1"), Dst: netip.MustParseAddr("10.244.0.2"), Protocol: 6, SrcPort: 65535, DstPort: 1, Mark: 1<<32 - 1},
		"IPv6":     {Dst: netip.MustParseAddr("fd00::2"), Protocol: 58},
		"replies":  {Dst: netip.MustParseAddr("fd00::2"), Replies: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPacketSource()
			s.hops = someHops()
			client := NewClient(serve(t, Handler(s)))
			got, err := collect(func(f func(TraceHop) error) error { return client.Trace(t.Context(), query, f) })
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(someHops(), got); d != "" {
				t.Errorf("hops (-want +got):\n%s", d)
			}
			if q := <-s.traceQuery; q != query {
				t.Errorf("the source was asked for %+v, want %+v", q, query)
			}
		})
	}
}

// TestStreamEnds ends streams that have no end, from the client's side.
func TestStreamEnds(t *testing.T) {
	enough := errors.New("enough")
	for name, tt := range map[string]struct {
		end  func(cancel func()) error // what the callback does
		want error
	}{
		"by its context": {func(cancel func()) error { cancel(); return nil }, nil},
		"by an error":    {func(func()) error { return enough }, enough},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPacketSource()
			s.flows, s.wait = someFlows()[:1], true
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			// The first is told while the source waits: nothing is held back.
			err := NewClient(serve(t, Handler(s))).Flows(ctx, FlowQuery{Follow: true}, func(Flow) error { return tt.end(cancel) })
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("Flows: %v, want %v", err, tt.want)
			}
			if err := <-s.ended; err == nil {
				t.Error("the source was not told that the client has gone")
			}
		})
	}
}

// TestStreamOfADyingAgent loses the agent within an answer.
func TestStreamOfADyingAgent(t *testing.T) {
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"node":"n1","step":"ready"}`+"\n")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	got, err := collect(func(f func(TraceHop) error) error { return NewClient(socket).Trace(t.Context(), TraceQuery{}, f) })
	want := "have the agent trace packets: the agent at " + socket + " ended within an answer: it has stopped"
	if len(got) != 1 || errorText(err) != want {
		t.Errorf("told %+v, %v, want one and %q", got, err, want)
	}
}

func TestPacketRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		source       Source
		method, path string
		code         int
		want         string
	}{
		"an agent that can't":    {source{}, "GET", FlowsPath, 501, `{"error":"this agent does not tell of packets"}`},
		"no trace either":        {source{}, "GET", TracePath, 501, `{"error":"this agent does not tell of packets"}`},
		"write":                  {newPacketSource(), "POST", FlowsPath, 405, `{"error":"/v1/flows takes GET only, not POST"}`},
		"unknown parameter":      {newPacketSource(), "GET", FlowsPath + "?since=1h", 400, `{"error":"unknown parameter \"since\""}`},
		"neither true nor false": {newPacketSource(), "GET", FlowsPath + "?follow=maybe", 400, `{"error":"parameter \"follow\": strconv.ParseBool: parsing \"maybe\": invalid syntax"}`},
		"twice":                  {newPacketSource(), "GET", FlowsPath + "?denied=true&denied=false", 400, `{"error":"parameter \"denied\" is given 2 times"}`},
		"no address":             {newPacketSource(), "GET", TracePath + "?src=web", 400, `{"error":"parameter \"src\": ParseAddr(\"web\"): unable to parse IP"}`},
		"no address of a flow":   {newPacketSource(), "GET", FlowsPath + "?address=web", 400, `{"error":"parameter \"address\": ParseAddr(\"web\"): unable to parse IP"}`},
		"no counters":            {source{}, "GET", CountersPath, 501, `{"error":"this agent does not tell of counters"}`},
		"too great a port":       {newPacketSource(), "GET", TracePath + "?dstPort=65536", 400, `{"error":"parameter \"dstPort\": strconv.ParseUint: parsing \"65536\": value out of range"}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			Handler(tt.source).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if got := strings.TrimSpace(w.Body.String()); w.Code != tt.code || got != tt.want {
				t.Errorf("got %d %s, want %d %s", w.Code, got, tt.code, tt.want)
			}
		})
	}
}
