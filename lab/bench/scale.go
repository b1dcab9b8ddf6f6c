package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/topology"
)

// Amounts of a large cluster.
const (
	scaleBlocks  = 10000
	scaleStarts  = 3
	scaleChanges = 100             // of one node's address
	scaleTime    = 2 * time.Minute // bounds each step
	scaleFillers = 64              // objects written to the datastore at a time
)

// scaleSizes are the numbers of nodes that the blocks are spread over, each with
// what is aimed at for the time until all is in the kernel, and for the memory.
var scaleSizes = []struct {
	nodes       int
	start, size string
}{
	{100, "", ""},
	{1000, "at most 1000 ms", "at most 90 MiB"},
	{10000, "at most 4000 ms", "at most 130 MiB"},
}

// scaleTopology is one node, whose agent knows the others from the datastore
// alone.
const scaleTopology = `
racks: [{name: r1, subnets: [10.101.1.0/24], nodes: [n1]}]
routers: [{name: tor, speaker: none}]
pools: [{name: large, cidr: 100.64.0.0/10, vxlanMode: Always}]
resources:
- {apiVersion: cairn.network/v1, kind: BGPConfiguration, metadata: {name: default}, spec: {nodeToNodeMeshEnabled: false}}
`

// scale measures one agent in a large cluster by VXLAN: its start, its memory, its
// restart with everything in place, and one node's change.
func (b *bench) scale(ctx context.Context) error {
	for _, size := range scaleSizes {
		if err := b.scaleOf(ctx, size.nodes, size.start, size.size); err != nil {
			return fmt.Errorf("%d nodes: %w", size.nodes, err)
		}
	}
	return nil
}

func (b *bench) scaleOf(ctx context.Context, nodes int, startAim, sizeAim string) (err error) {
	t, err := topology.Parse([]byte(scaleTopology))
	if err != nil {
		return err
	}
	t.Name = fmt.Sprintf("bench-%d", nodes)
	l, err := lab.Up(ctx, t, lab.Options{Root: b.Root, Bin: b.Bin, Progress: func(string) {}, NoAgents: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Down(context.WithoutCancel(ctx), b.Root, t.Name)) }()
	store, hangUp, err := open(l)
	if err != nil {
		return err
	}
	defer hangUp()
	if err := fill(ctx, store, nodes); err != nil {
		return err
	}
	c := &large{bench: b, lab: l, store: store, nodes: nodes}
	name := func(what string) string {
		return fmt.Sprintf("%s, %d blocks on %d nodes, VXLAN", what, scaleBlocks, nodes)
	}
	s, err := c.starts(ctx)
	if err != nil {
		return err
	}
	b.add(Row{Name: name("in sync to all in the kernel"), Unit: "ms", Samples: s.synced, Aim: startAim})
	b.add(Row{Name: name("agent's start to all in the kernel"), Unit: "ms", Samples: s.started})
	b.add(Row{Name: name("RSS"), Unit: "MiB", Samples: s.rss, Aim: sizeAim})
	b.add(Row{Name: name("greatest RSS, of the start"), Unit: "MiB", Samples: s.peak})
	writes, err := c.restarts(ctx)
	if err != nil {
		return err
	}
	b.add(Row{Name: name("kernel writes of a restart"), Unit: "", Samples: writes, Aim: "none"})
	changes, err := c.changes(ctx)
	if err != nil {
		return err
	}
	b.add(Row{Name: name("one node's change, datastore to kernel"), Unit: "ms", Samples: changes, Aim: "at most 5 ms, the same for all sizes"})
	return nil
}

// large is a cluster of many nodes of which one is real.
type large struct {
	*bench
	lab   *lab.Lab
	store datastore.Store
	nodes int
}

// remote returns the i-th of the other nodes: its address, and that of its tunnel
// device, which lies in its first block.
func remote(i int) (outside, inside netip.Addr, mac kernel.MAC) {
	return netip.AddrFrom4([4]byte{10, 128, byte(i >> 8), byte(i)}).Next(), blockOf(i).Addr(),
		kernel.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}
}

// blockOf returns the i-th block of the pool.
func blockOf(i int) netip.Prefix {
	n := uint32(100)<<24 | 64<<16 | uint32(i)<<6
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), 26)
}

func nodeName(i int) string { return fmt.Sprintf("remote-%05d", i) }

// fill writes the nodes and their blocks to the datastore.
func fill(ctx context.Context, store datastore.Store, nodes int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(scaleFillers)
	create := func(o v1.Object) {
		group.Go(func() error {
			_, err := store.Create(ctx, o)
			return err
		})
	}
	for i := range nodes {
		outside, inside, mac := remote(i)
		create(&v1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{"rack": "far"}},
			Spec: v1.NodeSpec{
				BGP:                 &v1.NodeBGP{IPv4Address: netip.PrefixFrom(outside, 16).String()},
				IPv4VXLANTunnelAddr: inside.String(), VXLANTunnelMACAddr: mac.String(),
			},
		})
	}
	for i := range scaleBlocks {
		cidr := blockOf(i)
		create(&v1.IPAMBlock{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "IPAMBlock"},
			ObjectMeta: metav1.ObjectMeta{Name: v1.BlockName(cidr)},
			Spec:       v1.IPAMBlockSpec{CIDR: cidr.String(), Pool: "large", Node: nodeName(i % nodes), State: v1.BlockConfirmed},
		})
	}
	return group.Wait()
}

