package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

func TestRefusals(t *testing.T) {
	off := testPool("off", "10.9.0.0/24", 26)
	off.Spec.Disabled = true
	tests := []struct {
		name  string
		pools []*v1.IPPool
		ask   func(*Request)
		want  error
		text  string
	}{
		{"no pool at all", nil, func(*Request) {}, ErrExhausted, "no enabled pool"},
		{"only a disabled one", []*v1.IPPool{off}, func(*Request) {}, ErrExhausted, "no enabled pool"},
		{"no pool of the family", []*v1.IPPool{testPool("a", "10.0.0.0/24", 26)}, func(r *Request) { r.IPv6 = true }, ErrExhausted, "no enabled IPv6 pool"},
		{"unknown pool", []*v1.IPPool{testPool("a", "10.0.0.0/24", 26)}, func(r *Request) { r.Pools = []string{"b"} }, ErrInvalid, "no pool b"},
		{"disabled pool", []*v1.IPPool{off}, func(r *Request) { r.Pools = []string{"off"} }, ErrInvalid, "off is disabled"},
		{"pool of the wrong family", []*v1.IPPool{testPool("a", "10.0.0.0/24", 26)}, func(r *Request) { r.IPv6, r.Pools = true, []string{"a"} }, ErrInvalid, "is IPv6"},
		{"no container", []*v1.IPPool{testPool("a", "10.0.0.0/24", 26)}, func(r *Request) { r.ContainerID = "" }, ErrInvalid, "container ID"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newCluster(t, tt.pools...).start(t, Options{})
			r := request("c")
			tt.ask(&r)
			if _, err := a.Assign(t.Context(), r); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v: %s", err, tt.want, tt.text)
			}
		})
	}
}

func TestFamiliesAndPools(t *testing.T) {
	c := newCluster(t, testPool("a", "10.0.0.0/24", 26), testPool("b", "10.1.0.0/24", 26), testPool("c", "fd00::/120", 122))
	a := c.start(t, Options{})
	tests := []struct {
		name string
		ask  func(*Request)
		want string // what the pools' ranges begin with
	}{
		{"both", func(r *Request) {}, "10.0. fd00"},
		{"IPv4", func(r *Request) { r.IPv4 = true }, "10.0."},
		{"IPv6", func(r *Request) { r.IPv6 = true }, "fd00"},
		{"by name", func(r *Request) { r.Pools = []string{"b"} }, "10.1."},
		{"by range", func(r *Request) { r.Pools = []string{"10.1.0.0/24", "c"} }, "10.1. fd00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request(tt.name)
			tt.ask(&r)
			as, err := a.Assign(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, ip := range as.Addrs() {
				got = append(got, ip.String()[:min(5, len(ip.String()))])
			}
			if s := strings.ReplaceAll(strings.Join(got, " "), "fd00:", "fd00"); s != tt.want {
				t.Errorf("got %v, want %s", as.Addrs(), tt.want)
			}
			other := Request{Handle: r.Handle, IPv4: !as.IPv4.IsValid(), IPv6: !as.IPv6.IsValid()}
			if _, err := a.Assign(t.Context(), other); (other.IPv4 || other.IPv6) && !errors.Is(err, ErrInvalid) {
				t.Errorf("asked for other families: %v, want ErrInvalid", err)
			}
		})
	}
}

func TestExhausted(t *testing.T) {
	c := newCluster(t, testPool("tiny", "10.0.0.0/30", 30))
	a := c.start(t, Options{})
	for i := range 4 {
		if _, err := a.Assign(t.Context(), request(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Assign(t.Context(), request("one more")); !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "tiny") {
		t.Fatalf("got %v, want ErrExhausted that names the pool", err)
	}
}

func TestExhaustedFamilyKeepsTheOther(t *testing.T) {
	c := newCluster(t, testPool("tiny", "10.0.0.0/32", 32), testPool("six", "fd00::/112", 122))
	a := c.start(t, Options{})
	if _, err := a.Assign(t.Context(), request("first")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Assign(t.Context(), request("second")); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	flush(t, a)
	if u := Summarize(c.pools, c.blocks(t)); u[0].Used != 1 {
		t.Errorf("IPv6 addresses used: %d, want 1", u[0].Used)
	}
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("four", "10.0.0.0/24", 26))
		a := c.start(t, Options{Reserve: 3})
		flush(t, a)
		c.SetDown(errors.New("gone fishing"))
		for i := range 3 {
			if _, err := a.Assign(t.Context(), request(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Assign(t.Context(), request("3")); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "gone fishing") {
			t.Fatalf("got %v, want ErrUnavailable and why", err)
		}
		// What is freed here may be used again here, after its rest.
		if _, _, err := a.Release(t.Context(), request("1").Handle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(29 * time.Second)
		if got := a.first(a.demandFor(true, nil), time.Now()); got != nil {
			t.Fatalf("%s is offered after 29 s", got.addr)
		}
		time.Sleep(2 * time.Second)
		if _, err := a.Assign(t.Context(), request("3")); err != nil {
			t.Fatal(err)
		}
		c.SetDown(nil)
		flush(t, a)
		if u := Summarize(c.pools, c.blocks(t)); u[0].Used != 3 || u[0].Reserved != 3 {
			t.Errorf("got %+v, want 3 used and 3 in reserve", u[0].Usage)
		}
	})
}

func TestWaitsForAnAddressToRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("tiny", "10.0.0.0/32", 32))
		a := c.start(t, Options{CoolDown: 3 * time.Second})
		first, err := a.Assign(t.Context(), request("first"))
		if err != nil {
			t.Fatal(err)
		}
		flush(t, a)
		if _, _, err := a.Release(t.Context(), first.Handle); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		second, err := a.Assign(t.Context(), request("second"))
		if err != nil || second.IPv4 != first.IPv4 {
			t.Fatalf("got %v, %v", second.Addrs(), err)
		}
		if d := time.Since(start); d < 3*time.Second || d > 5*time.Second {
			t.Errorf("it waited %v", d)
		}
	})
}

func TestFirstFreedIsFirstReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("small", "10.0.0.0/29", 29))
		a := c.start(t, Options{Reserve: 2})
		var freed []netip.Addr
		for i := range 8 {
			if _, err := a.Assign(t.Context(), request(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		for _, i := range []int{5, 2, 7, 0, 1, 3, 4, 6} {
			as, _, err := a.Release(t.Context(), request(fmt.Sprint(i)).Handle)
			if err != nil {
				t.Fatal(err)
			}
			freed = append(freed, as.IPv4)
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Minute)
		var again []netip.Addr
		for i := range 8 {
			as, err := a.Assign(t.Context(), request(fmt.Sprint("again", i)))
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, as.IPv4)
			flush(t, a)
		}
		if !slices.Equal(freed, again) {
			t.Errorf("freed  %v\nreused %v", freed, again)
		}
	})
}

func TestBurstCostsAHandfulOfWrites(t *testing.T) {
	c := newCluster(t, testPool("four", "10.0.0.0/24", 26))
	var writes atomic.Int32
	a := c.start(t, Options{Reserve: 60, Journal: filepath.Join(t.TempDir(), "journal")})
	flush(t, a)
	gate := make(chan struct{})
	c.Inject(func(call datastore.Call) datastore.Fault {
		if call.Verb == datastore.VerbUpdate {
			if writes.Add(1) == 1 {
				<-gate // the first write is slow; meanwhile the others come
			}
		}
		return datastore.Fault{}
	})
	for i := range 50 {
		if _, err := a.Assign(t.Context(), request(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	flush(t, a)
	c.Inject(nil)
	if n := writes.Load(); n > 8 {
		t.Errorf("%d writes for 50 pods", n)
	}
	if u := Summarize(c.pools, c.blocks(t)); u[0].Used != 50 {
		t.Errorf("%d used, want 50", u[0].Used)
	}
}

func TestDisabledPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("a", "10.0.0.0/24", 26), testPool("b", "10.1.0.0/24", 26))
		a := c.start(t, Options{})
		kept, err := a.Assign(t.Context(), request("kept"))
		if err != nil || !c.within("a", kept.IPv4) {
			t.Fatalf("got %v, %v", kept.Addrs(), err)
		}
		disabled := c.pools[0].DeepCopy()
		disabled.Spec.Disabled = true
		a.SetPools([]*v1.IPPool{disabled, c.pools[1]}, nil)
		next, err := a.Assign(t.Context(), request("next"))
		if err != nil || !c.within("b", next.IPv4) {
			t.Fatalf("got %v, %v; want one of pool b", next.Addrs(), err)
		}
		flush(t, a)
		if u := Summarize(c.pools, c.blocks(t)); u[0].Used != 1 || u[0].Reserved != 0 {
			t.Errorf("disabled pool: %+v, want 1 used and none in reserve", u[0].Usage)
		}
		if _, _, err := a.Release(t.Context(), kept.Handle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		flush(t, a)
		if u := Summarize(c.pools, c.blocks(t)); len(u[0].Blocks) != 0 {
			t.Errorf("disabled pool keeps %+v", u[0].Blocks)
		}
	})
}

func (c *cluster) within(pool string, ip netip.Addr) bool {
	i := slices.IndexFunc(c.pools, func(p *v1.IPPool) bool { return p.Name == pool })
	return netip.MustParsePrefix(c.pools[i].Spec.CIDR).Contains(ip)
}

func TestEmptyBlocksAreReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("four", "10.0.0.0/22", 26), testPool("six", "fd00::/118", 122))
		a := c.start(t, Options{})
		for i := range 200 {
			if _, err := a.Assign(t.Context(), request(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		flush(t, a)
		if n := len(c.blocks(t)); n < 8 {
			t.Fatalf("%d blocks for 400 addresses", n)
		}
		for i := range 200 {
			if _, _, err := a.Release(t.Context(), request(fmt.Sprint(i)).Handle); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		flush(t, a)
		if n := len(c.blocks(t)); n != 2 {
			t.Errorf("%d blocks for no address, want one of each family", n)
		}
	})
}

func TestChanged(t *testing.T) {
	c := newCluster(t, testPool("four", "10.0.0.0/24", 26))
	a := c.start(t, Options{})
	<-a.Changed() // recovered
	before := a.Assignments()
	if again := a.Assignments(); again != before {
		t.Error("nothing changed, yet Assignments did")
	}
	if _, err := a.Assign(t.Context(), request("c")); err != nil {
		t.Fatal(err)
	}
	<-a.Changed()
	if after := a.Assignments(); after == before || after.Len() != 1 || before.Len() != 0 {
		t.Errorf("before %d, after %d assignments", before.Len(), after.Len())
	}
	if _, err := a.Assign(t.Context(), request("c")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.Changed():
		t.Error("a repeated request changed something")
	default:
	}
}

func TestClose(t *testing.T) {
	c := newCluster(t, testPool("four", "10.0.0.0/24", 26))
	a := c.start(t, Options{})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Assign(t.Context(), request("c")); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}
