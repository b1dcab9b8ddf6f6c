//go:build linux

package linux

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// decompiler reads a list of expressions.
type decompiler struct {
	rule   kernel.Rule
	family uint8      // asked for so far
	loaded []expr.Any // since the last comparison
	mask   []byte     // of what was loaded; nil: all of it
	first  []byte     // where a range begins whose end is to come
}

// decompile returns what a list of expressions may mean. It does not look at
// everything: that compile makes the same list of it is for the caller to check.
func decompile(list []expr.Any) kernel.Rule {
	var d decompiler
	for _, e := range list {
		d.read(e)
	}
	r := d.rule
	if r.Family = d.family; r.Src.Set != "" || r.Dst.Set != "" || len(r.Addrs) > 0 || r.ICMP != nil || r.NotICMP != nil {
		r.Family = 0 // they imply it
	}
	if r.Verdict == "" && (r.Counter || r.Log != nil) {
		r.Verdict = kernel.Continue
	}
	return r
}

func (d *decompiler) read(e expr.Any) {
	r := &d.rule
	switch e := e.(type) {
	case *expr.Meta, *expr.Payload, *expr.Exthdr, *expr.Ct, *expr.Immediate:
		d.loaded = append(d.loaded, e)
	case *expr.Bitwise:
		d.mask = e.Mask
	case *expr.Cmp:
		if e.Op == expr.CmpOpGte {
			d.first = e.Data
			return
		}
		d.compared(e.Op == expr.CmpOpNeq, e.Data)
		d.forget()
	case *expr.Range:
		d.first = e.FromData
		d.compared(e.Op == expr.CmpOpNeq, e.ToData)
		d.forget()
	case *expr.Lookup:
		d.lookedUp(e)
		d.forget()
	case *expr.Counter:
		r.Counter = true
	case *expr.Limit:
		r.Limit = &kernel.Limit{Rate: uint32(e.Rate), Burst: e.Burst}
	case *expr.Log:
		r.Log = &kernel.Log{Group: e.Group, Prefix: string(e.Data)}
	case *expr.Verdict:
		r.Verdict, r.Target = verdicts[e.Kind], e.Chain
	case *expr.Masq:
		r.Verdict = kernel.Masquerade
	case *expr.Notrack:
		r.Verdict = kernel.NoTrack
	}
}

// verdicts are the words for what ends a rule.
var verdicts = map[expr.VerdictKind]kernel.Verdict{
	expr.VerdictAccept: kernel.Accept, expr.VerdictDrop: kernel.Drop, expr.VerdictReturn: kernel.Return,
	expr.VerdictJump: kernel.Jump, expr.VerdictGoto: kernel.Goto,
}

// forget begins a new comparison.
func (d *decompiler) forget() { d.loaded, d.mask, d.first = nil, nil, nil }

// compared notes that what was loaded must be equal to data, or not.
func (d *decompiler) compared(not bool, data []byte) {
	if len(d.loaded) != 1 || len(data) == 0 {
		return
	}
	switch l := d.loaded[0].(type) {
	case *expr.Meta:
		d.meta(l.Key, not, data)
	case *expr.Payload:
		switch {
		case l.Base == expr.PayloadBaseNetworkHeader:
			d.prefix(l, not, data)
		case l.Offset == tcpFlags:
			d.rule.NoSYN = true
		case l.Offset == vniInUDP:
			d.rule.VNI = bigEndian(data)
		case d.rule.Protocol == kernel.ProtoICMP || d.rule.Protocol == kernel.ProtoICMPv6:
			d.icmp(not, data)
		default:
			d.port(l, kernel.PortMatch{Not: not, First: uint16(bigEndian(d.first)), Last: uint16(bigEndian(data))})
		}
	case *expr.Exthdr:
		d.rule.Fragment = true
	case *expr.Ct:
		switch {
		case l.Key == expr.CtKeySTATUS:
			d.rule.Translated = true
		case l.Key == expr.CtKeySTATE && len(d.mask) == 4:
			d.rule.States = kernel.State(binary.NativeEndian.Uint32(d.mask))
		}
	}
}

func bigEndian(data []byte) (n uint32) {
	for _, b := range data {
		n = n<<8 | uint32(b)
	}
	return n
}

