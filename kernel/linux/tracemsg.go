//go:build linux

package linux

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

const traceMessage = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_TRACE

// trace is what the kernel tells of one step.
type trace struct {
	family       uint8
	id           uint32 // the same for all steps of a packet, and for a later packet perhaps
	kind         uint32 // unix.NFT_TRACETYPE_…
	table, chain string
	handle       uint64
	verdict      kernel.Verdict
	target       string
	in, out      uint32 // indexes of links
	mark         uint32
	headers      kernel.Packet
}

func parseTrace(data []byte) (trace, error) {
	var t trace
	var network, transport []byte
	err := attributes(data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_TRACE_ID:
			t.id = ad.Uint32()
		case unix.NFTA_TRACE_TYPE:
			t.kind = ad.Uint32()
		case unix.NFTA_TRACE_TABLE:
			t.table = ad.String()
		case unix.NFTA_TRACE_CHAIN:
			t.chain = ad.String()
		case unix.NFTA_TRACE_RULE_HANDLE:
			t.handle = ad.Uint64()
		case unix.NFTA_TRACE_VERDICT:
			ad.Nested(func(v *netlink.AttributeDecoder) error {
				for v.Next() {
					switch v.Type() {
					case unix.NFTA_VERDICT_CODE:
						t.verdict = verdictOf(v.Int32())
					case unix.NFTA_VERDICT_CHAIN:
						t.target = v.String()
					}
				}
				return nil
			})
		case unix.NFTA_TRACE_POLICY:
			t.verdict = verdictOf(ad.Int32())
		case unix.NFTA_TRACE_IIF:
			t.in = ad.Uint32()
		case unix.NFTA_TRACE_OIF:
			t.out = ad.Uint32()
		case unix.NFTA_TRACE_MARK:
			t.mark = ad.Uint32()
		case unix.NFTA_TRACE_NETWORK_HEADER:
			network = ad.Bytes()
		case unix.NFTA_TRACE_TRANSPORT_HEADER:
			transport = ad.Bytes()
		}
	})
	if err != nil {
		return trace{}, err
	}
	t.family = data[0]
	if wholeNetwork(network) {
		network = append(network, transport...)
	}
	t.headers, _ = kernel.ParsePacket(network)
	return t, nil
}

// event returns what the step is. That the end of a chain was reached is told as a
// return (Linux 6.1), or as a rule that there is not (6.18); a rule that returns as
// either.
func (t trace) event() kernel.TraceKind {
	switch {
	case t.kind == unix.NFT_TRACETYPE_POLICY:
		return kernel.TracePolicy
	case t.handle == 0, t.kind == unix.NFT_TRACETYPE_RETURN && t.verdict == kernel.Continue:
		return kernel.TraceReturn
	}
	return kernel.TraceRule
}

// wholeNetwork says whether b is all that is before the transport's header. Of more
// than 40 bytes the kernel leaves the rest out: ports are left out here then.
func wholeNetwork(b []byte) bool {
	const length4, length6, next6 = 20, 40, 6
	switch {
	case len(b) >= length4 && b[0]>>4 == 4:
		return len(b) == int(b[0]&0xf)*4
	case len(b) == length6:
		switch b[next6] {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_AH, unix.IPPROTO_DSTOPTS:
			return false
		}
		return true
	}
	return false
}

// verdictOf returns a verdict of linux/netfilter.h or linux/netfilter/nf_tables.h.
func verdictOf(code int32) kernel.Verdict {
	switch code {
	case unix.NFT_RETURN:
		return kernel.Return
	case unix.NFT_GOTO:
		return kernel.Goto
	case unix.NFT_JUMP:
		return kernel.Jump
	case unix.NFT_BREAK, unix.NFT_CONTINUE:
		return kernel.Continue
	}
	const drop, accept, stolen, queue, mask = 0, 1, 2, 3, 0xff
	switch code & mask { // above it are an errno or the number of a queue
	case drop:
		return kernel.Drop
	case accept:
		return kernel.Accept
	case stolen:
		return kernel.Stolen
	case queue:
		return kernel.Queue
	}
	return kernel.Verdict(fmt.Sprintf("verdict %d", code))
}

// familyName returns the name of a family of tables as nft(8) has it.
func familyName(family uint8) string {
	switch family {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_ARP:
		return "arp"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	}
	return fmt.Sprintf("family-%d", family)
}
