package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

func testPool(name, cidr string, blockSize int) *v1.IPPool {
	p := &v1.IPPool{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "IPPool"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1.IPPoolSpec{CIDR: cidr, BlockSize: blockSize},
	}
	p.Default()
	return p
}

// cluster is a datastore with pools.
type cluster struct {
	*datastore.Memory
	pools []*v1.IPPool
}

func newCluster(t testing.TB, pools ...*v1.IPPool) *cluster {
	t.Helper()
	c := &cluster{Memory: datastore.NewMemory(), pools: pools}
	for _, p := range pools {
		if _, err := c.Create(context.Background(), p); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) blocks(t testing.TB) []*v1.IPAMBlock {
	t.Helper()
	objects, err := c.List(context.Background(), "IPAMBlock")
	if err != nil {
		t.Fatal(err)
	}
	var out []*v1.IPAMBlock
	for _, o := range objects {
		b := o.(*v1.IPAMBlock)
		if errs := b.Validate(); len(errs) > 0 {
			t.Errorf("block %s: %v", b.Name, errs)
		}
		if _, err := check(&b.Spec); err != nil {
			t.Errorf("block %s: %v", b.Name, err)
		}
		out = append(out, b)
	}
	return out
}

// start opens, recovers and runs an allocator until the test ends.
func (c *cluster) start(t testing.TB, o Options, live ...Assignment) *Allocator {
	t.Helper()
	if o.Node == "" {
		o.Node = "n1"
	}
	if o.Store == nil {
		o.Store = c
	}
	if o.Journal == "" {
		o.Journal = filepath.Join(t.TempDir(), "ipam", "journal")
	}
	a, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	a.SetPools(c.pools, nil)
	if err := a.Recover(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		a.Close()
	})
	return a
}

func request(id string) Request {
	return Request{Handle: Handle{ContainerID: id, Interface: "eth0"}, Namespace: "default", Pod: "pod-" + id}
}

func flush(t testing.TB, a *Allocator) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := a.Flush(ctx); err != nil {
		t.Fatalf("Flush: %v; issues %v", err, a.Issues())
	}
}

func TestAssignDualStack(t *testing.T) {
	c := newCluster(t, testPool("four", "10.0.0.0/24", 26), testPool("six", "fd00::/112", 122))
	a := c.start(t, Options{})
	as, err := a.Assign(t.Context(), request("c1"))
	if err != nil {
		t.Fatal(err)
	}
	if !as.IPv4.IsValid() || !as.IPv6.IsValid() {
		t.Fatalf("got %v, want one of each family", as.Addrs())
	}
	again, err := a.Assign(t.Context(), request("c1"))
	if err != nil || again.IPv4 != as.IPv4 || again.IPv6 != as.IPv6 {
		t.Fatalf("again: got %v, %v; want %v", again.Addrs(), err, as.Addrs())
	}
	flush(t, a)
	owners := map[string]string{}
	for _, b := range c.blocks(t) {
		for _, al := range b.Spec.Allocations {
			if al.Owner != nil {
				owners[al.Address] = al.Owner.ContainerID
			}
		}
	}
	if len(owners) != 2 || owners[as.IPv4.String()] != "c1" || owners[as.IPv6.String()] != "c1" {
		t.Fatalf("owners %v, want those of %v", owners, as.Addrs())
	}
	if _, ok, err := a.Release(t.Context(), as.Handle); !ok || err != nil {
		t.Fatalf("release: %v, %v", ok, err)
	}
	if _, ok, err := a.Release(t.Context(), as.Handle); ok || err != nil {
		t.Fatalf("second release: %v, %v", ok, err)
	}
	if n := a.Assignments().Len(); n != 0 {
		t.Fatalf("%d assignments left", n)
	}
}

func TestBurstBeyondReserve(t *testing.T) {
	c := newCluster(t, testPool("four", "10.0.0.0/22", 26), testPool("six", "fd00::/112", 122))
	a := c.start(t, Options{})
	flush(t, a)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]bool{}
	for i := range 200 {
		wg.Go(func() {
			as, err := a.Assign(context.Background(), request(fmt.Sprint(i)))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			for _, ip := range as.Addrs() {
				if seen[ip] {
					t.Errorf("%s given twice", ip)
				}
				seen[ip] = true
			}
		})
	}
	wg.Wait()
	if len(seen) != 400 {
		t.Fatalf("%d addresses, want 400", len(seen))
	}
	flush(t, a)
}

func TestExhausted(t *testing.T) {
	c := newCluster(t, testPool("tiny", "10.0.0.0/30", 30))
	a := c.start(t, Options{})
	for i := range 4 {
		if _, err := a.Assign(t.Context(), request(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Assign(t.Context(), request("one more")); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	} else {
		t.Log(err)
	}
}
