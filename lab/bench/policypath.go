package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	goruntime "runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/kernel/linux"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/topology"
)

// Amounts of one sample, and of a cluster, of the data path with policies.
const (
	policyRounds   = 15
	policyConnects = 300 // connections of one sample
	policyOthers   = 5   // pods on each node that policies select and nobody measures
)

// pathTopology is two nodes that know each other's blocks by BGP.
const pathTopology = `
racks: [{name: r1, subnets: [10.101.1.0/24], nodes: [n1, n2]}]
routers: [{name: tor, speaker: none}]
pools: [{name: pods, cidr: 10.244.0.0/16}]
`

// policedPath is a cluster with a client and, on its node and on another, a server.
type policedPath struct {
	name         string
	others, same int // policies of other pods, and of the servers
	lab          *lab.Lab
	client       lab.Pod
	servers      [2]lab.Pod
	first, trip  [2][]float64 // by server; µs
}

// policyPaths measures the first packet of a connection, there and back, and requests
// and answers, with policies and without. All clusters are up at once and are measured
// in turn.
func (b *bench) policyPaths(ctx context.Context) (err error) {
	paths := []*policedPath{
		{name: "no policies"}, {name: "100 policies of other pods", others: 100}, {name: "1000 policies of other pods", others: 1000},
		{name: "100 policies of the server", same: 100},
	}
	for i, p := range paths {
		b.Progress("a cluster with " + p.name)
		defer func() {
			if p.lab != nil {
				err = errors.Join(err, lab.Down(context.WithoutCancel(ctx), b.Root, p.lab.Name()))
			}
		}()
		if err := p.up(ctx, b, fmt.Sprintf("bench-path-%d", i)); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for round := range policyRounds + 1 { // the first warms caches
		for _, p := range paths {
			if err := p.measure(round > 0); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	b.add(Row{Name: fmt.Sprintf(`The data path with policies. Policies of other pods select %d on each of two nodes. Of the 100 of the server all are
asked, and the last allows. A connect is the first packet and its answer; a round trip is a request and its answer.`, policyOthers)})
	for i, where := range []string{"one node", "two nodes"} {
		for _, p := range paths[1:] {
			aim := "within noise"
			if p.same > 0 {
				aim = "ratio at most 1.10"
			}
			none := paths[0]
			b.add(Row{Name: fmt.Sprintf("TCP connect, %s, %s", where, p.name), Unit: "µs", Samples: p.first[i], Yardstick: none.name, Compared: none.first[i], Aim: aim})
			b.add(Row{Name: fmt.Sprintf("TCP round trip, %s, %s", where, p.name), Unit: "µs", Samples: p.trip[i], Yardstick: none.name, Compared: none.trip[i], Aim: aim})
		}
	}
	return nil
}

// up brings the cluster up, with policies in force and pods.
func (p *policedPath) up(ctx context.Context, b *bench, name string) error {
	t, err := topology.Parse([]byte(pathTopology))
	if err != nil {
		return err
	}
	t.Name = name
	if p.lab, err = lab.Up(ctx, t, lab.Options{Root: b.Root, Bin: b.Bin, Progress: func(string) {}}); err != nil {
		return err
	}
	for i := range 2 * policyOthers {
		other := lab.Pod{Namespace: "bench", Name: fmt.Sprintf("other-%d", i), Node: fmt.Sprintf("n%d", 1+i%2), Labels: map[string]string{"app": appOf(i / 2)}}
		if _, err := p.lab.AddPod(ctx, other); err != nil {
			return err
		}
	}
	if p.client, err = p.lab.AddPod(ctx, lab.Pod{Namespace: "bench", Name: "client", Node: "n1", Labels: map[string]string{"client": "yes"}}); err != nil {
		return err
	}
	for i := range p.servers {
		server := lab.Pod{Namespace: "bench", Name: fmt.Sprintf("server-%d", i), Node: fmt.Sprintf("n%d", i+1), Labels: map[string]string{"app": "server"}}
		if p.servers[i], err = p.lab.AddPod(ctx, server); err != nil {
			return err
		}
	}
	return p.enforce(ctx)
}

// enforce writes the policies and returns when they are in both kernels.
func (p *policedPath) enforce(ctx context.Context) error {
	store, hangUp, err := open(p.lab)
	if err != nil {
		return err
	}
	defer hangUp()
	group, fillCtx := errgroup.WithContext(ctx)
	group.SetLimit(scaleFillers)
	for _, policy := range p.policies() {
		group.Go(func() error {
			_, err := store.Create(fillCtx, policy)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, scaleTime, fmt.Errorf("took longer than %s", scaleTime))
	defer cancel()
	for _, node := range []string{"n1", "n2"} {
		if err := p.inForce(limited, node); err != nil {
			return fmt.Errorf("wait for the policies on %s: %w", node, err)
		}
	}
	return nil
}

// policies returns those of the other pods and of the servers.
func (p *policedPath) policies() []*v1.NetworkPolicy {
	var all []*v1.NetworkPolicy
	for i := range p.others {
		policy := policyOf(i, policyPort)
		policy.Spec.Selector = fmt.Sprintf("app == '%s'", appOf(i%policyOthers))
		all = append(all, policy)
	}
	for i := range p.same {
		policy := policyOf(i, policyPort)
		policy.Spec.Selector = "app == 'server'"
		if i == p.same-1 {
			rule := &policy.Spec.Ingress[0]
			rule.Source.Selector, rule.Destination.Ports = "client == 'yes'", []v1.Port{v1.Port(fmt.Sprint(trafficPort))}
		}
		all = append(all, policy)
	}
	return all
}

// inForce returns when a node's kernel has the chain of every policy, and each server
// its list of them.
func (p *policedPath) inForce(ctx context.Context, node string) error {
	path, err := p.lab.Netns(node)
	if err != nil {
		return err
	}
	return netns.Do(path, func() error {
		_, _, chains := linux.NewRules()
		for {
			have, err := chains.Read(ctx)
			if err != nil {
				return err
			}
			n := 0
			for name := range have {
				if strings.HasPrefix(name, "np/bench/policy-") {
					n++
				}
			}
			if n == p.others+p.same {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%d of %d: %w", n, p.others+p.same, context.Cause(ctx))
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

// measure takes one sample of everything.
func (p *policedPath) measure(counts bool) error {
	for i, server := range p.servers {
		first, err := connectTime(p.client.Netns, server.Netns, server.Addrs[0])
		if err != nil {
			return err
		}
		trip, err := roundTrip(p.client.Netns, server.Netns, server.Addrs[0])
		if err != nil {
			return err
		}
		if counts {
			p.first[i], p.trip[i] = append(p.first[i], first), append(p.trip[i], trip)
		}
	}
	return nil
}

// connectTime returns the mean time of a new connection until it is established, in
// microseconds: of its first packet and the answer.
func connectTime(client, server string, dst netip.Addr) (float64, error) {
	listening, served, done := make(chan error, 1), make(chan error, 1), make(chan struct{})
	go func() {
		served <- pinned(server, goruntime.NumCPU()-1, func() error {
			l, err := listenTo(dst, policyConnects)
			listening <- err
			if err == nil {
				<-done // the kernel answers, nobody accepts
				err = unix.Close(l)
			}
			return err
		})
	}()
	if err := <-listening; err != nil {
		return 0, err
	}
	var took time.Duration
	err := pinned(client, 0, func() error {
		for range policyConnects {
			one, err := connectOnce(dst)
			if err != nil {
				return fmt.Errorf("connect to %s: %w", dst, err)
			}
			took += one
		}
		return nil
	})
	close(done)
	return float64(took.Nanoseconds()) / 1000 / policyConnects, errors.Join(err, <-served)
}

// connectOnce makes a connection and resets it, so that it is forgotten at once.
func connectOnce(dst netip.Addr) (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, err
	}
	limit := unix.Timeval{Sec: 10}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: trafficPort, Addr: dst.As4()})
	if took := time.Since(begin); !errors.Is(err, unix.EINTR) {
		return took, err
	}
	return connectOnce(dst) // the runtime interrupts its threads by signals now and then
}
