package kernel_test

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// fakeWireGuardWorld lets the suite shape a fake host.
type fakeWireGuardWorld struct{ *kernel.Fake }

func (w fakeWireGuardWorld) AddDevice(t testing.TB) {
	kerneltest.Put(t, w.Tunnels(), map[string]kernel.Tunnel{
		kernel.LinkWireGuard: {Kind: kernel.WireGuard, MTU: 1420, Port: 51820},
	})
}

func (w fakeWireGuardWorld) AddForeignDevice(testing.TB) {
	w.SetTunnel(kernel.LinkWireGuard, kernel.Tunnel{Kind: kernel.WireGuard, MTU: 1420, Port: 51820})
}

func (w fakeWireGuardWorld) DelLink(_ testing.TB, name string) { w.Fake.DelLink(name) }

func (w fakeWireGuardWorld) AddPeer(_ testing.TB, k kernel.WireGuardKey, p kernel.WireGuardPeer) {
	w.Fake.AddPeer(k, p)
}

func (w fakeWireGuardWorld) DropPeer(_ testing.TB, k kernel.WireGuardKey) { w.Fake.DropPeer(k) }

func newFakeWireGuardWorld() fakeWireGuardWorld { return fakeWireGuardWorld{kernel.NewFake()} }

func TestFakePassesTheWireGuardSuite(t *testing.T) {
	kerneltest.RunWireGuard(t, func(*testing.T) kerneltest.WireGuardWorld { return newFakeWireGuardWorld() })
}

// TestFakeWireGuardFails injects a fault into each operation.
func TestFakeWireGuardFails(t *testing.T) {
	f := newFakeWireGuardWorld()
	f.AddDevice(t)
	ctx, peers := t.Context(), f.Encryption().Peers()
	k, p := kerneltest.PeerKey(1), kerneltest.Peer("192.0.2.1:51820")
	for _, tt := range []struct {
		op  string
		key any
		do  func() error
	}{
		{"read", "peers", func() error { _, err := peers.Read(ctx); return err }},
		{"read", "key", func() error { _, err := f.Encryption().Key(ctx); return err }},
		{"read", "traffic", func() error { _, err := f.Encryption().Traffic(ctx); return err }},
		{"set", k, func() error { return peers.Write(ctx, map[kernel.WireGuardKey]kernel.WireGuardPeer{k: p}, nil) }},
		{"delete", k, func() error { return peers.Write(ctx, nil, []kernel.WireGuardKey{k}) }},
	} {
		f.Fail(tt.op, tt.key, syscall.EIO)
		if err := tt.do(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s %v: %v, want the fault", tt.op, tt.key, err)
		}
		f.Fail(tt.op, tt.key, nil)
		if err := tt.do(); err != nil {
			t.Errorf("%s %v after the fault: %v", tt.op, tt.key, err)
		}
	}
}

// TestFakeTraffic shows what a test says of a peer's traffic, and that a peer that
// moves is read where it is.
func TestFakeTraffic(t *testing.T) {
	f := newFakeWireGuardWorld()
	f.AddDevice(t)
	k, p := kerneltest.PeerKey(1), kerneltest.Peer("192.0.2.1:51820", "10.0.0.0/26")
	kerneltest.Put(t, f.Encryption().Peers(), map[kernel.WireGuardKey]kernel.WireGuardPeer{k: p})
	told := kernel.PeerTraffic{Key: k, LastHandshake: time.Unix(1, 0).UTC(), Received: 2, Sent: 3}
	for _, endpoint := range []netip.AddrPort{{}, netip.MustParseAddrPort("192.0.2.9:9")} {
		told.Endpoint = endpoint
		f.SetTraffic(told)
		p.Endpoint = cmp.Or(endpoint, p.Endpoint)
		want := told
		want.Endpoint = p.Endpoint
		if got, err := f.Encryption().Traffic(t.Context()); err != nil || !slices.Equal(got, []kernel.PeerTraffic{want}) {
			t.Errorf("traffic is %v, %v; want %v", got, err, want)
		}
		if have, err := f.Encryption().Peers().Read(t.Context()); err != nil || have[k] != p {
			t.Errorf("peer is %v, %v; want %v", have[k], err, p)
		}
	}
}

func TestWireGuardKeyText(t *testing.T) {
	const text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=" // of wg(8)
	k, err := kernel.ParseWireGuardKey(text)
	if err != nil || k.String() != text {
		t.Errorf("%s became %v, %v", text, k, err)
	}
	for _, bad := range []string{"", "x", "AAAA", text[1:], text + "AAAA", text + "\n" + text} {
		if k, err := kernel.ParseWireGuardKey(bad); err == nil {
			t.Errorf("%q is taken for key %v", bad, k)
		}
	}
}

func TestPrefixes(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, tt := range []struct {
		name string
		in   []netip.Prefix
		text string
		list []netip.Prefix
	}{
		{"none", nil, "", nil},
		{"invalid", []netip.Prefix{{}}, "", nil},
		{"one", []netip.Prefix{prefix("10.0.0.0/26")}, "10.0.0.0/26", []netip.Prefix{prefix("10.0.0.0/26")}},
		{"not masked", []netip.Prefix{prefix("10.0.0.1/26")}, "10.0.0.0/26", []netip.Prefix{prefix("10.0.0.0/26")}},
		{
			"both families, one twice",
			[]netip.Prefix{prefix("fd00::/122"), prefix("10.0.0.9/26"), prefix("10.0.0.0/32"), prefix("10.0.0.0/26")},
			"10.0.0.0/26, 10.0.0.0/32, fd00::/122",
			[]netip.Prefix{prefix("10.0.0.0/26"), prefix("10.0.0.0/32"), prefix("fd00::/122")},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := slices.Clone(tt.in)
			p := kernel.PrefixesOf(tt.in...)
			if !slices.Equal(in, tt.in) {
				t.Errorf("the caller's list became %v", tt.in)
			}
			if p.String() != tt.text || !slices.Equal(p.List(), tt.list) {
				t.Errorf("%v, with list %v; want %s, with %v", p, p.List(), tt.text, tt.list)
			}
			slices.Reverse(in)
			if p != kernel.PrefixesOf(in...) || p != kernel.PrefixesOf(p.List()...) {
				t.Errorf("%v is not equal to itself", p)
			}
		})
	}
}
