//go:build linux

package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewRules returns what is in Cairn's table of nftables: its sets, their elements
// and its chains. What the kernel refuses of a Write is left out of it.
//
// Each Write of chains is one transaction: a packet meets the old rules of all or the
// new ones. Chains that are new, which nothing leads to yet, go before it where there
// are many, or entries: an entry is looked up at the moment, so that a packet under way
// may find the new one with the old rules of the chain that it leads to. Very many sets,
// and elements of very many sets, go in several transactions, those of one set in one.
//
// The table is made with the first thing in it, and deleted with the last set and
// chain: to write away what the three tables read leaves nothing behind. A kernel
// without nftables has an empty table, and to write says kernel.ErrUnsupported.
func NewRules(opts ...Option) (
	sets kernel.Table[string, kernel.Set],
	elements kernel.Table[kernel.Element, struct{}],
	chains kernel.Table[string, kernel.Chain],
) {
	d := &rulesDriver{conn: rulesConn{config: configure(opts)}}
	return ruleSets{d}, ruleElements{d}, ruleChains{d}
}

type (
	ruleSets     struct{ *rulesDriver }
	ruleElements struct{ *rulesDriver }
	ruleChains   struct{ *rulesDriver }
)

// rulesDriver is what the three tables share.
type rulesDriver struct {
	mu   sync.Mutex
	conn rulesConn
}

