package agent_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

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
func (c *cluster) send(at *node, dst netip.Addr, _ string, ttl int) error {
	_, err := c.travel(at, packet{dst: dst}, ttl)
	return err
}

// forward returns the node that a gateway is, or that the router hands the packet
// to.
func (c *cluster) forward(gateway, dst netip.Addr) (*node, error) {
	for _, ip := range []netip.Addr{gateway, dst} {
		for _, n := range c.nodes {
			if ip == n.v4.Addr() || ip == n.v6.Addr() {
				return n, nil
			}
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
