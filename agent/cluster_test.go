package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// cluster is agents in one process: a store in memory, a fabric of speakers and
// a fake kernel for each node. Two racks are joined by a router, which learns
// the nodes' blocks by BGP and forwards between the racks.
//
//	rack a  192.0.2.0/24     2001:db8:a::/64
//	rack b  198.51.100.0/24  2001:db8:b::/64
//	router  .1 and ::1 in each
type cluster struct {
	t      *testing.T
	store  *datastore.Memory
	fabric *bgp.Fabric
	router [2]bgp.Speaker // one for each rack
	nodes  map[string]*node

	mu     sync.Mutex
	writes []datastore.Call // to the store, but for statuses
}

// node is a node, whether its agent runs or not.
type node struct {
	c      *cluster
	name   string
	rack   string
	v4, v6 netip.Prefix
	kernel *kernel.Fake
	dir    string
	pods   map[string]protocol.Response

	agent   *agent.Agent
	speaker bgp.Speaker
	stop    context.CancelFunc
	done    chan error
}

const routerAS = 65000

// inCluster runs a test in a cluster of these nodes, each named by its rack and
// a number, such as a2, once every agent is ready.
func inCluster(t *testing.T, test func(*testing.T, *cluster), names ...string) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, store: datastore.NewMemory(), fabric: bgp.NewFabric(), nodes: map[string]*node{}}
		c.create(&v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: v1.IPPoolSpec{CIDR: "10.244.0.0/16"}})
		c.create(&v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "pods6"}, Spec: v1.IPPoolSpec{CIDR: "fd00:244::/64"}})
		for rack, prefix := range map[string]string{"a": "192.0.2.1", "b": "198.51.100.1"} {
			for suffix, ip := range map[string]string{"": prefix, "6": "2001:db8:" + rack + "::1"} {
				c.create(&v1.BGPPeer{
					ObjectMeta: metav1.ObjectMeta{Name: "tor-" + rack + suffix},
					Spec:       v1.BGPPeerSpec{PeerIP: ip, ASNumber: routerAS, NodeSelector: "rack == '" + rack + "'"},
				})
			}
		}
		c.store.Inject(c.note)
		for _, name := range names {
			c.join(name)
		}
		c.settle()
		test(t, c)
		for _, n := range c.nodes {
			n.halt()
		}
	})
}

func (c *cluster) create(o v1.Object) {
	c.t.Helper()
	o.Default()
	if err := v1.Check(o); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.store.Create(c.t.Context(), o); err != nil {
		c.t.Fatal(err)
	}
}

// note counts the writes that should not happen in a settled cluster.
func (c *cluster) note(call datastore.Call) datastore.Fault {
	if call.Verb != datastore.VerbGet && call.Verb != datastore.VerbList && call.Key.Kind != "NodeStatus" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writes = append(c.writes, call)
	}
	return datastore.Fault{}
}

// settle waits until agents had time for everything.
func (c *cluster) settle() {
	time.Sleep(40 * time.Second)
	synctest.Wait()
}

// join adds a node and starts its agent.
func (c *cluster) join(name string) *node {
	c.t.Helper()
	rack, number := name[:1], name[1:]
	n := &node{
		c: c, name: name, rack: rack, kernel: kernel.NewFake(), dir: c.t.TempDir(), pods: map[string]protocol.Response{},
		v4: netip.MustParsePrefix(map[string]string{"a": "192.0.2.1", "b": "198.51.100.1"}[rack] + number + "/24"),
		v6: netip.MustParsePrefix("2001:db8:" + rack + "::1" + number + "/64"),
	}
	n.kernel.SetLink(kernel.Link{Name: "eth0", MTU: 1500, Up: true})
	for _, p := range []netip.Prefix{n.v4, n.v6} {
		n.kernel.AddAddr(kernel.Addr{Link: "eth0", Prefix: p})
	}
	n.addDefaults()
	o := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"rack": rack}}}
	c.create(o)
	c.nodes[name] = n
	n.start()
	c.peerWithRouters()
	return n
}

