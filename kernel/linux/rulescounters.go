//go:build linux

package linux

import (
	"context"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewCounters returns what reads the counters of the rules in Cairn's table of
// nftables, by a socket of its own: it keeps no Write waiting. A kernel without
// nftables has none.
func NewCounters(opts ...Option) kernel.Counters {
	return &ruleCounters{rulesDriver{conn: rulesConn{config: configure(opts)}}}
}

type ruleCounters struct{ rulesDriver }

func (c *ruleCounters) RuleCounters(ctx context.Context) (map[string][]kernel.RuleCount, error) {
	var counts map[string][]kernel.RuleCount
	err := c.readRules("read counters", func(conn *rulesConn) error {
		begin := func() { counts = make(map[string][]kernel.RuleCount) }
		begin()
		err := conn.list(ctx, unix.NFT_MSG_GETRULE, begin, func(data []byte) error {
			chain, count, counted, err := parseCount(data)
			if counted {
				counts[chain] = append(counts[chain], count)
			}
			return err
		})
		return unlessUnknown(err)
	})
	return counts, err
}

// parseCount returns the chain that a rule is in, and what it has counted if it
// counts: the first of its counters.
func parseCount(data []byte) (chain string, count kernel.RuleCount, counted bool, err error) {
	err = attributes(data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_RULE_CHAIN:
			chain = ad.String()
		case unix.NFTA_RULE_USERDATA:
			count.Comment = parseComment(ad.Bytes())
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() && !counted {
					name, content, err := splitExpression(list.Bytes())
					if err != nil || name != "counter" {
						continue
					}
					var c expr.Counter
					if err := expr.Unmarshal(unix.NFPROTO_INET, content, &c); err != nil {
						return fmt.Errorf("decode counter: %w", err)
					}
					count.Packets, count.Bytes, counted = c.Packets, c.Bytes, true
				}
				return nil
			})
		}
	})
	return chain, count, counted, err
}
