//go:build linux

package linux

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// A rule is a list of expressions: one loads something of the packet into a
// register, the next compares the register. compile writes the same list for a
// rule as nft(8) does for its text, so that nft lists it as that text.

// Places in headers, in bytes.
const (
	source4, destination4 = 12, 16
	source6, destination6 = 8, 24
	destinationPort       = 2
	vniInUDP              = 8 + 4 // behind UDP's header and VXLAN's flags
	vniLen                = 3
)

// destinationTranslated is a bit of a connection's status (IPS_DST_NAT).
const destinationTranslated = 1 << 5

// register is the only one that rules need.
const register = unix.NFT_REG_1

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

// compile returns the expressions of a rule.
func compile(r kernel.Rule) []expr.Any {
	var list []expr.Any
	for _, l := range []struct {
		key  expr.MetaKey
		name string
	}{{expr.MetaKeyIIFNAME, r.InLink}, {expr.MetaKeyOIFNAME, r.OutLink}} {
		if l.name != "" {
			list = append(list, load(l.key), equals(linkData(l.name)...))
		}
	}
	if r.Protocol != 0 {
		list = append(list, load(expr.MetaKeyL4PROTO), equals(r.Protocol))
	}
	if r.DstPort != 0 {
		list = append(list, loadBytes(expr.PayloadBaseTransportHeader, destinationPort, 2),
			equals(binary.BigEndian.AppendUint16(nil, r.DstPort)...))
	}
	if r.VNI != 0 {
		list = append(list, loadBytes(expr.PayloadBaseTransportHeader, vniInUDP, vniLen),
			equals(byte(r.VNI>>16), byte(r.VNI>>8), byte(r.VNI)))
	}
	// Sets are asked late: that costs most, and most packets are of another protocol.
	list = append(list, compileAddresses(r)...)
	if r.Fragment {
		list = append(list, &expr.Exthdr{
			DestRegister: register, Type: unix.IPPROTO_FRAGMENT, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6,
		}, equals(1))
	}
	if r.Translated {
		bit := binary.NativeEndian.AppendUint32(nil, destinationTranslated)
		none := make([]byte, len(bit))
		list = append(list, &expr.Ct{Register: register, Key: expr.CtKeySTATUS},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(bit)), Mask: bit, Xor: none},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: none})
	}
	switch r.Verdict {
	case kernel.Accept:
		list = append(list, &expr.Verdict{Kind: expr.VerdictAccept})
	case kernel.Drop:
		list = append(list, &expr.Verdict{Kind: expr.VerdictDrop})
	case kernel.Masquerade:
		list = append(list, &expr.Masq{FullyRandom: true})
	case kernel.NoTrack:
		list = append(list, &expr.Notrack{})
	}
	return list
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

func compileAddresses(r kernel.Rule) []expr.Any {
	if r.Src.Set == "" && r.Dst.Set == "" {
		return nil
	}
	protocol, source, destination, length := byte(unix.NFPROTO_IPV4), uint32(source4), uint32(destination4), uint32(4)
	if r.Src.IPv6 || r.Dst.IPv6 {
		protocol, source, destination, length = unix.NFPROTO_IPV6, source6, destination6, 16
	}
	list := []expr.Any{load(expr.MetaKeyNFPROTO), equals(protocol)}
	for _, a := range []struct {
		kernel.InSet
		offset uint32
	}{{r.Src, source}, {r.Dst, destination}} {
		if a.Set != "" {
			list = append(list, loadBytes(expr.PayloadBaseNetworkHeader, a.offset, length),
				&expr.Lookup{SourceRegister: register, SetName: a.Set, Invert: a.Not})
		}
	}
	return list
}

// newRule builds the request to append a rule to a chain.
func newRule(chain string, r kernel.Rule) netlink.Message {
	var list []netlink.Attribute
	for _, e := range compile(r) {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil { // only of attributes that are longer than 64 KiB
			panic(fmt.Sprintf("linux: encode rule: %v", err))
		}
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: b})
	}
	attrs := []netlink.Attribute{
		text(unix.NFTA_RULE_CHAIN, chain),
		nested(unix.NFTA_RULE_EXPRESSIONS, list...),
	}
	if r.Comment != "" {
		data := append([]byte{commentType, byte(len(r.Comment) + 1)}, r.Comment...)
		attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_RULE_USERDATA, Data: append(data, 0)})
	}
	return rulesRequest(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, attrs...)
}

