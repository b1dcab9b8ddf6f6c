//go:build linux

package linux

import (
	"context"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// verdictFound is where an element of a verdict map leads.
type verdictFound struct {
	code  int32
	chain string
}

func (v *verdictFound) parse(data *netlink.AttributeDecoder) error {
	for data.Next() {
		if data.Type() != unix.NFTA_DATA_VERDICT {
			continue
		}
		data.Nested(func(verdict *netlink.AttributeDecoder) error {
			for verdict.Next() {
				switch verdict.Type() {
				case unix.NFTA_VERDICT_CODE:
					v.code = int32(verdict.Uint32())
				case unix.NFTA_VERDICT_CHAIN:
					v.chain = verdict.String()
				}
			}
			return nil
		})
	}
	return nil
}

// entry returns the entry that leads there; one that does anything but go to a chain
// was made by another hand.
func (v verdictFound) entry() kernel.Chain {
	word := ""
	switch expr.VerdictKind(v.code) {
	case expr.VerdictGoto:
		return kernel.Chain{To: v.chain}
	case expr.VerdictJump:
		word = "jump " + v.chain
	case expr.VerdictAccept:
		word = "accept"
	case expr.VerdictDrop:
		word = "drop"
	case expr.VerdictReturn:
		word = "return"
	case expr.VerdictContinue:
		word = "continue"
	default:
		word = "another verdict"
	}
	return kernel.Chain{Other: word}
}

// entries lists the entries of all verdict maps, by key.
func (c *rulesConn) entries(ctx context.Context) (map[string]kernel.Chain, error) {
	sets, _, err := c.sets(ctx)
	if err != nil {
		return nil, err
	}
	have := make(map[string]kernel.Chain)
	for _, s := range sets {
		if s.Keys != kernel.KeysLinks || s.Other != "" {
			continue
		}
		found, err := c.boundaries(ctx, s.name)
		if err != nil {
			return nil, err
		}
		for _, b := range found {
			have[kernel.EntryKey(s.name, linkMatch(b.key))] = b.leadsTo.entry()
		}
	}
	return have, nil
}

// entryRequest builds a message about an entry; to is the chain that it leads to, ""
// where that is of no importance.
func entryRequest(kind int, flags netlink.HeaderFlags, key, to string) netlink.Message {
	verdicts, link, _ := kernel.ParseEntryKey(key)
	attrs := []netlink.Attribute{
		nested(unix.NFTA_SET_ELEM_KEY, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: linkData(link)}),
	}
	if to != "" {
		code := int32(expr.VerdictGoto)
		attrs = append(attrs, nested(unix.NFTA_SET_ELEM_DATA, nested(unix.NFTA_DATA_VERDICT,
			number(unix.NFTA_VERDICT_CODE, uint32(code)), text(unix.NFTA_VERDICT_CHAIN, to))))
	}
	return elementsRequest(kind, flags, verdicts, marshal([]netlink.Attribute{nested(unix.NFTA_LIST_ELEM, attrs...)}))
}

func delEntry(key string) netlink.Message { return entryRequest(unix.NFT_MSG_DELSETELEM, 0, key, "") }

// replaceEntry returns the messages that make an entry, where the old one is now.
func replaceEntry(key, to string, exists bool) []netlink.Message {
	made := entryRequest(unix.NFT_MSG_NEWSETELEM, netlink.Create, key, to)
	if !exists {
		return []netlink.Message{made}
	}
	return []netlink.Message{delEntry(key), made} // to lead elsewhere is no change that the kernel knows
}
