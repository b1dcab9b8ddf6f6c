package calc

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

func rapidDice(t *rapid.T) dice {
	return dice{func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "roll") }}
}

// TestTotal holds that whatever comes in, a sound State comes out.
func TestTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapidDice(t)
		in := Inputs{
			Node: d.node(), Store: datastore.NewSnapshot(some(d, 20, d.object)...),
			Pods: d.pods(), Host: d.host(), RIB: d.rib(), Restarting: d.roll(2) == 0, Lacking: d.lacking(), Met: d.met(),
		}
		checkSound(t, in, Desired(in))
	})
}

// TestZero holds that no input at all is an input too.
func TestZero(t *testing.T) {
	in := Inputs{}
	s := Desired(in)
	// What is there for whatever is to come.
	s.Sysctls, s.Sets, s.Chains = State{}.Sysctls, State{}.Sets, State{}.Chains
	want := "mtu 1500\nissues\n  Node : there is no such resource: no BGP, and no routes to other nodes' pods\n"
	if diff := cmp.Diff(want, s.String()); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

// checkSound checks what holds of every State.
func checkSound(t *rapid.T, in Inputs, s State) {
	for k, r := range s.Routes.All() {
		checkRoute(t, in, s, k, r)
	}
	if s.Origins.Len() != s.Routes.Len() {
		t.Errorf("%d origins of %d routes", s.Origins.Len(), s.Routes.Len())
	}
	for k, why := range s.Held.All() {
		if _, routed := s.Routes.Get(k); routed || why == "" || s.Unused.At(k.Dst) != why {
			t.Errorf("held %s, %q: routed %t, unused %q", k, why, routed, s.Unused.At(k.Dst))
		}
	}
	for dst, paths := range in.RIB.Routes {
		_, used := s.Routes.Get(mainRoute(dst))
		_, unused := s.Unused.Get(dst)
		if len(paths) > 0 && s.Speaker.Len() > 0 && !used && !unused {
			t.Errorf("learned %s and lost it", dst)
		}
	}
	if s.Speaker.Len() == 0 && s.Peers.Len()+s.Paths.Len()+s.Tunnels.Len() > 0 {
		t.Error("peers, paths or tunnels of a node without addresses")
	}
	if s.PeerOrigins.Len() != s.Peers.Len() {
		t.Errorf("%d origins of %d peers", s.PeerOrigins.Len(), s.Peers.Len())
	}
	for a, p := range s.Peers.All() {
		listen := s.Speaker.At(struct{}{}).Listen.List()
		if slices.Contains(listen, a) || !slices.Contains(listen, p.Local) || p.IPv4 == p.IPv6 || p.IPv4 != a.Is4() {
			t.Errorf("peer %s is %+v", a, p)
		}
	}
	if s.MTU <= 0 {
		t.Errorf("MTU %d", s.MTU)
	}
	if !slices.IsSortedFunc(s.Issues, func(a, b v1.Issue) int { return cmpIssues(a, b) }) {
		t.Error("issues are not in order")
	}
	checkTunnels(t, in, s)
}

func checkRoute(t *rapid.T, in Inputs, s State, k kernel.RouteKey, r kernel.Route) {
	o, ok := s.Origins.Get(k)
	if !ok {
		t.Errorf("route %s has no origin", k)
	}
	if err := r.Check(k); err != nil || k != mainRoute(k.Dst) {
		t.Errorf("route %s %s can't be: %v", k, r, err)
	}
	if (r.Type == kernel.Blackhole) != (o.Kind == OriginBlock) || (r.Type == kernel.Blackhole) != (r.Hops.Len() == 0) {
		t.Errorf("route %s %s is of origin %s", k, r, o.Kind)
	}
	for _, h := range r.Hops.List() {
		tunnel, through := s.Tunnels.Get(h.Link)
		switch {
		case through && in.Lacking.Has(tunnel.Kind):
			t.Errorf("route %s %s uses a tunnel that the kernel lacks", k, r)
		case !through && !in.Host.Links[h.Link].Up:
			t.Errorf("route %s %s uses a link that is not up", k, r)
		}
		if h.Gateway.IsValid() == (o.Kind == OriginPod || h.Link == kernel.LinkWireGuard) {
			t.Errorf("route %s %s is of origin %s", k, r, o.Kind)
		}
		if _, known := s.Neighbours.Get(kernel.Neighbour{Link: h.Link, IP: h.Gateway}); through && tunnel.Kind == kernel.VXLAN && !known {
			t.Errorf("route %s %s has an unknown neighbour", k, r)
		}
		if r.Source.IsValid() && !s.Addrs.Has(kernel.Addr{Link: h.Link, Prefix: netip.PrefixFrom(r.Source, r.Source.BitLen())}) {
			t.Errorf("route %s %s has a source that its link does not have", k, r)
		}
	}
	if _, unused := s.Unused.Get(k.Dst); unused && o.Kind != OriginPod && o.Kind != OriginBlock {
		t.Errorf("route %s is used and unused", k)
	}
}

// checkTunnels checks that the kernel can have what belongs to tunnels, and that
// no address is behind two WireGuard peers.
func checkTunnels(t *rapid.T, in Inputs, s State) {
	for link, d := range s.Tunnels.All() {
		if err := d.Check(link); err != nil {
			t.Errorf("tunnel %s: %v", link, err)
		}
		if !s.Uses.Has(link) {
			t.Errorf("tunnel %s has no use", link)
		}
	}
	lacks := func(link string) bool { return !s.Tunnels.Has(link) || in.Lacking.Has(s.Tunnels.At(link).Kind) }
	for a := range s.Addrs.All() {
		if lacks(a.Link) {
			t.Errorf("address %v on a device that is not", a)
		}
	}
	for n, mac := range s.Neighbours.All() {
		if err := n.Check(mac); err != nil || lacks(n.Link) || !s.Forwarding.Has(kernel.Forwarding{Link: n.Link, MAC: mac}) {
			t.Errorf("neighbour %s %s: %v", n, mac, err)
		}
	}
	for f, node := range s.Forwarding.All() {
		if err := f.Check(node); err != nil {
			t.Errorf("forwarding %s %s: %v", f, node, err)
		}
	}
	behind := map[netip.Prefix]kernel.WireGuardKey{}
	for key, p := range s.WireGuard.All() {
		if err := p.Check(key); err != nil || lacks(kernel.LinkWireGuard) {
			t.Errorf("peer %s %s: %v", key, p, err)
		}
		for _, a := range p.Allowed.List() {
			if other, taken := behind[a]; taken {
				t.Errorf("%s is behind %s and %s", a, other, key)
			}
			behind[a] = key
		}
	}
}

func cmpIssues(a, b v1.Issue) int {
	if a == b {
		return 1 // twice is out of order too
	}
	if sortIssues([]v1.Issue{a, b})[0] == a {
		return -1
	}
	return 1
}

// TestOrder holds that neither the order in which objects are given nor which
// copies of them plays a part.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapidDice(t)
		objects := map[datastore.Key]v1.Object{}
		for _, o := range some(d, 20, d.object) {
			objects[datastore.KeyOf(o)] = o
		}
		in := Inputs{Node: "n1", Pods: d.pods(), Host: d.host(), RIB: d.rib()}
		var texts []string
		for range 2 {
			var list []v1.Object
			for _, o := range objects { // in random order
				list = append(list, o.DeepCopyObject().(v1.Object))
			}
			in.Store = datastore.NewSnapshot(list...)
			texts = append(texts, Desired(in).String())
		}
		if diff := cmp.Diff(texts[0], texts[1]); diff != "" {
			t.Errorf("another order (-first +second):\n%s", diff)
		}
	})
}

