package kernel

import (
	"context"
	"time"
)

// LoggedPacket is a packet that a rule told listeners about, see Log.
type LoggedPacket struct {
	// Time is when the kernel took it in, or, of what the host sends itself, when it was
	// received here.
	Time   time.Time
	Group  uint16
	Prefix string // as the rule has it
	// InLink and OutLink are names of links, "" where there is none, and "#" with the
	// index of one that is gone.
	InLink, OutLink string
	Hook            Hook
	Mark            uint32 // the packet's mark
	Packet
	// Lost is how many packets of the group were logged since the last one told, or
	// since the beginning, and could not be told: listening was too slow.
	Lost uint64
}

// PacketLog tells about the packets that rules log (NFLOG, nft(8), LOG STATEMENT).
type PacketLog interface {
	// Follow calls f with each packet that is logged to one of the groups. It returns
	// when ctx is done (with nil) or the kernel can't be asked. A group has one follower
	// on a host: ErrBusy says that there is another. f must not block: while it does,
	// packets are lost. What can't be decoded of a packet is left out.
	Follow(ctx context.Context, groups []uint16, f func(LoggedPacket)) error
}