func (d *decompiler) meta(key expr.MetaKey, not bool, data []byte) {
	switch key {
	case expr.MetaKeyIIFNAME:
		d.rule.InLink = linkMatch(data)
	case expr.MetaKeyOIFNAME:
		d.rule.OutLink = linkMatch(data)
	case expr.MetaKeyIIF:
		d.rule.NoInLink = true
	case expr.MetaKeyNFPROTO:
		if d.family = 4; bytes.Equal(data, []byte{unix.NFPROTO_IPV6}) {
			d.family = 6
		}
	case expr.MetaKeyL4PROTO:
		if n := uint8(bigEndian(data)); not {
			d.rule.NotProtocol = n
		} else {
			d.rule.Protocol = n
		}
	}
}

func linkMatch(data []byte) string {
	if len(data) < linkNameLen {
		return string(data) + "*"
	}
	return string(bytes.TrimRight(data, "\x00"))
}

func (d *decompiler) icmp(not bool, data []byte) {
	asked := &kernel.ICMP{Type: data[0], AnyCode: len(data) == 1}
	if !asked.AnyCode {
		asked.Code = data[1]
	}
	if not {
		d.rule.NotICMP = asked
	} else {
		d.rule.ICMP = asked
	}
}

// port notes what is asked of the port that was loaded.
func (d *decompiler) port(loaded *expr.Payload, p kernel.PortMatch) {
	r := &d.rule
	if p.Place = kernel.Source; loaded.Offset == destinationPort {
		p.Place = kernel.Destination
	}
	if d.first == nil {
		p.First = p.Last
	}
	if p == (kernel.PortMatch{Place: kernel.Destination, First: p.First, Last: p.First}) && p.First != 0 && r.DstPort == 0 &&
		(r.Protocol == kernel.ProtoTCP || r.Protocol == kernel.ProtoUDP) {
		r.DstPort = p.First
		return
	}
	r.Ports = append(r.Ports, p)
}

// placeOf returns where in the packet an address was loaded from.
func (d *decompiler) placeOf(loaded *expr.Payload) kernel.Place {
	if loaded.Offset == source4 && d.family != 6 || loaded.Offset == source6 && d.family == 6 {
		return kernel.Source
	}
	return kernel.Destination
}

// prefix notes what is asked of the address that was loaded, or of its beginning.
func (d *decompiler) prefix(loaded *expr.Payload, not bool, data []byte) {
	length := 4
	if d.family == 6 {
		length = 16
	}
	bits := 8 * len(data)
	if d.mask != nil {
		bits = 0
		for _, b := range d.mask {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
	}
	whole := make([]byte, length)
	copy(whole, data)
	a, _ := netip.AddrFromSlice(whole)
	d.rule.Addrs = append(d.rule.Addrs, kernel.AddrMatch{
		Place: d.placeOf(loaded), IPv6: a.Is6(), Not: not, Prefix: netip.PrefixFrom(a, bits),
	})
}

// lookedUp notes that what was loaded is looked up in a set or verdict map.
func (d *decompiler) lookedUp(l *expr.Lookup) {
	if len(d.loaded) == 0 {
		return
	}
	r := &d.rule
	name := l.SetName
	if id, shared := d.loaded[0].(*expr.Immediate); shared {
		name = sharedName(d.family == 6, id.Data)
		d.loaded = d.loaded[1:]
	}
	m, _ := firstOf(d.loaded).(*expr.Meta)
	switch {
	case l.IsDestRegSet && m != nil:
		if r.Target, r.Verdict = l.SetName, kernel.InVerdicts; m.Key == expr.MetaKeyOIFNAME {
			r.Verdict = kernel.OutVerdicts
		}
		return
	case m != nil: // with the address behind it
		d.loaded = d.loaded[1:]
	}
	a := kernel.AddrMatch{IPv6: d.family == 6, Not: l.Invert, Set: name}
	p, _ := firstOf(d.loaded).(*expr.Payload)
	switch {
	case p == nil:
		return
	case p.Base == expr.PayloadBaseTransportHeader:
		d.port(p, kernel.PortMatch{Not: l.Invert, Set: l.SetName})
		return
	case m != nil:
		a.Keys = kernel.KeysSources
	case len(d.loaded) > 1:
		a.Keys = kernel.KeysServices
	}
	a.Place = d.placeOf(p)
	in := &r.Src
	if a.Place == kernel.Destination {
		in = &r.Dst
	}
	if a.Keys == kernel.KeysAddresses && in.Set == "" {
		*in = kernel.InSet{Set: a.Set, IPv6: a.IPv6, Not: a.Not}
		return
	}
	r.Addrs = append(r.Addrs, a)
}

func firstOf(list []expr.Any) expr.Any {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}
