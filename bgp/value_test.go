package bgp_test

import (
	"net/netip"
	"testing"

	"cairn.network/cairn/bgp"
)

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestPrefixSetIsCanonical(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b []netip.Prefix
		same bool
	}{
		{"zero", nil, prefixes(), true},
		{"one", prefixes("10.0.0.0/8"), prefixes("10.0.0.0/8"), true},
		{"equal but distinct", prefixes("10.0.0.0/8", "fd00::/16", "10.0.0.0/8"), prefixes("fd00:0::1/16", "10.1.2.3/8"), true},
		{"another length", prefixes("10.0.0.0/8"), prefixes("10.0.0.0/9"), false},
		{"another family", prefixes("0.0.0.0/0"), prefixes("::/0"), false},
	} {
		if got := bgp.Prefixes(c.a...) == bgp.Prefixes(c.b...); got != c.same {
			t.Errorf("%s: same is %v", c.name, got)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		name string
		set  []netip.Prefix
		p    string
		want bool
	}{
		{"zero", nil, "10.0.0.0/26", false},
		{"the same", prefixes("10.0.0.0/26"), "10.0.0.0/26", true},
		{"inside", prefixes("10.0.0.0/26"), "10.0.0.0/27", true},
		{"last inside", prefixes("10.0.0.0/26"), "10.0.0.63/32", true},
		{"first outside", prefixes("10.0.0.0/26"), "10.0.0.64/32", false},
		{"around", prefixes("10.0.0.0/26"), "10.0.0.0/25", false},
		{"default route of the other family", prefixes("0.0.0.0/0"), "fd00::/64", false},
		{"IPv6", prefixes("10.0.0.0/8", "fd00::/16"), "fd00:1::/122", true},
	} {
		if got := bgp.Prefixes(c.set...).Covers(netip.MustParsePrefix(c.p)); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestNotification(t *testing.T) {
	for n, want := range map[bgp.Notification]string{
		{2, 2}:                                 "Bad Peer AS (OPEN Message Error)",
		{4, 0}:                                 "Hold Timer Expired",
		{6, 3}:                                 "Peer De-configured (Cease)",
		{6, 0}:                                 "Cease",
		{2, 5}:                                 "subcode 5 (OPEN Message Error)",
		{6, 99}:                                "subcode 99 (Cease)",
		{99, 1}:                                "error 99, subcode 1",
		{Code: bgp.BadPeerAS.Code, Subcode: 6}: "Unacceptable Hold Time (OPEN Message Error)",
	} {
		if got := n.String(); got != want {
			t.Errorf("%d/%d: got %q, want %q", n.Code, n.Subcode, got, want)
		}
	}
}

func TestCommunities(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // "": an error
	}{
		{"64512:1", "64512:1"},
		{"65535:65535 0:0 65535:65535", "0:0 65535:65535"},
		{"64512", ""}, {"65536:1", ""}, {"1:65536", ""}, {"a:b", ""}, {"1:2:3", ""},
	} {
		cs, err := bgp.ParseCommunities(c.text)
		if got := bgp.Communities(cs...); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q: got %q, %v", c.text, got, err)
		}
	}
	if cs, err := bgp.ParseCommunities(""); len(cs) != 0 || err != nil {
		t.Errorf("none: got %v, %v", cs, err)
	}
}
