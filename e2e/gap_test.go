package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.network/cairn/datastore"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/probe"
)

// Bounds of TestNoGap.
const (
	gapChanges = 1000
	gapPace    = 5 * time.Millisecond // between two tries of each probe, and two changes
	// How long probes wait for answers. A busy machine takes its time with those that are
	// due; of those that are not, waiting for long would find no more.
	gapPatience = 5 * time.Second
	gapWait     = 900 * time.Millisecond // less than TCP takes to send its first packet again
)

// TestNoGap changes policies, tiers, labels, network sets and what is behind Services at
// random, and kills the agents in between. Whatever the policies say, they allow one port
// and deny others: of packets to the one none may be lost, of those to the others none may
// pass, at no moment.
func TestNoGap(t *testing.T) {
	l := up(t, small)
	store, hangUp, err := l.Store()
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp()
	pods := gapPods(t, l)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &changes{rnd: rand.New(rand.NewPCG(seed, 0)), store: store, pods: pods, there: map[string]bool{}}

	// Without policies all pass: the servers answer on all ports.
	flows := gapFlows(pods)
	for _, f := range flows {
		answered(t, f.exchange)
	}
	if err := c.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.settle(t, l)
	for _, node := range []string{"n1", "n2"} {
		if out, err := outputOf(t.Context(), l, node, "conntrack", "-F"); err != nil { // what passed until now is established
			t.Fatalf("%v: %s", err, out)
		}
	}

	end := startFlows(t, l, flows)
	c.run(t, l)
	end()
	// TCP makes good what was lost, but for that it shows.
	if again := sentAgain(t, l, "default/client"); again != "0" {
		t.Errorf("the client's first packets of TCP connections were sent again: %s", again)
	}
}

// sentAgain returns how often first packets of TCP connections of a pod had no answer and
// were sent again.
func sentAgain(t *testing.T, l *lab.Lab, pod string) string {
	t.Helper()
	text, err := outputOf(t.Context(), l, pod, "cat", "/proc/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text, "\n") // names, and below them their values
	for i := 0; i+1 < len(lines); i += 2 {
		if at := slices.Index(strings.Fields(lines[i]), "TCPSynRetrans"); at >= 0 {
			return strings.Fields(lines[i+1])[at]
		}
	}
	t.Fatal("the kernel does not count TCPSynRetrans")
	return ""
}

// startFlows starts the probes; end ends them, and fails if one did not see what it should.
func startFlows(t *testing.T, l *lab.Lab, flows []gapFlow) (end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	var probes sync.WaitGroup
	results := make([]string, len(flows))
	for i, f := range flows {
		wait := gapWait
		if f.expect == probe.ExpectPass {
			wait = gapPatience
		}
		cmd, err := l.Command(ctx, "default/"+f.from, "cairn-lab", "probe", "stream", string(f.exchange.Protocol), f.exchange.Addr.String(),
			"--expect", string(f.expect), "--rate", fmt.Sprint(int(time.Second/gapPace)), "--timeout", wait.String())
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		probes.Go(func() {
			_ = cmd.Run() // its exit code says it all
			results[i] = strings.TrimSpace(out.String())
			if !cmd.ProcessState.Success() {
				t.Errorf("%s from %s, %s: %s", f.exchange, f.from, f.expect, results[i])
			}
		})
	}
	return func() {
		stop()
		probes.Wait()
		for i, f := range flows {
			t.Logf("%s from %s, %s: %s", f.exchange, f.from, f.expect, results[i])
		}
	}
}

// run makes the changes, kills the agents in turn, and waits now and then until all is
// applied.
func (c *changes) run(t *testing.T, l *lab.Lab) {
	t.Helper()
	tick := time.NewTicker(gapPace)
	defer tick.Stop()
	nodes := []string{"n1", "n2"}
	for i := range gapChanges {
		<-tick.C
		if err := c.change(t.Context()); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		node := nodes[i/100%2]
		var err error
		switch i % 100 {
		case 40:
			err = l.Kill(t.Context(), node)
		case 60: // others changed meanwhile
			err = l.Start(t.Context(), node)
		case 99:
			c.settle(t, l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// settle waits until the nodes enforce what was written last.
func (c *changes) settle(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	port, err := c.mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"n1", "n2"} {
		for rules := ""; !strings.Contains(rules, fmt.Sprintf("dport %d ", port)); {
			if rules, err = outputOf(ctx, l, node, "nft", "list", "table", "inet", "cairn"); err != nil {
				t.Fatalf("node %s does not enforce the last policy: %v: %s", node, err, rules)
			}
		}
	}
}

func outputOf(ctx context.Context, l *lab.Lab, where string, argv ...string) (string, error) {
	cmd, err := l.Command(ctx, where, argv...)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// gapPods adds the pods, each with a server on all ports, and one on each node to see by
// what is applied.
func gapPods(t *testing.T, l *lab.Lab) map[string]lab.Pod {
	t.Helper()
	var named []lab.Port
	for _, port := range []uint16{portOpen, portIn, portOut} {
		for _, protocol := range protocols() {
			named = append(named, lab.Port{Name: portName(port, protocol), Protocol: string(protocol), Port: port})
		}
	}
	pods := map[string]lab.Pod{}
	for name, node := range map[string]string{"client": "n1", "near": "n1", "far": "n2", "mark1": "n1", "mark2": "n2"} {
		p := lab.Pod{Namespace: "default", Name: name, Node: node, Labels: map[string]string{"team": "red"}, Ports: named}
		if strings.HasPrefix(name, "mark") {
			p.Labels = map[string]string{"mark": ""}
		}
		p, err := l.AddPod(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		pods[name] = p
	}
	return pods
}

// gapFlow is a probe of one pod to another, and what becomes of it all the time.
type gapFlow struct {
	from     string
	exchange probe.Exchange
	expect   probe.Expectation
}

// gapFlows returns the probes: by both protocols and families, on a node and between two.
// What is denied to TCP does not come from the client: see sentAgain.
func gapFlows(pods map[string]lab.Pod) []gapFlow {
	flow := func(from, to string, proto probe.Protocol, v6 bool, port uint16) gapFlow {
		f := gapFlow{from: from, exchange: probe.Exchange{Netns: pods[from].Netns, Protocol: proto}, expect: probe.ExpectPass}
		if port != portOpen {
			f.expect = probe.ExpectNone
		}
		for _, a := range pods[to].Addrs {
			if a.Is6() == v6 {
				f.exchange.Addr = netip.AddrPortFrom(a, port)
			}
		}
		return f
	}
	return []gapFlow{
		flow("client", "far", probe.TCP, false, portOpen), flow("client", "near", probe.TCP, true, portOpen),
		flow("client", "near", probe.UDP, false, portOpen), flow("far", "near", probe.UDP, true, portOpen),
		flow("client", "far", probe.UDP, false, portIn), flow("client", "near", probe.UDP, true, portOut),
		flow("near", "far", probe.TCP, false, portOut), flow("far", "near", probe.TCP, true, portIn),
	}
}

// answered fails unless an exchange is soon answered.
func answered(t *testing.T, e probe.Exchange) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		try, done := context.WithTimeout(ctx, gapWait)
		_, err := e.Try(try)
		done()
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			t.Fatalf("%s: %v", e, err)
		}
	}
}

// put makes an object what o says.
func (c *changes) put(ctx context.Context, o object) error {
	o.Default()
	if err := lab.Put(ctx, c.store, o); err != nil {
		return fmt.Errorf("put %s: %w", datastore.KeyOf(o), err)
	}
	return nil
}
