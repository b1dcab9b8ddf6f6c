package kernel_test

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// fakeTunnelWorld lets the suite of tunnels shape a fake host.
type fakeTunnelWorld struct{ fakeWorld }

func (w fakeTunnelWorld) AddTunnel(_ testing.TB, name string, tunnel kernel.Tunnel) {
	w.SetTunnel(name, tunnel)
}

func (w fakeTunnelWorld) ChangeTunnel(_ testing.TB, name string, tunnel kernel.Tunnel) {
	w.SetTunnel(name, tunnel)
}

func (w fakeTunnelWorld) SetAlias(t testing.TB, name, alias string) {
	l, ok := w.Host().Links[name]
	if !ok {
		t.Fatalf("no link %s", name)
	}
	l.Alias = alias
	w.SetLink(l)
}

func (w fakeTunnelWorld) PutNeighbour(_ testing.TB, n kernel.Neighbour, mac kernel.MAC) {
	w.Fake.PutNeighbour(n, mac)
}
func (w fakeTunnelWorld) DropNeighbour(_ testing.TB, n kernel.Neighbour) { w.Fake.DropNeighbour(n) }
func (w fakeTunnelWorld) PutForwarding(_ testing.TB, f kernel.Forwarding, node netip.Addr) {
	w.Fake.PutForwarding(f, node)
}
func (w fakeTunnelWorld) DropForwarding(_ testing.TB, f kernel.Forwarding) { w.Fake.DropForwarding(f) }

func newFakeTunnelWorld(*testing.T) kerneltest.TunnelWorld {
	return fakeTunnelWorld{fakeWorld{kernel.NewFake()}}
}

func TestFakeTunnelsPassTheSuite(t *testing.T) {
	kerneltest.RunTunnels(t, kernel.TunnelLinks(), newFakeTunnelWorld)
	kerneltest.RunEntries(t, newFakeTunnelWorld)
}

// TestFakeLacksKinds takes a kind away, which changes nothing of what is there.
func TestFakeLacksKinds(t *testing.T) {
	f := kernel.NewFake()
	tunnel := kernel.Tunnel{Kind: kernel.IPIP, MTU: 1480}
	wireguard := kernel.Tunnel{Kind: kernel.WireGuard, MTU: 1420, Port: 51820}
	kerneltest.Put(t, f.Tunnels(), map[string]kernel.Tunnel{kernel.LinkWireGuard: wireguard})
	f.Lack(kernel.IPIP, true)
	f.Lack(kernel.WireGuard, true)
	err := f.Tunnels().Write(t.Context(), map[string]kernel.Tunnel{kernel.LinkIPIP: tunnel, kernel.LinkWireGuard: wireguard}, nil)
	refused, ok := errors.AsType[*kernel.KeyError[string]](err)
	if !ok || refused.Key != kernel.LinkIPIP || !errors.Is(err, kernel.ErrUnsupported) || !errors.Is(err, syscall.EOPNOTSUPP) ||
		!strings.Contains(err.Error(), "this kernel has no ipip (module ipip)") {
		t.Errorf("error is %v, want that there is no ipip", err)
	}
	f.Lack(kernel.IPIP, false)
	kerneltest.Put(t, f.Tunnels(), map[string]kernel.Tunnel{kernel.LinkIPIP: tunnel})
}

func TestTunnelString(t *testing.T) {
	vxlan := kernel.Tunnel{
		Kind: kernel.VXLAN, MTU: 1450, VNI: 4096, Port: 4789, Local: netip.MustParseAddr("10.0.0.1"), MAC: kernel.MAC{2, 0, 0, 0, 0, 1},
	}
	for want, tunnel := range map[string]kernel.Tunnel{
		"ipip mtu 1480":                 {Kind: kernel.IPIP, MTU: 1480},
		"wireguard mtu 1420 port 51820": {Kind: kernel.WireGuard, MTU: 1420, Port: 51820},
		"vxlan mtu 1450 vni 4096 port 4789 local 10.0.0.1 mac 02:00:00:00:00:01": vxlan,
	} {
		if got := tunnel.String(); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}
