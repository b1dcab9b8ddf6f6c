package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/netns"
)

func TestCNI(t *testing.T) {
	t.Parallel()
	l := up(t, small)
	one, two := newRuntime(t, l, "n1"), newRuntime(t, l, "n2")

	t.Run("a hundred at once", func(t *testing.T) {
		var pods []lab.Pod
		for i := range 50 {
			pods = append(pods, one.container(fmt.Sprintf("burst-%d", i)), two.container(fmt.Sprintf("burst-%d", i)))
		}
		start := time.Now()
		all(pods, func(p lab.Pod) {
			r := map[string]*runtime{"n1": one, "n2": two}[p.Node]
			if _, err := r.add(p); err != nil {
				t.Errorf("ADD %s: %v", p.ContainerID, err)
			}
		})
		t.Logf("%d ADDs at once took %s", len(pods), time.Since(start).Round(time.Millisecond))
		agree(t, one, two)
		start = time.Now()
		all(pods, func(p lab.Pod) {
			r := map[string]*runtime{"n1": one, "n2": two}[p.Node]
			if err := r.del(p); err != nil {
				t.Errorf("DEL %s: %v", p.ContainerID, err)
			}
		})
		t.Logf("%d DELs at once took %s", len(pods), time.Since(start).Round(time.Millisecond))
		agree(t, one, two)
	})

	t.Run("again and without a namespace", func(t *testing.T) {
		p := one.container("again")
		first, err := one.add(p)
		if err != nil {
			t.Fatal(err)
		}
		second, err := one.add(p)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(first, second, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("a repeated ADD gave other addresses (-first +second):\n%s", d)
		}
		agree(t, one)
		q := one.container("gone")
		if _, err := one.add(q); err != nil {
			t.Fatal(err)
		}
		one.remove(q)
		q.Netns = ""
		for _, p := range []lab.Pod{p, p, q, q} {
			if err := one.del(p); err != nil {
				t.Errorf("DEL %s: %v", p.ContainerID, err)
			}
		}
		if err := one.del(lab.Pod{Namespace: "default", Name: "never", ContainerID: "never", Netns: "/nowhere"}); err != nil {
			t.Errorf("DEL of what never was: %v", err)
		}
		agree(t, one)
	})

	t.Run("plug-in killed at any moment", func(t *testing.T) { killPlugin(t, one) })
	for _, answers := range []int{1, 5, 10} {
		t.Run(fmt.Sprintf("agent killed after answer %d", answers), func(t *testing.T) { killAgent(t, one, answers) })
	}
	agree(t, one, two)
}

// killPlugin kills plug-ins at moments spread over the time that an ADD takes;
// the runtime then ends the containers and collects what is left.
func killPlugin(t *testing.T, r *runtime) {
	keep := r.container("keep")
	start := time.Now()
	if _, err := r.add(keep); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	path, err := r.lab.Netns(r.node)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(r.lab.NetworkFile(r.node))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Plugins []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(conf, &list); err != nil {
		t.Fatal(err)
	}
	plugin := list.Plugins[0]
	plugin["cniVersion"], plugin["name"] = "1.1.0", lab.Network
	stdin, err := json.Marshal(plugin)
	if err != nil {
		t.Fatal(err)
	}
	const times = 40
	killed := 0
	for i := range times {
		p := r.container(fmt.Sprintf("killed-%d", i))
		cmd := exec.Command(filepath.Join(bin, "cairn-cni"))
		cmd.Stdin = strings.NewReader(string(stdin))
		cmd.Env = []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + p.ContainerID, "CNI_NETNS=" + p.Netns, "CNI_IFNAME=eth0", "CNI_PATH=" + bin,
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.Name,
		}
		if err := netns.Do(path, cmd.Start); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(2*took*time.Duration(i)/times, func() { cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			killed++
		}
		timer.Stop()
		r.remove(p)
	}
	t.Logf("%d of %d plug-ins were killed before they were done", killed, times)
	r.gc()
	agree(t, r)
	if err := r.del(keep); err != nil {
		t.Error(err)
	}
}

// killAgent kills the agent while pods come and go, after so many of them were
// answered, and starts it again.
func killAgent(t *testing.T, r *runtime, answers int) {
	var old, fresh []lab.Pod
	for i := range 10 {
		old = append(old, r.container(fmt.Sprintf("old-%d-%d", answers, i)))
		fresh = append(fresh, r.container(fmt.Sprintf("fresh-%d-%d", answers, i)))
	}
	all(old, func(p lab.Pod) {
		if _, err := r.add(p); err != nil {
			t.Errorf("ADD %s: %v", p.ContainerID, err)
		}
	})
	before := maps.Clone(r.live)
	var failed []lab.Pod
	var mu sync.Mutex
	answered := make(chan struct{}, 2*len(old))
	var work sync.WaitGroup
	work.Go(func() {
		all(append(slices.Clone(old[:5]), fresh...), func(p lab.Pod) {
			defer func() { answered <- struct{}{} }()
			if slices.ContainsFunc(old, func(o lab.Pod) bool { return o.ContainerID == p.ContainerID }) {
				if err := r.del(p); err != nil {
					t.Errorf("DEL %s: %v", p.ContainerID, err) // it always succeeds
				}
				return
			}
			if _, err := r.add(p); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, p)
			}
		})
	})
	for range answers {
		<-answered // so the others are under way
	}
	if err := errors.Join(r.lab.Kill(t.Context(), r.node), r.lab.Start(t.Context(), r.node)); err != nil {
		t.Fatal(err)
	}
	work.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.lab.WaitAgents(ctx, r.node); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d ADDs failed", len(failed), len(fresh))
	for _, p := range old[5:] {
		if d := cmp.Diff(before[p.ContainerID], r.live[p.ContainerID], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s (-before +after):\n%s", p.ContainerID, d)
		}
	}
	// A runtime deletes what failed, unless it crashed: then the namespaces end
	// and GC does it.
	for i, p := range failed {
		if i%2 == 0 {
			if err := r.del(p); err != nil {
				t.Errorf("DEL %s: %v", p.ContainerID, err)
			}
		}
		r.remove(p)
	}
	r.gc()
	agree(t, r)
	for _, p := range append(old[5:], fresh...) {
		if err := r.del(p); err != nil {
			t.Errorf("DEL %s: %v", p.ContainerID, err)
		}
	}
}
