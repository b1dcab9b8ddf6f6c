//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// chainsWrite is one Write of chains and entries.
type chainsWrite struct {
	rulesWrite[string]
	wanted map[string]kernel.OpenChain // what can be written
	have   map[string]kernel.Chain     // what is there of it: chains without rules, entries
}

func (t ruleChains) Write(ctx context.Context, set map[string]kernel.Chain, del []string) error {
	w := &chainsWrite{rulesWrite: rulesWrite[string]{setting: len(set) > 0}}
	w.check(set)
	plan := func(conn *rulesConn) error {
		if err := w.ask(ctx, conn); err != nil {
			return err
		}
		w.change()
		w.remove(del)
		return nil
	}
	chains := slices.DeleteFunc(slices.Clone(del), isEntry)
	err := w.run(ctx, t.rulesDriver, "write chains", plan, sweepAfter(ctx, chains))
	for _, failed := range w.failed {
		if e, ok := errors.AsType[*kernel.KeyError[string]](failed); ok {
			e.Err = chainRefused(e.Err)
		}
	}
	return err
}

func isEntry(key string) bool {
	_, _, ok := kernel.ParseEntryKey(key)
	return ok
}

// chainRefused says in words what the kernel says by its errno.
func chainRefused(err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return err
	case errors.Is(err, unix.EMLINK):
		return fmt.Errorf("%w: %w", errCircle, err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("no set or chain that it asks for, or none of its kind in this kernel: %w", err)
	}
	return err
}

// errCircle is for chains that lead to themselves, and for those too deep.
var errCircle = fmt.Errorf("chains lead in a circle, or more than 16 deep: %w", unix.ELOOP)

// check keeps what can be written.
func (w *chainsWrite) check(set map[string]kernel.Chain) {
	w.wanted = make(map[string]kernel.OpenChain, len(set))
	for key, c := range set {
		open := c.Open()
		if err := open.Check(key); err != nil {
			w.fail("set", key, err)
			continue
		}
		w.wanted[key] = open
	}
}

// ask finds out what is there, and refuses what asks for sets of another kind: the
// kernel compares no more than lengths, if at all.
func (w *chainsWrite) ask(ctx context.Context, conn *rulesConn) error {
	var names []string
	for _, c := range w.wanted {
		for _, r := range c.List {
			for _, asked := range r.Asks() {
				names = append(names, asked.Name)
			}
		}
	}
	slices.Sort(names)
	have, err := conn.find(ctx, slices.Compact(names), slices.Collect(maps.Keys(w.wanted)))
	if err != nil {
		return err
	}
	w.have = have.chains
	for key, c := range w.wanted {
		if err := checkAsked(c, have.sets); err != nil {
			w.fail("set", key, err)
			delete(w.wanted, key)
		}
	}
	return nil
}

// checkAsked says which of the sets that are there is of another kind than a rule asks.
func checkAsked(c kernel.OpenChain, sets map[string]kernel.Set) error {
	for _, r := range c.List {
		for _, asked := range r.Asks() {
			s, exists := sets[asked.Name]
			switch {
			case exists && !asked.Fits(s):
				return fmt.Errorf("set %s is of another kind: %w", asked.Name, unix.EINVAL)
			case !exists && kernel.IsSharedName(asked.Name): // which the kernel does not know
				return fmt.Errorf("set %s: %w", asked.Name, unix.ENOENT)
			}
		}
	}
	return nil
}

// change adds what is to be set, in an order in which nothing leads to what is not
// there yet: chains, entries, and base chains last.
func (w *chainsWrite) change() {
	order, circles := kernel.ChainOrder(w.wanted)
	for _, key := range circles {
		w.fail("set", key, errCircle)
	}
	var early, chains, entries, bases []unit[string]
	moved := false // a base chain becomes a regular one, which only the last transaction may do
	size := 0
	for _, key := range order {
		c := w.wanted[key]
		old, exists := w.have[key]
		if isEntry(key) {
			if c.Chain != old {
				entries = append(entries, unitOf("set", key, replaceEntry(key, c.To, exists)...))
			}
			continue
		}
		messages := replaceChain(key, c, old, exists)
		u := unitOf("set", key, messages...)
		if c.Hook != kernel.HookNone {
			bases = append(bases, u)
			continue
		}
		chains = append(chains, u)
		moved = moved || exists && old.Hook != kernel.HookNone
		if !exists {
			early = append(early, u)
			size += len(messages)
		}
	}
	// A packet that is under way when the transaction ends has the old rules of all
	// chains, but finds the new entries: a chain that was made with them is empty to it.
	if (size > manyMessages || len(entries) > 0) && !moved {
		w.early = chunks(early, apart)
		chains = slices.DeleteFunc(chains, func(u unit[string]) bool { _, exists := w.have[u.keys[0]]; return !exists })
	}
	w.units = slices.Concat(w.units, chains, entries, bases)
}

// remove adds what is to be deleted. The rules of all go first, and entries before
// chains: then those that refer to each other may go in any order.
func (w *chainsWrite) remove(del []string) {
	var chains []unit[string]
	for _, key := range del {
		if isEntry(key) {
			w.add("delete", key, delEntry(key))
			continue
		}
		u := unitOf("delete", key, delChain(key))
		u.before = []netlink.Message{delRules(key)}
		chains = append(chains, u)
	}
	w.units = append(w.units, chains...)
}

// replaceChain returns the messages that make a chain, where the old one is now.
func replaceChain(name string, c kernel.OpenChain, old kernel.Chain, exists bool) []netlink.Message {
	messages := make([]netlink.Message, 0, len(c.List)+2)
	base := c.Chain
	base.Rules = kernel.Rules{}
	switch {
	case !exists:
		messages = append(messages, newChain(name, base))
	case base == old:
		messages = append(messages, delRules(name))
	default: // a chain's place can't be changed
		messages = append(messages, delChain(name), newChain(name, base))
	}
	for _, r := range c.List {
		messages = append(messages, newRule(name, r))
	}
	return messages
}
