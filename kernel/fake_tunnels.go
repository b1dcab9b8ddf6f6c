package kernel

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// fakeTunnelState is what hangs on tunnel devices. The maps are made when they
// are needed.
type fakeTunnelState struct {
	devices    map[string]Tunnel // what a Link does not tell
	neighbours map[Neighbour]MAC
	forwarding map[Forwarding]netip.Addr
	lacking    map[TunnelKind]bool
}

// Tunnels returns the table of tunnel devices.
func (f *Fake) Tunnels() Table[string, Tunnel] { return fakeTunnels{f} }

// Lack says whether the kernel has no links of a kind, as one without the module
// has. It has those that are there already.
func (f *Fake) Lack(kind TunnelKind, lacking bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tunnels.lacking == nil {
		f.tunnels.lacking = make(map[TunnelKind]bool)
	}
	f.tunnels.lacking[kind] = lacking
}

type fakeTunnels struct{ *Fake }

func (f fakeTunnels) Read(ctx context.Context) (map[string]Tunnel, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "tunnels")); err != nil {
		return nil, fmt.Errorf("read tunnels: %w", err)
	}
	have := make(map[string]Tunnel)
	for name, l := range f.links {
		if !IsTunnelLink(l) {
			continue
		}
		t := f.tunnel(l)
		if !l.Up {
			t.Kind += ", down"
		}
		have[name] = t
	}
	return have, nil
}

// tunnel returns the device that a link is.
func (f *Fake) tunnel(l Link) Tunnel {
	t := f.tunnels.devices[l.Name]
	t.Kind, t.MTU = TunnelKind(l.Kind), l.MTU
	return t
}

func (f fakeTunnels) Write(ctx context.Context, set map[string]Tunnel, del []string) error {
	return fakeWrite(ctx, f.Fake, "tunnels", set, del, f.putTunnel, f.delTunnel)
}

func (f *Fake) putTunnel(name string, t Tunnel) error {
	if err := t.Check(name); err != nil {
		return err
	}
	l, exists := f.links[name]
	if exists && name == LinkIPIP && (l.Kind != string(IPIP) || l.Alias != "" && !IsTunnelLink(l)) {
		return fmt.Errorf("%s of kind %s, alias %q: %w: %w", name, l.Kind, l.Alias, ErrForeign, syscall.EEXIST)
	}
	e := Event{}
	if exists && f.tunnel(l).fixed() != t.fixed() {
		f.dropLink(l, &e)
		f.tell(e, true)
		exists = false
	}
	switch {
	case !exists:
		if err := f.makeable(t); err != nil {
			return err
		}
		l = Link{Name: name, Kind: string(t.Kind)}
	case !IsTunnelLink(l):
		f.dropAddrs(name, &e)
		f.tell(e, true)
	}
	l.MTU, l.Up, l.Alias = t.MTU, true, TunnelAlias
	f.setTunnel(l, t)
	return nil
}

// fixed returns what the kernel can't change of a device.
func (t Tunnel) fixed() Tunnel {
	t.MTU, t.MAC, t.NoChecksumOffload = 0, MAC{}, false
	if t.Kind == WireGuard {
		t.Port = 0
	}
	return t
}

// makeable returns the error that Linux has for a new device.
func (f *Fake) makeable(t Tunnel) error {
	if f.tunnels.lacking[t.Kind] {
		return fmt.Errorf("this kernel has no %s (module %s): %w: %w", t.Kind, t.Kind, ErrUnsupported, syscall.EOPNOTSUPP)
	}
	for _, other := range f.tunnels.devices {
		if t.Kind == VXLAN && other.VNI == t.VNI && other.Port == t.Port && other.Local.Is4() == t.Local.Is4() {
			return fmt.Errorf("a VXLAN device with the specified VNI already exists: %w", syscall.EEXIST)
		}
	}
	return nil
}

