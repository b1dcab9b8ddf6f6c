//go:build linux

package linux

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// hooks are the numbers of hooks in tables of family inet.
var hooks = []kernel.Hook{
	unix.NF_INET_PRE_ROUTING: kernel.HookPrerouting, unix.NF_INET_LOCAL_IN: kernel.HookInput,
	unix.NF_INET_FORWARD: kernel.HookForward, unix.NF_INET_LOCAL_OUT: kernel.HookOutput,
	unix.NF_INET_POST_ROUTING: kernel.HookPostrouting,
}

// rulesRequest builds a request about our table or something in it: its name is
// attribute 1 of every kind of object.
func rulesRequest(kind int, flags netlink.HeaderFlags, attrs ...netlink.Attribute) netlink.Message {
	attrs = append([]netlink.Attribute{text(unix.NFTA_TABLE_NAME, kernel.RulesTable)}, attrs...)
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: flags},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, marshal(attrs)...),
	}
}

func marshal(attrs []netlink.Attribute) []byte {
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil { // only of attributes that are longer than 64 KiB
		panic(fmt.Sprintf("linux: encode attributes: %v", err))
	}
	return b
}

func text(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

func number(kind uint16, n uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, n)}
}

func nested(kind uint16, attrs ...netlink.Attribute) netlink.Attribute {
	return netlink.Attribute{Type: kind | unix.NLA_F_NESTED, Data: marshal(attrs)}
}

// newTable makes our table where it isn't, and wakes it where it sleeps.
func newTable() netlink.Message {
	return rulesRequest(unix.NFT_MSG_NEWTABLE, netlink.Create, number(unix.NFTA_TABLE_FLAGS, 0))
}

func delTable() netlink.Message { return rulesRequest(unix.NFT_MSG_DELTABLE, 0) }

func newChain(name string, c kernel.Chain) netlink.Message {
	attrs := []netlink.Attribute{text(unix.NFTA_CHAIN_NAME, name)}
	if c.Hook != kernel.HookNone {
		attrs = append(attrs, nested(unix.NFTA_CHAIN_HOOK,
			number(unix.NFTA_HOOK_HOOKNUM, uint32(slices.Index(hooks, c.Hook))),
			number(unix.NFTA_HOOK_PRIORITY, uint32(int32(c.Priority)))),
			number(unix.NFTA_CHAIN_POLICY, verdictAccept),
			text(unix.NFTA_CHAIN_TYPE, string(c.Type)))
	}
	return rulesRequest(unix.NFT_MSG_NEWCHAIN, netlink.Create|netlink.Excl, attrs...)
}

func delChain(name string) netlink.Message {
	return rulesRequest(unix.NFT_MSG_DELCHAIN, 0, text(unix.NFTA_CHAIN_NAME, name))
}

// delRules deletes every rule of a chain.
func delRules(chain string) netlink.Message {
	return rulesRequest(unix.NFT_MSG_DELRULE, 0, text(unix.NFTA_RULE_CHAIN, chain))
}

// chainFound is a chain as the kernel has it, without its rules.
type chainFound struct {
	table, name string
	kernel.Chain
	bound bool // part of a rule, and goes with it
}

// Of linux/netfilter.h and linux/netfilter/nf_tables.h.
const (
	verdictAccept = 1  // NF_ACCEPT
	chainFlags    = 10 // NFTA_CHAIN_FLAGS
	chainBase     = 1 << 0
	chainBound    = 1 << 2
)

func parseChain(data []byte) (chainFound, error) {
	var c chainFound
	err := attributes(data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = ad.String()
		case unix.NFTA_CHAIN_TYPE:
			c.Type = kernel.ChainType(ad.String())
		case unix.NFTA_CHAIN_POLICY:
			if policy := ad.Uint32(); policy != verdictAccept {
				c.Other += "policy drop;"
			}
		case chainFlags:
			flags := ad.Uint32()
			c.bound = flags&chainBound != 0
			if flags &^= chainBase; flags != 0 {
				c.Other += fmt.Sprintf("flags %#x;", flags)
			}
		case unix.NFTA_CHAIN_HOOK:
			ad.Nested(func(hook *netlink.AttributeDecoder) error { return c.parseHook(hook) })
		}
	})
	return c, err
}

func (c *chainFound) parseHook(hook *netlink.AttributeDecoder) error {
	for hook.Next() {
		switch hook.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			if n := hook.Uint32(); int(n) < len(hooks) {
				c.Hook = hooks[n]
			} else {
				c.Other += fmt.Sprintf("hook %d;", n)
			}
		case unix.NFTA_HOOK_PRIORITY:
			c.Priority = int(int32(hook.Uint32()))
		}
	}
	return nil
}

// attributes calls each for every attribute of a message of nftables.
func attributes(data []byte, each func(*netlink.AttributeDecoder)) error {
	if len(data) < nfHeaderLen {
		return errShort
	}
	ad, err := netlink.NewAttributeDecoder(data[nfHeaderLen:])
	if err != nil {
		return fmt.Errorf("decode attributes: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		each(ad)
	}
	return ad.Err()
}
