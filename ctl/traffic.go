package ctl

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/policy"
)

// Numbers of protocols (iana.org/assignments/protocol-numbers).
const (
	protoICMP   = 1
	protoTCP    = 6
	protoICMPv6 = 58
)

// asked says of which packets somebody wants to know.
type asked struct {
	port, protocol     string // as given
	sourcePort         uint16
	icmpType, icmpCode int // -1: not given
	ipv4, ipv6         bool

	number uint8 // of the protocol; 0: any
}

func (a *asked) addFlags(cmd *cobra.Command, one bool) {
	fs := cmd.Flags()
	fs.StringVarP(&a.port, "port", "p", "", "port of the destination, by number or by the name that it has there")
	fs.StringVar(&a.protocol, "protocol", "", "tcp, udp, sctp, udplite, icmp, icmpv6 or a number (default tcp with --port)")
	fs.BoolVarP(&a.ipv4, "ipv4", "4", false, "IPv4 only")
	fs.BoolVarP(&a.ipv6, "ipv6", "6", false, "IPv6 only")
	config.CallOnly(fs, "port", "protocol", "ipv4", "ipv6")
	a.icmpType, a.icmpCode = -1, -1
	if one {
		fs.Uint16Var(&a.sourcePort, "source-port", 0, "port of the source (default one that no rule names)")
		fs.IntVar(&a.icmpType, "icmp-type", -1, "type of icmp or icmpv6")
		fs.IntVar(&a.icmpCode, "icmp-code", -1, "code of icmp or icmpv6 (default 0)")
		config.CallOnly(fs, "source-port", "icmp-type", "icmp-code")
	}
}

// check refuses what can't be meant.
func (a *asked) check() error {
	for _, p := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP, v1.ProtocolUDPLite, v1.ProtocolICMP, v1.ProtocolICMPv6} {
		if strings.EqualFold(a.protocol, string(p)) {
			a.number = p.Number()
		}
	}
	if n, err := strconv.ParseUint(a.protocol, 10, 8); err == nil && n > 0 {
		a.number = uint8(n)
	}
	isICMP := a.number == protoICMP || a.number == protoICMPv6
	port, err := strconv.Atoi(a.port)
	switch {
	case a.protocol != "" && a.number == 0:
		return misuse("--protocol %q: it is none of tcp, udp, sctp, udplite, icmp, icmpv6 and no number of 1 to 255", a.protocol)
	case a.port != "" && err == nil && (port < 1 || port > 65535):
		return misuse("--port %s: ports are 1 to 65535", a.port)
	case a.port != "" && err != nil && !namesPort(a.port):
		return misuse("--port %q: it is neither a port nor a port's name", a.port)
	case (a.port != "" || a.sourcePort != 0) && a.number != 0 && !policy.HasPorts(a.number):
		return misuse("--port: protocol %s has no ports", a.protocol)
	case (a.icmpType >= 0 || a.icmpCode >= 0) && !isICMP:
		return misuse("--icmp-type: it takes --protocol icmp or icmpv6")
	case a.icmpType > 255 || a.icmpCode > 255:
		return misuse("--icmp-type, --icmp-code: they are 0 to 255")
	case a.icmpCode >= 0 && a.icmpType < 0:
		return misuse("--icmp-code: it takes --icmp-type")
	case a.ipv4 && a.ipv6:
		return misuse("-4 and -6 exclude each other")
	case a.number == protoICMP && a.ipv6, a.number == protoICMPv6 && a.ipv4:
		return misuse("--protocol %s: it is of the other family; IPv4 has icmp, IPv6 has icmpv6", a.protocol)
	}
	return nil
}

// namesPort says whether a text may be the name of a port (RFC 6335, section 5.1).
func namesPort(text string) bool {
	letters := strings.ContainsFunc(text, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' })
	return letters && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}

// families returns those that are asked for, as what v6 is.
func (a *asked) families() []bool {
	switch {
	case a.ipv4 || a.number == protoICMP:
		return []bool{false}
	case a.ipv6 || a.number == protoICMPv6:
		return []bool{true}
	}
	return []bool{false, true}
}

// single says whether packets of one kind are asked for.
func (a *asked) single() bool {
	return a.port != "" || a.icmpType >= 0 || a.number != 0 && !policy.HasPorts(a.number) && a.number != protoICMP && a.number != protoICMPv6
}

// between returns the packets that are asked for between two addresses, told apart as
// policies of the worlds may tell them apart.
func (a *asked) between(src, dst netip.Addr, worlds ...*policy.World) ([]policy.Traffic, error) {
	var m policy.Mention
	for _, w := range worlds {
		m.Between(w, src, dst)
	}
	all := m.Traffic(src.Is6())
	number, port := a.number, uint16(0)
	if a.port != "" {
		var err error
		if number, port, err = a.portAt(worlds[0], dst); err != nil {
			return nil, err
		}
	}
	if number != 0 {
		rest := all[len(all)-1]
		all = slices.DeleteFunc(all, func(t policy.Traffic) bool { return t.Whole || t.Protocol != number })
		switch {
		case a.single():
			all = []policy.Traffic{{Protocol: number, First: port, Last: port, Source: rest.Source}}
			if a.icmpType >= 0 {
				all[0].ICMP = policy.ICMP{Type: uint8(a.icmpType), Code: uint8(max(a.icmpCode, 0))}
			}
		case len(all) == 0:
			all = []policy.Traffic{{Protocol: number, First: 1, Last: 65535, Source: rest.Source}}
		}
	}
	for i := range all {
		if a.sourcePort != 0 {
			all[i].Source = a.sourcePort
		}
	}
	return all, nil
}

// portAt returns protocol and number of the port that is asked for at an address.
func (a *asked) portAt(w *policy.World, dst netip.Addr) (uint8, uint16, error) {
	number := a.number
	if port, err := strconv.ParseUint(a.port, 10, 16); err == nil {
		if number == 0 {
			number = protoTCP
		}
		return number, uint16(port), nil
	}
	var found []policy.NamedPort
	var names []string
	for _, p := range w.NamedPorts(dst) {
		names = append(names, fmt.Sprintf("%s (%s)", p.Name, policy.Traffic{Protocol: p.Protocol, First: p.Port, Last: p.Port}))
		if p.Name == a.port && (number == 0 || number == p.Protocol) {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 1:
		return found[0].Protocol, found[0].Port, nil
	case len(found) > 1:
		return 0, 0, fmt.Errorf("port %s at %s: it is one of several protocols there: %s; say which by --protocol", a.port, dst, strings.Join(names, ", "))
	case len(names) == 0:
		return 0, 0, fmt.Errorf("port %s at %s: no port has a name there", a.port, dst)
	}
	return 0, 0, fmt.Errorf("port %s at %s: the names there are %s", a.port, dst, strings.Join(names, ", "))
}