// addDefaults makes the router the way out.
func (n *node) addDefaults() {
	for dst, gateway := range map[string]netip.Addr{"0.0.0.0/0": first(n.v4), "::/0": first(n.v6)} {
		k := kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix(dst)}
		n.kernel.PutRoute(k, kernel.Route{Hops: kernel.Hops(kernel.NextHop{Gateway: gateway, Link: "eth0"})}, kernel.ProtocolStatic)
	}
}

// first returns the router's address in a subnet.
func first(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// start starts the node's agent, with a speaker of its own as in a new process.
func (n *node) start() {
	n.c.t.Helper()
	n.speaker = n.c.fabric.Speaker(n.name, n.v4.Addr(), n.v6.Addr())
	log := slog.New(slog.NewTextHandler(n.c.t.Output(), nil)).With("node", n.name)
	var err error
	n.agent, err = agent.New(agent.Config{
		Node: n.name, Version: "test", IPv4: n.v4, IPv6: n.v6, Journal: filepath.Join(n.dir, "journal"),
		Reserve: 4, CoolDown: 5 * time.Second, Resync: time.Minute, Log: log,
	}, agent.Drivers{
		Store: n.c.store, Routes: n.kernel.Routes(), Sysctls: n.kernel.Sysctls(), Host: n.kernel, Conntrack: n.kernel, Speaker: n.speaker,
	})
	if err != nil {
		n.c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.done = stop, make(chan error, 1)
	run := n.agent
	go func() { n.done <- run.Run(ctx) }()
}

// halt stops the node's agent, if it runs.
func (n *node) halt() {
	n.c.t.Helper()
	if n.stop == nil {
		return
	}
	n.stop()
	if err := <-n.done; err != nil {
		n.c.t.Errorf("agent of %s: %v", n.name, err)
	}
	n.stop = nil
}

// peerWithRouters gives the routers of both racks, which are one machine, a
// session with each node of theirs.
func (c *cluster) peerWithRouters() {
	c.t.Helper()
	for i, rack := range []string{"a", "b"} {
		peers := map[netip.Addr]bgp.Peer{}
		var own [2]netip.Addr
		for _, n := range c.nodes {
			if n.rack != rack {
				continue
			}
			own = [2]netip.Addr{first(n.v4), first(n.v6)}
			for _, p := range []netip.Prefix{n.v4, n.v6} {
				peers[p.Addr()] = bgp.Peer{
					AS: v1.DefaultAS, Port: 179, Local: first(p), IPv4: p.Addr().Is4(), IPv6: p.Addr().Is6(), Graceful: true,
					Import: bgp.Prefixes(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")),
				}
			}
		}
		if len(peers) == 0 {
			continue
		}
		if c.router[i] == nil {
			c.router[i] = c.fabric.Speaker("router-"+rack, own[:]...)
			cfg := bgp.Config{AS: routerAS, RouterID: own[0], Listen: bgp.Addrs(own[:]...), Port: 179}
			if err := c.router[i].Config().Write(c.t.Context(), map[struct{}]bgp.Config{{}: cfg}, nil); err != nil {
				c.t.Fatal(err)
			}
		}
		if err := c.router[i].Peers().Write(c.t.Context(), peers, nil); err != nil {
			c.t.Fatal(err)
		}
	}
}

// add attaches a pod as the plug-in does.
func (n *node) add(pod string) protocol.Response {
	n.c.t.Helper()
	resp, err := n.tryAdd(pod)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return resp
}

func (n *node) tryAdd(pod string) (protocol.Response, error) {
	ctx, cancel := context.WithTimeout(n.c.t.Context(), 20*time.Second)
	defer cancel()
	req := request(protocol.VerbAdd, pod)
	resp := n.agent.CNI(ctx, req)
	if resp.Error != nil {
		return resp, fmt.Errorf("ADD %s on %s: %w", pod, n.name, resp.Error)
	}
	if _, err := n.kernel.Attach(ctx, attachment(req, resp)); err != nil {
		return resp, err
	}
	ready := n.agent.CNI(ctx, request(protocol.VerbReady, pod))
	if ready.Error != nil {
		return resp, fmt.Errorf("READY %s on %s: %w", pod, n.name, ready.Error)
	}
	n.pods[pod] = resp
	return resp, nil
}

// del detaches a pod.
func (n *node) del(pod string) {
	n.c.t.Helper()
	req := request(protocol.VerbDel, pod)
	if err := n.kernel.Detach(n.c.t.Context(), attachment(req, n.pods[pod])); err != nil {
		n.c.t.Fatal(err)
	}
	if resp := n.agent.CNI(n.c.t.Context(), req); resp.Error != nil {
		n.c.t.Fatalf("DEL %s on %s: %v", pod, n.name, resp.Error)
	}
	delete(n.pods, pod)
}

func request(verb, pod string) protocol.Request {
	return protocol.Request{
		Verb: verb, ContainerID: "container-" + pod, Interface: "eth0", Netns: "/proc/self/ns/net",
		Namespace: "default", Pod: pod, Network: "cairn",
	}
}

func attachment(req protocol.Request, resp protocol.Response) kernel.Attachment {
	return kernel.Attachment{
		Netns: req.Netns, PodLink: req.Interface, HostLink: kernel.PodLink(req.Namespace, req.Pod, req.Interface),
		ContainerID: req.ContainerID, Namespace: req.Namespace, Pod: req.Pod, IPv4: resp.IPv4, IPv6: resp.IPv6, MTU: resp.MTU,
	}
}

// checkMatrix sends a packet from every node, and so from every pod, to every
// pod, by every next hop that the kernels' routes give.
func (c *cluster) checkMatrix() {
	c.t.Helper()
	sent := 0
	for _, from := range c.nodes {
		for _, to := range c.nodes {
			for pod, resp := range to.pods {
				for _, ip := range []netip.Addr{resp.IPv4, resp.IPv6} {
					sent++
					if err := c.send(from, ip, pod, 8); err != nil {
						c.t.Errorf("%s to pod %s (%s) on %s: %v", from.name, pod, ip, to.name, err)
					}
				}
			}
		}
	}
	if sent == 0 {
		c.t.Error("there are no pods to send to")
	}
}

// send follows a packet from a node until the pod has it.
func (c *cluster) send(at *node, dst netip.Addr, pod string, ttl int) error {
	if ttl == 0 {
		return fmt.Errorf("a loop at %s", at.name)
	}
	k, r, ok := lookup(at.kernel, dst)
	switch {
	case !ok:
		return fmt.Errorf("%s has no route", at.name)
	case r.Type == kernel.Blackhole:
		return fmt.Errorf("%s drops it by %s", at.name, k)
	}
	for _, h := range r.Hops.List() {
		if !h.Gateway.IsValid() {
			if h.Link != kernel.PodLink("default", pod, "eth0") {
				return fmt.Errorf("%s has it on link %s", at.name, h.Link)
			}
			continue
		}
		next, err := c.forward(h.Gateway, dst)
		if err == nil {
			err = c.send(next, dst, pod, ttl-1)
		}
		if err != nil {
			return fmt.Errorf("%s by %s: %w", at.name, h, err)
		}
	}
	return nil
}

// forward returns the node that a gateway is, or that the router hands the packet
// to.
func (c *cluster) forward(gateway, dst netip.Addr) (*node, error) {
	for _, n := range c.nodes {
		switch gateway {
		case n.v4.Addr(), n.v6.Addr():
			return n, nil
		}
	}
	for _, router := range c.router {
		if router == nil {
			continue
		}
		for p, paths := range router.RIB().Routes {
			if p.Contains(dst) {
				return c.forward(paths[0].NextHop, dst)
			}
		}
	}
	return nil, fmt.Errorf("the router knows no way by %s", gateway)
}

// lookup finds the route of a packet as the kernel does.
func lookup(f *kernel.Fake, dst netip.Addr) (kernel.RouteKey, kernel.Route, bool) {
	all := maps.Clone(f.Host().Foreign)
	maps.Copy(all, f.OurRoutes())
	var best kernel.RouteKey
	found := false
	for k := range all {
		if k.Dst.Contains(dst) && (!found || k.Dst.Bits() > best.Dst.Bits() || k.Dst == best.Dst && k.Priority < best.Priority) {
			best, found = k, true
		}
	}
	return best, all[best], found
}

// checkQuiet holds that nothing is written and no session moves while nothing
// changes, however long: every pass after the first is without work.
func (c *cluster) checkQuiet() {
	c.t.Helper()
	c.mu.Lock()
	c.writes = nil
	c.mu.Unlock()
	before := map[string]int{}
	for name, n := range c.nodes {
		before[name] = n.kernel.Writes()
	}
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	for name, n := range c.nodes {
		if wrote := n.kernel.Writes() - before[name]; wrote > 0 {
			c.t.Errorf("%s wrote %d things to its kernel without need", name, wrote)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.writes) > 0 {
		c.t.Errorf("writes to the store without need: %v", c.writes)
	}
}

// checkSessions holds that every session is Established and always was, but for
// those with nodes that are expected to have been away.
func (c *cluster) checkSessions(away ...string) {
	c.t.Helper()
	for _, n := range c.nodes {
		status, err := n.agent.Status(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		if len(status.Status.BGP.Peers) == 0 {
			c.t.Errorf("%s has no peers", n.name)
		}
		for _, p := range status.Status.BGP.Peers {
			if p.State != string(bgp.Established) || p.Flaps > 0 && !slices.Contains(away, n.name) && !slices.Contains(away, p.Name) {
				c.t.Errorf("%s: session with %s %s is %s, %d flaps, %s", n.name, p.Name, p.Address, p.State, p.Flaps, p.LastError)
			}
		}
	}
}

// watchDeletions notes every route of ours that goes from a kernel, until the
// returned function is called, which tells them.
func (c *cluster) watchDeletions() (stop func() []string) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var mu sync.Mutex
	var gone []string
	for name, n := range c.nodes {
		go n.kernel.Watch(ctx, func(e kernel.Event) {
			mu.Lock()
			defer mu.Unlock()
			for k, r := range e.Routes {
				if r == nil {
					gone = append(gone, name+" "+k.String())
				}
			}
		})
	}
	synctest.Wait()
	return func() []string {
		synctest.Wait()
		cancel()
		mu.Lock()
		defer mu.Unlock()
		return gone
	}
}

func TestConvergence(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		for _, n := range c.nodes {
			n.add(n.name + "-x")
			n.add(n.name + "-y")
		}
		c.settle()
		c.checkMatrix()
		c.checkSessions()
		c.checkQuiet()
	}, "a1", "a2", "b1", "b2")
}

func TestJoinAndLeave(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		c.nodes["a1"].add("one")
		c.nodes["b1"].add("two")
		n := c.join("a2")
		m := c.join("b2")
		c.settle()
		n.add("three")
		m.add("four")
		c.settle()
		c.checkMatrix()
		c.checkSessions()

		left := n.pods["three"]
		n.halt()
		delete(c.nodes, "a2")
		for _, key := range []datastore.Key{{Kind: "Node", Name: "a2"}, {Kind: "NodeStatus", Name: "a2"}} {
			if err := c.store.Delete(t.Context(), key, ""); err != nil {
				t.Fatal(err)
			}
		}
		blocks, err := c.store.List(t.Context(), "IPAMBlock")
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range blocks {
			if o.(*v1.IPAMBlock).Spec.Node == "a2" {
				if err := c.store.Delete(t.Context(), datastore.KeyOf(o), ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(3 * time.Minute) // the peers keep a restarting node's routes for two
		c.settle()
		c.checkMatrix()
		c.checkSessions()
		c.checkQuiet()
		for _, n := range c.nodes {
			for _, ip := range []netip.Addr{left.IPv4, left.IPv6} {
				if k, r, _ := lookup(n.kernel, ip); k.Dst.Bits() > 0 {
					t.Errorf("%s still routes %s by %s %s", n.name, ip, k, r)
				}
			}
		}
	}, "a1", "b1")
}

func TestStoreAway(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1, b1 := c.nodes["a1"], c.nodes["b1"]
		a1.add("old")
		b1.add("far")
		c.settle()
		deleted := c.watchDeletions()
		c.store.SetDown(datastore.ErrUnavailable)
		c.settle()
		for i := range 3 {
			a1.add(fmt.Sprintf("new-%d", i))
		}
		c.checkMatrix()
		a1.del("old")
		// What others delete is healed without the store.
		var remote kernel.RouteKey
		for k, r := range a1.kernel.OurRoutes() {
			if r.Hops.Uses("eth0") {
				remote = k
			}
		}
		a1.kernel.DropRoute(remote)
		time.Sleep(time.Second)
		synctest.Wait()
		if _, ok := a1.kernel.OurRoutes()[remote]; !ok {
			t.Errorf("%s was not healed", remote)
		}
		time.Sleep(time.Hour)
		c.checkMatrix()
		c.checkSessions()
		c.store.SetDown(nil)
		time.Sleep(2 * time.Minute)
		c.settle()
		for _, gone := range deleted() {
			if !strings.Contains(gone, remote.String()) && !strings.Contains(gone, "/32") && !strings.Contains(gone, "/128") {
				t.Errorf("route withdrawn: %s", gone)
			}
		}
		c.checkMatrix()
		c.checkQuiet()
		endpoints, err := c.store.List(t.Context(), "WorkloadEndpoint")
		if err != nil {
			t.Fatal(err)
		}
		if len(endpoints) != 4 {
			t.Errorf("%d WorkloadEndpoints for 4 pods", len(endpoints))
		}
	}, "a1", "a2", "b1")
}

func TestAgentRestart(t *testing.T) {
	for _, test := range []struct {
		name string
		away time.Duration
	}{{"at once", 0}, {"after a minute", time.Minute}} {
		t.Run(test.name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				for _, n := range c.nodes {
					n.add("pod-" + n.name)
				}
				c.settle()
				n := c.nodes["b1"]
				before := n.kernel.OurRoutes()
				deleted := c.watchDeletions()
				n.halt()
				time.Sleep(test.away)
				c.checkMatrix()
				n.start()
				synctest.Wait()
				c.checkMatrix()
				c.settle()
				if gone := deleted(); len(gone) > 0 {
					t.Errorf("routes deleted: %v", gone)
				}
				if after := n.kernel.OurRoutes(); !maps.Equal(before, after) {
					t.Errorf("routes before %v, after %v", before, after)
				}
				n.add("later")
				c.settle()
				c.checkMatrix()
				c.checkSessions("b1", "tor-b", "tor-b6")
				c.checkQuiet()
			}, "a1", "a2", "b1")
		})
	}
}

