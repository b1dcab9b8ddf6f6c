package kerneltest

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
)

// TunnelWorld is a host of its own with what hangs on tunnel devices, and what its
// administrator may do to them.
type TunnelWorld interface {
	World
	Tunnels() kernel.Table[string, kernel.Tunnel]
	Addrs() kernel.Table[kernel.Addr, struct{}]
	Neighbours() kernel.Table[kernel.Neighbour, kernel.MAC]
	Forwarding() kernel.Table[kernel.Forwarding, netip.Addr]

	// AddTunnel makes a device without alias.
	AddTunnel(t testing.TB, name string, tunnel kernel.Tunnel)
	// ChangeTunnel changes MTU, MAC address and checksum offload of a device.
	ChangeTunnel(t testing.TB, name string, tunnel kernel.Tunnel)
	SetAlias(t testing.TB, name, alias string)
	// PutNeighbour and the like do what "ip neigh replace", "ip neigh del", "bridge
	// fdb replace" and "bridge fdb del" do.
	PutNeighbour(t testing.TB, n kernel.Neighbour, mac kernel.MAC)
	DropNeighbour(t testing.TB, n kernel.Neighbour)
	PutForwarding(t testing.TB, f kernel.Forwarding, node netip.Addr)
	DropForwarding(t testing.TB, f kernel.Forwarding)
}

// device is a tunnel device to test with.
type device struct {
	link string
	as   kernel.Tunnel
	// inPlace and anew are what it may become, the first without being made anew.
	inPlace, anew []kernel.Tunnel
	addrs         []string
	routes        []string // over the device, as far as it has addresses
}

// devices returns one for each name.
func devices(links []string) []device {
	vxlan := func(local string) kernel.Tunnel {
		return kernel.Tunnel{
			Kind: kernel.VXLAN, MTU: 1430, VNI: 4096, Port: 4789, Local: netip.MustParseAddr(local),
			MAC: kernel.MAC{2, 0x11, 0x22, 0x33, 0x44, 0x55},
		}
	}
	// with returns t changed in each way.
	with := func(t kernel.Tunnel, changes ...func(*kernel.Tunnel)) (all []kernel.Tunnel) {
		for _, change := range changes {
			next := t
			change(&next)
			all = append(all, next)
		}
		return all
	}
	mtu := func(t *kernel.Tunnel) { t.MTU = 1300 }
	jumbo := func(t *kernel.Tunnel) { t.MTU = 8900 }
	mac := func(t *kernel.Tunnel) { t.MAC = kernel.MAC{2, 9, 9, 9, 9, 9} }
	offload := func(t *kernel.Tunnel) { t.NoChecksumOffload = true }
	all := func(t *kernel.Tunnel) { t.MTU, t.MAC, t.NoChecksumOffload = 1400, kernel.MAC{2, 8, 8, 8, 8, 8}, true }
	vni := func(t *kernel.Tunnel) { t.VNI = 1<<24 - 1 }
	port := func(t *kernel.Tunnel) { t.Port = 8472 }
	local := func(t *kernel.Tunnel) { t.Local = t.Local.Next() }

	v4, v6 := vxlan("10.0.1.1"), vxlan("fd00:1::1")
	ipip := kernel.Tunnel{Kind: kernel.IPIP, MTU: 1460}
	wireguard := kernel.Tunnel{Kind: kernel.WireGuard, MTU: 1420, Port: 51820}
	of := map[string]device{
		kernel.LinkVXLAN4: {
			as: v4, inPlace: with(v4, mtu, jumbo, mac, offload, all), anew: with(v4, vni, port, local),
			addrs: []string{"10.244.0.1/32", "10.244.9.1/32"}, routes: []string{"10.244.7.0/26"},
		},
		kernel.LinkVXLAN6: {
			as: v6, inPlace: with(v6, mtu, jumbo, mac, offload, all), anew: with(v6, vni, port, local),
			addrs: []string{"fd00:244::1/128"}, routes: []string{"fd00:244::40/122"},
		},
		kernel.LinkIPIP: {
			as: ipip, inPlace: with(ipip, mtu, jumbo),
			addrs: []string{"10.244.0.1/32"}, routes: []string{"10.244.7.0/26"},
		},
		kernel.LinkWireGuard: {
			as: wireguard, inPlace: with(wireguard, mtu, jumbo, port),
			addrs: []string{"10.244.0.1/32", "fd00:244::1/128"}, routes: []string{"10.244.7.0/26", "fd00:244::40/122"},
		},
	}
	var list []device
	for _, link := range links {
		d := of[link]
		d.link = link
		list = append(list, d)
	}
	return list
}

