package ipam

import (
	"context"
	"errors"
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
	// be handed out without the datastore. Default 16.
	Reserve int
	// CoolDown is how long an address rests after it was freed. Default 30 s;
	// negative: not at all.
	CoolDown time.Duration
	// Wait is how long Assign waits at most for an address. Default 5 s.
	Wait time.Duration
	// Selects says whether a pool's node selector matches these labels.
	Selects func(selector string, labels map[string]string) (bool, error)
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
}

// Allocator gives the addresses that the node holds to its pods. Its methods may
// be called from any goroutine.
type Allocator struct{}

// Open reads the journal and locks it. Recover must follow before addresses are
// assigned, and Run writes to the datastore. Errors: ErrInUse.
func Open(o Options) (*Allocator, error) { return &Allocator{}, nil }

// Recover makes the journal, the datastore's blocks and the assignments found on
// the node's live links agree. It is called once, when the datastore is in sync,
// before the first Assign; an error means that it did nothing and may be called
// again. Each live assignment has a handle of its own.
func (a *Allocator) Recover(ctx context.Context, live []Assignment) error { return nil }

// SetPools tells the pools there are and the own node, whose labels the pools'
// node selectors are matched with; nil if it has none. It is cheap.
func (a *Allocator) SetPools(pools []*v1.IPPool, node *v1.Node) {}

// Run writes to the datastore what was assigned and released, and keeps the
// reserve, until ctx is done. While the datastore is away it tries again.
func (a *Allocator) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Assign gives addresses to a handle; the same ones if it has some already. When
// it returns, they are in the journal on disk. It waits a bounded time for an
// address to become free. Errors: ErrExhausted, ErrUnavailable, ErrInvalid,
// ErrClosed, and those of the disk.
func (a *Allocator) Assign(ctx context.Context, r Request) (Assignment, error) {
	return Assignment{}, ErrUnavailable
}

// Release takes back the addresses of a handle and returns what it had; false if
// it had nothing. It does not need the datastore, nor Recover.
func (a *Allocator) Release(ctx context.Context, h Handle) (Assignment, bool, error) {
	return Assignment{}, false, nil
}

// Assignments returns all assignments as of now.
func (a *Allocator) Assignments() *Assignments { return NewAssignments() }

// Changed tells one listener that Assignments or Issues returns something new.
func (a *Allocator) Changed() <-chan struct{} { return nil }

// Issues returns what is wrong with the node's addresses, ordered: addresses
// used here that another node holds, broken blocks, a damaged journal.
func (a *Allocator) Issues() []v1.Issue { return nil }

// Flush waits until the datastore agrees with the journal. It needs Run.
func (a *Allocator) Flush(ctx context.Context) error { return nil }

// Close closes the journal and unlocks it. Nothing is lost that was answered.
func (a *Allocator) Close() error { return nil }
