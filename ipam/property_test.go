package ipam

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
)

// TestAnythingCanFail lets nodes assign and release while processes die in the
// middle of writes, journals get lost, and the datastore goes away, answers
// nothing, or does things later than it says. At every moment no address is in
// use twice, on a node that does not hold it, or before it has rested. In the end
// the datastore, the journals and the kernels agree, and nothing has leaked.
func TestAnythingCanFail(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 10
	}
	if text := os.Getenv("CAIRN_SEEDS"); text != "" { // for a soak
		var err error
		if seeds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	total := map[string]int{}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, uint64(seed),
					testPool("a4", "10.0.0.0/25", 29), testPool("b4", "10.1.0.0/28", 32),
					testPool("c6", "fd00::/121", 125), testPool("d6", "fd01::/124", 128))
				w.live(150)
				w.calmDown()
				w.check()
				for what, n := range w.counts {
					total[what] += n
				}
			})
		})
	}
	for _, what := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%-24s %d", what, total[what])
	}
}

// live lets things happen.
func (w *world) live(steps int) {
	for i := range steps {
		w.mu.Lock()
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		what, pause := w.rng.IntN(100), time.Duration(w.rng.IntN(400))*time.Millisecond
		p := n.process
		links := slices.SortedFunc(maps.Keys(n.links), func(x, y Handle) int {
			return slices.Compare([]byte(x.String()), []byte(y.String()))
		})
		w.mu.Unlock()
		switch {
		case p == nil || !p.alive():
			n.restart()
		case what < 45:
			w.add(n, p, fmt.Sprintf("c%d", i))
		case what < 75 && len(links) > 0:
			h := links[w.pick(len(links))]
			w.tasks.Go(func() {
				n.detach(h)
				n.release(h)
			})
		case what < 80 && len(links) > 0: // a repeated ADD
			w.again(n, p, links[w.pick(len(links))])
		case what < 86:
			w.mu.Lock()
			p.fuse = 1 + w.rng.IntN(12)
			w.mu.Unlock()
		case what < 90:
			n.kill("between calls")
		case what < 94:
			w.mu.Lock()
			w.outage = !w.outage
			w.counts["outage begins or ends"]++
			w.mu.Unlock()
		case what < 96:
			w.togglePool()
		}
		time.Sleep(pause)
	}
}

func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *world) add(n *testNode, p *process, id string) {
	r := request(id)
	switch w.pick(6) {
	case 0:
		r.IPv4 = true
	case 1:
		r.IPv6 = true
	case 2:
		r.Pools = []string{"b4", "fd01::/124"}
	}
	w.tasks.Go(func() {
		if as, err := p.a.Assign(context.Background(), r); err == nil {
			n.attach(p, as)
		}
	})
}

// again repeats the ADD of a pod: the answer must be what it has.
func (w *world) again(n *testNode, p *process, h Handle) {
	w.tasks.Go(func() {
		as, err := p.a.Assign(context.Background(), Request{Handle: h})
		w.mu.Lock()
		defer w.mu.Unlock()
		if have, ok := n.links[h]; ok && err == nil && !p.dead && !slices.Equal(have.Addrs(), as.Addrs()) {
			w.t.Errorf("repeated ADD of %s gives %v, it has %v", h, as.Addrs(), have.Addrs())
		}
	})
}

// restart starts a node's agent again, after a reboot or the loss of its
// journal at times.
func (n *testNode) restart() {
	w := n.w
	n.kill("in a call")
	w.mu.Lock()
	lost, reboot := w.chance(15), w.chance(10)
	w.mu.Unlock()
	switch {
	case lost:
		os.Remove(n.journal)
		w.counts["journal lost"]++
	case reboot:
		for h := range maps.Clone(n.links) {
			n.detach(h)
		}
		w.counts["reboot"]++
	}
	n.start()
}

// togglePool disables or enables a pool.
func (w *world) togglePool() {
	pools := w.livePools()
	p := pools[w.pick(len(pools))]
	p.Spec.Disabled = !p.Spec.Disabled
	w.setPool(p)
}

func (w *world) setPool(p *v1.IPPool) {
	if _, err := w.Update(context.Background(), p); err != nil {
		w.t.Fatal(err)
	}
	pools := w.livePools()
	for _, n := range w.nodes {
		if n.process != nil && n.process.a != nil {
			n.process.a.SetPools(pools, nil)
		}
	}
}

