//go:build linux

package linux

import (
	"context"
	"errors"

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

// find asks for sets, and for chains and entries by key, in one go.
func (c *rulesConn) find(ctx context.Context, sets, chains []string) (rulesFound, error) {
	found := rulesFound{make(map[string]kernel.Set, len(sets)), make(map[string]kernel.Chain, len(chains))}
	if len(sets) >= manySets {
		all, err := c.sets(ctx)
		if err != nil {
			return found, err
		}
		for _, s := range all {
			found.sets[s.name] = s.Set
		}
		sets = nil
	}
	requests := make([]netlink.Message, 0, len(sets)+len(chains))
	for _, name := range sets {
		requests = append(requests, rulesRequest(unix.NFT_MSG_GETSET, 0, text(unix.NFTA_SET_NAME, name)))
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
		case i >= len(sets):
			ch, err := parseChain(m.Data)
			found.chains[ch.name] = ch.Chain
			return err
		}
		s, err := parseSet(m.Data)
		found.sets[s.name] = s.Set
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
