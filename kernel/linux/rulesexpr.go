//go:build linux

package linux

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

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
					if _, counter := e.(*expr.Counter); counter {
						e = &expr.Counter{} // whatever it has counted
					}
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

// splitExpression returns the name of an expression and its attributes.
func splitExpression(b []byte) (name string, content []byte, err error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return "", nil, fmt.Errorf("decode expression: %w", err)
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			name = ad.String()
		case unix.NFTA_EXPR_DATA:
			content = ad.Bytes()
		}
	}
	return name, content, ad.Err()
}

// parseExpression returns the name of an expression, and the expression; nil when
// it is none of those that compile uses.
func parseExpression(b []byte) (name string, e expr.Any) {
	name, content, err := splitExpression(b)
	if err != nil {
		return name, nil
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
	case "counter":
		e = new(expr.Counter)
	case "limit":
		e = new(expr.Limit)
	case "log":
		e = new(expr.Log)
	case "range":
		e = new(expr.Range)
	case "masq":
		e = new(expr.Masq)
	case "notrack":
		e = new(expr.Notrack)
	case "immediate":
		i := new(expr.Immediate)
		switch {
		case expr.Unmarshal(unix.NFPROTO_INET, content, i) != nil, (i.Register == unix.NFT_REG_VERDICT) != (len(i.Data) == 0):
			return name, nil
		case len(i.Data) > 0:
			return name, i
		}
		e = new(expr.Verdict)
	default:
		return name, nil
	}
	if expr.Unmarshal(unix.NFPROTO_INET, content, e) != nil {
		return name, nil
	}
	return name, e
}
