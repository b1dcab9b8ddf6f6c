//go:build linux

package linux

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// A rule is a list of expressions: one loads something of the packet into a
// register, the next compares the register. compile writes the same list for a
// rule as nft(8) does for its text, so that nft lists it as that text. Where two
// neighbours ask for what is side by side in the packet, nft joins them; compile
// does not, and nft lists them alike.

// Places in headers, in bytes.
const (
	source4, destination4 = 12, 16
	source6, destination6 = 8, 24
	sourcePort            = 0
	destinationPort       = 2
	portLen               = 2
	vniInUDP              = 8 + 4 // behind UDP's header and VXLAN's flags
	vniLen                = 3
	icmpType              = 0 // the code is behind it
	tcpFlags              = 13
)

// tcpSYN is one of TCP's flags.
const tcpSYN = 1 << 1

// destinationTranslated is a bit of a connection's status (IPS_DST_NAT).
const destinationTranslated = 1 << 5

// register is the only one that most rules need: the first of 16 bytes. Keys of
// several parts go on in those of 4 bytes behind what is taken; the kernel calls the
// first of each four by the number that it has among those of 16.
const (
	register        = unix.NFT_REG_1
	behindIPv4      = unix.NFT_REG32_01
	protocolBehind4 = behindIPv4
	portBehind4     = unix.NFT_REG32_02
	behind16        = unix.NFT_REG_2
	behindID        = unix.NFT_REG32_03
	portBehind6     = unix.NFT_REG32_05
)

// commentType is the type of a rule's user data that nft(8) keeps its comment in.
const commentType = 0

// linkNameLen is IFNAMSIZ.
const linkNameLen = 16

func load(key expr.MetaKey) *expr.Meta { return &expr.Meta{Key: key, Register: register} }

func loadBytes(base expr.PayloadBase, offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}

func equals(data ...byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

// compares returns what compares with data: equal, or not.
func compares(not bool, data ...byte) *expr.Cmp {
	c := equals(data...)
	if not {
		c.Op = expr.CmpOpNeq
	}
	return c
}

// expressions are those of a rule.
type expressions []expr.Any

func (l *expressions) add(e ...expr.Any) { *l = append(*l, e...) }

// compile returns the expressions of a rule.
func compile(r kernel.Rule) []expr.Any {
	var l expressions
	l.links(r)
	icmp := r.ICMP != nil || r.NotICMP != nil
	if r.Family != 0 || icmp {
		l.family(r.PacketFamily())
	}
	switch {
	case r.Protocol != 0:
		l.add(load(expr.MetaKeyL4PROTO), equals(r.Protocol))
	case r.NotProtocol != 0:
		l.add(load(expr.MetaKeyL4PROTO), compares(true, r.NotProtocol))
	}
	l.ports(r)
	l.icmp(r.ICMP, false)
	l.icmp(r.NotICMP, true)
	// Sets of addresses are asked late: that costs most, and most packets are of another
	// protocol.
	if (r.Src.Set != "" || r.Dst.Set != "" || len(r.Addrs) > 0) && !icmp {
		l.family(r.PacketFamily())
	}
	l.addresses(r)
	if r.Fragment {
		l.add(&expr.Exthdr{
			DestRegister: register, Type: unix.IPPROTO_FRAGMENT, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6,
		}, equals(1))
	}
	if r.Translated {
		l.connection(expr.CtKeySTATUS, destinationTranslated)
	}
	if r.States != 0 {
		l.connection(expr.CtKeySTATE, uint32(r.States))
	}
	l.statements(r)
	return l
}

func (l *expressions) links(r kernel.Rule) {
	if r.InLink != "" {
		l.add(load(expr.MetaKeyIIFNAME), equals(linkData(r.InLink)...))
	}
	if r.NoInLink {
		l.add(load(expr.MetaKeyIIF), equals(0, 0, 0, 0))
	}
	if r.OutLink != "" {
		l.add(load(expr.MetaKeyOIFNAME), equals(linkData(r.OutLink)...))
	}
}

// linkData returns what a link's name must begin with: all of it and its end,
// unless a * stands for the rest.
func linkData(name string) []byte {
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		return []byte(prefix)
	}
	b := make([]byte, linkNameLen)
	copy(b, name)
	return b
}

// family adds what asks for a family, 4 or 6.
func (l *expressions) family(f uint8) {
	number := byte(unix.NFPROTO_IPV4)
	if f == 6 {
		number = unix.NFPROTO_IPV6
	}
	l.add(load(expr.MetaKeyNFPROTO), equals(number))
}

// ports adds what asks for ports, the VNI and flags.
func (l *expressions) ports(r kernel.Rule) {
	if r.DstPort != 0 {
		l.port(kernel.PortMatch{Place: kernel.Destination, First: r.DstPort, Last: r.DstPort})
	}
	if r.VNI != 0 {
		l.add(loadBytes(expr.PayloadBaseTransportHeader, vniInUDP, vniLen),
			equals(byte(r.VNI>>16), byte(r.VNI>>8), byte(r.VNI)))
	}
	for _, p := range r.Ports {
		l.port(p)
	}
	if r.NoSYN {
		l.add(loadBytes(expr.PayloadBaseTransportHeader, tcpFlags, 1), masked([]byte{tcpSYN}), equals(0))
	}
}

// portOffset returns where the port of a place is in its header.
func portOffset(place kernel.Place) uint32 {
	if place == kernel.Destination {
		return destinationPort
	}
	return sourcePort
}

