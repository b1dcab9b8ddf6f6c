//go:build linux

package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// linkState is a link and what only the kernel wants to know of it.
type linkState struct {
	kernel.Link
	admin bool // IFF_UP: an administrator wants it up; without, it has no routes
}

// parseLink returns the link that a message tells, and false for a message that
// tells one thing of a link only: of its place in a bridge, of its radio.
func parseLink(data []byte) (linkState, bool, error) {
	if len(data) < unix.SizeofIfInfomsg {
		return linkState{}, false, errShort
	}
	if data[0] != unix.AF_UNSPEC {
		return linkState{}, false, nil
	}
	flags := binary.NativeEndian.Uint32(data[8:])
	l := linkState{admin: flags&unix.IFF_UP != 0}
	l.Index = int(binary.NativeEndian.Uint32(data[4:]))
	l.Up = l.admin && flags&unix.IFF_LOWER_UP != 0
	attrs, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return linkState{}, false, fmt.Errorf("decode link: %w", err)
	}
	complete := false
	for attrs.Next() {
		switch attrs.Type() {
		case unix.IFLA_IFNAME:
			l.Name = attrs.String()
		case unix.IFLA_MTU:
			l.MTU, complete = int(attrs.Uint32()), true
		case unix.IFLA_IFALIAS:
			l.Alias = attrs.String()
		case unix.IFLA_LINKINFO:
			attrs.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					if a.Type() == unix.IFLA_INFO_KIND {
						l.Kind = a.String()
					}
				}
				return nil
			})
		}
	}
	if err := attrs.Err(); err != nil {
		return linkState{}, false, fmt.Errorf("decode link: %w", err)
	}
	return l, complete, nil
}

// linkRequest asks for every link, without its counters.
func linkRequest() netlink.Message {
	const (
		extMask   = 29 // IFLA_EXT_MASK
		skipStats = 8  // RTEXT_FILTER_SKIP_STATS
	)
	b := make([]byte, unix.SizeofIfInfomsg, unix.SizeofIfInfomsg+8)
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, extMask)
	b = binary.NativeEndian.AppendUint32(b, skipStats)
	return netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK}, Data: b}
}

// address is an address on the link with this index.
type address struct {
	index  uint32
	prefix netip.Prefix
}

// parseAddress returns the address that a message tells, and its flags (IFA_FLAGS).
func parseAddress(data []byte) (a address, flags uint32, err error) {
	if len(data) < unix.SizeofIfAddrmsg {
		return address{}, 0, errShort
	}
	flags = uint32(data[2])
	a.index = binary.NativeEndian.Uint32(data[4:])
	var ip, local netip.Addr
	attrs, err := netlink.NewAttributeDecoder(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return address{}, 0, fmt.Errorf("decode address: %w", err)
	}
	for attrs.Next() {
		switch attrs.Type() {
		case unix.IFA_ADDRESS:
			ip, _ = netip.AddrFromSlice(attrs.Bytes())
		case unix.IFA_LOCAL: // differs from IFA_ADDRESS where that is the peer's
			local, _ = netip.AddrFromSlice(attrs.Bytes())
		case unix.IFA_FLAGS:
			flags = attrs.Uint32()
		}
	}
	if err := attrs.Err(); err != nil {
		return address{}, 0, fmt.Errorf("decode address: %w", err)
	}
	if local.IsValid() {
		ip = local
	}
	a.prefix = netip.PrefixFrom(ip, int(data[1]))
	return a, flags, nil
}

// usable says whether the host can use an address: while its uniqueness is in doubt
// it can't (RFC 4862, section 5.4), unless it was declared optimistic (RFC 4429).
func usable(flags uint32) bool {
	return flags&unix.IFA_F_DADFAILED == 0 && (flags&unix.IFA_F_TENTATIVE == 0 || flags&unix.IFA_F_OPTIMISTIC != 0)
}