// calmDown ends all trouble, collects what no pod uses, and waits until nothing
// moves any more.
func (w *world) calmDown() {
	w.mu.Lock()
	w.calm, w.outage = true, false
	w.mu.Unlock()
	w.tasks.Wait()
	for _, n := range w.nodes {
		if n.process == nil || !n.process.alive() {
			n.restart()
		}
		w.mu.Lock()
		n.process.fuse = 0
		w.mu.Unlock()
	}
	for _, p := range w.livePools() {
		if p.Spec.Disabled {
			p.Spec.Disabled = false
			w.setPool(p)
		}
	}
	time.Sleep(2 * recheck)
	for _, n := range w.nodes {
		for h := range n.doomed {
			n.release(h)
		}
		for as := range n.process.a.Assignments().All() {
			if _, live := n.links[as.Handle]; !live {
				n.release(as.Handle)
			}
		}
	}
	// Rest, return of blocks, their rest, and claims of others that waited.
	for range 4 {
		time.Sleep(time.Minute)
		for _, n := range w.nodes {
			flush(w.t, n.process.a)
		}
	}
}

// check checks that everybody agrees and nothing has leaked.
func (w *world) check() {
	t := w.t
	blocks := w.blocks(t)
	owners := map[string]map[string]string{} // node -> address -> container
	held := map[string]int{}
	empty := map[string][]netip.Prefix{}
	for _, b := range blocks {
		if b.Spec.State != v1.BlockConfirmed {
			t.Errorf("block %s is %s", b.Name, b.Spec.State)
		}
		if len(b.Spec.Allocations) == 0 {
			cidr, _ := netip.ParsePrefix(b.Spec.CIDR)
			empty[b.Spec.Node+" "+b.Spec.Pool] = append(empty[b.Spec.Node+" "+b.Spec.Pool], cidr)
		}
		for _, al := range b.Spec.Allocations {
			if al.Owner == nil {
				held[al.Node+" "+familyOf(parsed(al.Address).Is4())]++
				continue
			}
			if owners[al.Node] == nil {
				owners[al.Node] = map[string]string{}
			}
			owners[al.Node][al.Address] = al.Owner.ContainerID
		}
	}
	for who, n := range held {
		// Two demands for each family: any pool, and certain ones.
		if n > 2*2*4 {
			t.Errorf("%s: %d addresses held without use", who, n)
		}
	}
	for who, blocks := range empty {
		if n := len(blocks); n > 1 && n*int(size(blocks[0])) > 2*4 {
			t.Errorf("%s: %d empty blocks", who, n)
		}
	}
	for _, n := range w.nodes {
		a := n.process.a
		a.mu.Lock()
		rounds := a.begun
		a.mu.Unlock()
		// Since it calmed down; what spins does thousands of rounds.
		if rounds > 1000 {
			t.Errorf("%s: %d rounds of the writer", n.name, rounds)
		}
		if is := a.Issues(); len(is) > 0 {
			t.Errorf("%s: issues %v", n.name, is)
		}
		kernel, inStore := map[string]string{}, owners[n.name]
		for h, as := range n.links {
			for _, ip := range as.Addrs() {
				kernel[ip.String()] = h.ContainerID
			}
		}
		if inStore == nil {
			inStore = map[string]string{}
		}
		if d := cmp.Diff(kernel, inStore); d != "" {
			t.Errorf("%s: links and datastore differ (-links +datastore):\n%s", n.name, d)
		}
		if d := cmp.Diff(kernel, a.recorded()); d != "" {
			t.Errorf("%s: links and journal differ (-links +journal):\n%s", n.name, d)
		}
		n.kill("end")
	}
}

// recorded returns which container uses which address, as a new reader of the
// journal has it.
func (a *Allocator) recorded() map[string]string {
	out := map[string]string{}
	j := &journal{disk: osDisk{}, path: a.journal.path, state: newLedger()}
	if err := j.load(); err != nil || j.harm != nil {
		out["error"] = fmt.Sprint(err, j.harm)
	}
	for _, as := range j.state.uses {
		for _, ip := range as.Addrs() {
			out[ip.String()] = as.ContainerID
		}
	}
	return out
}
