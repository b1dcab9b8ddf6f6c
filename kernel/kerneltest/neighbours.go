package kerneltest

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

// RunEntries runs the suite of neighbours and forwarding entries on VXLAN devices,
// each test on a world of its own.
func RunEntries(t *testing.T, newWorld func(t *testing.T) TunnelWorld) {
	t.Run("neighbours", func(t *testing.T) {
		mac := func(n byte) kernel.MAC { return kernel.MAC{2, 0, 0, 0, 0, n} }
		on := func(link, ip string) kernel.Neighbour {
			return kernel.Neighbour{Link: link, IP: netip.MustParseAddr(ip)}
		}
		runEntries(t, newWorld, entries[kernel.Neighbour, kernel.MAC]{
			table: func(w TunnelWorld) kernel.Table[kernel.Neighbour, kernel.MAC] { return w.Neighbours() },
			told:  func(s *story) map[kernel.Neighbour]*kernel.MAC { return s.neighbours },
			put:   TunnelWorld.PutNeighbour, drop: TunnelWorld.DropNeighbour,
			some: map[kernel.Neighbour]kernel.MAC{
				on(kernel.LinkVXLAN4, "10.244.0.2"):              mac(2),
				on(kernel.LinkVXLAN4, "10.244.9.3"):              mac(3),
				on(kernel.LinkVXLAN6, "fd00:244::2"):             mac(2),
				on(kernel.LinkVXLAN6, "fe80::ff:fe00:3"):         mac(3),
				on(kernel.LinkVXLAN4, "fe80::5054:ff:fe12:3456"): mac(4),
			},
			others: []kernel.MAC{mac(100), mac(101), {0x52, 0x54, 0, 0, 0, 1}},
			bad: map[kernel.Neighbour]kernel.MAC{
				{Link: kernel.LinkVXLAN4}:                mac(1),
				on(kernel.LinkVXLAN4, "10.244.0.9"):      {},
				on(kernel.LinkVXLAN4, "10.244.0.8"):      {1, 0, 0, 0, 0, 1},
				on(kernel.LinkVXLAN4, "224.0.0.9"):       mac(1),
				on(kernel.LinkVXLAN4, "::ffff:10.9.9.9"): mac(1),
			},
			at: func(link string) kernel.Neighbour { return on(link, "10.244.0.2") },
			many: func(i int) (kernel.Neighbour, kernel.MAC) {
				return on(kernel.LinkVXLAN4, fmt.Sprintf("10.%d.%d.1", 100+i/250, i%250)), kernel.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}
			},
			keptWhenDown: false,
		})
	})
	t.Run("forwarding", func(t *testing.T) {
		on := func(link string, n byte) kernel.Forwarding {
			return kernel.Forwarding{Link: link, MAC: kernel.MAC{2, 0, 0, 0, 0, n}}
		}
		node := netip.MustParseAddr
		runEntries(t, newWorld, entries[kernel.Forwarding, netip.Addr]{
			table: func(w TunnelWorld) kernel.Table[kernel.Forwarding, netip.Addr] { return w.Forwarding() },
			told:  func(s *story) map[kernel.Forwarding]*netip.Addr { return s.forwarding },
			put:   TunnelWorld.PutForwarding, drop: TunnelWorld.DropForwarding,
			some: map[kernel.Forwarding]netip.Addr{
				on(kernel.LinkVXLAN4, 2): node("10.0.1.2"),
				on(kernel.LinkVXLAN4, 3): node("10.0.2.3"),
				on(kernel.LinkVXLAN4, 4): node("10.0.2.3"),
			},
			others: []netip.Addr{node("10.0.7.7"), node("192.0.2.1")},
			bad: map[kernel.Forwarding]netip.Addr{
				{Link: kernel.LinkVXLAN4}: node("10.0.1.9"),
				{Link: kernel.LinkVXLAN4, MAC: kernel.MAC{1, 0, 0x5e, 0, 0, 1}}: node("10.0.1.9"),
				on(kernel.LinkVXLAN4, 9):  {},
				on(kernel.LinkVXLAN4, 10): node("0.0.0.0"),
				on(kernel.LinkVXLAN4, 11): node("224.0.0.9"),
				on(kernel.LinkVXLAN4, 12): node("::ffff:10.0.1.9"),
			},
			at: func(link string) kernel.Forwarding { return on(link, 2) },
			many: func(i int) (kernel.Forwarding, netip.Addr) {
				return kernel.Forwarding{Link: kernel.LinkVXLAN4, MAC: kernel.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}},
					netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			},
			keptWhenDown: true,
		})
		t.Run("IPv6", func(t *testing.T) {
			w := newWorld(t)
			bothVXLAN(t, w)
			k4, k6 := on(kernel.LinkVXLAN4, 2), on(kernel.LinkVXLAN6, 2)
			Put(t, w.Forwarding(), map[kernel.Forwarding]netip.Addr{k6: node("fd00:1::2")})
			wantTable(t, "forwarding", w.Forwarding(), map[kernel.Forwarding]netip.Addr{k6: node("fd00:1::2")})
			err := w.Forwarding().Write(t.Context(), map[kernel.Forwarding]netip.Addr{k4: node("fd00:1::2"), k6: node("fd00:1::3")}, nil)
			wantFailures(t, err, "set", map[kernel.Forwarding]error{k4: syscall.EAFNOSUPPORT})
			wantTable(t, "forwarding", w.Forwarding(), map[kernel.Forwarding]netip.Addr{k6: node("fd00:1::3")})
		})
	})
}

