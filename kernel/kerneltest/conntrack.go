package kerneltest

import (
	"cmp"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/kernel"
)

// ConntrackWorld is a host of its own that tracks no connection yet.
type ConntrackWorld interface {
	kernel.Conntrack
	// Connect puts an entry into the table of connections; its ID is the kernel's.
	Connect(t testing.TB, c kernel.Connection)
}

// RunConntrack runs the suite of the table of connections.
func RunConntrack(t *testing.T, newWorld func(t *testing.T) ConntrackWorld) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, ConntrackWorld)
	}{
		{"what is listed", listsAll},
		{"of which addresses", listsByAddress},
		{"many addresses", listsManyAddresses},
		{"it ends early", listEndsEarly},
		{"what is deleted", deletesExactly},
		{"what is flushed", flushes},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, newWorld(t)) })
	}
}

// connection returns one of this protocol between these addresses, of a port.
func connection(protocol uint8, src, dst string, port uint16) kernel.Connection {
	o := kernel.Tuple{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: protocol}
	r := kernel.Tuple{Src: o.Dst, Dst: o.Src, Protocol: protocol}
	switch protocol {
	case kernel.ProtoICMP:
		o.ICMPType, o.ICMPID = 8, port
		r.ICMPType, r.ICMPID = 0, port
	case kernel.ProtoICMPv6:
		o.ICMPType, o.ICMPID = 128, port
		r.ICMPType, r.ICMPID = 129, port
	default:
		o.SrcPort, o.DstPort = port, 80
		r.SrcPort, r.DstPort = 80, port
	}
	return kernel.Connection{Original: o, Reply: r}
}

// toService returns a connection to a Service's address that leads to another.
func toService(src, service, real string, port uint16) kernel.Connection {
	c := connection(kernel.ProtoTCP, src, service, port)
	c.DstTranslated = true
	c.Reply.Src, c.Reply.SrcPort = netip.MustParseAddr(real), 8080
	return c
}

// masqueraded returns a connection whose source is translated.
func masqueraded(src, dst, as string, port uint16) kernel.Connection {
	c := connection(kernel.ProtoTCP, src, dst, port)
	c.SrcTranslated = true
	c.Reply.Dst, c.Reply.DstPort = netip.MustParseAddr(as), 4000
	return c
}

func listed(t *testing.T, w ConntrackWorld, addrs ...string) []kernel.Connection {
	t.Helper()
	var of []netip.Addr
	for _, a := range addrs {
		of = append(of, netip.MustParseAddr(a))
	}
	var got []kernel.Connection
	if err := w.List(t.Context(), func(c kernel.Connection) bool { got = append(got, c); return true }, of...); err != nil {
		t.Fatal(err)
	}
	return got
}

func wantConnections(t *testing.T, what string, got []kernel.Connection, want ...kernel.Connection) {
	t.Helper()
	order := func(a, b kernel.Connection) int {
		return cmp.Or(a.Original.Src.Compare(b.Original.Src), a.Original.Dst.Compare(b.Original.Dst),
			cmp.Compare(a.Original.Protocol, b.Original.Protocol), cmp.Compare(a.Original.SrcPort, b.Original.SrcPort), cmp.Compare(a.Zone, b.Zone))
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	compare := []gocmp.Option{
		cmpopts.IgnoreFields(kernel.Connection{}, "ID"), cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}),
	}
	if d := gocmp.Diff(want, got, compare...); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func listsAll(t *testing.T, w ConntrackWorld) {
	wantConnections(t, "at first", listed(t, w))
	zoned := connection(kernel.ProtoUDP, "10.9.0.7", "10.9.0.8", 4)
	zoned.Zone = 7
	all := []kernel.Connection{
		connection(kernel.ProtoTCP, "10.9.0.7", "10.9.0.8", 1), connection(kernel.ProtoTCP, "fd00:9::7", "fd00:9::8", 1),
		connection(kernel.ProtoUDP, "10.9.0.7", "10.9.0.8", 4), connection(kernel.ProtoUDP, "fd00:9::7", "fd00:9::8", 2), zoned,
		connection(kernel.ProtoICMP, "10.9.0.7", "10.9.0.8", 3), connection(kernel.ProtoICMPv6, "fd00:9::7", "fd00:9::8", 3),
		toService("10.9.0.7", "10.96.0.1", "10.9.0.9", 5), toService("fd00:9::7", "fd00:96::1", "fd00:9::9", 5),
		masqueraded("10.9.0.7", "192.0.2.1", "192.0.2.7", 6), masqueraded("fd00:9::7", "2001:db8::1", "2001:db8::7", 6),
	}
	for _, c := range all {
		w.Connect(t, c)
	}
	got := listed(t, w)
	for _, c := range got {
		if c.ID == 0 {
			t.Errorf("%v has no ID", c)
		}
	}
	wantConnections(t, "all", got, all...)
	for _, c := range got {
		if err := w.Delete(t.Context(), []kernel.Connection{c}); err != nil {
			t.Errorf("delete %v: %v", c, err)
		}
	}
	wantConnections(t, "after each was deleted", listed(t, w))
}

