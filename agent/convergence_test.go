package agent_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

func TestConvergence(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		for _, n := range c.nodes {
			n.add(n.name + "-x")
			n.add(n.name + "-y")
		}
		c.settle()
		c.checkMatrix()
		c.checkSessions()
		c.checkQuiet()
	}, "a1", "a2", "b1", "b2")
}

func TestJoinAndLeave(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		c.nodes["a1"].add("one")
		c.nodes["b1"].add("two")
		n := c.join("a2")
		m := c.join("b2")
		c.settle()
		n.add("three")
		m.add("four")
		c.settle()
		c.checkMatrix()
		c.checkSessions()

		left := n.pods["three"]
		n.halt()
		c.world.Lock()
		delete(c.nodes, "a2")
		c.world.Unlock()
		for _, key := range []datastore.Key{{Kind: "Node", Name: "a2"}, {Kind: "NodeStatus", Name: "a2"}} {
			if err := c.store.Delete(t.Context(), key, ""); err != nil {
				t.Fatal(err)
			}
		}
		blocks, err := c.store.List(t.Context(), "IPAMBlock")
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range blocks {
			if o.(*v1.IPAMBlock).Spec.Node == "a2" {
				if err := c.store.Delete(t.Context(), datastore.KeyOf(o), ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(3 * time.Minute) // the peers keep a restarting node's routes for two
		c.settle()
		c.checkMatrix()
		c.checkSessions()
		c.checkQuiet()
		for _, n := range c.nodes {
			for _, ip := range []netip.Addr{left.IPv4, left.IPv6} {
				if k, r, _ := lookup(n.kernel, ip); k.Dst.Bits() > 0 {
					t.Errorf("%s still routes %s by %s %s", n.name, ip, k, r)
				}
			}
		}
	}, "a1", "b1")
}

func TestStoreAway(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1, b1 := c.nodes["a1"], c.nodes["b1"]
		a1.add("old")
		b1.add("far")
		c.settle()
		deleted := c.watchDeletions()
		c.store.SetDown(datastore.ErrUnavailable)
		c.settle()
		for i := range 3 {
			a1.add(fmt.Sprintf("new-%d", i))
		}
		c.checkMatrix()
		a1.del("old")
		// What others delete is healed without the store.
		var remote kernel.RouteKey
		for k, r := range a1.kernel.OurRoutes() {
			if r.Hops.Uses("eth0") {
				remote = k
			}
		}
		a1.kernel.DropRoute(remote)
		time.Sleep(time.Second)
		synctest.Wait()
		if _, ok := a1.kernel.OurRoutes()[remote]; !ok {
			t.Errorf("%s was not healed", remote)
		}
		time.Sleep(time.Hour)
		c.checkMatrix()
		c.checkSessions()
		c.store.SetDown(nil)
		time.Sleep(2 * time.Minute)
		c.settle()
		for _, gone := range deleted() {
			if !strings.Contains(gone, remote.String()) && !strings.Contains(gone, "/32") && !strings.Contains(gone, "/128") {
				t.Errorf("route withdrawn: %s", gone)
			}
		}
		c.checkMatrix()
		c.checkQuiet()
		endpoints, err := c.store.List(t.Context(), "WorkloadEndpoint")
		if err != nil {
			t.Fatal(err)
		}
		if len(endpoints) != 4 {
			t.Errorf("%d WorkloadEndpoints for 4 pods", len(endpoints))
		}
	}, "a1", "a2", "b1")
}

// TestAgentRestart holds that nothing goes from any kernel when an agent starts
// anew, whatever it finds.
func TestAgentRestart(t *testing.T) {
	for _, test := range []struct {
		name string
		away func(*testing.T, *node)
	}{
		{"at once", func(*testing.T, *node) {}},
		{"after a minute", func(*testing.T, *node) { time.Sleep(time.Minute) }},
		{"without its journal", func(t *testing.T, n *node) {
			if err := os.Remove(filepath.Join(n.dir, "journal")); err != nil {
				t.Fatal(err)
			}
		}},
		{"while the datastore is away", func(_ *testing.T, n *node) {
			n.c.store.SetDown(datastore.ErrUnavailable)
			time.AfterFunc(20*time.Second, func() { n.c.store.SetDown(nil) })
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				for _, n := range c.nodes {
					n.add("pod-" + n.name)
				}
				c.settle()
				n := c.nodes["b1"]
				before := n.kernel.OurRoutes()
				deleted := c.watchDeletions()
				n.halt()
				test.away(t, n)
				c.checkMatrix()
				n.start()
				synctest.Wait()
				c.checkMatrix()
				c.settle()
				if gone := deleted(); len(gone) > 0 {
					t.Errorf("routes deleted: %v", gone)
				}
				if after := n.kernel.OurRoutes(); !maps.Equal(before, after) {
					t.Errorf("routes before %v, after %v", before, after)
				}
				n.add("later")
				c.settle()
				c.checkMatrix()
				c.checkSessions("b1")
				c.checkAddresses()
				c.checkQuiet()
			}, "a1", "a2", "b1")
		})
	}
}