// TestCalculatorKeepsNothing holds that a Calculator, through any sequence of
// inputs, says what Desired says, and never changes what it said.
func TestCalculatorKeepsNothing(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { walk(t, dice{rand.New(rand.NewPCG(seed, 0)).IntN}) })
	}
}

// mirrorOf returns a running mirror of a store.
func mirrorOf(t *testing.T, store datastore.Store) *datastore.Mirror {
	mirror := datastore.NewMirror(store, "Node", "IPPool", "IPAMBlock", "BGPConfiguration", "BGPPeer", "AgentConfiguration")
	go func() {
		if err := mirror.Run(t.Context()); err != nil {
			t.Errorf("mirror: %v", err)
		}
	}()
	return mirror
}

// TestUnreadable holds that what the store can't decode is among the issues.
func TestUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := datastore.NewMemory()
		mirror := mirrorOf(t, store)
		store.PutRaw(datastore.Key{Kind: "IPPool", Name: "pods"}, []byte("{"))
		time.Sleep(time.Second)
		synctest.Wait()
		var c Calculator
		in := Inputs{Node: "n1", Store: mirror.Snapshot()}
		for range 2 {
			issues := c.Desired(in).Issues
			if len(issues) != 2 || issues[0].Object != "IPPool pods" || issues[1].Object != "Node n1" {
				t.Errorf("issues %+v", issues)
			}
		}
	})
}