// startFigures are what was measured of starts with nothing in the kernel.
type startFigures struct {
	synced, started, cpu []float64 // ms
	rss, peak            []float64 // MiB
}

// starts measures starts with nothing in the kernel: from the moment at which the
// agent had the datastore's content, and from its start, until the kernel had every
// route, neighbour and forwarding entry; and the memory it has when all is calm.
func (c *large) starts(ctx context.Context) (s startFigures, err error) {
	for range scaleStarts {
		if len(s.synced) > 0 {
			if err := clear(ctx, c.lab, "n1"); err != nil {
				return s, err
			}
		}
		if err := c.start(ctx, &s); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (c *large) start(ctx context.Context, s *startFigures) error {
	w, err := c.watch(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := c.lab.Start(ctx, "n1"); err != nil {
		return err
	}
	done, err := w.wait(c.nodes)
	if err != nil {
		return err
	}
	if err := c.lab.WaitAgents(ctx, "n1"); err != nil {
		return err
	}
	sync, err := syncedAt(c.lab, begin)
	if err != nil {
		return err
	}
	p, err := c.lab.Process("n1")
	if err != nil {
		return err
	}
	rss, err := calmMiB(p.PID)
	if err != nil {
		return err
	}
	peak, err := memoryMiB(p.PID, "VmHWM:")
	s.synced, s.started = append(s.synced, ms(done.Sub(sync))), append(s.started, ms(done.Sub(begin)))
	s.rss, s.peak = append(s.rss, rss), append(s.peak, peak)
	return err
}

// calm is how long a process's memory must stay the same to be looked at.
const calm = 5 * time.Second

// calmMiB returns a process's resident memory when it has not changed for a while.
func calmMiB(pid int) (float64, error) {
	last, since := 0.0, time.Now()
	for {
		m, err := residentMiB(pid)
		if err != nil || m == last && time.Since(since) > calm {
			return m, err
		}
		if m != last {
			last, since = m, time.Now()
		}
		time.Sleep(calm / 50) // between two looks
	}
}

// inSync is the agent's log line of the moment at which it has the datastore's
// content.
var inSync = regexp.MustCompile(`(?m)^time=(\S+) level=INFO msg="in sync"`)

// syncedAt returns when the agent of n1 that was started at begin was in sync.
func syncedAt(l *lab.Lab, begin time.Time) (time.Time, error) {
	path, err := l.Log("n1")
	if err != nil {
		return time.Time{}, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}, err
	}
	for _, m := range inSync.FindAllStringSubmatch(string(b), -1) {
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err == nil && at.After(begin.Add(-time.Millisecond)) {
			return at, nil
		}
	}
	return time.Time{}, errors.New("the agent's log does not say when it was in sync")
}

// restarts counts what a restart with everything in place changes in the kernel,
// as the kernel tells.
func (c *large) restarts(ctx context.Context) ([]float64, error) {
	var writes []float64
	for range scaleStarts {
		if err := c.lab.Kill(ctx, "n1"); err != nil {
			return nil, err
		}
		w, err := c.watch(ctx)
		if err != nil {
			return nil, err
		}
		if err := c.lab.Start(ctx, "n1"); err != nil {
			return nil, err
		}
		if err := c.lab.WaitAgents(ctx, "n1"); err != nil {
			return nil, err
		}
		n, err := w.stop()
		if err != nil {
			return nil, err
		}
		writes = append(writes, float64(n))
	}
	return writes, nil
}

// changes measures from the write of a node's new hardware address to the datastore
// until the kernel has it, as neighbour and in the forwarding database.
func (c *large) changes(ctx context.Context) ([]float64, error) {
	var took []float64
	for i := range scaleChanges + 1 {
		w, err := c.watch(ctx)
		if err != nil {
			return nil, err
		}
		_, _, mac := remote(i % c.nodes)
		mac[1] = byte(1 + i/c.nodes)
		key := datastore.Key{Kind: "Node", Name: nodeName(i % c.nodes)}
		var begin time.Time
		_, err = datastore.Update(ctx, c.store, key, func(o *v1.Node) error {
			o.Spec.VXLANTunnelMACAddr = mac.String()
			begin = time.Now()
			return nil
		})
		if err != nil {
			return nil, err
		}
		at, err := w.waitMAC(mac)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			took = append(took, ms(at.Sub(begin)))
		}
	}
	return took, nil
}