// RunTunnels runs the suite of tunnel devices of these names, each test on a world
// of its own.
func RunTunnels(t *testing.T, links []string, newWorld func(t *testing.T) TunnelWorld) {
	for _, d := range devices(links) {
		t.Run(d.link, func(t *testing.T) {
			for _, tt := range []struct {
				name string
				run  func(t *testing.T, w TunnelWorld, d device)
			}{
				{"made and deleted", madeAndDeleted},
				{"changed in place", changedInPlace},
				{"made anew", madeAnew},
				{"changed by another hand", tunnelByAnotherHand},
				{"a link of another kind has the name", anotherKind},
				{"another's device has the name", adopted},
				{"bad devices", badTunnels},
				{"addresses", tunnelAddresses},
				{"addresses by another hand", addressesByAnotherHand},
				{"bad addresses", badAddresses},
				{"what hangs on the device goes with it", goesWithDevice},
				{"sysctls", tunnelSysctls},
				{"watched", tunnelWatched},
				{"done", tunnelsDone},
			} {
				t.Run(tt.name, func(t *testing.T) { tt.run(t, newWorld(t), d) })
			}
		})
	}
}

func (d device) set(t kernel.Tunnel) map[string]kernel.Tunnel {
	return map[string]kernel.Tunnel{d.link: t}
}

// make makes the device.
func (d device) make(t testing.TB, w TunnelWorld) {
	t.Helper()
	Put(t, w.Tunnels(), d.set(d.as))
}

// want checks that the device, and no other, is there as the table and the host
// tell it, and returns its link.
func (d device) want(t *testing.T, w TunnelWorld, as kernel.Tunnel) kernel.Link {
	t.Helper()
	wantTable(t, "tunnels", w.Tunnels(), d.set(as))
	l := watch(t, w).host.Links[d.link]
	if want := (kernel.Link{Name: d.link, Index: l.Index, Kind: string(as.Kind), MTU: as.MTU, Up: true, Alias: kernel.TunnelAlias}); l != want {
		t.Errorf("the host's link is %+v, want %+v", l, want)
	}
	return l
}

func madeAndDeleted(t *testing.T, w TunnelWorld, d device) {
	wantTable(t, "tunnels", w.Tunnels(), map[string]kernel.Tunnel{})
	Put(t, w.Tunnels(), nil, kernel.TunnelLinks()...)
	d.make(t, w)
	first := d.want(t, w, d.as)
	d.make(t, w)
	if again := d.want(t, w, d.as); again != first {
		t.Errorf("written again the link is %+v, was %+v", again, first)
	}
	for range 2 { // the second time it is gone already
		Put(t, w.Tunnels(), nil, d.link)
		wantTable(t, "tunnels", w.Tunnels(), map[string]kernel.Tunnel{})
		l, exists := watch(t, w).host.Links[d.link]
		// The kernel keeps its tunl0.
		if exists && (d.link != kernel.LinkIPIP || l.Up || l.Alias != "") {
			t.Errorf("after deletion there is %+v", l)
		}
	}
	d.make(t, w)
	d.want(t, w, d.as)
}

func changedInPlace(t *testing.T, w TunnelWorld, d device) {
	d.make(t, w)
	Put(t, w.Addrs(), d.addresses())
	first := d.want(t, w, d.as)
	for _, from := range append(d.inPlace, d.as) {
		for _, to := range append(d.inPlace, d.as) {
			Put(t, w.Tunnels(), d.set(from))
			Put(t, w.Tunnels(), d.set(to))
			if l := d.want(t, w, to); l.Index != first.Index {
				t.Fatalf("%s was made anew to become %s", from, to)
			}
		}
	}
	wantTable(t, "addresses", w.Addrs(), d.addresses())
}

