package ipam

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// The world of the property test: nodes whose allocators share a datastore, and
// everything that can happen to them. Time is synctest's.

var errDead = errors.New("the process is dead")

// world is the cluster, and what must be true in it at every moment.
type world struct {
	*cluster
	t *testing.T

	mu     sync.Mutex
	rng    *rand.Rand
	calm   bool // nothing goes wrong by itself
	outage bool // of the datastore
	nodes  []*testNode
	inUse  map[netip.Addr]string // which link in the whole cluster carries it
	ended  map[netip.Addr]time.Time
	tasks  sync.WaitGroup
	counts map[string]int // what happened
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

// testNode is a node: its kernel and disk outlive its processes.
type testNode struct {
	w       *world
	name    string
	journal string
	links   map[Handle]Assignment // of pods
	doomed  map[Handle]bool       // to be released again: it has not been confirmed
	process *process              // nil: none runs
}

// process is one life of a node's agent, and its only way to disk and
// datastore.
type process struct {
	node *testNode
	a    *Allocator
	stop context.CancelFunc
	done chan struct{}
	dead bool
	fuse int // calls until it dies; 0: it doesn't
}

// fault decides what happens to a call of a process.
type fault int

const (
	fine fault = iota
	refused
	lostAnswer
	late
)

// strike decides over a call. It kills the process when its time has come,
// before or in the middle of the call.
func (p *process) strike(storeCall bool) (f fault, dies bool) {
	w := p.node.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead {
		return refused, true
	}
	if p.fuse > 0 {
		if p.fuse--; p.fuse == 0 {
			p.dead = true
			w.counts["crash in a call"]++
			return fault(w.rng.IntN(3)), true
		}
	}
	switch {
	case storeCall && w.outage:
		return refused, false
	case w.calm || !w.chance(8):
		return fine, false
	case storeCall:
		return []fault{refused, lostAnswer, late}[w.rng.IntN(3)], false
	}
	return []fault{refused, lostAnswer, fine, fine}[w.rng.IntN(4)], false
}

func (p *process) alive() bool {
	p.node.w.mu.Lock()
	defer p.node.w.mu.Unlock()
	return !p.dead
}

// call performs a call to the datastore, or something like it.
func call[T any](p *process, do func() (T, error)) (T, error) {
	var none, out T
	var err error
	f, dies := p.strike(true)
	switch f {
	case fine, lostAnswer:
		out, err = do()
	case late:
		p.node.w.tasks.Go(func() {
			p.node.w.mu.Lock()
			delay := time.Duration(p.node.w.rng.IntN(3000)) * time.Millisecond
			p.node.w.mu.Unlock()
			time.Sleep(delay)
			if p.alive() {
				do()
			}
		})
	}
	switch {
	case dies:
		return none, errDead
	case f != fine:
		return none, fmt.Errorf("%w: by the test", datastore.ErrUnavailable)
	}
	return out, err
}

// A process is its own datastore.Store. What it was told to write is written
// even if its context ends meanwhile.

func (p *process) Get(ctx context.Context, key datastore.Key) (v1.Object, error) {
	return call(p, func() (v1.Object, error) { return p.node.w.Get(ctx, key) })
}

func (p *process) List(ctx context.Context, kind string) ([]v1.Object, error) {
	return call(p, func() ([]v1.Object, error) { return p.node.w.List(ctx, kind) })
}

func (p *process) Create(ctx context.Context, o v1.Object) (v1.Object, error) {
	o, ctx = o.DeepCopyObject().(v1.Object), context.WithoutCancel(ctx)
	return call(p, func() (v1.Object, error) { return p.node.w.Create(ctx, o) })
}

func (p *process) Update(ctx context.Context, o v1.Object) (v1.Object, error) {
	o, ctx = o.DeepCopyObject().(v1.Object), context.WithoutCancel(ctx)
	return call(p, func() (v1.Object, error) { return p.node.w.Update(ctx, o) })
}

func (p *process) Delete(ctx context.Context, key datastore.Key, revision string) error {
	ctx = context.WithoutCancel(ctx)
	_, err := call(p, func() (any, error) { return nil, p.node.w.Delete(ctx, key, revision) })
	return err
}

func (p *process) Watch(context.Context, string, func(datastore.Event)) error { return errDead }

// testDisk is the disk of a process. What was written and not synced may be gone
// when it dies, as after a loss of power.
type testDisk struct{ p *process }

func (d testDisk) do(op func() error) error {
	f, dies := d.p.strike(false)
	var err error
	if f != refused {
		err = op()
	}
	switch {
	case dies:
		return errDead
	case f != fine:
		return errors.New("input/output error by the test")
	}
	return err
}

func (d testDisk) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func (d testDisk) Create(path string) (file, error) {
	var f *testFile
	err := d.do(func() error {
		real, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
		f = &testFile{disk: d, File: real}
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d testDisk) Rename(from, to string) error {
	return d.do(func() error { return os.Rename(from, to) })
}

func (d testDisk) SyncDir(string) error { return d.do(func() error { return nil }) }

type testFile struct {
	*os.File
	disk           testDisk
	written, saved int
}

func (f *testFile) Write(b []byte) (int, error) {
	err := f.disk.do(func() error {
		n, err := f.File.Write(b)
		f.written += n
		return err
	})
	if err != nil {
		f.tear()
		return 0, err
	}
	return len(b), nil
}

// Sync spares the real disk: the test decides what is lost.
func (f *testFile) Sync() error {
	err := f.disk.do(func() error { return nil })
	if err != nil {
		f.tear()
		return err
	}
	f.saved = f.written
	return nil
}

// tear loses some of what was not synced.
func (f *testFile) tear() {
	w := f.disk.p.node.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := f.written - f.saved; n > 0 {
		f.written = f.saved + w.rng.IntN(n+1)
		f.File.Truncate(int64(f.written))
		f.File.Seek(int64(f.written), 0)
		w.counts["torn journal"]++
	}
}

// start starts the node's agent: a new process on the old disk and kernel.
func (n *testNode) start() {
	w := n.w
	p := &process{node: n, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	w.mu.Lock()
	n.process = p
	w.mu.Unlock()
	a, err := Open(Options{Node: n.name, Store: p, Journal: n.journal, Reserve: 4, CoolDown: 20 * time.Second, disk: testDisk{p}})
	if err != nil {
		// The disk failed or it died: it must be started again.
		close(p.done)
		n.kill("start")
		return
	}
	p.a = a
	a.SetPools(w.livePools(), nil)
	go func() {
		defer close(p.done)
		w.mu.Lock()
		var live []Assignment
		for _, as := range n.links {
			live = append(live, as)
		}
		w.mu.Unlock()
		for a.Recover(ctx, live) != nil {
			if time.Sleep(50 * time.Millisecond); ctx.Err() != nil {
				return
			}
		}
		a.Run(ctx)
	}()
}

// kill ends the node's agent at once; its disk and kernel stay.
func (n *testNode) kill(why string) {
	w := n.w
	w.mu.Lock()
	p := n.process
	n.process = nil
	if p == nil {
		w.mu.Unlock()
		return
	}
	p.dead = true
	w.counts["died: "+why]++
	w.mu.Unlock()
	p.stop()
	<-p.done
	if p.a != nil {
		p.a.Close() // frees the lock as the kernel would; writes nothing
	}
}

func (w *world) livePools() []*v1.IPPool {
	objects, err := w.List(context.Background(), "IPPool")
	if err != nil {
		w.t.Fatal(err)
	}
	var out []*v1.IPPool
	for _, o := range objects {
		out = append(out, o.(*v1.IPPool))
	}
	return out
}

// attach is what follows a successful Assign: from now on a link carries the
// addresses. This is where a duplicate would show.
func (n *testNode) attach(p *process, as Assignment) {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead || w.chance(5) {
		w.counts["answer lost"]++
		return
	}
	if _, again := n.links[as.Handle]; again {
		return
	}
	link := n.name + "/" + as.String()
	for _, ip := range as.Addrs() {
		if other, used := w.inUse[ip]; used {
			w.t.Errorf("%s given to %s, but %s uses it", ip, link, other)
		}
		if holder := w.holder(ip); holder != n.name {
			w.t.Errorf("%s given to %s, but %q holds it", ip, link, holder)
		}
		if rest := time.Since(w.ended[ip]); rest < 20*time.Second {
			w.t.Errorf("%s given to %s %v after its last use", ip, link, rest)
		}
		w.inUse[ip] = link
	}
	n.links[as.Handle] = as
	w.counts["pods"]++
}

// holder returns who holds an address, as the datastore has it.
func (w *world) holder(ip netip.Addr) string {
	objects, err := w.List(context.Background(), "IPAMBlock")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range objects {
		b := o.(*v1.IPAMBlock)
		if i, ok := find(&b.Spec, ip); ok {
			return b.Spec.Allocations[i].Node
		}
	}
	return ""
}

// detach removes a pod's link.
func (n *testNode) detach(h Handle) {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ip := range n.links[h].Addrs() {
		delete(w.inUse, ip)
		w.ended[ip] = time.Now()
	}
	delete(n.links, h)
	n.doomed[h] = true
}

// release tells the agent that a pod is gone.
func (n *testNode) release(h Handle) {
	n.w.mu.Lock()
	p := n.process
	n.w.mu.Unlock()
	if p == nil || p.a == nil {
		return
	}
	if _, _, err := p.a.Release(context.Background(), h); err == nil && p.alive() {
		n.w.mu.Lock()
		delete(n.doomed, h)
		n.w.mu.Unlock()
	}
}

func newWorld(t *testing.T, seed uint64, pools ...*v1.IPPool) *world {
	w := &world{
		cluster: newCluster(t, pools...), t: t, rng: rand.New(rand.NewPCG(seed, 1)),
		inUse: map[netip.Addr]string{}, ended: map[netip.Addr]time.Time{}, counts: map[string]int{},
	}
	dir := t.TempDir()
	for i := range 4 {
		name := fmt.Sprintf("n%d", i)
		n := &testNode{
			w: w, name: name, journal: filepath.Join(dir, name, "journal"),
			links: map[Handle]Assignment{}, doomed: map[Handle]bool{},
		}
		w.nodes = append(w.nodes, n)
		n.start()
	}
	return w
}