// parseRule returns the chain that a rule is in, and the rule; one that can't be
// said in our words has Other set.
func parseRule(data []byte) (chain string, r kernel.Rule, err error) {
	var list []expr.Any
	var names []string
	known := true
	comment := ""
	err = attributes(data, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_RULE_CHAIN:
			chain = ad.String()
		case unix.NFTA_RULE_USERDATA:
			comment = parseComment(ad.Bytes())
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(elements *netlink.AttributeDecoder) error {
				for elements.Next() {
					name, e := parseExpression(elements.Bytes())
					names = append(names, name)
					list = append(list, e)
					known = known && e != nil
				}
				return elements.Err()
			})
		}
	})
	if err != nil {
		return "", kernel.Rule{}, err
	}
	if known {
		r = decompile(list)
		r.Comment = comment
	}
	// Whatever was misunderstood or passed over shows here.
	if !known || r.Verdict == "" || !reflect.DeepEqual(compile(r), list) {
		r = kernel.Rule{Other: strings.Join(names, ", ")}
	}
	return chain, r, nil
}

func parseComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == commentType {
			return string(bytes.TrimSuffix(b[2:2+int(b[1])], []byte{0}))
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// parseExpression returns the name of an expression, and the expression; nil when
// it is none of those that compile uses.
func parseExpression(b []byte) (name string, e expr.Any) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return "", nil
	}
	var content []byte
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			name = ad.String()
		case unix.NFTA_EXPR_DATA:
			content = ad.Bytes()
		}
	}
	switch name {
	case "meta":
		e = new(expr.Meta)
	case "cmp":
		e = new(expr.Cmp)
	case "payload":
		e = new(expr.Payload)
	case "lookup":
		e = new(expr.Lookup)
	case "exthdr":
		e = new(expr.Exthdr)
	case "ct":
		e = new(expr.Ct)
	case "bitwise":
		e = new(expr.Bitwise)
	case "masq":
		e = new(expr.Masq)
	case "notrack":
		e = new(expr.Notrack)
	case "immediate":
		var i expr.Immediate
		if expr.Unmarshal(unix.NFPROTO_INET, content, &i) != nil || i.Register != unix.NFT_REG_VERDICT || len(i.Data) > 0 {
			return name, nil
		}
		e = new(expr.Verdict)
	default:
		return name, nil
	}
	if ad.Err() != nil || expr.Unmarshal(unix.NFPROTO_INET, content, e) != nil {
		return name, nil
	}
	return name, e
}

// decompile returns what a list of expressions may mean. It does not look at
// everything: that compile makes the same list of it is for the caller to check.
func decompile(list []expr.Any) kernel.Rule {
	var r kernel.Rule
	var loaded expr.Any
	v6 := false
	for _, e := range list {
		switch e := e.(type) {
		case *expr.Meta, *expr.Payload, *expr.Exthdr, *expr.Ct:
			loaded = e
		case *expr.Cmp:
			if m, ok := loaded.(*expr.Meta); ok && m.Key == expr.MetaKeyNFPROTO {
				v6 = bytes.Equal(e.Data, []byte{unix.NFPROTO_IPV6})
			}
			compared(&r, loaded, e.Data)
		case *expr.Lookup:
			p, _ := loaded.(*expr.Payload)
			in := kernel.InSet{Set: e.SetName, IPv6: v6, Not: e.Invert}
			switch {
			case p == nil:
			case !v6 && p.Offset == source4, v6 && p.Offset == source6:
				r.Src = in
			default:
				r.Dst = in
			}
		case *expr.Verdict:
			switch e.Kind {
			case expr.VerdictAccept:
				r.Verdict = kernel.Accept
			case expr.VerdictDrop:
				r.Verdict = kernel.Drop
			}
		case *expr.Masq:
			r.Verdict = kernel.Masquerade
		case *expr.Notrack:
			r.Verdict = kernel.NoTrack
		}
	}
	return r
}

// compared notes in r that what was loaded must be equal to data.
func compared(r *kernel.Rule, loaded expr.Any, data []byte) {
	n := uint32(0)
	for _, b := range data {
		n = n<<8 | uint32(b)
	}
	switch l := loaded.(type) {
	case *expr.Meta:
		switch l.Key {
		case expr.MetaKeyIIFNAME:
			r.InLink = linkMatch(data)
		case expr.MetaKeyOIFNAME:
			r.OutLink = linkMatch(data)
		case expr.MetaKeyL4PROTO:
			r.Protocol = uint8(n)
		}
	case *expr.Payload:
		switch l.Offset {
		case destinationPort:
			r.DstPort = uint16(n)
		case vniInUDP:
			r.VNI = n
		}
	case *expr.Exthdr:
		r.Fragment = true
	case *expr.Ct:
		r.Translated = true
	}
}

func linkMatch(data []byte) string {
	if len(data) < linkNameLen {
		return string(data) + "*"
	}
	return string(bytes.TrimRight(data, "\x00"))
}