func TestKernelFaults(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1, a2 := c.nodes["a1"], c.nodes["a2"]
		resp := a2.add("one")
		c.settle()
		block, _, _ := lookup(a1.kernel, resp.IPv4)
		a1.kernel.DropRoute(block)
		a1.kernel.Fail("set", block, kernel.ErrBusy)
		a1.add("two")
		c.settle()
		if k, _, _ := lookup(a1.kernel, resp.IPv4); k == block {
			t.Fatalf("%s was written in spite of the fault", block)
		}
		if got := programmed(t, a1); got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, block.String()) {
			t.Errorf("condition with a failing route: %+v", got)
		}
		a1.kernel.Fail("set", block, nil)
		c.settle()
		c.checkMatrix()
		if got := programmed(t, a1); got.Status != metav1.ConditionTrue {
			t.Errorf("condition after the fault: %+v", got)
		}

		a1.kernel.Fail("read", "routes", kernel.ErrBusy)
		a1.kernel.Overrun()
		c.settle()
		a1.kernel.Fail("read", "routes", nil)
		c.settle()
		c.checkMatrix()
		c.checkSessions()
		c.checkQuiet()
	}, "a1", "a2")
}

// TestFaultsAtStart holds that an agent which can't take over waits, and leaves the
// kernel alone meanwhile.
func TestFaultsAtStart(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1 := c.nodes["a1"]
		a1.add("one")
		c.nodes["a2"].add("two")
		c.settle()
		a1.halt()
		before := a1.kernel.OurRoutes()
		a1.kernel.Fail("read", "routes", kernel.ErrBusy)
		a1.start()
		time.Sleep(time.Minute)
		c.checkMatrix()
		if after := a1.kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, while they can't be read %v", before, after)
		}
		if got := a1.agent.CNI(t.Context(), request(protocol.VerbStatus, "")); got.Error == nil {
			t.Error("an agent that has not taken over says it is ready")
		}
		a1.kernel.Fail("read", "routes", nil)
		c.settle()
		a1.add("three")
		c.settle()
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2")
}

