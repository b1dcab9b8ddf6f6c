//go:build linux

package linux

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// appendKey appends the key of an element, of a range its first.
func appendKey(b []byte, s kernel.Set, e kernel.Element) []byte {
	switch s.Keys {
	case kernel.KeysPorts:
		return binary.BigEndian.AppendUint16(b, e.Port)
	case kernel.KeysServices:
		b = append(appendAddr(b, e.Prefix.Addr()), e.Protocol, 0, 0, 0)
		return append(binary.BigEndian.AppendUint16(b, e.Port), 0, 0)
	case kernel.KeysSources:
		return appendAddr(append(b, linkData(e.Beside)...), e.Prefix.Addr())
	case keysMembers:
		return appendAddr(appendID(b, e.Set), e.Prefix.Addr())
	}
	return appendAddr(b, e.Prefix.Addr())
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		four := a.As4()
		return append(b, four[:]...)
	}
	sixteen := a.As16()
	return append(b, sixteen[:]...)
}

// appendLast appends the last key of a range.
func appendLast(b []byte, s kernel.Set, e kernel.Element) []byte {
	if s.Keys == kernel.KeysPorts {
		return binary.BigEndian.AppendUint16(b, max(e.Port, e.LastPort))
	}
	return appendAddr(b, lastOf(e))
}

// lastOf returns the last address of an element.
func lastOf(e kernel.Element) netip.Addr {
	if last := e.Last(); last.IsValid() {
		return last
	}
	b := e.Prefix.Addr().AsSlice()
	for i := e.Prefix.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// step adds one to a key, or takes one from it, and says whether there is such a key.
func step(key []byte, by int) bool {
	for i := len(key) - 1; i >= 0; i-- {
		key[i] += byte(by)
		if by > 0 && key[i] != 0 || by < 0 && key[i] != 0xff {
			return true
		}
	}
	return false
}

// elementOf returns the element that has a key; of a set of ranges, that goes up to
// last. Without such a key it is false: the kernel has told nonsense.
func elementOf(name string, s kernel.Set, key, last []byte) (e kernel.Element, ok bool) {
	parts := make([][]byte, 0, 3)
	for rest, all := key, keyParts(s); len(all) > 0; all = all[1:] {
		length := int(all[0].length)
		take := length
		if len(parts) > 0 || len(all) > 1 {
			take = int(padded(all[0].length))
		}
		if len(rest) < take {
			return kernel.Element{}, false
		}
		parts, rest = append(parts, rest[:length]), rest[take:]
	}
	switch e.Set = name; s.Keys {
	case keysMembers:
		e.Set = sharedName(s.IPv6, key)
		parts = parts[sharedPartCount:]
	case kernel.KeysPorts:
		e.Port = binary.BigEndian.Uint16(key)
		if l := binary.BigEndian.Uint16(last); l != e.Port {
			e.LastPort = l
		}
		return e, true
	case kernel.KeysServices:
		e.Protocol, e.Port = parts[1][0], binary.BigEndian.Uint16(parts[2])
	case kernel.KeysSources:
		e.Beside = linkMatch(parts[0])
		parts = parts[1:]
	}
	first, ok := netip.AddrFromSlice(parts[0])
	e.Prefix = netip.PrefixFrom(first, first.BitLen())
	if s.Ranges && ok {
		end, _ := netip.AddrFromSlice(last)
		if e.Prefix, ok = rangeOf(first, end); !ok {
			return e.To(end), true
		}
	}
	return e, ok
}

// rangeOf returns the range from first to last as a prefix; if it is none, first alone
// and false.
func rangeOf(first, last netip.Addr) (netip.Prefix, bool) {
	for bits := first.BitLen(); bits >= 0; bits-- {
		p := netip.PrefixFrom(first, bits)
		if p.Masked() != p {
			break
		}
		if lastOf(kernel.Element{Prefix: p}) == last {
			return p, true
		}
	}
	return netip.PrefixFrom(first, first.BitLen()), false
}

// boundary is an element as the kernel has it: a key, or of a set of ranges the
// beginning of one or what comes after its end. Of a verdict map it leads somewhere.
type boundary struct {
	key     []byte
	end     bool
	leadsTo verdictFound
}

// elementsOf puts boundaries together: a range goes up to the next end. nft(8) writes
// an end before the first range too.
func elementsOf(s setFound, found []boundary) []kernel.Element {
	elements := make([]kernel.Element, 0, len(found))
	names := make(map[string]string) // of shared sets: many elements have one
	add := func(key, last []byte) {
		e, ok := elementOf(s.name, s.Set, key, last)
		if !ok {
			return
		}
		if s.Keys == keysMembers {
			if name, known := names[e.Set]; known {
				e.Set = name
			} else {
				names[e.Set] = e.Set
			}
		}
		elements = append(elements, e)
	}
	if !s.Ranges {
		for _, b := range found {
			add(b.key, b.key)
		}
		return elements
	}
	slices.SortFunc(found, func(a, b boundary) int {
		if c := bytes.Compare(a.key, b.key); c != 0 || a.end == b.end {
			return c
		}
		return cmp.Compare(endOrder(a), endOrder(b))
	})
	for i, b := range found {
		if b.end {
			continue
		}
		last := bytes.Repeat([]byte{0xff}, len(b.key))
		if i+1 < len(found) && found[i+1].end {
			last = slices.Clone(found[i+1].key)
			step(last, -1)
		}
		add(b.key, last)
	}
	return elements
}

// endOrder has ends come first.
func endOrder(b boundary) int {
	if b.end {
		return 0
	}
	return 1
}

// maxElements is how many elements go into a message. A refusal repeats it, and
// must fit into receiveBuffer: a range of IPv6 takes 64 bytes.
const maxElements = 400

// appendElement appends an element to a list of them; end says that a range ends
// before it. It is written out because there may be very many.
func appendElement(b, key []byte, end bool) []byte {
	length := unix.NLA_HDRLEN*3 + pad(len(key))
	if end {
		length += unix.NLA_HDRLEN + 4
	}
	b = appendAttribute(b, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, length-unix.NLA_HDRLEN)
	if end {
		b = appendAttribute(b, unix.NFTA_SET_ELEM_FLAGS, 4)
		b = binary.BigEndian.AppendUint32(b, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	b = appendAttribute(b, unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, unix.NLA_HDRLEN+pad(len(key)))
	b = appendAttribute(b, unix.NFTA_DATA_VALUE, len(key))
	b = append(b, key...)
	return append(b, make([]byte, pad(len(key))-len(key))...)
}

// pad returns the length that an attribute takes.
func pad(length int) int { return (length + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }

// appendAttribute appends the header of an attribute; length is of what follows.
func appendAttribute(b []byte, kind uint16, length int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLA_HDRLEN+length))
	return binary.NativeEndian.AppendUint16(b, kind)
}