func walk(t *testing.T, d dice) {
	store := datastore.NewMemory()
	mirror := mirrorOf(t, store)
	in := Inputs{Node: "n1", Pods: d.pods(), Host: d.host(), RIB: d.rib(), Lacking: d.lacking(), Met: d.met()}
	var c Calculator
	var said []State
	var texts []string
	for range 60 {
		switch d.roll(13) {
		case 0:
			in.Pods = d.pods()
		case 1:
			in.Host = d.host()
		case 2:
			in.RIB = d.rib()
		case 3:
			in.RIB = &bgp.RIB{Routes: in.RIB.Routes, Complete: !in.RIB.Complete}
		case 4:
			in.Node = pick(d, "n1", "n2")
		case 5:
			in.Lacking = d.lacking()
		case 6:
			in.Met = d.met()
		default:
			for range 3 {
				change(t, store, d)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		in.Store = mirror.Snapshot()
		got := c.Desired(in)
		if diff := cmp.Diff(Desired(in).String(), got.String()); diff != "" {
			t.Fatalf("cached (-afresh +cached):\n%s", diff)
		}
		said, texts = append(said, got), append(texts, got.String())
	}
	for i, s := range said {
		if diff := cmp.Diff(texts[i], s.String()); diff != "" {
			t.Errorf("state %d was changed later (-before +after):\n%s", i, diff)
		}
	}
}

// change sets a random object, or deletes the one it would have set.
func change(t *testing.T, store datastore.Store, d dice) {
	o := d.object()
	key := datastore.KeyOf(o)
	old, err := store.Get(t.Context(), key)
	switch {
	case err != nil:
		_, err = store.Create(t.Context(), o)
	case d.roll(2) == 0:
		err = store.Delete(t.Context(), key, "")
	default:
		o.SetResourceVersion(old.GetResourceVersion())
		_, err = store.Update(t.Context(), o)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSameInputSameState holds that asking again costs nothing and shares the
// maps, and that a new pod leaves the other parts alone.
func TestSameInputSameState(t *testing.T) {
	in := cluster(10)
	var c Calculator
	c.Desired(in)
	state := c.state
	in.Pods, in.Host = withPod(in)
	s := c.Desired(in)
	if n := len(slices.Collect(immutable.Diff(state.Routes, s.Routes))); n != 1 {
		t.Errorf("a new pod changes %d routes, want 1", n)
	}
	if allocs := testing.AllocsPerRun(10, func() { c.Desired(in) }); allocs > 0 {
		t.Errorf("the same input allocates %v times", allocs)
	}
	dst := netip.MustParsePrefix("10.0.0.0/26")
	if _, ok := s.Routes.Get(mainRoute(dst)); !ok {
		t.Errorf("no route to %s", dst)
	}
}