func madeAnew(t *testing.T, w TunnelWorld, d device) {
	d.make(t, w)
	for _, to := range d.anew {
		before := d.want(t, w, d.as)
		Put(t, w.Tunnels(), d.set(to))
		if l := d.want(t, w, to); l.Index == before.Index {
			t.Errorf("%s became %s without being made anew", d.as, to)
		}
		d.make(t, w)
	}
}

// tunnelByAnotherHand changes the device in every way that is mended in place.
func tunnelByAnotherHand(t *testing.T, w TunnelWorld, d device) {
	d.make(t, w)
	first := d.want(t, w, d.as)
	for name, change := range map[string]func(){
		"down":     func() { w.SetUp(t, d.link, false) },
		"no alias": func() { w.SetAlias(t, d.link, "") },
		"changed": func() {
			changed := d.inPlace[len(d.inPlace)-1]
			changed.MTU = 1290
			w.ChangeTunnel(t, d.link, changed)
		},
	} {
		change()
		have, err := w.Tunnels().Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, ours := have[d.link]; have[d.link] == d.as || ours == (name == "no alias") {
			t.Errorf("%s: the device is read as %v", name, have)
		}
		if name == "down" && !strings.Contains(have[d.link].String(), "down") {
			t.Errorf("%s: the device is read as %v", name, have)
		}
		d.make(t, w)
		if l := d.want(t, w, d.as); l.Index != first.Index {
			t.Errorf("%s: the device was made anew", name)
		}
	}
	if d.link == kernel.LinkIPIP { // it can't be deleted
		return
	}
	w.DelLink(t, d.link)
	wantTable(t, "tunnels", w.Tunnels(), map[string]kernel.Tunnel{})
	d.make(t, w)
	d.want(t, w, d.as)
}

func anotherKind(t *testing.T, w TunnelWorld, d device) {
	if d.link == kernel.LinkIPIP { // made with its module, it is there before any other
		return
	}
	w.AddLink(t, d.link)
	Put(t, w.Tunnels(), nil, d.link)
	if l, exists := watch(t, w).host.Links[d.link]; !exists || l.Kind != "veth" {
		t.Errorf("another's link was deleted as if it were a tunnel: %+v", l)
	}
	d.make(t, w)
	d.want(t, w, d.as)
}

// adopted makes a device with our name and parameters, but not our alias.
func adopted(t *testing.T, w TunnelWorld, d device) {
	w.AddTunnel(t, d.link, d.as)
	foreign := addr(d.link, d.addrs[0])
	w.AddAddr(t, foreign)
	wantTable(t, "tunnels", w.Tunnels(), map[string]kernel.Tunnel{})
	wantTable(t, "addresses", w.Addrs(), map[kernel.Addr]struct{}{})
	wantFailures(t, w.Addrs().Write(t.Context(), d.addresses(), nil), "set", func() map[kernel.Addr]error {
		all := make(map[kernel.Addr]error)
		for a := range d.addresses() {
			all[a] = kernel.ErrForeign
		}
		return all
	}())
	Put(t, w.Addrs(), nil, foreign)
	Put(t, w.Tunnels(), nil, d.link)
	s := watch(t, w)
	before := s.host.Links[d.link]
	if _, there := s.host.Addrs[foreign]; before.Kind != string(d.as.Kind) || !there {
		t.Errorf("another's device was changed: %+v", before)
	}
	if d.link == kernel.LinkIPIP {
		w.SetAlias(t, d.link, "others")
		wantFailures(t, w.Tunnels().Write(t.Context(), d.set(d.as), nil), "set", map[string]error{d.link: kernel.ErrForeign})
		w.SetAlias(t, d.link, "")
	}
	d.make(t, w)
	if l := d.want(t, w, d.as); l.Index != before.Index {
		t.Error("a device of the same parameters was made anew")
	}
	wantTable(t, "addresses", w.Addrs(), map[kernel.Addr]struct{}{})
}

