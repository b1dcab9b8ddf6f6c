package kernel

import (
	"context"
	"net/netip"
	"slices"
)

// Tuple is one direction of a connection as the kernel tracks it.
type Tuple struct {
	Src, Dst netip.Addr
	Protocol uint8
	// SrcPort and DstPort are of protocols that have ports, and the keys of GRE.
	SrcPort, DstPort uint16
	// ICMPType, ICMPCode and ICMPID are of ICMP and ICMPv6: the type of requests in one
	// direction, of replies in the other.
	ICMPType, ICMPCode uint8
	ICMPID             uint16
	// Zone is that of this direction alone; 0: see Connection.
	Zone uint16
}

// String returns what Packet's does.
func (t Tuple) String() string {
	return Packet{
		Src: t.Src, Dst: t.Dst, Protocol: t.Protocol, SrcPort: t.SrcPort, DstPort: t.DstPort,
		ICMPType: t.ICMPType, ICMPCode: t.ICMPCode,
	}.String()
}

// Connection is an entry in the kernel's table of connections.
type Connection struct {
	// ID tells it from an earlier or later one of the same tuples.
	ID uint32
	// Zone is the table's part that it is in, for whoever divides it; 0: the usual one.
	Zone uint16
	// Original is the direction of the first packet, with the addresses that this
	// had when it came: a Service's, say. Reply is that of the answers, before they are
	// translated back: from where packets really went.
	Original, Reply Tuple
	// SrcTranslated and DstTranslated say which of its addresses or ports are
	// translated (NAT). Reply shows into what.
	SrcTranslated, DstTranslated bool
}

func (c Connection) String() string { return c.Original.String() }

// Concerns says whether the connection is from or to one of these addresses, before
// or after translation.
func (c Connection) Concerns(addrs ...netip.Addr) bool {
	return slices.ContainsFunc([]netip.Addr{c.Original.Src, c.Original.Dst, c.Reply.Src, c.Reply.Dst}, func(a netip.Addr) bool {
		return slices.Contains(addrs, a)
	})
}

// Conntrack is the kernel's table of connections.
type Conntrack interface {
	// Flush forgets every connection from or to these addresses, so that their next
	// users do not inherit them. The kernel walks its whole table for each call, so
	// many addresses are best given at once.
	Flush(ctx context.Context, addrs ...netip.Addr) error
	// List calls f with every connection from or to these addresses, before or after
	// translation, each once; without addresses with every connection of the host. One
	// that comes or goes meanwhile may be left out. It ends early when f returns false.
	// f must not block.
	List(ctx context.Context, f func(Connection) bool, addrs ...netip.Addr) error
	// Delete forgets exactly these connections, as List told them. Packets that
	// follow are those of a new one, for which rules decide anew. One that is gone is no
	// error, nor is one that has a successor of the same tuples, which stays.
	Delete(ctx context.Context, connections []Connection) error
}