func listsByAddress(t *testing.T, w ConntrackWorld) {
	from, to := connection(kernel.ProtoTCP, "10.9.0.7", "10.9.0.8", 1), connection(kernel.ProtoTCP, "10.9.0.8", "10.9.0.7", 2)
	service, other := toService("10.9.0.8", "10.96.0.1", "10.9.0.7", 3), connection(kernel.ProtoTCP, "10.9.0.8", "10.9.0.70", 4)
	natted := masqueraded("10.9.0.8", "192.0.2.1", "192.0.2.7", 5)
	six, service6 := connection(kernel.ProtoUDP, "fd00:9::7", "fd00:9::8", 6), toService("fd00:9::8", "fd00:96::1", "fd00:9::7", 7)
	for _, c := range []kernel.Connection{from, to, service, other, natted, six, service6} {
		w.Connect(t, c)
	}
	for _, tt := range []struct {
		addrs []string
		want  []kernel.Connection
	}{
		{[]string{"10.9.0.200"}, nil},
		{[]string{"10.9.0.7"}, []kernel.Connection{from, to, service}},
		{[]string{"10.96.0.1"}, []kernel.Connection{service}},
		{[]string{"192.0.2.7"}, []kernel.Connection{natted}},
		{[]string{"::ffff:10.9.0.70"}, []kernel.Connection{other}},
		{[]string{"fd00:9::7"}, []kernel.Connection{six, service6}},
		{[]string{"10.9.0.7", "10.9.0.8"}, []kernel.Connection{from, to, service, other, natted}},
		{[]string{"10.9.0.7", "10.9.0.7", "fd00:9::8"}, []kernel.Connection{from, to, service, six, service6}},
	} {
		got := listed(t, w, tt.addrs...)
		wantConnections(t, "of "+tt.addrs[0], got, tt.want...)
	}
}

func listsManyAddresses(t *testing.T, w ConntrackWorld) {
	var addrs []string
	var want []kernel.Connection
	for i := range byte(5) {
		a, b := netip.AddrFrom4([4]byte{10, 9, 0, 10 + i}).String(), netip.AddrFrom4([4]byte{10, 9, 1, i}).String()
		mine, another := connection(kernel.ProtoTCP, a, "10.9.2.1", 1), toService("10.9.2.1", "10.96.0.1", b, 100+uint16(i))
		want = append(want, mine, another)
		addrs = append(addrs, a, b)
	}
	for _, c := range append([]kernel.Connection{
		connection(kernel.ProtoTCP, "10.9.2.1", "10.9.2.2", 1), connection(kernel.ProtoTCP, "fd00:9::7", "fd00:9::8", 2),
	}, want...) {
		w.Connect(t, c)
	}
	wantConnections(t, "of many", listed(t, w, addrs...), want...)
}

func listEndsEarly(t *testing.T, w ConntrackWorld) {
	for port := range uint16(5) {
		w.Connect(t, connection(kernel.ProtoTCP, "10.9.0.7", "10.9.0.8", 1+port))
		w.Connect(t, connection(kernel.ProtoTCP, "fd00:9::7", "fd00:9::8", 1+port))
	}
	seen := 0
	if err := w.List(t.Context(), func(kernel.Connection) bool { seen++; return seen < 3 }); err != nil || seen != 3 {
		t.Errorf("told %d, %v, want 3", seen, err)
	}
}

func deletesExactly(t *testing.T, w ConntrackWorld) {
	first, second := connection(kernel.ProtoTCP, "10.9.0.7", "10.9.0.8", 1), connection(kernel.ProtoTCP, "10.9.0.7", "10.9.0.8", 2)
	zoned := first
	zoned.Zone = 7
	for _, c := range []kernel.Connection{first, second, zoned} {
		w.Connect(t, c)
	}
	var found kernel.Connection
	for _, c := range listed(t, w) {
		if c.Original == first.Original && c.Zone == 0 {
			found = c
		}
	}
	if err := w.Delete(t.Context(), nil); err != nil {
		t.Errorf("delete nothing: %v", err)
	}
	another := found
	another.ID++
	if err := w.Delete(t.Context(), []kernel.Connection{another}); err != nil {
		t.Errorf("delete what has a successor: %v", err)
	}
	wantConnections(t, "after the delete of another's", listed(t, w), first, second, zoned)
	if err := w.Delete(t.Context(), []kernel.Connection{found, found}); err != nil {
		t.Error(err)
	}
	wantConnections(t, "after the delete", listed(t, w), second, zoned)
	if err := w.Delete(t.Context(), []kernel.Connection{found}); err != nil {
		t.Errorf("again: %v", err)
	}
}

func flushes(t *testing.T, w ConntrackWorld) {
	of, other := toService("10.9.0.8", "10.96.0.1", "10.9.0.7", 3), connection(kernel.ProtoTCP, "10.9.0.8", "10.9.0.70", 4)
	for _, c := range []kernel.Connection{of, other} {
		w.Connect(t, c)
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Errorf("flush nothing: %v", err)
	}
	wantConnections(t, "after the flush of nothing", listed(t, w), of, other)
	if err := w.Flush(t.Context(), netip.MustParseAddr("::ffff:10.9.0.7")); err != nil {
		t.Error(err)
	}
	wantConnections(t, "after the flush", listed(t, w), other)
}
