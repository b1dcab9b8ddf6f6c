//go:build linux

package linux

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	vishnet "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// connections is the table of connections of a world.
type connections struct {
	t testing.TB
	*vishnet.Handle
}

func (w *world) connections(t testing.TB) connections {
	h, err := vishnet.NewHandleAt(netns.NsHandle(w.netns.Fd()), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return connections{t, h}
}

// add makes a TCP connection: the original's source and destination, and the
// reply's.
func (c connections) add(port uint16, source, destination, replySource, replyDestination string) {
	c.t.Helper()
	fam := vishnet.InetFamily(family(netip.MustParseAddr(source)))
	ip := func(s string) net.IP { return netip.MustParseAddr(s).AsSlice() }
	tuple := func(from, to string, fromPort, toPort uint16) vishnet.IPTuple {
		return vishnet.IPTuple{SrcIP: ip(from), DstIP: ip(to), SrcPort: fromPort, DstPort: toPort, Protocol: unix.IPPROTO_TCP}
	}
	flow := &vishnet.ConntrackFlow{
		FamilyType: uint8(fam), TimeOut: 1000,
		Forward:   tuple(source, destination, port, 80),
		Reverse:   tuple(replySource, replyDestination, 80, port),
		ProtoInfo: &vishnet.ProtoInfoTCP{State: 3},
	}
	if err := c.ConntrackCreate(vishnet.ConntrackTable, fam, flow); err != nil {
		c.t.Fatalf("make connection %s to %s: %v", source, destination, err)
	}
}

// ports returns the source ports of all connections.
func (c connections) ports() []uint16 {
	c.t.Helper()
	var ports []uint16
	for _, fam := range []vishnet.InetFamily{unix.AF_INET, unix.AF_INET6} {
		flows, err := c.ConntrackTableList(vishnet.ConntrackTable, fam)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, f := range flows {
			ports = append(ports, f.Forward.SrcPort)
		}
	}
	slices.Sort(ports)
	return ports
}

func TestFlush(t *testing.T) {
	w := newWorld(t)
	table := w.connections(t)
	table.add(1, "10.9.0.7", "10.9.0.8", "10.9.0.8", "10.9.0.7")     // from it
	table.add(2, "10.9.0.8", "10.9.0.7", "10.9.0.7", "10.9.0.8")     // to it
	table.add(3, "10.9.0.8", "10.96.0.1", "10.9.0.7", "10.9.0.8")    // to a service that is it
	table.add(4, "192.0.2.1", "192.0.2.2", "192.0.2.2", "10.9.0.7")  // replies go to it
	table.add(5, "10.9.0.8", "10.9.0.70", "10.9.0.70", "10.9.0.8")   // others
	table.add(6, "10.9.0.9", "10.96.0.1", "10.9.0.8", "10.9.0.9")    // others, by NAT
	table.add(7, "fd00:9::7", "fd00:9::8", "fd00:9::8", "fd00:9::7") // IPv6
	table.add(8, "fd00:9::8", "fd00:9::9", "fd00:9::9", "fd00:9::8")

	for _, step := range []struct {
		flush string
		want  []uint16
	}{
		{"10.9.0.200", []uint16{1, 2, 3, 4, 5, 6, 7, 8}},
		{"10.9.0.7", []uint16{5, 6, 7, 8}},
		{"10.9.0.7", []uint16{5, 6, 7, 8}},
		{"fd00:9::7", []uint16{5, 6, 8}},
		{"::ffff:10.9.0.70", []uint16{6, 8}},
	} {
		if err := w.Flush(t.Context(), netip.MustParseAddr(step.flush)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, table.ports()); diff != "" {
			t.Errorf("after flush of %s (-want +got):\n%s", step.flush, diff)
		}
	}
}

func TestFlushManyAddresses(t *testing.T) {
	w := newWorld(t)
	table := w.connections(t)
	var addrs []netip.Addr
	for i := range uint16(10) {
		a, b := netip.AddrFrom4([4]byte{10, 9, 0, byte(10 + i)}), netip.AddrFrom4([4]byte{10, 9, 1, byte(i)})
		table.add(100+i, a.String(), "10.9.2.1", "10.9.2.1", a.String())
		table.add(200+i, "10.9.2.1", "10.96.0.1", b.String(), "10.9.2.1")
		addrs = append(addrs, a, b)
	}
	table.add(1, "10.9.2.1", "10.9.2.2", "10.9.2.2", "10.9.2.1")
	table.add(2, "fd00:9::7", "fd00:9::8", "fd00:9::8", "fd00:9::7")
	table.add(3, "fd00:9::9", "fd00:9::8", "fd00:9::8", "fd00:9::9")
	if err := w.Flush(t.Context(), append(addrs, netip.MustParseAddr("fd00:9::7"))...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint16{1, 3}, table.ports()); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Errorf("flush of nothing: %v", err)
	}
}

func TestFlushMany(t *testing.T) {
	w := newWorld(t)
	table := w.connections(t)
	for port := range uint16(1000) {
		table.add(1000+port, "10.9.0.7", "10.9.0.8", "10.9.0.8", "10.9.0.7")
	}
	table.add(1, "10.9.0.9", "10.9.0.8", "10.9.0.8", "10.9.0.9")
	if err := w.Flush(t.Context(), netip.MustParseAddr("10.9.0.7")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint16{1}, table.ports()); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

var _ kernel.Conntrack = conntrack{}
