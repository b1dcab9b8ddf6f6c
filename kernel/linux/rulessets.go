//go:build linux

package linux

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// Types of what is in the keys of sets as nft(8) numbers them, for its own listings;
// the kernel looks at the length only.
const (
	typeIPv4     = 7
	typeIPv6     = 8
	typeProtocol = 12
	typePort     = 13
	typeLink     = 41
	typeMark     = 19 // any four bytes
	typeBits     = 6  // what a type of several takes for each
)

// typeVerdict is the type of what a verdict map leads to (NFT_DATA_VERDICT).
const typeVerdict = 0xffffff00

// Of a set's user data, for nft(8) to list names of links: the order of bytes of keys is
// the host's.
const (
	keyOrder  = 0
	hostOrder = 1
)

// keyPart is one of what is side by side in a key: its type and length in bytes.
type keyPart struct{ kind, length uint32 }

// keyParts returns what the keys of a set consist of.
func keyParts(s kernel.Set) []keyPart {
	address := keyPart{typeIPv4, 4}
	if s.IPv6 {
		address = keyPart{typeIPv6, 16}
	}
	switch s.Keys {
	case kernel.KeysPorts:
		return []keyPart{{typePort, 2}}
	case kernel.KeysServices:
		return []keyPart{address, {typeProtocol, 1}, {typePort, 2}}
	case kernel.KeysSources:
		return []keyPart{{typeLink, linkNameLen}, address}
	case kernel.KeysLinks:
		return []keyPart{{typeLink, linkNameLen}}
	case keysMembers:
		return append(sharedParts(), address)
	case keysShared:
		return sharedParts()
	}
	return []keyPart{address}
}

// registerLen is what each of several parts of a key is padded to.
const registerLen = 4

func padded(length uint32) uint32 { return (length + registerLen - 1) &^ (registerLen - 1) }

// keyType returns the type and length in bytes of the keys of a set.
func keyType(s kernel.Set) (kind, length uint32) {
	parts := keyParts(s)
	for _, p := range parts {
		kind = kind<<typeBits | p.kind
		if length += p.length; len(parts) > 1 {
			length = padded(length)
		}
	}
	return kind, length
}

// kindOfKey returns the set whose keys have this type and length.
func kindOfKey(kind, length uint32) (s kernel.Set, ok bool) {
	for _, keys := range []kernel.Keys{kernel.KeysAddresses, kernel.KeysPorts, kernel.KeysServices, kernel.KeysSources, kernel.KeysLinks, keysMembers, keysShared} {
		for _, v6 := range []bool{false, true} {
			s := kernel.Set{Keys: keys, IPv6: v6}
			if k, l := keyType(s); k == kind && l == length {
				return s, true
			}
		}
	}
	return kernel.Set{}, false
}

// setFlags returns the flags of a set.
func setFlags(s kernel.Set) (flags uint32) {
	if s.Ranges {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.Keys == kernel.KeysLinks {
		flags |= unix.NFT_SET_MAP
	}
	return flags
}

// newSet makes a set. id is unique in the transaction.
func newSet(name string, s kernel.Set, id uint32) netlink.Message {
	m := haveSet(name, s, id)
	m.Header.Flags |= netlink.Excl
	return m
}

// haveSet makes a set unless there is one of its kind.
func haveSet(name string, s kernel.Set, id uint32) netlink.Message {
	kind, length := keyType(s)
	attrs := []netlink.Attribute{
		text(unix.NFTA_SET_NAME, name), number(unix.NFTA_SET_FLAGS, setFlags(s)),
		number(unix.NFTA_SET_KEY_TYPE, kind), number(unix.NFTA_SET_KEY_LEN, length),
		number(unix.NFTA_SET_ID, id),
	}
	if s.Keys == kernel.KeysLinks {
		attrs = append(attrs, number(unix.NFTA_SET_DATA_TYPE, typeVerdict), number(unix.NFTA_SET_DATA_LEN, 0),
			netlink.Attribute{Type: unix.NFTA_SET_USERDATA, Data: append([]byte{keyOrder, 4}, binary.NativeEndian.AppendUint32(nil, hostOrder)...)})
	}
	return rulesRequest(unix.NFT_MSG_NEWSET, netlink.Create, attrs...)
}

func delSet(name string) netlink.Message {
	return rulesRequest(unix.NFT_MSG_DELSET, 0, text(unix.NFTA_SET_NAME, name))
}

// setFound is a set as the kernel has it.
type setFound struct {
	name string
	kernel.Set
	anonymous bool // part of a rule, and goes with it
	holder    bool // of shared sets, and nobody's concern
}

func parseSet(data []byte) (setFound, error) {
	var name string
	var flags, kind, length, size, leadsTo uint32
	err := attributes(data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_SET_NAME:
			name = ad.String()
		case unix.NFTA_SET_FLAGS:
			flags = ad.Uint32()
		case unix.NFTA_SET_KEY_TYPE:
			kind = ad.Uint32()
		case unix.NFTA_SET_KEY_LEN:
			length = ad.Uint32()
		case unix.NFTA_SET_DATA_TYPE:
			leadsTo = ad.Uint32()
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
	s, known := kindOfKey(kind, length)
	s.Ranges = flags&unix.NFT_SET_INTERVAL != 0
	if known && flags == 0 && size == 0 && isHolder(name, s) {
		return setFound{name: name, Set: s, holder: true}, err
	}
	// Ranges in keys of several parts are marked so, and passed over here.
	if !known || s.Check("any") != nil || flags != setFlags(s) || size != 0 || (leadsTo == typeVerdict) != (s.Keys == kernel.KeysLinks) {
		s.Other = fmt.Sprintf("set of keys of type %#x and %d bytes, with flags %#x, for %d elements", kind, length, flags, size)
	}
	return setFound{name: name, Set: s, anonymous: flags&unix.NFT_SET_ANONYMOUS != 0}, err
}
