package kernel

import (
	"context"
	"fmt"
	"syscall"
)

// Answer is what came back to a packet.
type Answer string

// Answers.
const (
	Answered Answer = "answered" // what asks for an answer got one
	Refused  Answer = "refused"  // somebody said that it is not wanted, or can't be delivered
	NoAnswer Answer = "none"     // nothing came in time
)

// Prober sends packets of its own.
type Prober interface {
	// Send sends a packet from the network namespace with this path, "" for the host's
	// own, and returns what came back before ctx was done: of TCP the SYN of a connection,
	// which is ended at once when it comes about; of UDP a datagram of a few bytes; of ICMP
	// an echo request with ICMPID. Src, Dst, Protocol, ports and ICMPID are of p. That it
	// could not be sent is an error: ErrPermission if the process may not enter the
	// namespace or send such packets, or the errno. TCP and UDP that are not answered are
	// sent once; the kernel sends a SYN again after a second.
	Send(ctx context.Context, netns string, p Packet) (Answer, error)
}

// CheckProbe returns an error that says why a Prober can't send such a packet. It
// unwraps to the errno EINVAL.
func CheckProbe(p Packet) error {
	invalid := func(why string, args ...any) error { return fmt.Errorf(why+": %w", append(args, syscall.EINVAL)...) }
	switch {
	case !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4():
		return invalid("source %v and destination %v are not of one family", p.Src, p.Dst)
	case p.Protocol == ProtoTCP || p.Protocol == ProtoUDP:
		if p.SrcPort == 0 || p.DstPort == 0 {
			return invalid("protocol %d has ports", p.Protocol)
		}
		return nil
	case p.Protocol == ProtoICMP && p.Src.Is4(), p.Protocol == ProtoICMPv6 && p.Src.Is6():
		return nil
	}
	return invalid("packets of protocol %d can't be sent to %v", p.Protocol, p.Dst)
}
