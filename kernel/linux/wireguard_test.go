//go:build linux

package linux

import (
	"errors"
	"net"
	"testing"
	"time"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
	"cairn.network/cairn/kernel/linux/needs"
)

// wireGuardWorld is a network namespace with the driver of WireGuard in it.
type wireGuardWorld struct {
	*world
	encryption kernel.Encryption
}

func newWireGuardWorld(t testing.TB) *wireGuardWorld {
	w := &wireGuardWorld{world: newWorld(t)}
	w.encryption = NewEncryption(w.in())
	return w
}

func (w *wireGuardWorld) Encryption() kernel.Encryption { return w.encryption }

const wireGuardTestPort = 51820

// in has a driver act in this world.
func (w *wireGuardWorld) in() Option { return In(int(w.netns.Fd())) }

func (w *wireGuardWorld) config() config { return configure([]Option{w.in()}) }

func (w *wireGuardWorld) AddForeignDevice(t testing.TB) {
	t.Helper()
	attrs := vishnet.NewLinkAttrs()
	attrs.Name = kernel.LinkWireGuard
	if err := w.admin.LinkAdd(&vishnet.Wireguard{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
}

func (w *wireGuardWorld) AddDevice(t testing.TB) {
	t.Helper()
	kerneltest.Put(t, NewTunnels(w.in()), map[string]kernel.Tunnel{
		kernel.LinkWireGuard: {Kind: kernel.WireGuard, MTU: 1420, Port: wireGuardTestPort},
	})
}

// byHand configures the device as wg(8) does.
func (w *wireGuardWorld) byHand(t testing.TB, c wgtypes.Config) {
	t.Helper()
	err := w.config().wireGuard(func(client *wgctrl.Client) error { return client.ConfigureDevice(kernel.LinkWireGuard, c) })
	if err != nil {
		t.Fatal(err)
	}
}

func (w *wireGuardWorld) AddPeer(t testing.TB, k kernel.WireGuardKey, p kernel.WireGuardPeer) {
	t.Helper()
	peer := peerConfig(k, p)
	peer.ReplaceAllowedIPs = true
	w.byHand(t, wgtypes.Config{Peers: []wgtypes.PeerConfig{peer}})
}

func (w *wireGuardWorld) DropPeer(t testing.TB, k kernel.WireGuardKey) {
	t.Helper()
	w.byHand(t, wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: wgtypes.Key(k), Remove: true}}})
}

func TestWireGuardPassesTheSuiteVM(t *testing.T) {
	needs.Link(t, "wireguard")
	kerneltest.RunWireGuard(t, func(t *testing.T) kerneltest.WireGuardWorld { return newWireGuardWorld(t) })
}

// TestWireGuardPortVM shows that a device is given its key once, and its port
// whenever it differs, whether it is up or not.
func TestWireGuardPortVM(t *testing.T) {
	needs.Link(t, "wireguard")
	w := newWireGuardWorld(t)
	c := w.config()
	if port, err := c.wireGuardPort(kernel.LinkWireGuard); !errors.Is(err, unix.ENODEV) {
		t.Errorf("port without a device: %d, %v", port, err)
	}
	if err := c.setWireGuardPort(kernel.LinkWireGuard, 1); !errors.Is(err, unix.ENODEV) {
		t.Errorf("set port without a device: %v", err)
	}
	wantPort := func(want uint16) {
		t.Helper()
		if port, err := c.wireGuardPort(kernel.LinkWireGuard); port != want || err != nil {
			t.Errorf("port is %d, %v; want %d", port, err, want)
		}
	}
	w.AddForeignDevice(t)
	wantPort(0)
	if err := w.admin.LinkSetAlias(w.link(t, kernel.LinkWireGuard), kernel.TunnelAlias); err != nil {
		t.Fatal(err)
	}
	peers := map[kernel.WireGuardKey]kernel.WireGuardPeer{kerneltest.PeerKey(1): kerneltest.Peer("192.0.2.1:1", "10.0.0.0/26")}
	kerneltest.Put(t, w.encryption.Peers(), peers)
	var key kernel.WireGuardKey
	for i, port := range []uint16{51820, 51820, 51821, 65535} {
		if err := c.setWireGuardPort(kernel.LinkWireGuard, port); err != nil {
			t.Fatal(err)
		}
		wantPort(port)
		now, err := w.encryption.Key(t.Context())
		if err != nil || now == (kernel.WireGuardKey{}) || i > 0 && now != key {
			t.Errorf("key is %v, %v; want %v", now, err, key)
		}
		key = now
		if have, err := w.encryption.Peers().Read(t.Context()); err != nil || len(have) != 1 {
			t.Errorf("peers are %v, %v", have, err)
		}
		w.SetUp(t, kernel.LinkWireGuard, true)
	}

	var taken net.PacketConn
	if err := c.in(func() (err error) { taken, err = net.ListenPacket("udp", ":51820"); return err }); err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := c.setWireGuardPort(kernel.LinkWireGuard, 51820); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("set a port that is taken: %v, want EADDRINUSE", err)
	}
}

// TestWireGuardKeyVM shows that a device without a key is given one when the key
// is asked for, and that a key that another hand changed is seen.
func TestWireGuardKeyVM(t *testing.T) {
	needs.Link(t, "wireguard")
	w := newWireGuardWorld(t)
	w.AddDevice(t)
	w.byHand(t, wgtypes.Config{PrivateKey: new(wgtypes.Key)})
	first, err := w.encryption.Key(t.Context())
	if err != nil || first == (kernel.WireGuardKey{}) {
		t.Fatalf("key is %v, %v", first, err)
	}
	if again, err := w.encryption.Key(t.Context()); again != first || err != nil {
		t.Errorf("asked again it is %v, %v; want %v", again, err, first)
	}
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	w.byHand(t, wgtypes.Config{PrivateKey: &private})
	if now, err := w.encryption.Key(t.Context()); now != kernel.WireGuardKey(private.PublicKey()) || err != nil {
		t.Errorf("key is %v, %v; want %v", now, err, private.PublicKey())
	}
}

// TestWireGuardExtrasVM shows that a preshared key and another keepalive, which
// ours never have, make a peer differ, and that setting it takes them away.
func TestWireGuardExtrasVM(t *testing.T) {
	needs.Link(t, "wireguard")
	w := newWireGuardWorld(t)
	w.AddDevice(t)
	key, peer := kerneltest.PeerKey(1), kerneltest.Peer("192.0.2.1:51820", "10.0.0.0/26")
	keepalive := 25 * time.Second
	for name, change := range map[string]wgtypes.PeerConfig{
		"preshared key": {PresharedKey: &wgtypes.Key{1}},
		"keepalive":     {PersistentKeepaliveInterval: &keepalive},
	} {
		set := map[kernel.WireGuardKey]kernel.WireGuardPeer{key: peer}
		kerneltest.Put(t, w.encryption.Peers(), set)
		change.PublicKey, change.UpdateOnly = wgtypes.Key(key), true
		w.byHand(t, wgtypes.Config{Peers: []wgtypes.PeerConfig{change}})
		if have, err := w.encryption.Peers().Read(t.Context()); err != nil || len(have) != 1 || have[key] == peer {
			t.Errorf("%s: peers are %v, %v; want another than %v", name, have, err, peer)
		}
		kerneltest.Put(t, w.encryption.Peers(), set)
		if have, err := w.encryption.Peers().Read(t.Context()); err != nil || have[key] != peer {
			t.Errorf("%s: peers are %v, %v; want %v", name, have, err, peer)
		}
	}
}
