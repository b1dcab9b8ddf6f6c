//go:build linux

package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewPacketLog returns what tells about logged packets.
func NewPacketLog(opts ...Option) kernel.PacketLog { return packetLog{configure(opts), logBuffer} }

type packetLog struct {
	config
	buffer int // of the socket, in bytes
}

// logBuffer is the size of the socket's buffer in bytes: the kernel accounts about a
// kilobyte for each packet that waits.
const logBuffer = 4 << 20

// logCopied is how many bytes of a packet are told: the longest header of IPv4 and
// what is needed of the next, or that of IPv6 and some extension headers.
const logCopied = 128

// Messages and attributes of linux/netfilter/nfnetlink_log.h.
const (
	logPacketMessage = unix.NFNL_SUBSYS_ULOG << 8
	logConfig        = unix.NFNL_SUBSYS_ULOG<<8 | 1

	logConfigCommand   = 1
	logConfigMode      = 2
	logConfigThreshold = 5
	logConfigFlags     = 6

	logBind         = 1
	logUnbindFamily = 4

	logCopyPacket   = 2
	logFlagSequence = 1 << 0

	logHeader    = 1
	logMark      = 2
	logTimestamp = 3
	logInLink    = 4
	logOutLink   = 5
	logPayload   = 9
	logPrefix    = 10
	logSequence  = 12
)

func (p packetLog) Follow(ctx context.Context, groups []uint16, f func(kernel.LoggedPacket)) error {
	if err := p.follow(ctx, groups, f); err != nil {
		return fmt.Errorf("follow logged packets: %w", err)
	}
	return nil
}

func (p packetLog) follow(ctx context.Context, groups []uint16, f func(kernel.LoggedPacket)) error {
	conn, err := p.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(p.buffer); err != nil {
		return fmt.Errorf("enlarge socket buffer: %w", refusal(err))
	}
	r := logReader{links: newLinkNames(conn), next: make(map[uint16]uint32), tell: f}
	// This unbinds a family that there is not, and shows whether the kernel knows of such
	// logs and lets this process ask: later it refuses a group that is taken with the
	// same words.
	err = r.command(conn, 0xff, 0, logCommand(logUnbindFamily))
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("NFLOG is %w: %w", kernel.ErrUnsupported, err)
	} else if err != nil {
		return err
	}
	for _, group := range groups {
		err := r.command(conn, unix.AF_UNSPEC, group, logCommand(logBind), logModeAll(), number(logConfigThreshold, 1),
			netlink.Attribute{Type: logConfigFlags, Data: binary.BigEndian.AppendUint16(nil, logFlagSequence)})
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EBUSY):
			return fmt.Errorf("group %d has another follower: %w", group, kernel.ErrBusy)
		case err != nil:
			return fmt.Errorf("group %d: %w", group, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // the next ones' numbers tell how many were lost
		case err != nil:
			return refusal(err)
		}
		for _, m := range messages {
			r.hear(m)
		}
	}
}

func logCommand(command byte) netlink.Attribute {
	return netlink.Attribute{Type: logConfigCommand, Data: []byte{command}}
}

// logModeAll has packets copied, to logCopied bytes.
func logModeAll() netlink.Attribute {
	return netlink.Attribute{Type: logConfigMode, Data: append(binary.BigEndian.AppendUint32(nil, logCopied), logCopyPacket, 0)}
}

// logReader decodes what one socket is told.
type logReader struct {
	links *linkNames
	next  map[uint16]uint32 // the number of the next packet of a group
	tell  func(kernel.LoggedPacket)
}

// command sends a request about a group and returns the kernel's answer to it. Packets
// of groups that are bound already may come before that.
func (r *logReader) command(conn *netlink.Conn, family uint8, group uint16, attrs ...netlink.Attribute) error {
	_, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: logConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, group), marshal(attrs)...),
	})
	if err != nil {
		return refusal(err)
	}
	for {
		messages, err := conn.Receive()
		if err != nil {
			return refusal(err)
		}
		for _, m := range messages {
			if m.Header.Type == netlink.Error {
				return nil
			}
			r.hear(m)
		}
	}
}

// hear decodes a message, and tells the packet.
func (r *logReader) hear(m netlink.Message) {
	if m.Header.Type != logPacketMessage || len(m.Data) < nfHeaderLen {
		return
	}
	p := kernel.LoggedPacket{Time: time.Now(), Group: binary.BigEndian.Uint16(m.Data[2:])}
	// What is misunderstood is left out.
	_ = attributes(m.Data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case logHeader: // struct nfulnl_msg_packet_hdr: protocol, hook
			if b := ad.Bytes(); len(b) > 2 && int(b[2]) < len(hooks) {
				p.Hook = hooks[b[2]]
			}
		case logMark:
			p.Mark = ad.Uint32()
		case logTimestamp: // seconds and microseconds
			if b := ad.Bytes(); len(b) == 16 {
				p.Time = time.Unix(int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))*1000)
			}
		case logInLink:
			p.InLink = r.links.name(ad.Uint32())
		case logOutLink:
			p.OutLink = r.links.name(ad.Uint32())
		case logPrefix:
			p.Prefix = ad.String()
		case logPayload:
			p.Packet, _ = kernel.ParsePacket(ad.Bytes())
		case logSequence:
			n := ad.Uint32()
			p.Lost = uint64(n - r.next[p.Group])
			r.next[p.Group] = n + 1
		}
	})
	r.tell(p)
}