// withRules runs f with a socket, and says of its error what was tried.
func (d *rulesDriver) withRules(what string, f func(*rulesConn) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn.Conn == nil {
		if err := d.conn.open(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := f(&d.conn); err != nil {
		d.conn.shut() // there may be more to receive
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// readRules runs f with a socket to list something. Without nftables there is
// nothing.
func (d *rulesDriver) readRules(what string, f func(*rulesConn) error) error {
	if err := d.withRules(what, f); !errors.Is(err, kernel.ErrUnsupported) {
		return err
	}
	return nil
}

// errNoRules says that the kernel knows nothing of nftables.
var errNoRules = fmt.Errorf("nftables is %w", kernel.ErrUnsupported)

// list calls each with what there is of a kind in our table.
func (c *rulesConn) list(ctx context.Context, kind int, begin func(), each func(data []byte) error, attrs ...netlink.Attribute) error {
	err := dump(ctx, c.Conn, rulesRequest(kind, 0, attrs...), begin, func(m netlink.Message) error { return each(m.Data) })
	if errors.Is(err, unix.ENOENT) { // no table, or what was asked about has gone
		begin()
		return nil
	}
	return err
}

// unlessUnknown returns what the kernel says to a request that is always right: it
// may know nothing of nftables.
func unlessUnknown(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %w", errNoRules, err)
	}
	return err
}

// sets lists the sets that have names, shared ones included, and what holds those.
func (c *rulesConn) sets(ctx context.Context) (found, holders []setFound, err error) {
	err = c.list(ctx, unix.NFT_MSG_GETSET, func() { found, holders = nil, nil }, func(data []byte) error {
		s, err := parseSet(data)
		switch {
		case err != nil || s.anonymous:
		case s.holder:
			holders = append(holders, s)
		default:
			found = append(found, s)
		}
		return err
	})
	if err != nil {
		return nil, nil, unlessUnknown(err)
	}
	shared, err := c.shared(ctx, holders)
	return append(found, shared...), holders, err
}

// chains lists the chains that have names, without their rules.
func (c *rulesConn) chains(ctx context.Context) (found map[string]chainFound, err error) {
	begin := func() { found = make(map[string]chainFound) }
	err = c.list(ctx, unix.NFT_MSG_GETCHAIN, begin, func(data []byte) error {
		ch, err := parseChain(data)
		if err == nil && ch.table == kernel.RulesTable && !ch.bound {
			found[ch.name] = ch
		}
		return err
	})
	return found, unlessUnknown(err)
}

// fewUses is up to how many things in the table it is worth looking what they are: what
// rules need beside them counts too, and what another hand has put there.
const fewUses = 100

// sweep deletes our table when nothing is left in it.
func (c *rulesConn) sweep(ctx context.Context) error {
	table, err := c.table(ctx)
	if err != nil || table.uses > fewUses {
		return err
	}
	sets, _, err := c.sets(ctx)
	if err != nil || len(sets) > 0 {
		return err
	}
	chains, err := c.chains(ctx)
	if err != nil || len(chains) > 0 {
		return err
	}
	c.known = knownSets{}
	failed, err := commit(ctx, c, []unit[string]{unitOf("delete", kernel.RulesTable, delTable())})
	return errors.Join(append(failed, err)...)
}

// tableFound is our table as the kernel has it.
type tableFound struct {
	uses   uint32 // chains, sets and other things in it
	asleep bool   // it was set to do nothing
}

func (c *rulesConn) table(ctx context.Context) (found tableFound, err error) {
	err = c.ask(ctx, []netlink.Message{rulesRequest(unix.NFT_MSG_GETTABLE, 0)}, func(m netlink.Message, err error) error {
		if err != nil {
			return err
		}
		return attributes(m.Data, func(ad *netlink.AttributeDecoder) {
			switch ad.Type() {
			case unix.NFTA_TABLE_USE:
				found.uses = ad.Uint32()
			case unix.NFTA_TABLE_FLAGS:
				found.asleep = ad.Uint32() != 0
			}
		})
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return found, unlessUnknown(err)
}

func (t ruleSets) Read(ctx context.Context) (map[string]kernel.Set, error) {
	have := make(map[string]kernel.Set)
	err := t.readRules("read sets", func(conn *rulesConn) error {
		found, _, err := conn.sets(ctx)
		for _, s := range found {
			have[s.name] = s.Set
		}
		return err
	})
	return have, err
}

// rulesWrite is one call of Write: what it is to do, and what failed.
type rulesWrite[K comparable] struct {
	setting bool // not only to delete
	// early are transactions that go before that of units.
	early  [][]unit[K]
	units  []unit[K]
	failed []error
}

func (w *rulesWrite[K]) fail(op string, k K, err error) {
	w.failed = append(w.failed, &kernel.KeyError[K]{Op: op, Key: k, Err: err})
}

// add adds what one key needs to the transaction.
func (w *rulesWrite[K]) add(op string, k K, messages ...netlink.Message) {
	w.units = append(w.units, unitOf(op, k, messages...))
}

// run calls plan to fill the transactions, commits them, and calls done.
func (w *rulesWrite[K]) run(ctx context.Context, d *rulesDriver, what string, plan, done func(*rulesConn) error) error {
	err := d.withRules(what, func(conn *rulesConn) error {
		if err := plan(conn); err != nil {
			return err
		}
		transactions := append(w.early, w.units)
		if keysOf(transactions) >= manyKeys {
			listen, err := conn.hush(ctx)
			if err != nil {
				return err
			}
			defer listen()
		}
		for _, units := range transactions {
			failed, err := commit(ctx, conn, units)
			w.failed = append(w.failed, failed...)
			if err != nil {
				return err
			}
		}
		if done == nil {
			return nil
		}
		return done(conn)
	})
	if errors.Is(err, kernel.ErrUnsupported) && !w.setting {
		err = nil // what can't be there is gone
	}
	return errors.Join(append(w.failed, err)...)
}

// keysOf counts what transactions are about.
func keysOf[K comparable](transactions [][]unit[K]) (n int) {
	for _, units := range transactions {
		for _, u := range units {
			n += len(u.keys)
		}
	}
	return n
}

// setsWrite is one Write of sets.
type setsWrite struct{ rulesWrite[string] }

func (t ruleSets) Write(ctx context.Context, set map[string]kernel.Set, del []string) error {
	w := &setsWrite{rulesWrite[string]{setting: len(set) > 0}}
	plan := func(conn *rulesConn) error {
		have, err := conn.find(ctx, slices.Collect(maps.Keys(set)), nil)
		if err != nil {
			return err
		}
		conn.known.forget(maps.Keys(set))
		conn.known.forget(slices.Values(del))
		id := uint32(0)
		for _, name := range setOrder(set) {
			s := set[name]
			old, exists := have.sets[name]
			id++
			switch err := s.Check(name); {
			case err != nil:
				w.fail("set", name, err)
			case exists && old == s:
			case s.Shared:
				w.add("set", name, newShared(name, exists, 2*id)...)
			case !exists:
				w.add("set", name, newSet(name, s, 2*id))
			default: // a set's kind can't be changed
				w.add("set", name, delSet(name), newSet(name, s, 2*id))
			}
		}
		for _, name := range del {
			if !kernel.IsSharedName(name) {
				w.add("delete", name, delSet(name))
			}
		}
		if err := w.delShared(ctx, conn, del); err != nil {
			return err
		}
		w.early, w.units = chunks(w.units, apart), nil
		return nil
	}
	return w.run(ctx, t.rulesDriver, "write sets", plan, sweepAfter(ctx, del))
}

// setOrder has verdict maps come first. The kernel finds a set by walking over all, in
// the order in which they were made, and what is asked of maps is urgent.
func setOrder(set map[string]kernel.Set) []string {
	return slices.SortedFunc(maps.Keys(set), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(set[a]), rank(set[b])), cmp.Compare(a, b))
	})
}

func rank(s kernel.Set) int {
	if s.Keys == kernel.KeysLinks {
		return 0
	}
	return 1
}

// sweepAfter returns what is to be done after a transaction that deletes.
func sweepAfter(ctx context.Context, del []string) func(*rulesConn) error {
	if len(del) == 0 {
		return nil
	}
	return func(conn *rulesConn) error { return conn.sweep(ctx) }
}
