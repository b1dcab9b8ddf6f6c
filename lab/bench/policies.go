package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// Samples of a cluster with policies.
const (
	policyStarts  = 3
	policyChanges = 100
	policyBatches = 5  // of CPU time, which is told in whole changes of a batch
	policyTicks   = 20 // changes in a batch
)

// policyAims are what is aimed at for one size, and what a leading peer needed on such
// a machine: with nftables, with iptables.
type policyAims struct{ start, rule, address, cpu, rss string }

// policySizes are the numbers of policies and remote endpoints.
var policySizes = []struct {
	policies, endpoints int
	aims                policyAims
}{
	{100, 1_000, policyAims{rule: sameCost, address: sameCost, cpu: sameCost}},
	{1_000, 10_000, policyAims{
		start: "at most 1000 ms [2200 | 3700]", rule: "at most 5 ms [1096 | 107]", address: "at most 2 ms [552 | 4.6]",
		cpu: "at most 5 ms [950 | 143]", rss: "at most 90 MiB [152 | 124]",
	}},
	{5_000, 50_000, policyAims{rule: sameCost, address: sameCost, cpu: sameCost}},
}

const sameCost = "as with 1000"

// policyCosts measures what policies cost one agent, by their number and that of the
// endpoints of other nodes.
func (b *bench) policyCosts(ctx context.Context) error {
	b.add(Row{Name: fmt.Sprintf(`Policies of one node: %d pods, each with a label of its own. P policies select them by these labels, so all are in
force, P/%d at each pod, one ingress rule each: TCP to one port, from the endpoints with one of P values of labels.
E endpoints are on other nodes, %d a node, with %d such labels each: each is in %d sets, and each set has %d·E/P addresses.
Of the endpoints %d at a time have the same labels.
In [ ] what a leading peer needed on such a machine: with nftables | with iptables.`,
		policyPods, policyPods, policyRemote, policyKeys, policyKeys, policyKeys, policyAlike)})
	for _, size := range policySizes {
		b.Progress(fmt.Sprintf("%d policies, %d endpoints", size.policies, size.endpoints))
		err := b.policed(ctx, size.policies, size.endpoints, func(c *policed) error { return c.measure(ctx, size.aims) })
		if err != nil {
			return fmt.Errorf("%d policies: %w", size.policies, err)
		}
	}
	return nil
}

func (c *policed) measure(ctx context.Context, aims policyAims) error {
	name := func(what string) string { return fmt.Sprintf("%s, P %d, E %d", what, c.policies, c.endpoints) }
	s, err := c.starts(ctx)
	if err != nil {
		return err
	}
	c.add(Row{Name: name("agent's start to all rules in force"), Unit: "ms", Samples: s.started, Aim: aims.start})
	c.add(Row{Name: name("of which after in sync"), Unit: "ms", Samples: s.synced})
	c.add(Row{Name: name("CPU for a start"), Unit: "ms", Samples: s.cpu})
	rule, err := c.timed(ctx, c.changeRule)
	if err != nil {
		return err
	}
	c.add(Row{Name: name("one rule of a policy changed, write to kernel"), Unit: "ms", Samples: rule.took, Aim: aims.rule})
	c.add(Row{Name: name("of which the datastore's answer"), Unit: "ms", Samples: rule.written})
	c.add(Row{Name: name("CPU for one policy change"), Unit: "ms", Samples: rule.cpu, Aim: aims.cpu})
	address, err := c.timed(ctx, c.changeAddress)
	if err != nil {
		return err
	}
	c.add(Row{Name: name("one remote endpoint's address changed, write to kernel"), Unit: "ms", Samples: address.took, Aim: aims.address})
	c.add(Row{Name: name("of which the datastore's answer"), Unit: "ms", Samples: address.written})
	c.add(Row{Name: name("CPU for one change of an address"), Unit: "ms", Samples: address.cpu})
	p, err := c.lab.Process("n1")
	if err != nil {
		return err
	}
	rss, err := calmMiB(p.PID)
	if err != nil {
		return err
	}
	c.add(Row{Name: name("RSS after the starts"), Unit: "MiB", Samples: s.rss, Aim: aims.rss})
	c.add(Row{Name: name("RSS after the changes"), Unit: "MiB", Samples: []float64{rss}, Aim: aims.rss})
	c.add(Row{Name: name("greatest RSS, of the start"), Unit: "MiB", Samples: s.peak})
	return nil
}

