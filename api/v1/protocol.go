package v1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Protocol is a protocol above IP: a name, or a number of 1 to 255
// (iana.org/assignments/protocol-numbers). In JSON it may be a number or a text.
type Protocol string

// Protocols that have names.
const (
	ProtocolTCP     Protocol = "TCP"
	ProtocolUDP     Protocol = "UDP"
	ProtocolICMP    Protocol = "ICMP"
	ProtocolICMPv6  Protocol = "ICMPv6"
	ProtocolSCTP    Protocol = "SCTP"
	ProtocolUDPLite Protocol = "UDPLite"
)

// Numbers of protocols (iana.org/assignments/protocol-numbers).
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

// Number returns the protocol's number; 0 if there is no such protocol.
func (p Protocol) Number() uint8 {
	switch p {
	case ProtocolTCP:
		return protoTCP
	case ProtocolUDP:
		return protoUDP
	case ProtocolICMP:
		return protoICMP
	case ProtocolICMPv6:
		return protoICMPv6
	case ProtocolSCTP:
		return protoSCTP
	case ProtocolUDPLite:
		return protoUDPLite
	}
	n, ok := number(string(p), 255)
	if !ok {
		return 0
	}
	return uint8(n)
}

// HasPorts says whether packets of the protocol have ports.
func (p Protocol) HasPorts() bool {
	switch p.Number() {
	case protoTCP, protoUDP, protoSCTP, protoUDPLite:
		return true
	}
	return false
}

// ipVersion returns the version of IP that the protocol belongs to; 0 for both.
func (p Protocol) ipVersion() int {
	switch p.Number() {
	case protoICMP:
		return 4
	case protoICMPv6:
		return 6
	}
	return 0
}

// UnmarshalJSON takes a number or a text.
func (p *Protocol) UnmarshalJSON(data []byte) error {
	text, err := numberOrText(data, "a protocol's name or number")
	*p = Protocol(text)
	return err
}

// MarshalJSON writes a number as such.
func (p Protocol) MarshalJSON() ([]byte, error) { return marshalNumberOrText(string(p), 255) }

// Port is a port, a range of ports such as 8080:8090, or a name that endpoints give
// to one of theirs. In JSON it may be a number or a text.
type Port string

// Range returns the first and the last port; false for a name, and for what is none.
func (p Port) Range() (first, last uint16, ok bool) {
	a, b, isRange := strings.Cut(string(p), ":")
	if !isRange {
		b = a
	}
	from, ok1 := number(a, 65535)
	to, ok2 := number(b, 65535)
	if !ok1 || !ok2 || from > to {
		return 0, 0, false
	}
	return uint16(from), uint16(to), true
}

// Name returns the name; "" for a range, and for what is none.
func (p Port) Name() string {
	if portName(string(p)) {
		return string(p)
	}
	return ""
}

// UnmarshalJSON takes a number or a text.
func (p *Port) UnmarshalJSON(data []byte) error {
	text, err := numberOrText(data, "a port, a range such as 8080:8090 or a name")
	*p = Port(text)
	return err
}

// MarshalJSON writes a number as such.
func (p Port) MarshalJSON() ([]byte, error) { return marshalNumberOrText(string(p), 65535) }

// number returns a whole number of 1 to most, in its only spelling.
func number(text string, most uint64) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && n >= 1 && n <= most && strconv.FormatUint(n, 10) == text
}

// numberOrText returns the text of a JSON number or string.
func numberOrText(data []byte, what string) (string, error) {
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '"' {
		var text string
		err := json.Unmarshal(data, &text)
		return text, err
	}
	if _, err := strconv.ParseInt(string(data), 10, 64); err != nil {
		return "", fmt.Errorf("must be %s, not %s", what, data)
	}
	return string(data), nil
}

func marshalNumberOrText(text string, most uint64) ([]byte, error) {
	if _, ok := number(text, most); ok {
		return []byte(text), nil
	}
	return json.Marshal(text)
}

// maxPortName is the length of the longest name of a port, in bytes, as in Calico.
const maxPortName = 128

// portName says whether a text is a name that a port may have.
func portName(text string) bool {
	if text == "" || len(text) > maxPortName {
		return false
	}
	letters := false
	for _, r := range text {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
			letters = true
		case '0' <= r && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return letters
}

// validProtocol checks the name or number of a protocol.
func validProtocol(at *field.Path, p Protocol) field.ErrorList {
	if p.Number() == 0 {
		return field.ErrorList{field.Invalid(at, string(p), "must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number of 1 to 255")}
	}
	return nil
}

// validPortRange checks what names ports in a rule.
func validPortRange(at *field.Path, p Port) field.ErrorList {
	if _, _, ok := p.Range(); ok || p.Name() != "" {
		return nil
	}
	return field.ErrorList{field.Invalid(at, string(p), "must be a port of 1 to 65535, a range such as 8080:8090, or a name")}
}

// NamedPort is a port that an endpoint has a name for.
type NamedPort struct {
	// Name is what rules call the port.
	Name string `json:"name"`
	// Protocol is TCP, UDP, SCTP or UDPLite. Default TCP.
	Protocol Protocol `json:"protocol,omitempty"`
	// Port is the port, 1 to 65535.
	Port int32 `json:"port"`
}

// defaultPorts fills in the protocols of an endpoint's ports.
func defaultPorts(ports []NamedPort) {
	for i := range ports {
		if ports[i].Protocol == "" {
			ports[i].Protocol = ProtocolTCP
		}
	}
}

// validPorts checks the ports of an endpoint. One name may stand for several.
func validPorts(at *field.Path, ports []NamedPort) field.ErrorList {
	var errs field.ErrorList
	seen := map[NamedPort]bool{}
	for i, p := range ports {
		at := at.Index(i)
		if p.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else if !portName(p.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), p.Name, "must be 1 to 128 letters, digits, '-', '_' and '.', with a letter among them"))
		}
		errs = append(errs, validPortProtocol(at.Child("protocol"), p.Protocol)...)
		errs = append(errs, validPort(at.Child("port"), p.Port)...)
		if seen[p] {
			errs = append(errs, field.Duplicate(at, p.Name))
		}
		seen[p] = true
	}
	return errs
}

// validPortProtocol checks a protocol that must have ports.
func validPortProtocol(at *field.Path, p Protocol) field.ErrorList {
	if !p.HasPorts() {
		return field.ErrorList{field.Invalid(at, string(p), "must be TCP, UDP, SCTP or UDPLite: others have no ports")}
	}
	return nil
}
