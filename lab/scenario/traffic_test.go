package scenario

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/lab/probe"
)

func TestParseTraffic(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []line
		fails      bool
	}{
		{name: "one", text: "default/a shop/b tcp:80 pass\n", want: []line{
			{from: "default/a", to: "shop/b", what: []string{"tcp:80"}, expect: probe.ExpectPass}}},
		{name: "several, a family, comments", text: "# all of them\n\na 192.0.2.1 icmp udp:53 ipv4 none # denied\nn1 a tcp:1 pass", want: []line{
			{from: "a", to: "192.0.2.1", what: []string{"icmp", "udp:53"}, family: "ipv4", expect: probe.ExpectNone},
			{from: "n1", to: "a", what: []string{"tcp:1"}, expect: probe.ExpectPass}}},
		{name: "nothing", text: "# nothing\n", fails: true},
		{name: "no protocol", text: "a b pass", fails: true},
		{name: "no end", text: "a b tcp:80 udp:80", fails: true},
		{name: "an end of another command", text: "a b tcp:80 unrefused", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTraffic(tt.text)
			if (err != nil) != tt.fails {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(line{}), cmpopts.IgnoreFields(line{}, "text")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExchange(t *testing.T) {
	const four, six = "192.0.2.1", "2001:db8::1"
	for _, tt := range []struct {
		name, what, addr string
		want             probe.Exchange
		none, fails      bool
	}{
		{name: "tcp", what: "tcp:80", addr: four, want: probe.Exchange{Protocol: probe.TCP, Addr: netip.MustParseAddrPort("192.0.2.1:80")}},
		{name: "udp over IPv6", what: "udp:53", addr: six, want: probe.Exchange{Protocol: probe.UDP, Addr: netip.MustParseAddrPort("[2001:db8::1]:53")}},
		{name: "ping", what: "icmp", addr: four, want: probe.Exchange{Protocol: probe.ICMP, Addr: netip.MustParseAddrPort("192.0.2.1:0"), Type: 8}},
		{name: "ping over IPv6", what: "icmp", addr: six, want: probe.Exchange{Protocol: probe.ICMP, Addr: netip.MustParseAddrPort("[2001:db8::1]:0"), Type: 128}},
		{name: "a type", what: "icmp:13", addr: four, want: probe.Exchange{Protocol: probe.ICMP, Addr: netip.MustParseAddrPort("192.0.2.1:0"), Type: 13}},
		{name: "a type of the other family", what: "icmp:13", addr: six, none: true},
		{name: "no port", what: "tcp", addr: four, fails: true},
		{name: "unknown", what: "gre", addr: four, fails: true},
		{name: "no type", what: "icmp:256", addr: four, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok, err := exchange(tt.what, netip.MustParseAddr(tt.addr))
			if (err != nil) != tt.fails || ok != !(tt.none || tt.fails) {
				t.Fatal(ok, err)
			}
			if !ok {
				return
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
