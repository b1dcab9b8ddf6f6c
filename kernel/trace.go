package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// TraceTable is the table of nftables, of the family inet, that is there while
// somebody traces: its rules pick the packets.
const TraceTable = "cairn-trace"

// TraceFilter says which packets to trace: those for which everything it names is so.
// The zero value of a field asks for nothing.
type TraceFilter struct {
	Src, Dst         netip.Addr // as the packet has them when it comes
	Protocol         uint8      // above IP
	SrcPort, DstPort uint16     // of a Protocol that has ports
	Mark             uint32     // the packet's mark; one that comes by a link has none yet
	// Replies picks what comes back, too: packets with addresses and ports exchanged.
	Replies bool
}

// Reverse returns the filter for what comes back.
func (f TraceFilter) Reverse() TraceFilter {
	f.Src, f.Dst, f.SrcPort, f.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
	return f
}

// Check returns an error that says why nothing can be traced by the filter. It unwraps
// to the errno EINVAL.
func (f TraceFilter) Check() error {
	invalid := func(why string) error { return fmt.Errorf("%s: %w", why, syscall.EINVAL) }
	switch {
	case f == TraceFilter{Replies: f.Replies}:
		return invalid("a filter that asks for nothing would trace all packets")
	case f.Src.Is4In6() || f.Dst.Is4In6() || f.Src.Zone() != "" || f.Dst.Zone() != "":
		return invalid("an address of the filter is no packet's")
	case f.Src.IsValid() && f.Dst.IsValid() && f.Src.Is4() != f.Dst.Is4():
		return invalid("source and destination are of two families")
	}
	switch f.Protocol {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP, ProtoDCCP:
		return nil
	}
	if f.SrcPort != 0 || f.DstPort != 0 {
		return invalid(fmt.Sprintf("protocol %d has no ports", f.Protocol))
	}
	return nil
}

// Matches says whether a packet with this mark is to be traced.
func (f TraceFilter) Matches(p Packet, mark uint32) bool {
	if f.Replies {
		f.Replies = false
		return f.Matches(p, mark) || f.Reverse().Matches(p, mark)
	}
	switch {
	case f.Src.IsValid() && f.Src != p.Src, f.Dst.IsValid() && f.Dst != p.Dst:
		return false
	case f.Protocol != 0 && f.Protocol != p.Protocol, f.Mark != 0 && f.Mark != mark:
		return false
	case f.SrcPort != 0 && f.SrcPort != p.SrcPort, f.DstPort != 0 && f.DstPort != p.DstPort:
		return false
	}
	return true
}

// TraceKind says what an event of a trace tells.
type TraceKind string

// Kinds of events.
const (
	TraceArmed  TraceKind = "armed"  // from now on packets are traced; once, before all others
	TraceSeen   TraceKind = "seen"   // a packet begins its way: it came by InLink, or the host sends it
	TraceRule   TraceKind = "rule"   // a rule matched
	TraceReturn TraceKind = "return" // the end of a chain: the calling one goes on
	TracePolicy TraceKind = "policy" // the end of a base chain: its policy decides
)

// Verdicts of rules that Cairn has none of.
const (
	Queue  Verdict = "queue"  // a process of the host decides
	Stolen Verdict = "stolen" // the rule took the packet for itself
)

// TraceEvent is a step on the way of a packet through nftables.
type TraceEvent struct {
	Kind TraceKind
	Time time.Time // when it was received here
	// Packet counts the packets, from 1: events of one have the same. A packet that the
	// host sends to itself counts twice, when it leaves and when it arrives.
	Packet uint64
	// Table is the table with its family, as "inet cairn"; Chain is in it. Hook and
	// Priority are of a base chain.
	Table, Chain string
	Hook         Hook
	Priority     int
	// Handle is the rule's number in its table, Rule its place in its chain, from 1; 0:
	// it is there no more. Comment is the rule's, and Text what it says, as far as that is
	// understood; otherwise the names of its expressions.
	Handle        uint64
	Rule          int
	Comment, Text string
	// Verdict is what becomes of the packet; Target is the chain of Jump and Goto.
	Verdict Verdict
	Target  string
	// InLink and OutLink are names of links, "" where there is none (yet).
	InLink, OutLink string
	Mark            uint32 // the packet's, after the rule
	Headers         Packet // as they are when the base chain begins
	// Lost says that events were lost before this one.
	Lost bool
}

// Tracer follows packets through the rules of all tables of nftables.
type Tracer interface {
	// Trace picks packets where they come in and where the host sends them, before any
	// other rule, at most 100 a second, and calls f with each step of theirs, whosever
	// rules they meet. The first call says TraceArmed. It returns when ctx is done (with
	// nil) or the kernel can't be asked. ErrBusy says that somebody else on the host
	// traces. It leaves nothing behind, not even when the process is killed. f must not
	// block.
	Trace(ctx context.Context, filter TraceFilter, f func(TraceEvent)) error
}
