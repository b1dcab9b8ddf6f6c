// Package agent is the process on each node: it watches the datastore, the
// kernel and BGP, computes what the node should be (agent/calc), makes it so
// (agent/reconcile), answers the CNI plug-in, and tells about itself.
//
// It guarantees that nothing in the kernel is touched before the datastore is in
// sync, that only one goroutine writes to the kernel, and that stopping leaves
// the data plane as it is. It leaves to main which drivers are used.
//
// The data flows one way: agent.go wires it, loop.go turns snapshots into writes
// of tables.go's tables, pods.go answers the plug-in, tunneladdrs.go gets the
// addresses of tunnel devices, publish.go writes what others must know of this
// node, status.go and metrics.go tell what is.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// Drivers are the worlds outside.
type Drivers struct {
	Store datastore.Store
	Kernel
	Host      kernel.Watcher
	Conntrack kernel.Conntrack
	Pods      kernel.Attacher // of which only SetMTU is used
	Speaker   bgp.Speaker
	Packets   Packets
}

// Packets is what the host's kernel tells of single packets.
type Packets struct {
	Log      kernel.PacketLog
	Counters kernel.Counters
	Tracer   kernel.Tracer
	Lookup   kernel.Lookup
	Prober   kernel.Prober
}

// Kernel is the tables of the host's kernel, all of which hold only Cairn's.
type Kernel struct {
	Sets     kernel.Table[string, kernel.Set]
	Elements kernel.Table[kernel.Element, struct{}]
	Chains   kernel.Table[string, kernel.Chain]

	Tunnels    kernel.Table[string, kernel.Tunnel]
	Sysctls    kernel.Table[kernel.Sysctl, string]
	Addrs      kernel.Table[kernel.Addr, struct{}]
	Neighbours kernel.Table[kernel.Neighbour, kernel.MAC]
	Forwarding kernel.Table[kernel.Forwarding, netip.Addr]
	Encryption kernel.Encryption
	Routes     kernel.Table[kernel.RouteKey, kernel.Route]
}

// Config is what an agent is told at start. It is valid: main has checked it.
type Config struct {
	Node    string // the own Node's name
	Version string // for the status
	// IPv4 and IPv6 are the node's addresses with their subnets' prefix lengths,
	// to be written to the Node; invalid: whatever the Node says.
	IPv4, IPv6 netip.Prefix

	Journal string // file of the addresses in use
	Spool   string // folder in which the plug-in leaves what it could not tell; "": none
	// Sockets to listen on; "" for none.
	CNISocket, APISocket string
	Health               string // TCP address for /livez, /readyz and /metrics; "": none

	Reserve  int           // free addresses to hold per family
	CoolDown time.Duration // rest of a freed address
	Resync   time.Duration // time between full reads of the kernel
	MTU      int           // of new pods, in bytes; 0: as the node's links have it

	Log *slog.Logger
}

// kinds are what an agent mirrors.
var kinds = append([]string{"Node", "IPPool", "IPAMBlock", "BGPConfiguration", "BGPPeer", "AgentConfiguration"}, calc.PolicyKinds()...)

// Agent is one node's agent.
type Agent struct {
	cfg     Config
	drv     Drivers
	log     *slog.Logger
	started time.Time

	mirror      *datastore.Mirror
	pods        *ipam.Allocator
	tunnelAddrs []*tunnelAddrs // one for each tunnel device
	hands       *handshakes
	loop        *loop
	pub         *publisher
	spool       spool
	forget      *forgetter
	terminate   *terminator
	owners      owners
	flows       *flows
	traces      *traces

	conditions conditions
	remote     remote
	encryption encryption
}

// New returns an agent. It opens the journal, and fails if another agent has it
// open or it is damaged.
func New(cfg Config, drv Drivers) (*Agent, error) {
	pods, err := ipam.Open(ipam.Options{
		Node: cfg.Node, Store: drv.Store, Journal: cfg.Journal,
		Reserve: cfg.Reserve, CoolDown: cfg.CoolDown,
	})
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, drv: drv, log: cfg.Log, started: time.Now(),
		mirror: datastore.NewMirror(drv.Store, kinds...),
		pods:   pods,
		spool:  spool{cfg.Spool},
		forget: newForgetter(drv.Conntrack, pods.Assignments, cfg.Log),

		terminate: newTerminator(drv.Conntrack, cfg.Log),
	}
	a.mirror.Transform("WorkloadEndpoint", newLean(cfg.Node).endpoint)
	for _, link := range kernel.TunnelLinks() {
		a.tunnelAddrs = append(a.tunnelAddrs, &tunnelAddrs{a: a, link: link})
	}
	a.hands = &handshakes{a: a}
	a.loop = newLoop(a)
	a.pub = newPublisher(a)
	a.flows = newFlows(a)
	a.traces = newTraces(a)
	return a, nil
}

// Run runs the agent until ctx is done, then returns nil with the data plane
// left as it is and BGP ended so that peers keep the routes.
func (a *Agent) Run(ctx context.Context) error {
	defer a.pods.Close()
	g, ctx := errgroup.WithContext(ctx)
	task := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	task("datastore", a.mirror.Run)
	task("host", func(ctx context.Context) error { return a.drv.Host.Watch(ctx, a.loop.observe) })
	task("addresses", a.runPods)
	for _, t := range a.tunnelAddrs {
		task("addresses of "+t.link, t.run)
	}
	task("handshakes", a.hands.run)
	task("connections", a.forget.run)
	task("refused connections", a.terminate.run)
	task("loop", a.loop.run)
	task("collector", a.runCollector)
	task("publish", a.pub.run)
	task("flows", a.flows.run)
	task("traces", a.traces.run)
	task("CNI", a.serveCNI)
	task("API", a.serveAPI)
	task("health", a.serveHealth)
	err := g.Wait()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, a.drv.Speaker.Stop(stop, true))
}
