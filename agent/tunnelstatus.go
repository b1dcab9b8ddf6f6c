package agent

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/calc"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// tunnelStatus returns the state of each tunnel device that is wanted.
func (a *Agent) tunnelStatus(s *calc.State) []v1.TunnelStatus {
	var all []v1.TunnelStatus
	failures, remote := a.loop.tunnels.Failures(), a.remote.count(s)
	for _, link := range kernel.TunnelLinks() {
		t, wanted := s.Tunnels.Get(link)
		if !wanted {
			continue
		}
		st := v1.TunnelStatus{Device: link, MTU: t.MTU, RemoteNodes: remote[link], State: v1.TunnelUp}
		if link == kernel.LinkWireGuard {
			st.RemoteNodes = s.WireGuard.Len()
		}
		for addr := range s.Addrs.All() {
			if addr.Link == link {
				st.Addresses = append(st.Addresses, addr.Prefix.Addr().String())
			}
		}
		slices.SortFunc(st.Addresses, func(x, y string) int { return netip.MustParseAddr(x).Compare(netip.MustParseAddr(y)) })
		use := s.Uses.At(link)
		if !use.Sending {
			st.State = v1.TunnelListening
		}
		switch f, failed := failures[link]; {
		case failed:
			st.State, st.Message = v1.TunnelFailing, f.Err.Error()
		case !a.loop.tunnels.Applied(link):
			st.State, st.Message = v1.TunnelFailing, "the device is not set up yet"
		case use.Sending && len(st.Addresses) == 0:
			st.State, st.Message = v1.TunnelFailing, "the device has no address yet"
		}
		all = append(all, st)
	}
	return all
}

// remote counts the nodes at the other ends of tunnels, anew only when there are
// others.
type remote struct {
	routes     immutable.Map[kernel.RouteKey, kernel.Route]
	neighbours immutable.Map[kernel.Neighbour, kernel.MAC]

	counts map[string]int // by link; never changed once it is set
}

// remoteCounter guards a remote.
type remoteCounter struct {
	mu sync.Mutex
	remote
}

func (r *remoteCounter) count(s *calc.State) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil || r.routes != s.Routes || r.neighbours != s.Neighbours {
		r.remote = remote{s.Routes, s.Neighbours, map[string]int{}}
		for n := range s.Neighbours.All() {
			r.counts[n.Link]++
		}
		gateways := map[netip.Addr]bool{}
		for _, route := range s.Routes.All() {
			if route.Hops.Uses(kernel.LinkIPIP) {
				for _, h := range route.Hops.List() {
					gateways[h.Gateway] = true
				}
			}
		}
		r.counts[kernel.LinkIPIP] = len(gateways)
	}
	return r.counts
}

// wireguardStatus returns the state of the WireGuard device; nil: there is none, or
// it can't be asked.
func (a *Agent) wireguardStatus(ctx context.Context, s *calc.State) (*v1.WireGuardStatus, error) {
	t, wanted := s.Tunnels.Get(kernel.LinkWireGuard)
	if !wanted || !isTunnel(a.loop.currentHost().Links[kernel.LinkWireGuard]) {
		return nil, nil
	}
	key, err := a.drv.Encryption.Key(ctx)
	if err != nil {
		return nil, err
	}
	traffic, err := a.drv.Encryption.Traffic(ctx)
	if err != nil {
		return nil, err
	}
	st := &v1.WireGuardStatus{PublicKey: key.String(), ListeningPort: int32(t.Port)}
	nodes := map[string]string{} // by key
	for n := range datastore.All[*v1.Node](a.mirror.Snapshot()) {
		if n.Spec.WireGuard != nil {
			nodes[n.Spec.WireGuard.PublicKey] = n.Name
		}
	}
	for _, p := range traffic {
		peer := v1.WireGuardPeerStatus{
			Node: nodes[p.Key.String()], PublicKey: p.Key.String(), Endpoint: p.Endpoint.String(),
			ReceivedBytes: p.Received, SentBytes: p.Sent,
		}
		if !p.LastHandshake.IsZero() {
			peer.LastHandshake = metav1.NewTime(p.LastHandshake)
		}
		st.Peers = append(st.Peers, peer)
	}
	slices.SortFunc(st.Peers, func(x, y v1.WireGuardPeerStatus) int {
		return cmp.Or(strings.Compare(x.Node, y.Node), strings.Compare(x.PublicKey, y.PublicKey))
	})
	return st, nil
}

// maxPublishedPeers is how many WireGuard peers the NodeStatus in the datastore
// tells of at most: a resource must stay small. The agent's own API tells of all.
const maxPublishedPeers = 1000

// steady returns a status of the WireGuard device as it is to be published: what
// changes with every packet is as it was when it was published last, in before,
// unless fresh.
func steady(now, before *v1.WireGuardStatus, fresh bool) *v1.WireGuardStatus {
	if now == nil {
		return nil
	}
	now.Peers = now.Peers[:min(len(now.Peers), maxPublishedPeers)]
	if fresh || before == nil {
		return now
	}
	was := map[string]v1.WireGuardPeerStatus{}
	for _, p := range before.Peers {
		was[p.PublicKey] = p
	}
	for i := range now.Peers {
		p := &now.Peers[i]
		old, ok := was[p.PublicKey]
		if ok && old.LastHandshake.IsZero() == p.LastHandshake.IsZero() { // the first handshake is news
			p.LastHandshake, p.ReceivedBytes, p.SentBytes = old.LastHandshake, old.ReceivedBytes, old.SentBytes
		}
	}
	return now
}