func (l *expressions) port(p kernel.PortMatch) {
	l.add(loadBytes(expr.PayloadBaseTransportHeader, portOffset(p.Place), portLen))
	first, last := binary.BigEndian.AppendUint16(nil, p.First), binary.BigEndian.AppendUint16(nil, p.Last)
	switch {
	case p.Set != "":
		l.add(&expr.Lookup{SourceRegister: register, SetName: p.Set, Invert: p.Not})
	case p.First == p.Last:
		l.add(compares(p.Not, first...))
	case p.Not:
		l.add(&expr.Range{Op: expr.CmpOpNeq, Register: register, FromData: first, ToData: last})
	default:
		l.add(&expr.Cmp{Op: expr.CmpOpGte, Register: register, Data: first}, &expr.Cmp{Op: expr.CmpOpLte, Register: register, Data: last})
	}
}

func (l *expressions) icmp(asked *kernel.ICMP, not bool) {
	if asked == nil {
		return
	}
	data := []byte{asked.Type, asked.Code}
	if asked.AnyCode {
		data = data[:1]
	}
	l.add(loadBytes(expr.PayloadBaseTransportHeader, icmpType, uint32(len(data))), compares(not, data...))
}

func (l *expressions) addresses(r kernel.Rule) {
	for _, s := range []struct {
		kernel.InSet
		place kernel.Place
	}{{r.Src, kernel.Source}, {r.Dst, kernel.Destination}} {
		if s.Set != "" {
			l.address(kernel.AddrMatch{Place: s.place, IPv6: s.IPv6, Not: s.Not, Set: s.Set})
		}
	}
	for _, a := range r.Addrs {
		l.address(a)
	}
}

func (l *expressions) address(a kernel.AddrMatch) {
	loaded := loadBytes(expr.PayloadBaseNetworkHeader, source4, 4)
	switch {
	case a.IPv6 && a.Place == kernel.Source:
		loaded.Offset, loaded.Len = source6, 16
	case a.IPv6:
		loaded.Offset, loaded.Len = destination6, 16
	case a.Place == kernel.Destination:
		loaded.Offset = destination4
	}
	if a.Set == "" {
		l.prefix(loaded, a.Prefix, a.Not)
		return
	}
	switch a.Keys {
	case kernel.KeysServices:
		protocol := &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: protocolBehind4}
		port := loadBytes(expr.PayloadBaseTransportHeader, portOffset(a.Place), portLen)
		if port.DestRegister = portBehind4; a.IPv6 {
			protocol.Register, port.DestRegister = behind16, portBehind6
		}
		l.add(loaded, protocol, port)
	case kernel.KeysSources:
		loaded.DestRegister = behind16
		l.add(load(expr.MetaKeyIIFNAME), loaded)
	default:
		if kernel.IsSharedName(a.Set) {
			loaded.DestRegister = behindID
			l.add(&expr.Immediate{Register: register, Data: appendID(nil, a.Set)})
		}
		l.add(loaded)
	}
	l.add(&expr.Lookup{SourceRegister: register, SetName: holderOf(a.Set), Invert: a.Not})
}

// prefix adds what compares the address that is loaded with a prefix.
func (l *expressions) prefix(loaded *expr.Payload, p netip.Prefix, not bool) {
	data := p.Addr().AsSlice()
	bits := p.Bits()
	if bits > 0 && bits%8 == 0 { // as many bytes
		loaded.Len = uint32(bits / 8)
		l.add(loaded, compares(not, data[:bits/8]...))
		return
	}
	mask := make([]byte, len(data))
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	l.add(loaded, masked(mask), compares(not, data...))
}

// masked leaves those bits of the register that mask has.
func masked(mask []byte) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// connection adds what asks for any of these bits of the packet's connection.
func (l *expressions) connection(key expr.CtKey, bits uint32) {
	mask := binary.NativeEndian.AppendUint32(nil, bits)
	l.add(&expr.Ct{Register: register, Key: key}, masked(mask), compares(true, make([]byte, len(mask))...))
}

// statements adds what the rule does.
func (l *expressions) statements(r kernel.Rule) {
	if r.Counter {
		l.add(&expr.Counter{})
	}
	if r.Limit != nil {
		l.add(&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(r.Limit.Rate), Unit: expr.LimitTimeSecond, Burst: r.Limit.Burst})
	}
	if r.Log != nil {
		log := &expr.Log{Key: 1 << unix.NFTA_LOG_GROUP, Group: r.Log.Group}
		if r.Log.Prefix != "" {
			log.Key |= 1 << unix.NFTA_LOG_PREFIX
			log.Data = []byte(r.Log.Prefix)
		}
		l.add(log)
	}
	switch r.Verdict {
	case kernel.Accept:
		l.add(&expr.Verdict{Kind: expr.VerdictAccept})
	case kernel.Drop:
		l.add(&expr.Verdict{Kind: expr.VerdictDrop})
	case kernel.Return:
		l.add(&expr.Verdict{Kind: expr.VerdictReturn})
	case kernel.Jump:
		l.add(&expr.Verdict{Kind: expr.VerdictJump, Chain: r.Target})
	case kernel.Goto:
		l.add(&expr.Verdict{Kind: expr.VerdictGoto, Chain: r.Target})
	case kernel.Masquerade:
		l.add(&expr.Masq{FullyRandom: true})
	case kernel.NoTrack:
		l.add(&expr.Notrack{})
	case kernel.InVerdicts:
		l.add(load(expr.MetaKeyIIFNAME), inVerdicts(r.Target))
	case kernel.OutVerdicts:
		l.add(load(expr.MetaKeyOIFNAME), inVerdicts(r.Target))
	}
}

// inVerdicts looks the register up in a verdict map.
func inVerdicts(name string) *expr.Lookup {
	return &expr.Lookup{SourceRegister: register, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: name}
}
