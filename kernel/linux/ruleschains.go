//go:build linux

package linux

import (
	"context"

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
		table, err := conn.table(ctx)
		if err != nil {
			return err
		}
		have, err = conn.entries(ctx)
		if err != nil {
			return err
		}
		for name, c := range found {
			c.Rules = kernel.RulesOf(rules[name]...)
			if table.asleep {
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