func programmed(t *testing.T, n *node) metav1.Condition {
	t.Helper()
	status, err := n.agent.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range status.Status.Conditions {
		if c.Type == v1.ConditionProgrammed {
			return c
		}
	}
	t.Fatal("no condition " + v1.ConditionProgrammed)
	return metav1.Condition{}
}

func TestForeignChanges(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1 := c.nodes["a1"]
		a1.add("one")
		c.nodes["a2"].add("two")
		c.nodes["b1"].add("three")
		c.settle()
		before := a1.kernel.OurRoutes()
		for k := range before {
			a1.kernel.DropRoute(k)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if after := a1.kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, after their deletion %v", before, after)
		}
		for k := range before {
			a1.kernel.PutRoute(k, kernel.Route{Type: kernel.Blackhole}, kernel.RouteProtocol)
		}
		stray := kernel.HostRoute(netip.MustParseAddr("203.0.113.1"))
		a1.kernel.PutRoute(stray, kernel.Route{Type: kernel.Blackhole}, kernel.RouteProtocol)
		time.Sleep(time.Second)
		synctest.Wait()
		if after := a1.kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, after their change %v", before, after)
		}
		a1.kernel.SetLink(kernel.Link{Name: "eth0", MTU: 1500})
		time.Sleep(time.Second)
		a1.kernel.SetLink(kernel.Link{Name: "eth0", MTU: 1500, Up: true})
		a1.kernel.AddAddr(kernel.Addr{Link: "eth0", Prefix: a1.v6})
		a1.addDefaults()
		c.settle()
		if after := a1.kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, after the link was down %v", before, after)
		}
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2", "b1")
}

