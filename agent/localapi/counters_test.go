package localapi

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// countSource tells fixed counters, or fails.
type countSource struct {
	source
	counts []Counter
}

func (s countSource) Counters(context.Context) ([]Counter, error) { return s.counts, s.err }

func TestCounters(t *testing.T) {
	shop := Counter{Kind: "NetworkPolicy", Namespace: "b", Name: "shop", Tier: "default", Direction: "ingress", Rule: 1, Action: "Allow", Packets: 1, Bytes: 1<<64 - 1}
	for _, tt := range []struct {
		name string
		want []Counter
		err  error
	}{
		{"none", []Counter{}, nil},
		{"one", []Counter{shop}, nil},
		{"one of no policy", []Counter{shop, {Reason: "not the pod's own address", Packets: 2}}, nil},
		{"the kernel is silent", nil, errors.New("the kernel is silent")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := NewClient(serve(t, Handler(countSource{source{err: tt.err}, tt.want}))).Counters(t.Context())
			if (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("counters (-want +got):\n%s", d)
			}
		})
	}
}

func TestFlowQueryMatches(t *testing.T) {
	f := someFlows()[0]
	for _, tt := range []struct {
		name  string
		query FlowQuery
		want  bool
	}{
		{"anything", FlowQuery{}, true},
		{"denied", FlowQuery{Denied: true}, true},
		{"its source", FlowQuery{Endpoint: f.SrcEndpoint, Address: f.Src}, true},
		{"its destination", FlowQuery{Endpoint: f.DstEndpoint, Address: f.Dst}, true},
		{"another endpoint", FlowQuery{Endpoint: "a/other"}, false},
		{"another address", FlowQuery{Address: netip.MustParseAddr("fd00::1")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.query.Matches(f); got != tt.want {
				t.Errorf("matches: %v, want %v", got, tt.want)
			}
		})
	}
	if allowed := someFlows()[1]; (FlowQuery{Denied: true}).Matches(allowed) {
		t.Error("what is not denied matches")
	}
}
