package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

	world sync.Mutex           // held while a kernel is written to
	vigil *vigil               // nil: none is kept
	lag   func() time.Duration // of what the store tells; nil: none
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
		defer func() {
			for _, n := range c.nodes {
				n.halt()
			}
		}()
		for _, name := range names {
			c.join(name)
		}
		c.settle()
		test(t, c)
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
	c.world.Lock()
	c.nodes[name] = n
	c.world.Unlock()
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

// flap takes the node's link down for a while, with what its administrator does
// to have all back.
func (n *node) flap(d time.Duration) {
	n.kernel.SetLink(kernel.Link{Name: "eth0", MTU: 1500})
	time.Sleep(d)
	n.kernel.SetLink(kernel.Link{Name: "eth0", MTU: 1500, Up: true})
	n.kernel.AddAddr(kernel.Addr{Link: "eth0", Prefix: n.v6})
	n.addDefaults()
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
		Store: slow{n.c.store, n.c}, Kernel: n.c.guard(n, tablesOf(n.kernel)), Host: n.kernel, Conntrack: n.kernel, Pods: n.kernel, Speaker: n.speaker, Packets: packetsOf(n.kernel),
	})
	if err != nil {
		n.c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.done = stop, make(chan error, 1)
	run := n.agent
	go func() { n.done <- run.Run(ctx) }()
}

// slow is a store that tells each change of a kind as late as its cluster says.
type slow struct {
	datastore.Store
	c *cluster
}

func (s slow) Watch(ctx context.Context, kind string, f func(datastore.Event)) error {
	events := make(chan datastore.Event, 10000)
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-events:
				if s.c.lag != nil {
					time.Sleep(s.c.lag())
				}
				f(e)
			}
		}
	}()
	return s.Store.Watch(ctx, kind, func(e datastore.Event) { events <- e })
}

// tablesOf returns the tables of a kernel.
func tablesOf(f *kernel.Fake) agent.Kernel {
	return agent.Kernel{
		Sets: f.Sets(), Elements: f.Elements(), Chains: f.Chains(),
		Tunnels: f.Tunnels(), Sysctls: f.Sysctls(), Addrs: f.Addrs(), Neighbours: f.Neighbours(), Forwarding: f.Forwarding(),
		Encryption: f.Encryption(), Routes: f.Routes(),
	}
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

// packetsOf returns what a fake kernel tells of packets.
func packetsOf(f *kernel.Fake) agent.Packets {
	return agent.Packets{Log: f, Counters: f, Tracer: f, Lookup: f, Prober: f}
}