func TestKernelFaults(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1, a2 := c.nodes["a1"], c.nodes["a2"]
		resp := a2.add("one")
		c.settle()
		block, _, _ := lookup(a1.kernel, resp.IPv4)
		a1.kernel.DropRoute(block)
		a1.kernel.Fail("set", block, kernel.ErrBusy)
		a1.add("two")
		c.settle()
		if k, _, _ := lookup(a1.kernel, resp.IPv4); k == block {
			t.Fatalf("%s was written in spite of the fault", block)
		}
		if got := programmed(t, a1); got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, block.String()) {
			t.Errorf("condition with a failing route: %+v", got)
		}
		a1.kernel.Fail("set", block, nil)
		c.settle()
		c.checkMatrix()
		if got := programmed(t, a1); got.Status != metav1.ConditionTrue {
			t.Errorf("condition after the fault: %+v", got)
		}

		a1.kernel.Fail("read", "routes", kernel.ErrBusy)
		a1.kernel.Overrun()
		c.settle()
		a1.kernel.Fail("read", "routes", nil)
		c.settle()
		c.checkMatrix()
		c.checkSessions()
		c.checkQuiet()
	}, "a1", "a2")
}

// TestFaultsAtStart holds that an agent which can't take over waits, and leaves the
// kernel alone meanwhile.
func TestFaultsAtStart(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1 := c.nodes["a1"]
		a1.add("one")
		c.nodes["a2"].add("two")
		c.settle()
		a1.halt()
		before := a1.kernel.OurRoutes()
		a1.kernel.Fail("read", "routes", kernel.ErrBusy)
		a1.start()
		time.Sleep(time.Minute)
		c.checkMatrix()
		if after := a1.kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, while they can't be read %v", before, after)
		}
		if got := a1.agent.CNI(t.Context(), request(protocol.VerbStatus, "")); got.Error == nil {
			t.Error("an agent that has not taken over says it is ready")
		}
		a1.kernel.Fail("read", "routes", nil)
		c.settle()
		a1.add("three")
		c.settle()
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2")
}

func programmed(t *testing.T, n *node) metav1.Condition {
	t.Helper()
	status, err := n.agent.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range status.Status.Conditions {
		if c.Type == v1.ConditionProgrammed {
			return c
		}
	}
	t.Fatal("no condition " + v1.ConditionProgrammed)
	return metav1.Condition{}
}

func TestForeignChanges(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1 := c.nodes["a1"]
		a1.add("one")
		c.nodes["a2"].add("two")
		c.nodes["b1"].add("three")
		c.settle()
		before := a1.kernel.OurRoutes()
		for k := range before {
			a1.kernel.DropRoute(k)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if after := a1.kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, after their deletion %v", before, after)
		}
		for k := range before {
			a1.kernel.PutRoute(k, kernel.Route{Type: kernel.Blackhole}, kernel.RouteProtocol)
		}
		stray := kernel.HostRoute(netip.MustParseAddr("203.0.113.1"))
		a1.kernel.PutRoute(stray, kernel.Route{Type: kernel.Blackhole}, kernel.RouteProtocol)
		time.Sleep(time.Second)
		synctest.Wait()
		if after := a1.kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, after their change %v", before, after)
		}
		a1.flap(time.Second)
		c.settle()
		if after := a1.kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, after the link was down %v", before, after)
		}
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2", "b1")
}

// TestBGPLost holds that without any BGP session traffic inside a subnet goes
// on, that what only BGP knew goes when its time is up, and comes back.
func TestBGPLost(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a1, a2, b1 := c.nodes["a1"], c.nodes["a2"], c.nodes["b1"]
		a1.add("one")
		near, far := a2.add("two"), b1.add("three")
		c.settle()
		c.checkMatrix()
		hosts := []string{"a1", "a2", "b1", "router-a", "router-b"}
		each := func(f func(a, b string)) {
			for i, a := range hosts {
				for _, b := range hosts[:i] {
					f(a, b)
				}
			}
		}
		each(c.fabric.Cut)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if err := c.send(a1, near.IPv4, "two", 8); err != nil {
			t.Errorf("inside the rack: %v", err)
		}
		if k, _, _ := lookup(a1.kernel, far.IPv6); k.Dst.Bits() > 0 {
			t.Errorf("%s is still routed by %s", far.IPv6, k)
		}
		each(c.fabric.Heal)
		time.Sleep(5 * time.Minute)
		c.settle()
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2", "b1")
}

// TestReconfigure holds that what the administrator changes of BGP takes effect
// live, and that routes which don't depend on it stay.
func TestReconfigure(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		for _, n := range c.nodes {
			n.add("pod-" + n.name)
		}
		c.settle()
		before := c.nodes["a1"].kernel.OurRoutes()
		c.create(&v1.BGPConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: v1.DefaultName}, Spec: v1.BGPConfigurationSpec{ListenPort: 1179},
		})
		c.settle()
		c.checkMatrix()
		if after := c.nodes["a1"].kernel.OurRoutes(); !maps.Equal(before, after) {
			t.Errorf("routes before %v, with another port %v", before, after)
		}
		key := datastore.Key{Kind: "BGPConfiguration", Name: v1.DefaultName}
		_, err := datastore.Update(t.Context(), c.store, key, func(o *v1.BGPConfiguration) error {
			o.Spec.NodeToNodeMeshEnabled = new(false)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		c.settle()
		status, err := c.nodes["a1"].agent.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range status.Status.BGP.Peers {
			if p.Type == v1.PeerTypeMesh {
				t.Errorf("there is a mesh session with %s", p.Name)
			}
		}
		if err := c.send(c.nodes["a1"], c.nodes["a2"].pods["pod-a2"].IPv4, "pod-a2", 8); err != nil {
			t.Errorf("inside the rack: %v", err)
		}
		if err := c.store.Delete(t.Context(), key, ""); err != nil {
			t.Fatal(err)
		}
		c.settle()
		c.checkMatrix()
		c.checkQuiet()
	}, "a1", "a2", "b1")
}