// bothVXLAN makes the VXLAN devices of both families.
func bothVXLAN(t testing.TB, w TunnelWorld) {
	for _, d := range devices([]string{kernel.LinkVXLAN4, kernel.LinkVXLAN6}) {
		d.make(t, w)
	}
}

// entries is a table of entries on devices, and what to try with it.
type entries[K, V comparable] struct {
	table        func(TunnelWorld) kernel.Table[K, V]
	told         func(*story) map[K]*V
	put          func(w TunnelWorld, t testing.TB, k K, v V)
	drop         func(w TunnelWorld, t testing.TB, k K)
	some         map[K]V
	others       []V
	bad          map[K]V // which no kernel takes
	at           func(link string) K
	many         func(i int) (K, V)
	keptWhenDown bool
}

func (e entries[K, V]) want(t testing.TB, w TunnelWorld, want map[K]V) {
	t.Helper()
	wantTable(t, "entries", e.table(w), want)
}

func (e entries[K, V]) keys() (keys []K) {
	for k := range e.some {
		keys = append(keys, k)
	}
	return keys
}

func runEntries[K, V comparable](t *testing.T, newWorld func(t *testing.T) TunnelWorld, e entries[K, V]) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, w TunnelWorld)
	}{
		{"read back equal", e.readBack},
		{"replaced", e.replaced},
		{"told as they are written", e.watched},
		{"by another hand", e.byAnotherHand},
		{"bad", e.refused},
		{"without a device of ours", e.noDevice},
		{"with their device", e.withDevice},
		{"many", e.burst},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, newWorld(t)) })
	}
}

func (e entries[K, V]) readBack(t *testing.T, w TunnelWorld) {
	e.want(t, w, map[K]V{})
	bothVXLAN(t, w)
	e.want(t, w, map[K]V{})
	for range 2 {
		Put(t, e.table(w), e.some)
		e.want(t, w, e.some)
	}
	for range 2 { // the second time they are gone already
		Put(t, e.table(w), nil, e.keys()...)
		e.want(t, w, map[K]V{})
	}
}

func (e entries[K, V]) replaced(t *testing.T, w TunnelWorld) {
	bothVXLAN(t, w)
	Put(t, e.table(w), e.some)
	k := e.at(kernel.LinkVXLAN4)
	for _, v := range e.others {
		Put(t, e.table(w), map[K]V{k: v})
		want := map[K]V{}
		for k, v := range e.some {
			want[k] = v
		}
		want[k] = v
		e.want(t, w, want)
	}
}

// wantTold waits until the last word on k is v, nil for gone.
func (e entries[K, V]) wantTold(s *story, k K, v *V) {
	s.t.Helper()
	s.until(fmt.Sprintf("%v", k), func() bool {
		told, ok := e.told(s)[k]
		return ok && (told == nil) == (v == nil) && (v == nil || *told == *v)
	})
}

func (e entries[K, V]) watched(t *testing.T, w TunnelWorld) {
	bothVXLAN(t, w)
	s := watch(t, w)
	s.settled(w)
	for k, v := range e.some {
		s.forget()
		Put(t, e.table(w), map[K]V{k: v})
		e.wantTold(s, k, &v)
		Put(t, e.table(w), map[K]V{k: e.others[0]})
		e.wantTold(s, k, &e.others[0])
		Put(t, e.table(w), nil, k)
		e.wantTold(s, k, nil)
		s.settled(w)
		if len(s.neighbours)+len(s.forwarding) != 1 {
			t.Errorf("told of %v and %v, want %v alone", s.neighbours, s.forwarding, k)
		}
	}
}

