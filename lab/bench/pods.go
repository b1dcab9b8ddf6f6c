package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/probe"
)

// runtime is what a container runtime has at hand for a node.
type runtime struct {
	node string // path of its namespace
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

func (b *bench) runtime(node string) (runtime, error) {
	path, err := b.lab.Netns(node)
	if err != nil {
		return runtime{}, err
	}
	c, list, err := b.lab.Runtime(lab.Pod{Node: node})
	return runtime{path, c, list}, err
}

// yardstick returns the runtime that calls the reference plug-ins ptp and
// host-local for one IPv4 address: the least that gives a pod a routed one. (With
// IPv6 ptp waits nearly two seconds for duplicate-address detection.) They keep
// their records in dir.
func (b *bench) yardstick(node, dir string) (runtime, error) {
	path, err := b.lab.Netns(node)
	if err != nil {
		return runtime{}, err
	}
	list, err := libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "yardstick", "plugins": [{"type": "ptp",
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.243.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`, dir)))
	return runtime{path, libcni.NewCNIConfigWithCacheDir([]string{b.Peers}, filepath.Join(dir, "cache"), nil), list}, err
}

// pod returns a new pod with an empty namespace.
func (b *bench) pod(name string) (lab.Pod, error) {
	id := make([]byte, 32)
	rand.Read(id) // never fails (crypto/rand)
	path, err := b.scratch(name)
	if err != nil {
		return lab.Pod{}, err
	}
	p := lab.Pod{Namespace: "bench", Name: name, ContainerID: hex.EncodeToString(id), Netns: path}
	return p, netns.New(path, fabric.Prepare)
}

// add calls ADD and returns how long it took and the addresses.
func (r runtime) add(ctx context.Context, p lab.Pod) (took time.Duration, addrs []netip.Addr, err error) {
	err = netns.Do(r.node, func() error {
		start := time.Now()
		got, err := r.cni.AddNetworkList(ctx, r.list, lab.RuntimeConf(p))
		took = time.Since(start)
		if err != nil {
			return err
		}
		result, err := types100.NewResultFromResult(got)
		if err != nil {
			return err
		}
		for _, ip := range result.IPs {
			if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
				addrs = append(addrs, a.Unmap())
			}
		}
		return nil
	})
	return took, addrs, err
}

// del calls DEL and returns how long it took.
func (r runtime) del(ctx context.Context, p lab.Pod) (took time.Duration, err error) {
	err = netns.Do(r.node, func() error {
		start := time.Now()
		defer func() { took = time.Since(start) }()
		return r.cni.DelNetworkList(ctx, r.list, lab.RuntimeConf(p))
	})
	return took, err
}

// last returns the yardstick's samples, if there is a yardstick.
func last(samples [][]float64) []float64 {
	if len(samples) < 2 {
		return nil
	}
	return samples[len(samples)-1]
}

// pods measures ADD and DEL of single pods, and the first ping from the other
// rack after ADD returned.
func (b *bench) pods(ctx context.Context) (err error) {
	far, err := b.lab.AddPod(ctx, lab.Pod{Namespace: "bench", Name: "far", Node: "n3"})
	if err != nil {
		return err
	}
	ours, err := b.runtime("n1")
	if err != nil {
		return err
	}
	runtimes := []runtime{ours}
	if b.Peers != "" {
		var dir string
		if dir, err = os.MkdirTemp("", "cairn-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		var theirs runtime
		if theirs, err = b.yardstick("n1", dir); err != nil {
			return err
		}
		runtimes = append(runtimes, theirs)
	}
	adds, dels := make([][]float64, len(runtimes)), make([][]float64, len(runtimes))
	var pings []float64
	pods := make([][]lab.Pod, b.Rounds+1) // by round, then by runtime; the first warms caches and is not counted
	for round := range pods {
		for i := range runtimes {
			p, err := b.pod(fmt.Sprintf("p%d-%d", i, round))
			if err != nil {
				return err
			}
			pods[round] = append(pods[round], p)
		}
	}
	for round := range pods {
		for i, r := range runtimes {
			took, addrs, err := r.add(ctx, pods[round][i])
			if err != nil {
				return err
			}
			if round > 0 {
				adds[i] = append(adds[i], ms(took))
			}
			if i > 0 {
				continue
			}
			start := time.Now()
			if err := probe.AskUntil(ctx, far.Netns, probe.Ping, addrs[0], nil); err != nil {
				return err
			}
			if round > 0 {
				pings = append(pings, ms(time.Since(start)))
			}
		}
	}
	// All namespaces end after the last DEL: the kernel's clean-up of one holds up
	// whatever else changes links.
	for round := range pods {
		for i, r := range runtimes {
			took, err := r.del(ctx, pods[round][i])
			if err != nil {
				return err
			}
			if round > 0 {
				dels[i] = append(dels[i], ms(took))
			}
		}
	}
	for _, ps := range pods {
		for _, p := range ps {
			if err := netns.Delete(p.Netns); err != nil {
				return err
			}
		}
	}
	const reference = "ptp + host-local, IPv4"
	b.add(Row{Name: "pod ADD, dual stack", Unit: "ms", Samples: adds[0], Yardstick: reference, Compared: last(adds), Aim: "at most 15 ms"})
	b.add(Row{Name: "pod DEL", Unit: "ms", Samples: dels[0], Yardstick: reference, Compared: last(dels)})
	b.add(Row{Name: "ADD's return to first ping from the other rack", Unit: "ms", Samples: pings})
	return b.lab.RemovePod(ctx, "bench", "far")
}

// burst measures a hundred ADDs at once on one node.
func (b *bench) burst(ctx context.Context) error {
	const pods, rounds = 100, 3
	r, err := b.runtime("n1")
	if err != nil {
		return err
	}
	var took []float64
	for round := range rounds {
		all := make([]lab.Pod, pods)
		for i := range all {
			if all[i], err = b.pod(fmt.Sprintf("b%d-%d", round, i)); err != nil {
				return err
			}
		}
		var wg sync.WaitGroup
		errs := make([]error, pods)
		given := make([][]netip.Addr, pods)
		start := time.Now()
		for i, p := range all {
			wg.Go(func() { _, given[i], errs[i] = r.add(ctx, p) })
		}
		wg.Wait()
		took = append(took, ms(time.Since(start)))
		if err := errors.Join(errs...); err != nil {
			return err
		}
		seen := map[netip.Addr]bool{}
		for _, addrs := range given {
			for _, a := range addrs {
				if seen[a] {
					return fmt.Errorf("%s was given twice", a)
				}
				seen[a] = true
			}
		}
		for i, p := range all {
			wg.Go(func() { _, errs[i] = r.del(ctx, p) })
		}
		wg.Wait()
		for _, p := range all {
			errs = append(errs, netns.Delete(p.Netns))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	b.add(Row{Name: "100 pods at once, all answered", Unit: "ms", Samples: took, Aim: "at most 1500 ms"})
	return nil
}
