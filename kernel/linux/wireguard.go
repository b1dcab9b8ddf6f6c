//go:build linux

package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"cairn.network/cairn/kernel"
)

// NewEncryption returns the WireGuard device kernel.LinkWireGuard, as long as it
// carries Cairn's alias.
//
// A private key is made here and given to the kernel at once. Whoever may read
// the device's peers is told that key with them; it goes no further.
func NewEncryption(opts ...Option) kernel.Encryption {
	return &encryption{config: configure(opts)}
}

type encryption struct {
	config

	mu sync.Mutex
	// seen is the device as it was last read, and written since: it tells what peers
	// have to lose.
	seen wireGuardDevice
}

// wireGuardDevice is what was seen of the peers of the device with this index.
type wireGuardDevice struct {
	index   int
	allowed map[kernel.WireGuardKey]kernel.Prefixes // to each peer; another may have got it since
	owners  map[netip.Prefix]kernel.WireGuardKey    // whose an allowed prefix is now
}

func newWireGuardDevice(index int) wireGuardDevice {
	return wireGuardDevice{index, make(map[kernel.WireGuardKey]kernel.Prefixes), make(map[netip.Prefix]kernel.WireGuardKey)}
}

// set notes what was allowed to a peer, and in surplus what it has besides.
func (d *wireGuardDevice) set(key kernel.WireGuardKey, allowed kernel.Prefixes, surplus map[netip.Prefix]kernel.WireGuardKey) {
	list := allowed.List()
	if was := d.allowed[key]; was != allowed {
		for _, p := range was.List() {
			if _, stays := slices.BinarySearchFunc(list, p, netip.Prefix.Compare); !stays && d.owners[p] == key {
				surplus[p] = key
			}
		}
	}
	for _, p := range list {
		d.owners[p] = key
	}
	d.allowed[key] = allowed
}

// drop notes that a peer was removed.
func (d *wireGuardDevice) drop(key kernel.WireGuardKey) {
	for _, p := range d.allowed[key].List() {
		if d.owners[p] == key {
			delete(d.owners, p)
		}
	}
	delete(d.allowed, key)
}

// now returns what was seen of the device with this index. e.mu is held.
func (e *encryption) now(index int) *wireGuardDevice {
	if e.seen.index != index || e.seen.allowed == nil {
		e.seen = newWireGuardDevice(index)
	}
	return &e.seen
}

func (e *encryption) Peers() kernel.Table[kernel.WireGuardKey, kernel.WireGuardPeer] {
	return wireGuardPeers{e}
}

func (e *encryption) Key(ctx context.Context) (kernel.WireGuardKey, error) {
	_, device, err := e.device(ctx)
	if err == nil && hasKey(device) {
		return kernel.WireGuardKey(device.PublicKey), nil
	}
	var change wgtypes.Config
	var key kernel.WireGuardKey
	if err == nil {
		key, err = newKey(&change)
	}
	if err == nil {
		err = e.wireGuard(func(client *wgctrl.Client) error { return client.ConfigureDevice(kernel.LinkWireGuard, change) })
	}
	if err != nil {
		return kernel.WireGuardKey{}, fmt.Errorf("read WireGuard key: %w", err)
	}
	return key, nil
}

func (e *encryption) Traffic(ctx context.Context) ([]kernel.PeerTraffic, error) {
	_, device, err := e.device(ctx)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read WireGuard traffic: %w", err)
	}
	list := make([]kernel.PeerTraffic, 0, len(device.Peers))
	for _, p := range device.Peers {
		t := kernel.PeerTraffic{Key: kernel.WireGuardKey(p.PublicKey), Received: p.ReceiveBytes, Sent: p.TransmitBytes}
		if p.Endpoint != nil {
			t.Endpoint = p.Endpoint.AddrPort()
		}
		if !p.LastHandshakeTime.IsZero() {
			t.LastHandshake = p.LastHandshakeTime.UTC()
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b kernel.PeerTraffic) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return list, nil
}

// device reads the device with all its peers. ENODEV: there is none of ours.
func (e *encryption) device(ctx context.Context) (index int, device *wgtypes.Device, err error) {
	if index, err = e.wireGuardIndex(ctx); err != nil {
		return 0, nil, err
	}
	err = e.wireGuard(func(client *wgctrl.Client) (err error) {
		device, err = client.Device(kernel.LinkWireGuard)
		return err
	})
	return index, device, err
}

// wireGuardIndex returns the index of Cairn's WireGuard device. ENODEV: there is
// none.
func (c config) wireGuardIndex(ctx context.Context) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	h, err := c.handle()
	if err != nil {
		return 0, err
	}
	defer h.Close()
	l, err := h.LinkByName(kernel.LinkWireGuard)
	if _, missing := errors.AsType[vishnet.LinkNotFoundError](err); missing {
		return 0, fmt.Errorf("link %s: %w", kernel.LinkWireGuard, unix.ENODEV)
	}
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", kernel.LinkWireGuard, refusal(err))
	}
	if l.Type() != string(kernel.WireGuard) || l.Attrs().Alias != kernel.TunnelAlias {
		return 0, fmt.Errorf("link %s: %w: %w", kernel.LinkWireGuard, kernel.ErrForeign, unix.ENODEV)
	}
	return l.Attrs().Index, nil
}

// wireGuard calls do with a client in the driver's network namespace.
func (c config) wireGuard(do func(*wgctrl.Client) error) error {
	var client *wgctrl.Client
	err := c.in(func() (err error) {
		client, err = wgctrl.New()
		return err
	})
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", refusal(err))
	}
	defer client.Close()
	return wireGuardRefusal(do(client))
}

// wireGuardRefusal turns an error of wgctrl into one of the seam.
func wireGuardRefusal(err error) error {
	if errors.Is(err, fs.ErrNotExist) { // there is no such device, or of another kind
		return fmt.Errorf("no WireGuard device: %w", unix.ENODEV)
	}
	return refusal(err)
}

// wireGuardPort returns the port on which a WireGuard device listens, and 0 while
// it has no private key: then it is of no use.
func (c config) wireGuardPort(name string) (uint16, error) {
	var port uint16
	err := c.wireGuard(func(client *wgctrl.Client) error {
		device, err := client.Device(name)
		if err == nil && hasKey(device) {
			port = uint16(device.ListenPort)
		}
		return err
	})
	return port, err
}

// setWireGuardPort gives a WireGuard device its port, and a fresh private key if
// it has none. Its peers stay.
func (c config) setWireGuardPort(name string, port uint16) error {
	return c.wireGuard(func(client *wgctrl.Client) error {
		device, err := client.Device(name)
		if err != nil {
			return err
		}
		listen := int(port)
		change := wgtypes.Config{ListenPort: &listen}
		if !hasKey(device) {
			if _, err := newKey(&change); err != nil {
				return err
			}
		}
		return client.ConfigureDevice(name, change)
	})
}

func hasKey(device *wgtypes.Device) bool { return device.PrivateKey != wgtypes.Key{} }

// newKey puts a fresh private key into c, and returns the public one.
func newKey(c *wgtypes.Config) (kernel.WireGuardKey, error) {
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return kernel.WireGuardKey{}, fmt.Errorf("make a private key: %w", err)
	}
	c.PrivateKey = &private
	return kernel.WireGuardKey(private.PublicKey()), nil
}