// setTunnel makes a device or changes the one with this name.
func (f *Fake) setTunnel(l Link, t Tunnel) {
	if f.tunnels.devices == nil {
		f.tunnels.devices = make(map[string]Tunnel)
	}
	e := Event{}
	old, existed := f.tunnels.devices[l.Name]
	if t.MTU, t.Kind = 0, ""; t != old { // those are the link's
		if existed && t.MAC != old.MAC {
			f.dropNeighbours(l.Name, &e)
		}
		e.touch(l)
		f.tunnels.devices[l.Name] = t
		f.tell(e, false)
	}
	f.setLink(l)
}

// delTunnel deletes a device if it is Cairn's. Of tunl0 the kernel keeps the bare
// link.
func (f *Fake) delTunnel(name string) error {
	l, exists := f.links[name]
	if !exists || !IsTunnelLink(l) {
		return nil
	}
	e := Event{}
	if name != LinkIPIP {
		f.dropLink(l, &e)
		f.tell(e, true)
		return nil
	}
	f.dropAddrs(name, &e)
	f.tell(e, true)
	l.Up, l.Alias = false, ""
	f.setLink(l)
	return nil
}

// SetTunnel does what "ip link add" and "ip link set" do: it makes the link, or
// gives it other parameters, whatever the kernel can change. It is not Cairn's if it
// was not before.
func (f *Fake) SetTunnel(name string, t Tunnel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, exists := f.links[name]
	if !exists {
		l = Link{Name: name, Up: true}
	}
	l.Kind, l.MTU = string(t.Kind), t.MTU
	f.setTunnel(l, t)
}

// touch notes that something was told of links, if they are tunnel devices.
func (e *Event) touch(links ...Link) {
	for _, l := range links {
		if ConcernsTunnels(l) {
			e.Tunnels = union(e.Tunnels, []string{l.Name})
		}
	}
}

// dropAddrs takes all addresses of a link away.
func (f *Fake) dropAddrs(link string, e *Event) {
	for a := range f.addrs {
		if a.Link == link {
			f.dropAddr(a, e)
		}
	}
}

// Addrs returns the table of addresses of tunnel devices.
func (f *Fake) Addrs() Table[Addr, struct{}] { return fakeAddrs{f} }

type fakeAddrs struct{ *Fake }

func (f fakeAddrs) Read(ctx context.Context) (map[Addr]struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "addresses")); err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	have := make(map[Addr]struct{})
	for a := range f.addrs {
		if IsTunnelLink(f.links[a.Link]) && !a.Prefix.Addr().IsLinkLocalUnicast() {
			have[a] = struct{}{}
		}
	}
	return have, nil
}

func (f fakeAddrs) Write(ctx context.Context, set map[Addr]struct{}, del []Addr) error {
	return fakeWrite(ctx, f.Fake, "addresses", set, del, f.putAddr, f.delAddr)
}

func (f *Fake) putAddr(a Addr, _ struct{}) error {
	if err := cmp.Or(a.Check(), f.ourLink(a.Link)); err != nil {
		return err
	}
	if _, there := f.addrs[a]; !there {
		f.addrs[a] = struct{}{}
		e := Event{}
		e.touch(f.links[a.Link])
		f.tell(e, true)
	}
	return nil
}

func (f *Fake) delAddr(a Addr) error {
	if _, there := f.addrs[a]; there && f.ourLink(a.Link) == nil {
		e := Event{}
		f.dropAddr(a, &e)
		f.tell(e, true)
	}
	return nil
}

// ourLink returns an error unless the link is a tunnel device of Cairn's.
func (f *Fake) ourLink(name string) error {
	switch l, exists := f.links[name]; {
	case !exists:
		return fmt.Errorf("link %s: %w", name, syscall.ENODEV)
	case !IsTunnelLink(l):
		return fmt.Errorf("link %s: %w", name, ErrForeign)
	}
	return nil
}