// TestBGPLost holds that without any BGP session traffic inside a subnet goes
// on, that what only BGP knew goes when its time is up, and comes back.
func TestBGPLost(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1, a2, b1 := c.nodes["a1"], c.nodes["a2"], c.nodes["b1"]
		a1.add("one")
		near, far := a2.add("two"), b1.add("three")
		c.settle()
		c.checkMatrix()
		hosts := []string{"a1", "a2", "b1", "router-a", "router-b"}
		each := func(f func(a, b string)) {
			for i, a := range hosts {
				for _, b := range hosts[:i] {
					f(a, b)
				}
			}
		}
		each(c.fabric.Cut)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if err := c.send(a1, near.IPv4, "two", 8); err != nil {
			t.Errorf("inside the rack: %v", err)
		}
		if k, _, _ := lookup(a1.kernel, far.IPv6); k.Dst.Bits() > 0 {
			t.Errorf("%s is still routed by %s", far.IPv6, k)
		}
		each(c.fabric.Heal)
		time.Sleep(5 * time.Minute)
		c.settle()
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2", "b1")
}

// TestReconfigure holds that what the administrator changes of BGP takes effect
// live, and that routes which don't depend on it stay.
func TestReconfigure(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		for _, n := range c.nodes {
			n.add("pod-" + n.name)
		}
		c.settle()
		before := c.nodes["a1"].kernel.OurRoutes()
		c.create(&v1.BGPConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: v1.DefaultName}, Spec: v1.BGPConfigurationSpec{ListenPort: 1179},
		})
		c.settle()
		c.checkMatrix()
		if after := c.nodes["a1"].kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, with another port %v", before, after)
		}
		key := datastore.Key{Kind: "BGPConfiguration", Name: v1.DefaultName}
		_, err := datastore.Update(t.Context(), c.store, key, func(o *v1.BGPConfiguration) error {
			o.Spec.NodeToNodeMeshEnabled = new(false)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		c.settle()
		status, err := c.nodes["a1"].agent.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range status.Status.BGP.Peers {
			if p.Type == v1.PeerTypeMesh {
				t.Errorf("there is a mesh session with %s", p.Name)
			}
		}
		if err := c.send(c.nodes["a1"], c.nodes["a2"].pods["pod-a2"].IPv4, "pod-a2", 8); err != nil {
			t.Errorf("inside the rack: %v", err)
		}
		if err := c.store.Delete(t.Context(), key, ""); err != nil {
			t.Fatal(err)
		}
		c.settle()
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2", "b1")
}

// TestAnyOrder throws faults at a cluster in random order. Once they end, all is
// as if they had not been: every pod reaches every pod, the datastore knows just
// the pods there are, and nothing moves.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				roll := rand.New(rand.NewPCG(seed, 1)).IntN
				for step := range 60 {
					c.mischief(roll, step)
					time.Sleep(time.Duration(roll(20000)) * time.Millisecond)
				}
				c.store.SetDown(nil)
				for _, n := range c.nodes {
					n.kernel.Fail("set", nil, nil)
					if n.stop == nil {
						n.start()
					}
				}
				time.Sleep(10 * time.Minute)
				c.settle()
				for _, n := range c.nodes {
					n.add("last-" + n.name)
				}
				c.settle()
				c.checkMatrix()
				c.checkAddresses()
				c.checkQuiet()
			}, "a1", "a2", "b1", "b2")
		})
	}
}

