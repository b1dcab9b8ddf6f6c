//go:build linux

package linux

import (
	"context"
	"errors"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

func (t ruleChains) Read(ctx context.Context) (map[string]kernel.Chain, error) {
	have := make(map[string]kernel.Chain)
	err := t.readRules("read chains", func(conn *rulesConn) error {
		found, err := conn.chains(ctx)
		if err != nil || len(found) == 0 { // entries lead to chains
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
		have, err = conn.entries(ctx)
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
