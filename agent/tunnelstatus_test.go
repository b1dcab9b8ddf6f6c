package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
)

// TestSteady holds which news of WireGuard peers is worth a write of the status.
func TestSteady(t *testing.T) {
	peer := func(node string, handshake, bytes int64) v1.WireGuardPeerStatus {
		p := v1.WireGuardPeerStatus{Node: node, PublicKey: "key of " + node, ReceivedBytes: bytes, SentBytes: bytes}
		if handshake > 0 {
			p.LastHandshake = metav1.NewTime(time.Unix(handshake, 0))
		}
		return p
	}
	status := func(peers ...v1.WireGuardPeerStatus) *v1.WireGuardStatus {
		return &v1.WireGuardStatus{PublicKey: "own", Peers: peers}
	}
	for _, test := range []struct {
		name        string
		now, before *v1.WireGuardStatus
		fresh       bool
		want        *v1.WireGuardStatus
	}{
		{name: "no device"},
		{name: "the device went", before: status()},
		{name: "the first", now: status(peer("n2", 5, 7)), want: status(peer("n2", 5, 7))},
		{name: "traffic", now: status(peer("n2", 6, 8)), before: status(peer("n2", 5, 7)), want: status(peer("n2", 5, 7))},
		{name: "traffic, fresh", now: status(peer("n2", 6, 8)), before: status(peer("n2", 5, 7)), fresh: true, want: status(peer("n2", 6, 8))},
		{name: "the first handshake", now: status(peer("n2", 6, 8)), before: status(peer("n2", 0, 0)), want: status(peer("n2", 6, 8))},
		{name: "a device made anew", now: status(peer("n2", 0, 0)), before: status(peer("n2", 5, 7)), want: status(peer("n2", 0, 0))},
		{name: "a new peer", now: status(peer("n2", 6, 8), peer("n3", 0, 1)), before: status(peer("n2", 5, 7)), want: status(peer("n2", 5, 7), peer("n3", 0, 1))},
		{name: "a peer went", now: status(peer("n3", 6, 8)), before: status(peer("n2", 5, 7), peer("n3", 5, 7)), want: status(peer("n3", 5, 7))},
	} {
		if diff := cmp.Diff(test.want, steady(test.now, test.before, test.fresh)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	many := status(make([]v1.WireGuardPeerStatus, maxPublishedPeers+1)...)
	if got := len(steady(many, nil, true).Peers); got != maxPublishedPeers {
		t.Errorf("%d peers are published", got)
	}
}
