//go:build linux

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

const (
	// tableOwned makes a table go with the socket by which it was made, and keeps all
	// others from changing it (NFT_TABLE_F_OWNER).
	tableOwned = 1 << 1
	// priorityTrace comes before all that nft(8) has names for.
	priorityTrace = -400
	// traceRate is how many packets a second are picked by a rule, so that a filter for
	// more does not slow the host down.
	traceRate = 100
)

// makeTraceTable makes the table whose rules pick the packets of a filter. It lives as
// long as the socket. When it can't be made, the socket is of no further use.
func makeTraceTable(conn *netlink.Conn, filter kernel.TraceFilter) error {
	messages := []netlink.Message{
		batchMessage(unix.NFNL_MSG_BATCH_BEGIN),
		traceRequest(unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Excl, number(unix.NFTA_TABLE_FLAGS, tableOwned)),
	}
	for hook, name := range hooks {
		if name != kernel.HookPrerouting && name != kernel.HookOutput {
			continue
		}
		messages = append(messages,
			traceRequest(unix.NFT_MSG_NEWCHAIN, netlink.Create|netlink.Excl, text(unix.NFTA_CHAIN_NAME, string(name)),
				nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, uint32(hook)),
					number(unix.NFTA_HOOK_PRIORITY, uint32(0xffffffff+priorityTrace+1))),
				text(unix.NFTA_CHAIN_TYPE, string(kernel.ChainFilter))),
			traceRule(string(name), filter))
		if filter.Replies {
			messages = append(messages, traceRule(string(name), filter.Reverse()))
		}
	}
	last := len(messages) - 1
	messages[last].Header.Flags |= netlink.Acknowledge
	messages = append(messages, batchMessage(unix.NFNL_MSG_BATCH_END))
	for i := range messages {
		messages[i].Header.Flags |= netlink.Request
		messages[i].Header.Sequence = uint32(i) + 1
	}
	if _, err := conn.SendMessages(messages); err != nil {
		return refusal(err)
	}
	for {
		switch i, err := receiveAnswer(conn); {
		case i < 0:
			return fmt.Errorf("make table %s: %w", kernel.TraceTable, err)
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EBUSY):
			return fmt.Errorf("another trace is going on: table inet %s is there: %w", kernel.TraceTable, kernel.ErrBusy)
		case err != nil && i <= 1: // nothing is wrong with the table but its owner
			return fmt.Errorf("tables that belong to a socket (Linux 5.12) are %w: %w", kernel.ErrUnsupported, err)
		case err != nil:
			return fmt.Errorf("make table %s: %w", kernel.TraceTable, err)
		case i == last:
			return nil
		}
	}
}

// traceRequest builds a request about the table of traces or something in it.
func traceRequest(kind int, flags netlink.HeaderFlags, attrs ...netlink.Attribute) netlink.Message {
	attrs = append([]netlink.Attribute{text(unix.NFTA_TABLE_NAME, kernel.TraceTable)}, attrs...)
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: flags},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, marshal(attrs)...),
	}
}

// traceRule builds the request for the rule that picks packets.
func traceRule(chain string, filter kernel.TraceFilter) netlink.Message {
	var list []netlink.Attribute
	for _, e := range pick(filter) {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil { // only of attributes that are longer than 64 KiB
			panic(fmt.Sprintf("linux: encode rule: %v", err))
		}
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: b})
	}
	const comment = "what is traced now"
	return traceRequest(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append,
		text(unix.NFTA_RULE_CHAIN, chain), nested(unix.NFTA_RULE_EXPRESSIONS, list...),
		netlink.Attribute{Type: unix.NFTA_RULE_USERDATA, Data: append([]byte{commentType, byte(len(comment) + 1)}, comment+"\x00"...)})
}

// pick returns the expressions that match the packets of a filter and mark them to be
// traced.
func pick(filter kernel.TraceFilter) (list []expr.Any) {
	const reg = unix.NFT_REG_1
	ask := func(data []byte, load expr.Any) {
		list = append(list, load, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data})
	}
	meta := func(key expr.MetaKey, data ...byte) { ask(data, &expr.Meta{Key: key, Register: reg}) }
	payload := func(base expr.PayloadBase, offset uint32, data []byte) {
		ask(data, &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: uint32(len(data))})
	}
	for i, a := range []netip.Addr{filter.Src, filter.Dst} {
		switch {
		case a.Is4():
			meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4)
			payload(expr.PayloadBaseNetworkHeader, []uint32{12, 16}[i], a.AsSlice())
		case a.Is6():
			meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6)
			payload(expr.PayloadBaseNetworkHeader, []uint32{8, 24}[i], a.AsSlice())
		}
	}
	if filter.Protocol != 0 {
		meta(expr.MetaKeyL4PROTO, filter.Protocol)
	}
	for i, port := range []uint16{filter.SrcPort, filter.DstPort} {
		if port != 0 {
			payload(expr.PayloadBaseTransportHeader, uint32(2*i), binary.BigEndian.AppendUint16(nil, port))
		}
	}
	if filter.Mark != 0 {
		meta(expr.MetaKeyMARK, binary.NativeEndian.AppendUint32(nil, filter.Mark)...)
	}
	return append(list,
		&expr.Limit{Type: expr.LimitTypePkts, Rate: traceRate, Unit: expr.LimitTimeSecond, Burst: traceRate},
		&expr.Immediate{Register: reg, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: reg})
}
