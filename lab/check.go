package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/probe"
	"cairn.network/cairn/lab/wire"
)

// Check asks every pod from every pod and every node, and every node from every
// pod, by ping, TCP and UDP, by each family, until all have answered well or ctx is
// done. A good answer is one to the client's own address; where a pool has
// natOutgoing, other nodes see that of the pod's node.
func (l *Lab) Check(ctx context.Context) (*probe.Matrix, error) {
	pods, err := l.Pods()
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("check: there are no pods")
	}
	questions, err := l.questions(ctx, pods)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	servers, err := l.serveNodes(serving)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	m := probe.AskAll(ctx, questions)
	stop()
	if err := servers.Wait(); err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	return m, nil
}

// serveNodes has each node answer at its own addresses until ctx is done.
func (l *Lab) serveNodes(ctx context.Context) (*errgroup.Group, error) {
	var group errgroup.Group
	for _, n := range l.Topology.Nodes {
		path, err := l.Netns(n.Name)
		if err != nil {
			return nil, err
		}
		var server *probe.Server
		err = netns.Do(path, func() (err error) {
			own, err := addresses()
			if err != nil {
				return err
			}
			// One that was changed by hand meanwhile can't be asked.
			there := slices.DeleteFunc(addrs(n.Addrs), func(a netip.Addr) bool { return !slices.Contains(own, a) })
			if len(there) == 0 {
				return nil
			}
			server, err = probe.Listen(ctx, there, probe.Service{Protocol: probe.TCP, Port: probe.Port}, probe.Service{Protocol: probe.UDP, Port: probe.Port})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("on %s: %w", n.Name, err)
		}
		if server != nil {
			group.Go(func() error { return server.Run(ctx) })
		}
	}
	return &group, nil
}

// questions returns what Check asks.
func (l *Lab) questions(ctx context.Context, pods []Pod) ([]probe.Question, error) {
	cluster := l.cluster(ctx)
	var all []probe.Question
	ask := func(q probe.Question, from, to []netip.Addr) {
		for _, a := range to {
			if slices.ContainsFunc(from, func(f netip.Addr) bool { return f.Is4() == a.Is4() }) {
				q.Addr = a
				all = append(all, q)
			}
		}
	}
	for _, p := range pods {
		q := probe.Question{Client: p.String(), Netns: p.Netns}
		for _, o := range pods {
			q.Server, q.Own = o.String(), func() []netip.Addr { return p.Addrs }
			ask(q, p.Addrs, o.Addrs)
		}
		for _, n := range l.Topology.Nodes {
			own := p.Addrs
			if n.Name != p.Node {
				own = l.outside(cluster, p)
			}
			q.Server, q.Own = n.Name, func() []netip.Addr { return own }
			ask(q, p.Addrs, addrs(n.Addrs))
		}
	}
	for _, n := range l.Topology.Nodes {
		path, err := l.Netns(n.Name)
		if err != nil {
			return nil, err
		}
		q := probe.Question{Client: n.Name, Netns: path, Own: func() []netip.Addr { return addressesIn(path) }}
		for _, p := range pods {
			q.Server = p.String()
			ask(q, addrs(n.Addrs), p.Addrs)
		}
	}
	return all, nil
}

// outside returns the addresses that a pod has in the eyes of those outside of all
// pools: its own, or, for those of a pool with natOutgoing, its node's.
func (l *Lab) outside(c wire.Cluster, p Pod) []netip.Addr {
	node, _ := l.Topology.Node(p.Node)
	var as []netip.Addr
	for _, a := range p.Addrs {
		if pool := c.Pool(a); pool == nil || !pool.Spec.NATOutgoing {
			as = append(as, a)
			continue
		}
		for _, n := range addrs(node.Addrs) {
			if n.Is4() == a.Is4() {
				as = append(as, n)
			}
		}
	}
	return as
}

// cluster returns what the datastore says of pools, nodes and settings; while it
// is away, what it was filled with.
func (l *Lab) cluster(ctx context.Context) wire.Cluster {
	objects, err := l.objects(ctx, "ippools", "nodes", "agentconfigurations")
	if err == nil {
		return wire.Of(objects)
	}
	text, err := l.Topology.Objects()
	if err == nil {
		objects, err = v1.Decode(text)
	}
	if err != nil {
		panic(err) // a parsed topology has good objects
	}
	return wire.Of(objects)
}

// addressesIn returns every address that a host has now, those of its tunnels too.
func addressesIn(path string) []netip.Addr {
	var as []netip.Addr
	_ = netns.Do(path, func() (err error) { // a host that is gone has none
		as, err = addresses()
		return err
	})
	return as
}

// addresses returns every address of the calling thread's network namespace that
// others can see.
func addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var as []netip.Addr
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			return nil, errors.Join(errors.New("list addresses"), err)
		}
		if a := p.Addr().Unmap(); !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			as = append(as, a)
		}
	}
	return as, nil
}