// mischief does one thing that happens to clusters.
func (c *cluster) mischief(roll func(int) int, step int) {
	names := slices.Sorted(maps.Keys(c.nodes))
	n := c.nodes[names[roll(len(names))]]
	switch roll(9) {
	case 0, 1, 2:
		if n.stop != nil {
			// May fail while things are broken; the plug-in then undoes it.
			pod := fmt.Sprintf("pod-%d", step)
			if resp, err := n.tryAdd(pod); err != nil {
				n.pods[pod] = resp
				n.del(pod)
			}
		}
	case 3:
		if n.stop != nil && len(n.pods) > 0 {
			n.del(slices.Sorted(maps.Keys(n.pods))[0])
		}
	case 4:
		if n.stop == nil {
			n.start()
		} else {
			n.halt()
		}
	case 5:
		if roll(2) == 0 {
			c.store.SetDown(datastore.ErrUnavailable)
		} else {
			c.store.SetDown(nil)
		}
	case 6:
		for _, k := range slices.SortedFunc(maps.Keys(n.kernel.OurRoutes()), func(a, b kernel.RouteKey) int { return a.Dst.Compare(b.Dst) })[:1] {
			n.kernel.DropRoute(k)
		}
	case 7:
		n.kernel.Overrun()
		if roll(2) == 0 {
			n.kernel.Fail("set", nil, kernel.ErrBusy)
		} else {
			n.kernel.Fail("set", nil, nil)
		}
	case 8:
		c.store.Compact()
	}
}

