package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/topology"
)

// small is a cluster of two nodes, which claim blocks of both families.
const small = `
racks:
- {name: r1, subnets: [10.101.1.0/24, "fd00:101:1::/64"], nodes: [n1, n2]}
`

// up brings up a lab of its own for a test, and has it removed in the end.
func up(t *testing.T, file string) *lab.Lab {
	t.Helper()
	topo, err := topology.Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	topo.Name = fmt.Sprintf("%s-%d", strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), os.Getpid())
	t.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(t.Context()), root, topo.Name); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := lab.Up(ctx, topo, lab.Options{Root: root, Bin: bin, Progress: func(step string) { t.Log(step) }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// runtime is a container runtime on one node.
type runtime struct {
	t    *testing.T
	lab  *lab.Lab
	node string
	dir  string // of the containers' namespaces

	mu   sync.Mutex
	live map[string][]netip.Addr // addresses by container; what must be true in the end
}

func newRuntime(t *testing.T, l *lab.Lab, node string) *runtime {
	r := &runtime{t: t, lab: l, node: node, dir: t.TempDir(), live: map[string][]netip.Addr{}}
	t.Cleanup(func() {
		if err := netns.DeleteAll(r.dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

// container makes a namespace for a container and returns it as a pod.
func (r *runtime) container(name string) lab.Pod {
	r.t.Helper()
	p := lab.Pod{
		Namespace: "default", Name: name, Node: r.node, ContainerID: r.node + "-" + name,
		Netns: filepath.Join(r.dir, name),
	}
	if err := netns.New(p.Netns, fabric.Prepare); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// call runs f with the plug-in's library, inside the node.
func (r *runtime) call(f func(cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error) error {
	cni, list, err := r.lab.Runtime(lab.Pod{Node: r.node})
	if err != nil {
		return err
	}
	path, err := r.lab.Netns(r.node)
	if err != nil {
		return err
	}
	return netns.Do(path, func() error { return f(cni, list) })
}

// add calls ADD and notes the addresses.
func (r *runtime) add(p lab.Pod) ([]netip.Addr, error) {
	var addrs []netip.Addr
	err := r.call(func(cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
		got, err := cni.AddNetworkList(r.t.Context(), list, lab.RuntimeConf(p))
		if err != nil {
			return err
		}
		result, err := types100.NewResultFromResult(got)
		if err != nil {
			return err
		}
		for _, ip := range result.IPs {
			a, _ := netip.AddrFromSlice(ip.Address.IP)
			addrs = append(addrs, a.Unmap())
		}
		return nil
	})
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.live[p.ContainerID] = addrs
	}
	return addrs, err
}

// del calls DEL.
func (r *runtime) del(p lab.Pod) error {
	err := r.call(func(cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
		return cni.DelNetworkList(r.t.Context(), list, lab.RuntimeConf(p))
	})
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.live, p.ContainerID)
	}
	return err
}

// gc calls GC with the containers that live.
func (r *runtime) gc() {
	r.t.Helper()
	args := &libcni.GCArgs{}
	for id := range r.live {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: id, IfName: "eth0"})
	}
	err := r.call(func(cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
		return cni.GCNetworkList(r.t.Context(), list, args)
	})
	if err != nil {
		r.t.Errorf("GC: %v", err)
	}
}

// remove ends a container without a DEL, as after a crash of the runtime.
func (r *runtime) remove(p lab.Pod) {
	r.t.Helper()
	if err := netns.Delete(p.Netns); err != nil {
		r.t.Fatal(err)
	}
}

// all runs f for each pod at once.
func all(pods []lab.Pod, f func(lab.Pod)) {
	var wg sync.WaitGroup
	for _, p := range pods {
		wg.Go(func() { f(p) })
	}
	wg.Wait()
}

// agree waits until datastore and kernel have what the runtimes have, and fails
// if they don't in good time or if an address is given twice.
func agree(t *testing.T, runtimes ...*runtime) {
	t.Helper()
	want := map[string]string{} // container by address
	for _, r := range runtimes {
		for id, addrs := range r.live {
			if len(addrs) != 2 {
				t.Errorf("container %s has addresses %v, want one of each family", id, addrs)
			}
			for _, a := range addrs {
				if other := want[a.String()]; other != "" {
					t.Errorf("%s was given to %s and to %s", a, other, id)
				}
				want[a.String()] = id
			}
		}
	}
	eventually(t, 40*time.Second, func() error {
		got, err := owners(t, runtimes[0].lab)
		if err != nil {
			return err
		}
		if d := cmp.Diff(want, got); d != "" {
			return fmt.Errorf("who has which address (-containers +datastore):\n%s", d)
		}
		return nil
	})
	for _, r := range runtimes {
		eventually(t, 10*time.Second, func() error {
			got, err := r.routed()
			if err != nil {
				return err
			}
			var want []string
			for _, addrs := range r.live {
				for _, a := range addrs {
					want = append(want, a.String())
				}
			}
			slices.Sort(want)
			if d := cmp.Diff(want, got); d != "" {
				return fmt.Errorf("routes to pods on %s (-want +kernel):\n%s", r.node, d)
			}
			return nil
		})
	}
}

// eventually asks until f returns nil.
func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("not after %s: %v", limit, err)
			return
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// owners returns which container has which address, as the datastore says.
func owners(t *testing.T, l *lab.Lab) (map[string]string, error) {
	cmd, err := l.Ctl(t.Context(), "", "get", "ipamblocks", "-o", "json")
	if err != nil {
		return nil, err
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, errs.String())
	}
	var list struct {
		Items []v1.IPAMBlock `json:"items"`
	}
	if err := json.Unmarshal([]byte(out.String()), &list); err != nil {
		return nil, err
	}
	owners := map[string]string{}
	for _, b := range list.Items {
		for _, a := range b.Spec.Allocations {
			if a.Owner != nil {
				owners[a.Address] = a.Owner.ContainerID
			}
		}
	}
	return owners, nil
}

// routed returns the pods' addresses to which the node's kernel has a route.
func (r *runtime) routed() ([]string, error) {
	var addrs []string
	for _, family := range []string{"-4", "-6"} {
		cmd, err := r.lab.Command(r.t.Context(), r.node, "ip", family, "route", "show", "proto", "202")
		if err != nil {
			return nil, err
		}
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			return nil, err
		}
		for line := range strings.Lines(out.String()) {
			if f := strings.Fields(line); len(f) > 2 && f[1] == "dev" && strings.HasPrefix(f[2], "cairn") {
				addrs = append(addrs, f[0])
			}
		}
	}
	slices.Sort(addrs)
	return addrs, nil
}
