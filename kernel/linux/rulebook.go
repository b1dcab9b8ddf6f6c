//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// ruleBook says what the rules of any table are, by their handles. A chain is listed
// when the first of its rules is asked for, and again when one is unknown: a rule that
// replaces another has a handle of its own.
type ruleBook struct {
	conn   *netlink.Conn
	chains map[chainKey]*chainPage
}

type chainKey struct {
	family       uint8
	table, chain string
}

// chainPage is what is known of a chain.
type chainPage struct {
	hook     kernel.Hook
	priority int
	rules    map[uint64]ruleLine
}

type ruleLine struct {
	place         int // in its chain, from 1
	comment, text string
}

func newRuleBook(conn *netlink.Conn) *ruleBook {
	return &ruleBook{conn: conn, chains: make(map[chainKey]*chainPage)}
}

// explain fills in what is known of the event's chain and rule.
func (b *ruleBook) explain(ctx context.Context, t trace, e *kernel.TraceEvent) error {
	k := chainKey{t.family, t.table, t.chain}
	page := b.chains[k]
	if page == nil {
		page = &chainPage{rules: make(map[uint64]ruleLine)}
		b.chains[k] = page
		if err := b.readHook(k, page); err != nil {
			return err
		}
	}
	line, known := page.rules[t.handle]
	if !known && t.handle != 0 {
		if err := b.readRules(ctx, k, page); err != nil {
			return err
		}
		line = page.rules[t.handle]
		page.rules[t.handle] = line // though it is gone: don't look again
	}
	e.Hook, e.Priority = page.hook, page.priority
	e.Rule, e.Comment, e.Text = line.place, line.comment, line.text
	return nil
}

// request builds a request about a chain.
func (k chainKey) request(kind int, tableAttr, chainAttr uint16) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request},
		Data: append([]byte{k.family, unix.NFNETLINK_V0, 0, 0},
			marshal([]netlink.Attribute{text(tableAttr, k.table), text(chainAttr, k.chain)})...),
	}
}

// readHook reads where a base chain is called.
func (b *ruleBook) readHook(k chainKey, page *chainPage) error {
	found, err := b.conn.Execute(k.request(unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME))
	if errors.Is(err, unix.ENOENT) {
		return nil // it is gone
	}
	if err != nil {
		return fmt.Errorf("read chain %s: %w", k.chain, refusal(err))
	}
	for _, m := range found {
		c, err := parseChain(m.Data)
		if err != nil {
			return fmt.Errorf("read chain %s: %w", k.chain, err)
		}
		page.hook, page.priority = c.Hook, c.Priority
	}
	return nil
}

// readRules adds the rules of a chain as they are now to those that were known.
func (b *ruleBook) readRules(ctx context.Context, k chainKey, page *chainPage) error {
	place := 0
	request := k.request(unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN)
	err := dump(ctx, b.conn, request, func() { place = 0 }, func(m netlink.Message) error {
		handle, line, err := parseRuleLine(m.Data)
		place++
		line.place = place
		page.rules[handle] = line
		return err
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("list chain %s: %w", k.chain, err)
	}
	return nil
}

func parseRuleLine(data []byte) (handle uint64, line ruleLine, err error) {
	err = attributes(data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_RULE_HANDLE:
			handle = ad.Uint64()
		case unix.NFTA_RULE_USERDATA:
			line.comment = parseComment(ad.Bytes())
		}
	})
	if err != nil {
		return 0, ruleLine{}, err
	}
	_, r, err := parseRule(data)
	r.Comment = ""
	line.text = r.Other // the names of its expressions
	if r.Other == "" {
		line.text = r.String()
	}
	return handle, line, err
}
