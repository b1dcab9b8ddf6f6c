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

func (t ruleChains) Read(ctx context.Context) (map[string]kernel.Chain, error) {
	have := make(map[string]kernel.Chain)
	err := t.readRules("read chains", func(conn *rulesConn) error {
		found, err := conn.chains(ctx)
		if err != nil || len(found) == 0 {
			return err
		}
		rules, err := conn.rules(ctx)
		if err != nil {
			return err
		}
		asleep, err := conn.asleep(ctx)
		if err != nil {
			return err
		}
		for name, c := range found {
			c.Rules = kernel.RulesOf(rules[name]...)
			if asleep {
				c.Other += "a dormant table;"
			}
			have[name] = c.Chain
		}
		return nil
	})
	return have, err
}

// rules lists the rules of each chain in our table.
func (c *rulesConn) rules(ctx context.Context) (found map[string][]kernel.Rule, err error) {
	begin := func() { found = make(map[string][]kernel.Rule) }
	err = c.list(ctx, unix.NFT_MSG_GETRULE, begin, func(data []byte) error {
		chain, r, err := parseRule(data)
		found[chain] = append(found[chain], r)
		return err
	})
	return found, err
}

// asleep says whether our table was set to do nothing.
func (c *rulesConn) asleep(ctx context.Context) (asleep bool, err error) {
	err = c.ask(ctx, []netlink.Message{rulesRequest(unix.NFT_MSG_GETTABLE, 0)}, func(m netlink.Message, err error) error {
		if err != nil {
			return err
		}
		return attributes(m.Data, func(ad *netlink.AttributeDecoder) {
			asleep = asleep || ad.Type() == unix.NFTA_TABLE_FLAGS && ad.Uint32() != 0
		})
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return asleep, err
}

func (t ruleChains) Write(ctx context.Context, set map[string]kernel.Chain, del []string) error {
	w := &rulesWrite[string]{setting: len(set) > 0}
	plan := func(conn *rulesConn) error {
		have, err := conn.chainsNamed(ctx, slices.Collect(maps.Keys(set)))
		if err != nil {
			return err
		}
		for name, c := range set {
			if err := c.Check(name); err != nil {
				w.fail("set", name, err)
				continue
			}
			old, exists := have[name]
			w.add("set", name, replaceChain(name, c, old, exists)...)
		}
		for _, name := range del {
			w.add("delete", name, delChain(name))
		}
		return nil
	}
	err := w.run(ctx, t.rulesDriver, "write chains", plan, sweepAfter(ctx, del))
	for _, failed := range w.failed {
		if e, ok := errors.AsType[*kernel.KeyError[string]](failed); ok && errors.Is(e.Err, unix.ENOENT) {
			e.Err = fmt.Errorf("no set that a rule asks for, or none of its kind in this kernel: %w", e.Err)
		}
	}
	return err
}

// replaceChain returns the messages that make a chain, where the old one is now.
func replaceChain(name string, c, old kernel.Chain, exists bool) []netlink.Message {
	var messages []netlink.Message
	base := c
	base.Rules = kernel.Rules{}
	switch {
	case !exists:
		messages = append(messages, newChain(name, c))
	case base == old:
		messages = append(messages, delRules(name))
	default: // a chain's place can't be changed
		messages = append(messages, delChain(name), newChain(name, c))
	}
	for _, r := range c.Rules.List() {
		messages = append(messages, newRule(name, r))
	}
	return messages
}