func badTunnels(t *testing.T, w TunnelWorld, d device) {
	change := func(f func(*kernel.Tunnel)) kernel.Tunnel {
		bad := d.as
		f(&bad)
		return bad
	}
	for name, bad := range map[string]kernel.Tunnel{
		"no kind":   change(func(t *kernel.Tunnel) { t.Kind = "" }),
		"kind down": change(func(t *kernel.Tunnel) { t.Kind += ", down" }),
		"MTU":       change(func(t *kernel.Tunnel) { t.MTU = 67 }),
		"great MTU": change(func(t *kernel.Tunnel) { t.MTU = 65536 }),
		"VNI":       change(func(t *kernel.Tunnel) { t.VNI = 1 << 24 }),
		"MAC":       change(func(t *kernel.Tunnel) { t.MAC = kernel.MAC{1, 0, 0x5e} }),
		"local":     change(func(t *kernel.Tunnel) { t.Local = netip.IPv4Unspecified() }),
	} {
		err := w.Tunnels().Write(t.Context(), map[string]kernel.Tunnel{d.link: bad, "other.cairn": d.as}, nil)
		t.Run(name, func(t *testing.T) {
			wantFailures(t, err, "set", map[string]error{d.link: syscall.EINVAL, "other.cairn": syscall.EINVAL})
		})
	}
	wantTable(t, "tunnels", w.Tunnels(), map[string]kernel.Tunnel{})
	err := w.Tunnels().Write(t.Context(), map[string]kernel.Tunnel{d.link: d.as, "other.cairn": d.as}, nil)
	wantFailures(t, err, "set", map[string]error{"other.cairn": syscall.EINVAL})
	d.want(t, w, d.as)
	if d.as.Kind == kernel.VXLAN {
		w.AddTunnel(t, "others", d.anew[0])
		wantFailures(t, w.Tunnels().Write(t.Context(), d.set(d.anew[0]), nil), "set", map[string]error{d.link: syscall.EEXIST})
	}
}

func tunnelSysctls(t *testing.T, w TunnelWorld, d device) {
	d.make(t, w)
	want := kernel.HostSysctls()
	maps.Copy(want, kernel.TunnelLinkSysctls(d.link))
	Put(t, w.Sysctls(), want)
	wantTable(t, "sysctls", w.Sysctls(), want)
}

// tunnelWatched checks that every change of a device is told, whoever made it.
func tunnelWatched(t *testing.T, w TunnelWorld, d device) {
	w.AddLink(t, "east")
	s := watch(t, w)
	s.settled(w)
	changes := map[string]func(){
		"made": func() { d.make(t, w) },
		"down": func() { w.SetUp(t, d.link, false) },
		"up":   func() { w.SetUp(t, d.link, true) },
		"deleted": func() {
			Put(t, w.Tunnels(), nil, d.link)
			s.until("the end of it", func() bool { return s.down[d.link] })
		},
	}
	order := []string{"made", "down", "up", "deleted", "made"}
	if d.as.Kind == kernel.VXLAN {
		changes["MAC"] = func() { w.ChangeTunnel(t, d.link, d.inPlace[2]) }
		changes["offload"] = func() { w.ChangeTunnel(t, d.link, d.inPlace[3]) }
		order = append(order, "MAC", "offload")
	}
	for _, name := range order {
		s.forget()
		changes[name]()
		s.until(name, func() bool { return s.tunnels[d.link] })
		s.settled(w)
		if want := map[string]bool{d.link: true}; !maps.Equal(s.tunnels, want) {
			t.Errorf("%s: told of the tunnels %v, want %v", name, s.tunnels, want)
		}
	}
	s.forget()
	d.make(t, w)
	s.settled(w)
	s.forget()
	d.make(t, w)
	s.settled(w)
	if len(s.tunnels) > 0 {
		t.Errorf("to write what is there was told of %v", s.tunnels)
	}
}

func tunnelsDone(t *testing.T, w TunnelWorld, d device) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.Tunnels().Read(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Read: %v", err)
	}
	before := watch(t, w).host.Links
	if err := w.Tunnels().Write(ctx, d.set(d.as), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Write: %v", err)
	}
	if after := watch(t, w).host.Links; !maps.Equal(before, after) {
		t.Errorf("there are the links %v, were %v", after, before)
	}
}
