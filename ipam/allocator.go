package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// Sentinels of Assign, for errors.Is.
var (
	// ErrExhausted says that no pool that the request may use has a free address
	// for this node.
	ErrExhausted = errors.New("no free address")
	// ErrUnavailable says that there is no address now: the allocator is not in
	// sync yet, or the reserve is used up and the datastore does not answer.
	ErrUnavailable = errors.New("no address available now")
	// ErrInvalid says that the request asks for what can't be.
	ErrInvalid = errors.New("invalid request")
	// ErrInUse says that another process has the journal open.
	ErrInUse = errors.New("in use by another process")
	// ErrClosed says that the allocator was closed.
	ErrClosed = errors.New("closed")
)

// Options is what an Allocator is made of.
type Options struct {
	Node    string          // name of the own node
	Store   datastore.Store // holds the blocks
	Journal string          // path of the journal; its folder is made if missing
	// Reserve is how many free addresses the node keeps for each family, ready to
	// be handed out without the datastore. Default 16; negative: none.
	Reserve int
	// CoolDown is how long an address rests after it was freed. Default 30 s;
	// negative: not at all.
	CoolDown time.Duration
	// Wait is how long Assign waits at most for an address. Default 5 s.
	Wait time.Duration

	disk disk // nil: the real one
}

// Request is what Assign is asked for.
type Request struct {
	Handle
	// IPv4 and IPv6 ask for an address of the family. Neither: one of each family
	// that has a pool.
	IPv4, IPv6 bool
	// Pools are the names or CIDRs of the pools to take from; empty: any.
	Pools []string

	// What follows is kept in the Assignment.
	Namespace string
	Pod       string
	HostLink  string
	Netns     string
	Network   string
	Labels    map[string]string

	ServiceAccount string
	Ports          []NamedPort
}

// Allocator gives the addresses that the node holds to its pods. Its methods may
// be called from any goroutine.
type Allocator struct {
	node     string
	store    datastore.Store
	journal  *journal
	reserve  int
	coolDown time.Duration
	wait     time.Duration

	changed chan struct{} // holds one message at most
	work    chan struct{} // the same, for the writer

	mu        sync.Mutex
	closed    bool
	recovered bool
	pools     []pool // ordered by name
	labels    map[string]string
	entries   map[Handle]*entry
	blocks    map[netip.Prefix]*block
	slots     map[netip.Addr]*slot // held by this node, or in use on it
	idle      []*slot              // held and not in use, first freed first
	demands   map[string]*demand
	issues    map[string]v1.Issue        // by what they are about
	snapshot  *Assignments               // nil: to be made
	full      map[string]time.Time       // when a pool was found full
	claiming  map[netip.Prefix]time.Time // claims under way, and until when they may come to pass
	orphans   time.Time                  // when to look again for blocks of addresses that lack one
	begun     int                        // rounds of the writer
	ended     round                      // the last one that ended
	news      chan struct{}              // closed when those who wait should look again
}

// round is how a round of the writer ended.
type round struct {
	number int
	clean  bool  // the datastore agrees with the journal
	err    error // why not
}

// entry is an assignment and what happens to it.
type entry struct {
	Assignment
	before    *entry        // what the handle has until this one is committed; nil: nothing
	committed bool          // it is in the journal
	busy      chan struct{} // closed when the operation under way ends; nil: none
}

// slot is an address.
type slot struct {
	addr   netip.Addr
	block  *block    // nil: not known to lie in one
	held   bool      // by this node, as the datastore says
	user   *entry    // nil: nobody
	since  time.Time // when it was freed; zero: it was not used yet, or long ago
	giving bool      // a write that gives it back may be under way: never use it
}

// block is what the datastore said of a block that concerns this node.
type block struct {
	cidr    netip.Prefix
	spec    v1.IPAMBlockSpec // as last read or written
	slots   map[netip.Addr]*slot
	dirty   bool      // the datastore may differ from what is wanted
	changes int       // counts what made it dirty
	unsure  bool      // the outcome of a write is not known
	look    time.Time // when to read it again in any case
}

// Open reads the journal and locks it. Recover must follow before addresses are
// assigned, and Run writes to the datastore. Errors: ErrInUse.
func Open(o Options) (*Allocator, error) {
	a := &Allocator{
		node: o.Node, store: o.Store,
		reserve:  max(cmp.Or(o.Reserve, 16), 0),
		coolDown: max(cmp.Or(o.CoolDown, 30*time.Second), 0),
		wait:     cmp.Or(o.Wait, 5*time.Second),
		changed:  make(chan struct{}, 1),
		work:     make(chan struct{}, 1),
		entries:  map[Handle]*entry{},
		blocks:   map[netip.Prefix]*block{},
		slots:    map[netip.Addr]*slot{},
		demands:  map[string]*demand{},
		issues:   map[string]v1.Issue{},
		full:     map[string]time.Time{},
		claiming: map[netip.Prefix]time.Time{},
		news:     make(chan struct{}),
	}
	if o.disk == nil {
		o.disk = osDisk{}
	}
	var err error
	if a.journal, err = openJournal(o.disk, o.Journal, a.coolDown); err != nil {
		return nil, err
	}
	if err := a.journal.harm; err != nil {
		a.report("journal", v1.Issue{Object: "journal", Reason: err.Error() + "; live links tell what it lacks"})
	}
	for h, as := range a.journal.state.uses {
		a.entries[h] = &entry{Assignment: as, committed: true}
	}
	for _, ip4 := range []bool{true, false} {
		a.demandFor(ip4, nil)
	}
	return a, nil
}