// starts measures starts with nothing in the kernel but the pods' links, until the
// last rule is in force, and the memory when all is calm.
func (c *policed) starts(ctx context.Context) (s startFigures, err error) {
	for range policyStarts {
		if err := clear(ctx, c.lab, "n1"); err != nil {
			return s, err
		}
		if err := c.start(ctx, &s); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (c *policed) start(ctx context.Context, s *startFigures) error {
	w, err := watchGeneration(ctx, c.lab)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := c.lab.Start(ctx, "n1"); err != nil {
		return err
	}
	if err := c.lab.WaitAgents(ctx, "n1"); err != nil {
		return err
	}
	p, err := c.lab.Process("n1")
	if err != nil {
		return err
	}
	cpu, err := processorTime(p.PID)
	if err != nil {
		return err
	}
	rss, err := calmMiB(p.PID)
	if err != nil {
		return err
	}
	// What hooks the rules comes last, so the last transaction ends the start.
	done, err := w.end()
	if err != nil {
		return err
	}
	sync, err := syncedAt(c.lab, begin)
	if err != nil {
		return err
	}
	peak, err := memoryMiB(p.PID, "VmHWM:")
	s.synced, s.started = append(s.synced, ms(done.Sub(sync))), append(s.started, ms(done.Sub(begin)))
	s.cpu, s.rss, s.peak = append(s.cpu, ms(cpu)), append(s.rss, rss), append(s.peak, peak)
	return err
}

// changeFigures are what was measured of changes: until the kernel had each, until
// the datastore answered, and the agent's time on processors, all in milliseconds.
type changeFigures struct{ took, written, cpu []float64 }

// timed measures changes that do makes, which returns when the write of the i-th
// began, when the datastore had it and when the kernel did.
func (c *policed) timed(ctx context.Context, do func(ctx context.Context, i int) (begin, written, done time.Time, err error)) (f changeFigures, err error) {
	p, err := c.lab.Process("n1")
	if err != nil {
		return f, err
	}
	for batch := range policyBatches + 1 {
		before, err := processorTime(p.PID)
		if err != nil {
			return f, err
		}
		for i := range policyTicks {
			begin, written, done, err := do(ctx, batch*policyTicks+i)
			if err != nil {
				return f, err
			}
			if batch > 0 { // the first warms caches
				f.took, f.written = append(f.took, ms(done.Sub(begin))), append(f.written, ms(written.Sub(begin)))
			}
		}
		after, err := processorTime(p.PID)
		if err != nil {
			return f, err
		}
		if batch > 0 {
			f.cpu = append(f.cpu, ms(after-before)/policyTicks)
		}
	}
	return f, nil
}

// processorTime returns how long a process was on processors, all its threads
// together, children left out: an agent has none.
func processorTime(pid int) (time.Duration, error) {
	// The clock of another process, see clock_getcpuclockid(3): its number, inverted,
	// above three bits that say what is counted, of which 2 is all of it, exactly.
	const exactly = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|exactly), &t); err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// changeRule gives the rule of one policy another port.
func (c *policed) changeRule(ctx context.Context, i int) (begin, written, done time.Time, err error) {
	port := uint16(policyPort + 1 + i)
	w, err := watch(ctx, c.lab, ruleset(portData(port)))
	if err != nil {
		return begin, written, done, err
	}
	changed := policyOf(i*7%c.policies, port)
	key := datastore.KeyOf(changed)
	_, err = datastore.Update(ctx, c.store, key, func(o *v1.NetworkPolicy) error {
		o.Spec = changed.Spec
		begin = time.Now()
		return nil
	})
	written = time.Now()
	if err != nil {
		return begin, written, done, err
	}
	done, err = w.waitRules(rule, 1)
	return begin, written, done, err
}

// changeAddress gives one remote endpoint another address.
func (c *policed) changeAddress(ctx context.Context, i int) (begin, written, done time.Time, err error) {
	n := i * 7 % c.endpoints
	addr := endpointAddr(n, 1+i*7/c.endpoints)
	w, err := watch(ctx, c.lab, ruleset(memberData(addr)))
	if err != nil {
		return begin, written, done, err
	}
	key := datastore.KeyOf(c.endpoint(n))
	_, err = datastore.Update(ctx, c.store, key, func(o *v1.WorkloadEndpoint) error {
		o.Spec.IPNetworks = []string{addr.String() + "/32"}
		begin = time.Now()
		return nil
	})
	written = time.Now()
	if err != nil {
		return begin, written, done, err
	}
	done, err = w.waitRules(element, policyKeys)
	return begin, written, done, err
}
