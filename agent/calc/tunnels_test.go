package calc

import (
	"net/netip"
	"slices"
	"testing"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

func TestBefore(t *testing.T) {
	for _, test := range []struct {
		release string
		want    bool
	}{
		{"", false},
		{"5", false},
		{"unknown-kernel", false},
		{"4.19.0-27-amd64", true},
		{"5.6.19", true},
		{"5.6-rc1", true},
		{"5.7.0", false},
		{"5.10.0-33-amd64", false},
		{"6.1.0-41-amd64", false},
	} {
		if got := before(test.release, 5, 7); got != test.want {
			t.Errorf("%q before 5.7: %t, want %t", test.release, got, test.want)
		}
	}
}

func TestHardwareAddress(t *testing.T) {
	seen := map[kernel.MAC]bool{}
	for _, node := range []string{"", "n1", "n2", "n3", "n4", "n5", "n6", "n7"} {
		for _, link := range []string{kernel.LinkVXLAN4, kernel.LinkVXLAN6} {
			m := hardwareAddress(node, link)
			if m != hardwareAddress(node, link) || seen[m] || m[0]&3 != 2 {
				t.Errorf("%s on %s: %s is not its own, unicast and locally administered", node, link, m)
			}
			seen[m] = true
		}
	}
}

func TestGateway(t *testing.T) {
	mac := kernel.MAC{0x66, 1, 2, 3, 4, 0xfe}
	for _, test := range []struct{ addr, want string }{
		{"10.1.0.1", "10.1.0.1"},
		{"fd00::1", "fe80::6401:2ff:fe03:4fe"}, // what the kernel gives a link with this hardware address
	} {
		if got := (vtep{netip.MustParseAddr(test.addr), mac}).gateway(); got.String() != test.want {
			t.Errorf("gateway of %s is %s, want %s", test.addr, got, test.want)
		}
	}
}

func TestLessened(t *testing.T) {
	for _, test := range []struct {
		name          string
		mtu, overhead int
		with6         bool
		want          int
	}{
		{"no tunnel", 1500, 0, true, 1500},
		{"IPv4", 1500, 50, false, 1450},
		{"IPv6 just fits", 1350, 70, true, 1280},
		{"IPv6 does not fit", 1349, 70, true, 1280},
		{"IPv4 needs no more", 1349, 70, false, 1279},
		{"the link carries no more itself", 1200, 70, true, 1200},
		{"least of IPv4", 100, 50, false, 68},
	} {
		if got := lessened(test.mtu, test.overhead, test.with6); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

func TestPoolOf(t *testing.T) {
	ps := &pools{byCIDR: map[netip.Prefix]*pool{}}
	for _, cidr := range []string{"10.1.0.0/16", "10.2.0.0/26", "10.3.0.1/32", "fd00::/64", "fd01::1/128"} {
		o := &v1.IPPool{Spec: v1.IPPoolSpec{CIDR: cidr}}
		o.Name = cidr
		o.Default()
		ps.add(o)
	}
	if len(ps.issues) > 0 {
		t.Fatal(ps.issues)
	}
	for of, want := range map[string]string{
		"10.1.0.0/16":     "10.1.0.0/16",
		"10.1.255.192/26": "10.1.0.0/16",
		"10.1.0.0/15":     "",
		"10.0.0.0/8":      "",
		"10.2.0.0/26":     "10.2.0.0/26",
		"10.2.0.63/32":    "10.2.0.0/26",
		"10.2.0.64/32":    "",
		"10.3.0.1/32":     "10.3.0.1/32",
		"10.3.0.0/31":     "",
		"fd00::40/122":    "fd00::/64",
		"fd01::1/128":     "fd01::1/128",
		"fd01::/122":      "",
		"::/0":            "",
	} {
		name := ""
		if p := ps.of(netip.MustParsePrefix(of)); p != nil {
			name = p.name
		}
		if name != want {
			t.Errorf("pool of %s is %q, want %q", of, name, want)
		}
	}
}

// TestOneChange holds that one node's change touches what is about that node
// only: everything else in the State is shared with the earlier one.
func TestOneChange(t *testing.T) {
	node := nodeObject(1)
	node.Spec.VXLANTunnelMACAddr = "66:00:00:00:ff:ff"
	in := mirrored(t, overlay(50, 200, true), node)
	var c Calculator
	was, is := c.Desired(in[0]), c.Desired(in[1])
	for name, got := range map[string]int{
		"neighbours": changed(was.Neighbours, is.Neighbours),
		"forwarding": changed(was.Forwarding, is.Forwarding) - 1, // the old and the new hardware address
	} {
		if got != 1 {
			t.Errorf("%d %s changed, want 1", got, name)
		}
	}
	if was.Routes != is.Routes || was.Peers != is.Peers || was.Elements != is.Elements || was.Tunnels != is.Tunnels || was.Sysctls != is.Sysctls {
		t.Error("what a hardware address does not concern was made anew")
	}
	node = nodeObject(1)
	node.Spec.BGP.IPv4Address = "172.18.0.1/16"
	in = mirrored(t, overlay(50, 200, true), node)
	was, is = c.Desired(in[0]), c.Desired(in[1])
	for name, got := range map[string]int{
		"forwarding": changed(was.Forwarding, is.Forwarding),
		"peers":      changed(was.Peers, is.Peers) - 1, // the old and the new address
		"elements":   changed(was.Elements, is.Elements) - 1,
	} {
		if got != 1 {
			t.Errorf("%d %s changed, want 1", got, name)
		}
	}
	if was.Routes != is.Routes || was.Neighbours != is.Neighbours {
		t.Error("what a node's address does not concern was made anew")
	}
}

func changed[K, V comparable](a, b immutable.Map[K, V]) int {
	return len(slices.Collect(immutable.Diff(a, b)))
}