// Close closes the journal and unlocks it. Nothing is lost that was answered.
func (a *Allocator) Close() error {
	a.mu.Lock()
	a.closed = true
	a.tell()
	a.mu.Unlock()
	return a.journal.close()
}

// SetPools tells the pools there are and the own node, whose labels the pools'
// node selectors are matched with; nil if it has none. It is cheap.
func (a *Allocator) SetPools(pools []*v1.IPPool, node *v1.Node) {
	var labels map[string]string
	if node != nil {
		labels = node.Labels
	}
	var next []pool
	bad := map[string]v1.Issue{}
	for _, p := range pools {
		q, err := poolOf(p, labels)
		if err != nil {
			object := "IPPool " + p.Name
			bad[object] = v1.Issue{Object: object, Reason: err.Error() + "; no address is taken from it"}
			continue
		}
		next = append(next, q)
	}
	slices.SortFunc(next, func(a, b pool) int { return cmp.Compare(a.name, b.name) })

	a.mu.Lock()
	defer a.mu.Unlock()
	for about := range a.issues {
		if _, still := bad[about]; strings.HasPrefix(about, "IPPool ") && !still {
			a.settled(about)
		}
	}
	for about, is := range bad {
		a.report(about, is)
	}
	a.labels = labels
	if slices.Equal(a.pools, next) {
		return
	}
	a.pools = next
	clear(a.full)
	a.orphans = time.Time{}
	a.tell()
	a.kick()
}

// Assignments returns all assignments as of now.
func (a *Allocator) Assignments() *Assignments {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.snapshot == nil {
		s := &Assignments{byHandle: make(map[Handle]Assignment, len(a.entries))}
		for h, e := range a.entries {
			if !e.committed {
				e = e.before
			}
			if e != nil {
				s.byHandle[h] = e.Assignment
			}
		}
		a.snapshot = s
	}
	return a.snapshot
}

// Changed tells one listener that Assignments or Issues returns something new.
func (a *Allocator) Changed() <-chan struct{} { return a.changed }

// Issues returns what is wrong with the node's addresses, ordered: addresses
// used here that another node holds, broken blocks, a damaged journal.
func (a *Allocator) Issues() []v1.Issue {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []v1.Issue
	for _, is := range a.issues {
		out = append(out, is)
	}
	slices.SortFunc(out, func(a, b v1.Issue) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// Flush waits until the datastore agrees with the journal. It needs Run.
func (a *Allocator) Flush(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for from := a.begun; ; {
		if a.ended.number == a.begun { // none is under way
			a.kick()
		}
		if a.ended.number > from && a.ended.clean {
			return nil
		}
		if a.closed {
			return fmt.Errorf("flush: %w", ErrClosed)
		}
		if err := a.await(ctx, a.news); err != nil {
			return fmt.Errorf("flush: %w", errors.Join(err, a.ended.err))
		}
	}
}

// What follows is called with the lock held.

// await waits without the lock until c is closed or ctx is done.
func (a *Allocator) await(ctx context.Context, c <-chan struct{}) error {
	a.mu.Unlock()
	defer a.mu.Lock()
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tell wakes all who wait for something to change.
func (a *Allocator) tell() {
	close(a.news)
	a.news = make(chan struct{})
}

// kick makes the writer begin another round.
func (a *Allocator) kick() { signal(a.work) }

// changedAssignments makes the next Assignments a new one.
func (a *Allocator) changedAssignments() {
	a.snapshot = nil
	signal(a.changed)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// report notes an issue under what it is about.
func (a *Allocator) report(about string, is v1.Issue) {
	if a.issues[about] != is {
		a.issues[about] = is
		signal(a.changed)
	}
}

// settled ends the issue about something.
func (a *Allocator) settled(about string) {
	if _, ok := a.issues[about]; ok {
		delete(a.issues, about)
		signal(a.changed)
	}
}

// poolOf returns the pool that a block was cut from.
func (a *Allocator) poolOf(b *block) (pool, bool) {
	i := slices.IndexFunc(a.pools, func(p pool) bool { return p.name == b.spec.Pool })
	if i < 0 || !a.pools[i].holds(b.cidr) {
		return pool{}, false
	}
	return a.pools[i], true
}

// usable says whether new addresses may be taken from a block.
func (a *Allocator) usable(b *block) bool {
	p, ok := a.poolOf(b)
	return ok && p.refuse == "" && b.spec.Node == a.node && b.spec.State == v1.BlockConfirmed
}

// touch says that the datastore must learn of something in the slot's block.
func (a *Allocator) touch(s *slot) {
	if s.block == nil {
		a.orphans = time.Time{}
	} else {
		s.block.dirty = true
		s.block.changes++
	}
	a.kick()
}

// park puts a held slot that nobody uses into the order of reuse.
func (a *Allocator) park(s *slot) {
	i, _ := slices.BinarySearchFunc(a.idle, s, func(x, y *slot) int {
		return cmp.Or(x.since.Compare(y.since), x.addr.Compare(y.addr))
	})
	a.idle = slices.Insert(a.idle, i, s)
}

func (a *Allocator) unpark(s *slot) {
	if i := slices.Index(a.idle, s); i >= 0 {
		a.idle = slices.Delete(a.idle, i, i+1)
	}
}

// forget ends a slot that is neither held nor in use.
func (a *Allocator) forget(s *slot) {
	a.unpark(s)
	delete(a.slots, s.addr)
	if s.block != nil {
		delete(s.block.slots, s.addr)
	}
}
