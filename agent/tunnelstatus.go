package agent

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

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
	failures := a.loop.tunnels.Failures()
	a.remote.mu.Lock()
	defer a.remote.mu.Unlock()
	for _, link := range kernel.TunnelLinks() {
		t, wanted := s.Tunnels.Get(link)
		if !wanted {
			continue
		}
		st := v1.TunnelStatus{Device: link, MTU: t.MTU, RemoteNodes: a.remote.count(s, link), State: v1.TunnelUp}
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

// remote counts the nodes at the other ends of tunnels, at a cost that follows what
// changes.
type remote struct {
	mu         sync.Mutex
	routes     immutable.Map[kernel.RouteKey, kernel.Route]
	neighbours immutable.Map[kernel.Neighbour, kernel.MAC]
	byLink     map[string]int     // of neighbours
	gateways   map[netip.Addr]int // of IPIP: how many routes use each
}

// count returns the number of nodes to which packets are sent through a device.
func (r *remote) count(s *calc.State, link string) int {
	switch link {
	case kernel.LinkWireGuard:
		return s.WireGuard.Len()
	case kernel.LinkIPIP:
		r.follow(s)
		return len(r.gateways)
	}
	r.follow(s)
	return r.byLink[link]
}

// follow takes in what changed.
func (r *remote) follow(s *calc.State) {
	if r.byLink == nil {
		r.byLink, r.gateways = map[string]int{}, map[netip.Addr]int{}
	}
	for n := range immutable.Diff(r.neighbours, s.Neighbours) {
		r.byLink[n.Link] += presence(s.Neighbours.Has(n)) - presence(r.neighbours.Has(n))
	}
	for k := range immutable.Diff(r.routes, s.Routes) {
		r.use(r.routes.At(k), -1)
		r.use(s.Routes.At(k), 1)
	}
	r.neighbours, r.routes = s.Neighbours, s.Routes
}

// use counts a route through IPIP that came or went.
func (r *remote) use(route kernel.Route, by int) {
	if !route.Hops.Uses(kernel.LinkIPIP) {
		return
	}
	for _, h := range route.Hops.List() {
		if r.gateways[h.Gateway] += by; r.gateways[h.Gateway] == 0 {
			delete(r.gateways, h.Gateway)
		}
	}
}

func presence(there bool) int {
	if there {
		return 1
	}
	return 0
}

// encryption keeps the status of the WireGuard device for a while: to ask for it
// costs the more the more peers there are.
type encryption struct {
	mu     sync.Mutex
	met    *immutable.Map[kernel.WireGuardKey, bool]
	until  time.Time
	status *v1.WireGuardStatus
}

// maxEncryptionAge is how old a status of the WireGuard device may be.
const maxEncryptionAge = 10 * time.Second

// get returns the status: that of before, unless others were met since, or it is
// older than a hundred times what asking took.
func (e *encryption) get(met *immutable.Map[kernel.WireGuardKey, bool], ask func() (*v1.WireGuardStatus, error)) (*v1.WireGuardStatus, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.status != nil && e.met == met && time.Now().Before(e.until) {
		return e.status.DeepCopy(), nil
	}
	began := time.Now()
	status, err := ask()
	if err != nil || status == nil {
		e.status = nil
		return nil, err
	}
	e.met, e.status = met, status
	e.until = time.Now().Add(min(100*time.Since(began), maxEncryptionAge))
	return status.DeepCopy(), nil
}

// wireguardStatus returns the state of the WireGuard device; nil: there is none, or
// it can't be asked.
func (a *Agent) wireguardStatus(ctx context.Context, s *calc.State) (*v1.WireGuardStatus, error) {
	t, wanted := s.Tunnels.Get(kernel.LinkWireGuard)
	if !wanted || !isTunnel(a.loop.currentHost().Links[kernel.LinkWireGuard]) {
		return nil, nil
	}
	return a.encryption.get(a.loop.met.Load(), func() (*v1.WireGuardStatus, error) { return a.askWireGuard(ctx, t) })
}

func (a *Agent) askWireGuard(ctx context.Context, t kernel.Tunnel) (*v1.WireGuardStatus, error) {
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