// checkAddresses holds that no address has two pods, and that the datastore's
// allocations and endpoints are just those of the pods there are.
func (c *cluster) checkAddresses() {
	c.t.Helper()
	want := map[netip.Addr]string{}
	endpoints := 0
	for _, n := range c.nodes {
		for pod, resp := range n.pods {
			endpoints++
			for _, ip := range []netip.Addr{resp.IPv4, resp.IPv6} {
				if other, taken := want[ip]; taken {
					c.t.Errorf("%s has two pods: %s and %s", ip, other, pod)
				}
				want[ip] = pod
			}
		}
	}
	got := map[netip.Addr]string{}
	blocks, err := c.store.List(c.t.Context(), "IPAMBlock")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, o := range blocks {
		for _, a := range o.(*v1.IPAMBlock).Spec.Allocations {
			if a.Owner != nil {
				got[netip.MustParseAddr(a.Address)] = a.Owner.Pod
			}
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		c.t.Errorf("addresses of pods (-there +in the datastore):\n%s", diff)
	}
	list, err := c.store.List(c.t.Context(), "WorkloadEndpoint")
	if err != nil {
		c.t.Fatal(err)
	}
	if len(list) != endpoints {
		c.t.Errorf("%d WorkloadEndpoints for %d pods", len(list), endpoints)
	}
}