func (e entries[K, V]) byAnotherHand(t *testing.T, w TunnelWorld) {
	bothVXLAN(t, w)
	w.AddLink(t, "east")
	w.AddAddr(t, addr("east", "10.0.1.1/24"))
	k := e.at(kernel.LinkVXLAN4)
	Put(t, e.table(w), map[K]V{k: e.some[k]})
	s := watch(t, w)
	s.settled(w)
	s.forget()
	e.drop(w, t, k)
	e.wantTold(s, k, nil)
	e.want(t, w, map[K]V{})
	for _, v := range e.others {
		e.put(w, t, k, v)
		e.wantTold(s, k, &v)
		e.want(t, w, map[K]V{k: v})
	}
	Put(t, e.table(w), map[K]V{k: e.some[k]})
	e.want(t, w, map[K]V{k: e.some[k]})
	s.settled(w)
	s.forget()
	w.SetAlias(t, kernel.LinkVXLAN4, "")
	e.drop(w, t, k)
	s.settled(w)
	if len(e.told(s)) > 0 {
		t.Errorf("told %v of a device that is not ours", e.told(s))
	}
}

func (e entries[K, V]) refused(t *testing.T, w TunnelWorld) {
	bothVXLAN(t, w)
	set, want := make(map[K]V), make(map[K]error)
	for k, v := range e.bad {
		set[k], want[k] = v, syscall.EINVAL
	}
	for k, v := range e.some {
		set[k] = v
	}
	wantFailures(t, e.table(w).Write(t.Context(), set, nil), "set", want)
	e.want(t, w, e.some)
}

// noDevice writes to a device that isn't there, and to another's.
func (e entries[K, V]) noDevice(t *testing.T, w TunnelWorld) {
	gone, foreign := e.at(kernel.LinkVXLAN6), e.at(kernel.LinkVXLAN4)
	v := e.some[foreign]
	d := devices([]string{kernel.LinkVXLAN4})[0]
	w.AddTunnel(t, d.link, d.as)
	e.put(w, t, foreign, v)
	e.want(t, w, map[K]V{})
	err := e.table(w).Write(t.Context(), map[K]V{gone: v, foreign: e.others[0]}, nil)
	wantFailures(t, err, "set", map[K]error{gone: syscall.ENODEV, foreign: kernel.ErrForeign})
	Put(t, e.table(w), nil, gone, foreign)
	w.SetAlias(t, d.link, kernel.TunnelAlias)
	e.want(t, w, map[K]V{foreign: v})
}

// withDevice checks that entries go with their device, each with a word.
func (e entries[K, V]) withDevice(t *testing.T, w TunnelWorld) {
	bothVXLAN(t, w)
	d := devices([]string{kernel.LinkVXLAN4})[0]
	k := e.at(d.link)
	v := e.some[k]
	s := watch(t, w)
	for _, change := range []struct {
		name string
		do   func()
		kept bool
	}{
		{"MTU", func() { Put(t, w.Tunnels(), d.set(d.inPlace[0])) }, true},
		{"offload", func() { Put(t, w.Tunnels(), d.set(d.inPlace[3])) }, true},
		{"MAC", func() { Put(t, w.Tunnels(), d.set(d.inPlace[2])) }, e.keptWhenDown},
		{"down", func() { w.SetUp(t, d.link, false) }, e.keptWhenDown},
		{"anew", func() { Put(t, w.Tunnels(), d.set(d.anew[0])) }, false},
		{"deleted", func() { Put(t, w.Tunnels(), nil, d.link) }, false},
	} {
		d.make(t, w)
		Put(t, e.table(w), map[K]V{k: v})
		s.settled(w)
		s.forget()
		change.do()
		if change.kept {
			e.want(t, w, map[K]V{k: v})
			continue
		}
		e.want(t, w, map[K]V{})
		e.wantTold(s, k, nil)
	}
}

func (e entries[K, V]) burst(t *testing.T, w TunnelWorld) {
	bothVXLAN(t, w)
	s := watch(t, w)
	s.settled(w)
	s.forget()
	set := make(map[K]V)
	var keys []K
	for i := range 2000 {
		k, v := e.many(i)
		set[k] = v
		keys = append(keys, k)
	}
	Put(t, e.table(w), set)
	e.want(t, w, set)
	s.until("all of them", func() bool { return len(e.told(s)) == len(set) })
	if s.told > len(set)/4 {
		t.Errorf("%d entries were told by %d events, want far fewer", len(set), s.told)
	}
	Put(t, e.table(w), nil, keys...)
	e.want(t, w, map[K]V{})
}
