package kernel_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/kernel"
)

func TestDisplaced(t *testing.T) {
	in := func(set, prefix string) kernel.Element {
		return kernel.Element{Set: set, Prefix: netip.MustParsePrefix(prefix)}
	}
	ports := func(first, last uint16) kernel.Element { return kernel.Element{Set: "p", Port: first, LastPort: last} }
	byOthers := in("a", "10.0.0.5/32").To(netip.MustParseAddr("10.0.0.9"))
	service := in("s", "10.0.0.1/32")
	service.Protocol, service.Port = kernel.ProtoUDP, 53
	moved := service
	moved.Port = 5353
	for _, tt := range []struct {
		name                string
		coming, going, want []kernel.Element
	}{
		{name: "nothing"},
		{name: "nothing comes", going: []kernel.Element{in("a", "10.0.0.0/8")}},
		{name: "wider", coming: []kernel.Element{in("a", "0.0.0.0/1")}, going: []kernel.Element{in("a", "10.0.0.0/8"), in("a", "192.0.2.0/24")},
			want: []kernel.Element{in("a", "10.0.0.0/8")}},
		{name: "narrower", coming: []kernel.Element{in("a", "10.0.0.0/9"), in("a", "10.200.0.0/16")}, going: []kernel.Element{in("a", "10.0.0.0/8")},
			want: []kernel.Element{in("a", "10.0.0.0/8")}},
		{name: "one for many", coming: []kernel.Element{in("a", "2001:db8::/32")},
			going: []kernel.Element{in("a", "2001:db8::/48"), in("a", "2001:db8:1::/48"), in("a", "2001:db9::/48")},
			want:  []kernel.Element{in("a", "2001:db8::/48"), in("a", "2001:db8:1::/48")}},
		{name: "beside each other", coming: []kernel.Element{in("a", "10.0.1.0/24")}, going: []kernel.Element{in("a", "10.0.0.0/24"), in("a", "10.0.2.0/24")}},
		{name: "another set", coming: []kernel.Element{in("a", "10.0.0.0/8")}, going: []kernel.Element{in("b", "10.0.0.0/9")}},
		{name: "ports", coming: []kernel.Element{ports(100, 200)}, going: []kernel.Element{ports(80, 0), ports(200, 0), ports(201, 300)},
			want: []kernel.Element{ports(200, 0)}},
		{name: "a range of another hand", coming: []kernel.Element{in("a", "10.0.0.8/29")}, going: []kernel.Element{byOthers}, want: []kernel.Element{byOthers}},
		{name: "concatenated", coming: []kernel.Element{moved}, going: []kernel.Element{service}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			coming := map[kernel.Element]struct{}{}
			for _, e := range tt.coming {
				coming[e] = struct{}{}
			}
			got := kernel.Displaced(coming, tt.going)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(kernel.Element{}), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
