package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn.network/cairn/agent/calc"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// Delays between tries to get an address for a tunnel device.
const (
	minAddrRetry = 200 * time.Millisecond
	maxAddrRetry = 30 * time.Second
)

// tunnelAddrs keeps the addresses of one tunnel device: it asks the allocator for
// those that desired state names a use for, and gives them back when the device
// is gone. Asking may wait for the datastore, so each has its own goroutine.
type tunnelAddrs struct {
	a    *Agent
	link string

	// The last try, of which nothing need be done again as long as these are the same.
	use  calc.Use
	had  ipam.Assignment
	err  error
	next time.Time // of a try that failed

	mu    sync.Mutex
	issue string // why there is no address; "": there is, or none is needed
}

// run works until ctx is done.
func (t *tunnelAddrs) run(ctx context.Context) error {
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	delay := minAddrRetry
	for {
		turn := t.a.loop.turn()
		if t.a.loop.recovered.Load() && !t.once(ctx) {
			t.next = time.Now().Add(delay)
			delay = min(2*delay, maxAddrRetry)
		}
		if t.err == nil {
			delay = minAddrRetry
		} else {
			retry.Reset(time.Until(t.next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-turn:
		case <-retry.C:
		}
	}
}

// once does what is to be done now; false: it tried and failed.
func (t *tunnelAddrs) once(ctx context.Context) bool {
	state, host := t.a.loop.state.Load(), t.a.loop.currentHost()
	if state == nil {
		return true
	}
	use, used := state.Uses.Get(t.link)
	as, has := t.a.pods.Assignments().Get(ipam.TunnelHandle(t.link))
	switch {
	case !used:
		t.report(nil, use)
		if !has || isTunnel(host.Links[t.link]) || time.Now().Before(t.next) {
			return true
		}
		return t.release(ctx)
	case use.Pools == "" || !use.IPv4 && !use.IPv6:
		// There are no pools to take an address from (any more): what it has does.
		t.err = nil
		if _, failed := t.a.loop.tunnels.Failures()[t.link]; has || failed || !use.Sending {
			t.report(nil, use) // a device that can't be needs no address
		} else {
			t.report(errors.New("there is no enabled IPPool to take its address from"), use)
		}
		return true
	case use == t.use && same(as, t.had) && (t.err == nil && has || time.Now().Before(t.next)):
		return true
	}
	got, err := t.a.pods.Exchange(ctx, ipam.Request{
		Handle: ipam.TunnelHandle(t.link), IPv4: use.IPv4, IPv6: use.IPv6, Pools: strings.Fields(use.Pools),
	})
	if ctx.Err() != nil {
		return true
	}
	t.use, t.had, t.err = use, as, err
	t.report(err, use)
	if err != nil {
		return false
	}
	t.had = got
	t.a.forget.forget(slices.DeleteFunc(as.Addrs(), func(ip netip.Addr) bool { return slices.Contains(got.Addrs(), ip) })...)
	return true
}

func same(a, b ipam.Assignment) bool { return a.IPv4 == b.IPv4 && a.IPv6 == b.IPv6 }

// isTunnel says whether a link is one of Cairn's tunnel devices.
func isTunnel(l kernel.Link) bool { return l.Alias == kernel.TunnelAlias }

// release gives the addresses back.
func (t *tunnelAddrs) release(ctx context.Context) bool {
	as, _, err := t.a.pods.Release(ctx, ipam.TunnelHandle(t.link))
	t.use, t.had, t.err = calc.Use{}, ipam.Assignment{}, err
	if err == nil {
		t.a.forget.forget(as.Addrs()...)
	}
	return err == nil
}

// report says why there is no address, or with nil that nothing is amiss.
func (t *tunnelAddrs) report(err error, use calc.Use) {
	text := ""
	if err != nil {
		text = err.Error() + "; the node sends nothing through it"
		if use.Pools != "" {
			text = fmt.Sprintf("%v; packets of the IPPools %s to other nodes are not sent through it", err, strings.ReplaceAll(use.Pools, " ", ", "))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if text != t.issue {
		t.issue = text
		t.a.loop.kick() // to have it told
	}
}

// issues returns what is wrong: with resources, and with the addresses of this
// node.
func (a *Agent) issues(s *calc.State) []v1.Issue {
	all := slices.Clip(slices.Concat(s.Issues, a.pods.Issues()))
	for _, t := range a.tunnelAddrs {
		t.mu.Lock()
		if t.issue != "" {
			all = append(all, v1.Issue{Object: "tunnel " + t.link, Reason: t.issue})
		}
		t.mu.Unlock()
	}
	return all
}
