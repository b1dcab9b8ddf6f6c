//go:build linux

package linux

import (
	"context"
	"errors"
	"iter"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// manySets is from how many names on it is cheaper to list all sets than to ask for
// each: the kernel looks for a name by walking over all.
const manySets = 32

// rulesFound are those of the things asked for that are there.
type rulesFound struct {
	sets   map[string]kernel.Set
	chains map[string]kernel.Chain // without their rules; and entries
}

// knownSets are sets that were found when the rules had a generation: its number counts
// the transactions of all tables, whoever made them. So what is known holds as long as
// all transactions since were our own.
type knownSets struct {
	generation uint32 // 0: none
	sets       map[string]kernel.Set
	holders    map[string]bool // of shared sets, which are there
}

// committed notes a transaction of our own.
func (k *knownSets) committed() {
	if k.generation++; k.generation == 0 {
		k.generation = 1 // as the kernel counts
	}
}

// forget forgets sets that are changed.
func (k *knownSets) forget(names iter.Seq[string]) {
	for name := range names {
		delete(k.sets, name)
	}
}

// generation returns the number of the rules' generation; 0: it was not told.
func (c *rulesConn) generation(ctx context.Context) (now uint32, err error) {
	err = c.ask(ctx, []netlink.Message{rulesRequest(unix.NFT_MSG_GETGEN, 0)}, func(m netlink.Message, err error) error {
		if err != nil {
			return unlessUnknown(err)
		}
		return attributes(m.Data, func(ad *netlink.AttributeDecoder) {
			if ad.Type() == unix.NFTA_GEN_ID {
				now = ad.Uint32()
			}
		})
	})
	return now, err
}

// hold forgets all if another hand was at work since.
func (c *rulesConn) hold(ctx context.Context) error {
	now, err := c.generation(ctx)
	if c.known.sets == nil || now == 0 || now != c.known.generation {
		c.known = knownSets{now, map[string]kernel.Set{}, map[string]bool{}}
	}
	return err
}

// find asks for sets, and for chains and entries by key, in one go. It asks for no set
// that it knows.
func (c *rulesConn) find(ctx context.Context, sets, chains []string) (rulesFound, error) {
	found := rulesFound{make(map[string]kernel.Set, len(sets)), make(map[string]kernel.Chain, len(chains))}
	if err := c.hold(ctx); err != nil {
		return found, err
	}
	var missing []string
	for _, name := range sets {
		if s, known := c.known.sets[name]; known {
			found.sets[name] = s
		} else {
			missing = append(missing, name)
		}
	}
	if sets = missing; len(sets) >= manySets {
		all, _, err := c.sets(ctx)
		if err != nil {
			return found, err
		}
		for _, s := range all {
			found.sets[s.name], c.known.sets[s.name] = s.Set, s.Set
		}
		sets = nil
	}
	requests := make([]netlink.Message, 0, len(sets)+len(chains))
	for _, name := range sets {
		requests = append(requests, setRequest(name))
	}
	for _, key := range chains {
		if isEntry(key) {
			requests = append(requests, entryRequest(unix.NFT_MSG_GETSETELEM, 0, key, ""))
		} else {
			requests = append(requests, rulesRequest(unix.NFT_MSG_GETCHAIN, 0, text(unix.NFTA_CHAIN_NAME, key)))
		}
	}
	i := -1
	err := c.ask(ctx, requests, func(m netlink.Message, err error) error {
		i++
		entry := i >= len(sets) && isEntry(chains[i-len(sets)])
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ERANGE), entry && errors.Is(err, unix.EINVAL):
			return nil // there is none, nor can there be
		case err != nil:
			return unlessUnknown(err)
		case entry:
			return found.addEntry(chains[i-len(sets)], m.Data)
		case i < len(sets) && kernel.IsSharedName(sets[i]):
			s := sharedSet(sets[i])
			found.sets[sets[i]], c.known.sets[sets[i]] = s, s
			return nil
		case i >= len(sets):
			ch, err := parseChain(m.Data)
			found.chains[ch.name] = ch.Chain
			return err
		}
		s, err := parseSet(m.Data)
		if err == nil {
			found.sets[s.name], c.known.sets[s.name] = s.Set, s.Set
		}
		return err
	})
	return found, err
}

func (f rulesFound) addEntry(key string, data []byte) error {
	elements, err := parseElements(data)
	for _, b := range elements {
		f.chains[key] = b.leadsTo.entry()
	}
	return err
}
