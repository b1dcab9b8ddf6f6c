package probe

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
)

// Chunks and parameters of SCTP that a probe needs (RFC 9260, sections 3.3.2, 3.3.3 and
// 3.3.7). They are spoken through raw sockets: not every kernel has those of SCTP.
const (
	sctpHeader  = 12 // bytes: ports, verification tag, checksum
	chunkInit   = 1
	chunkAck    = 2 // INIT ACK
	chunkAbort  = 6
	initLength  = 20 // bytes of an INIT without parameters
	paramCookie = 7  // in which our server says what it saw
)

// initiation is an INIT.
type initiation struct {
	from, to uint16 // ports
	tag      uint32
}

func newInit(e Exchange) *initiation {
	q := &initiation{from: e.SourcePort, to: e.Addr.Port(), tag: rand.Uint32() | 1} // 0 is none
	if q.from == 0 {
		q.from = uint16(32768 + rand.IntN(28232)) // the kernel's ephemeral ports
	}
	return q
}

func (q *initiation) number() int { return numberSCTP }

func (q *initiation) packet() []byte {
	return sctpPacket(q.from, q.to, 0, initChunk(chunkInit, q.tag, nil))
}

func (q *initiation) answers(packet []byte) (saw netip.Addr, refused, ok bool) {
	from, to, tag, chunk := parseSCTP(packet)
	if from != q.to || to != q.from || tag != q.tag || len(chunk) < 4 {
		return saw, false, false
	}
	switch chunk[0] {
	case chunkAbort:
		return saw, true, true
	case chunkAck:
		saw, _ = netip.ParseAddr(cookie(chunk))
		return saw, false, true
	}
	return saw, false, false
}

// cookie returns the first parameter of an INIT ACK, if it is a state cookie.
func cookie(chunk []byte) string {
	if len(chunk) < initLength+4 || binary.BigEndian.Uint16(chunk[initLength:]) != paramCookie {
		return ""
	}
	length := int(binary.BigEndian.Uint16(chunk[initLength+2:]))
	if length < 4 || initLength+length > len(chunk) {
		return ""
	}
	return string(chunk[initLength+4 : initLength+length])
}

// initChunk returns an INIT or INIT ACK: tag, a window of 64 KiB, one stream each way,
// first TSN; and a parameter.
func initChunk(kind byte, tag uint32, param []byte) []byte {
	b := []byte{kind, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(initLength+len(param)))
	b = binary.BigEndian.AppendUint32(b, tag)
	b = binary.BigEndian.AppendUint32(b, 64<<10)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint32(b, tag)
	b = append(b, param...)
	for len(b)%4 != 0 { // which the length leaves out
		b = append(b, 0)
	}
	return b
}

func sctpPacket(from, to uint16, tag uint32, chunk []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint32(b, tag)
	b = append(b, 0, 0, 0, 0)
	b = append(b, chunk...)
	// The one field that is little-endian (RFC 9260, appendix A).
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// parseSCTP returns the header's fields and the first chunk; no chunk if the packet is
// damaged.
func parseSCTP(b []byte) (from, to uint16, tag uint32, chunk []byte) {
	if len(b) < sctpHeader+4 {
		return 0, 0, 0, nil
	}
	from, to, tag = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[4:])
	chunk = b[sctpHeader:]
	length := int(binary.BigEndian.Uint16(chunk[2:]))
	if length < 4 || length > len(chunk) {
		return 0, 0, 0, nil
	}
	return from, to, tag, chunk[:length]
}

// answerSCTP returns the answer to an INIT: an INIT ACK on these ports, an ABORT on
// others; nil to all else.
func answerSCTP(packet []byte, from netip.Addr, ports map[uint16]bool) []byte {
	src, dst, _, chunk := parseSCTP(packet)
	if len(chunk) < initLength || chunk[0] != chunkInit {
		return nil
	}
	tag := binary.BigEndian.Uint32(chunk[4:])
	if !ports[dst] {
		return sctpPacket(dst, src, tag, []byte{chunkAbort, 0, 0, 4})
	}
	text := from.String()
	param := binary.BigEndian.AppendUint16(nil, paramCookie)
	param = binary.BigEndian.AppendUint16(param, uint16(4+len(text)))
	return sctpPacket(dst, src, tag, initChunk(chunkAck, rand.Uint32()|1, append(param, text...)))
}
