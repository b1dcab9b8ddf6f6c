//go:build linux

package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// Key types of sets as nft(8) numbers them, for its own listings; the kernel
// looks at the length only.
const (
	keyIPv4 = 7
	keyIPv6 = 8
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

// newSet makes a set. id is unique in the transaction.
func newSet(name string, s kernel.Set, id uint32) netlink.Message {
	keyType, length, flags := uint32(keyIPv4), uint32(4), uint32(0)
	if s.IPv6 {
		keyType, length = keyIPv6, 16
	}
	if s.Ranges {
		flags |= unix.NFT_SET_INTERVAL
	}
	return rulesRequest(unix.NFT_MSG_NEWSET, netlink.Create|netlink.Excl,
		text(unix.NFTA_SET_NAME, name), number(unix.NFTA_SET_FLAGS, flags),
		number(unix.NFTA_SET_KEY_TYPE, keyType), number(unix.NFTA_SET_KEY_LEN, length),
		number(unix.NFTA_SET_ID, id))
}

func delSet(name string) netlink.Message {
	return rulesRequest(unix.NFT_MSG_DELSET, 0, text(unix.NFTA_SET_NAME, name))
}

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

// setFound is a set as the kernel has it.
type setFound struct {
	name string
	kernel.Set
	anonymous bool // part of a rule, and goes with it
}

func parseSet(data []byte) (setFound, error) {
	var s setFound
	var flags, keyType, length, size uint32
	err := attributes(data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_SET_NAME:
			s.name = ad.String()
		case unix.NFTA_SET_FLAGS:
			flags = ad.Uint32()
		case unix.NFTA_SET_KEY_TYPE:
			keyType = ad.Uint32()
		case unix.NFTA_SET_KEY_LEN:
			length = ad.Uint32()
		case unix.NFTA_SET_DESC:
			ad.Nested(func(desc *netlink.AttributeDecoder) error {
				for desc.Next() {
					if desc.Type() == unix.NFTA_SET_DESC_SIZE {
						size = desc.Uint32()
					}
				}
				return nil
			})
		}
	})
	s.anonymous = flags&unix.NFT_SET_ANONYMOUS != 0
	s.IPv6 = keyType == keyIPv6
	s.Ranges = flags&unix.NFT_SET_INTERVAL != 0
	if keyType != keyIPv4 && keyType != keyIPv6 || s.IPv6 != (length == 16) || flags&^unix.NFT_SET_INTERVAL != 0 || size != 0 {
		s.Other = fmt.Sprintf("set of keys of type %d and %d bytes, with flags %#x, for %d elements", keyType, length, flags, size)
	}
	return s, err
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

// maxElements is how many elements go into a message. A refusal repeats it, and
// must fit into receiveBuffer: a range of IPv6 takes 64 bytes.
const maxElements = 400

// setElements builds a message that adds or deletes elements of one set.
func setElements(kind int, flags netlink.HeaderFlags, s kernel.Set, elements []kernel.Element) netlink.Message {
	var list []byte
	for _, e := range elements {
		if !s.Ranges {
			list = appendElement(list, e.Prefix.Addr(), false)
			continue
		}
		list = appendElement(list, e.Prefix.Addr(), false)
		// A range that reaches to the last address there is has no end.
		if next := lastOf(e).Next(); next.IsValid() {
			list = appendElement(list, next, true)
		}
	}
	return rulesRequest(kind, flags, text(unix.NFTA_SET_ELEM_LIST_SET, elements[0].Set),
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED, Data: list})
}

// lastOf returns the last address of an element.
func lastOf(e kernel.Element) netip.Addr {
	if e.Last.IsValid() {
		return e.Last
	}
	b := e.Prefix.Addr().AsSlice()
	for i := e.Prefix.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// appendElement appends an element to a list of them; end says that a range ends
// before it. It is written out because there may be very many.
func appendElement(b []byte, a netip.Addr, end bool) []byte {
	key := a.AsSlice()
	length := unix.NLA_HDRLEN * 3
	if end {
		length += unix.NLA_HDRLEN + 4
	}
	b = appendAttribute(b, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, length+len(key)-unix.NLA_HDRLEN)
	if end {
		b = appendAttribute(b, unix.NFTA_SET_ELEM_FLAGS, 4)
		b = binary.BigEndian.AppendUint32(b, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	b = appendAttribute(b, unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, unix.NLA_HDRLEN+len(key))
	b = appendAttribute(b, unix.NFTA_DATA_VALUE, len(key))
	return append(b, key...)
}

// appendAttribute appends the header of an attribute; length is of what follows.
func appendAttribute(b []byte, kind uint16, length int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLA_HDRLEN+length))
	return binary.NativeEndian.AppendUint16(b, kind)
}

// boundary is an element as the kernel has it: an address, or of a set of ranges
// the beginning of one or what comes after its end.
type boundary struct {
	addr netip.Addr
	end  bool
}

// parseElements returns what a message of a dump says about a set's elements.
func parseElements(data []byte) (found []boundary, err error) {
	err = attributes(data, func(ad *netlink.AttributeDecoder) {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		ad.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				var b boundary
				list.Nested(func(e *netlink.AttributeDecoder) error { return b.parse(e) })
				found = append(found, b)
			}
			return list.Err()
		})
	})
	return found, err
}

func (b *boundary) parse(e *netlink.AttributeDecoder) error {
	for e.Next() {
		switch e.Type() {
		case unix.NFTA_SET_ELEM_FLAGS:
			b.end = e.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_KEY:
			e.Nested(func(key *netlink.AttributeDecoder) error {
				for key.Next() {
					if a, ok := netip.AddrFromSlice(key.Bytes()); ok && key.Type() == unix.NFTA_DATA_VALUE {
						b.addr = a
					}
				}
				return nil
			})
		}
	}
	return nil
}
