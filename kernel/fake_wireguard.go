package kernel

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// Encryption returns the WireGuard device: the link LinkWireGuard, if it is of
// that kind and Cairn's.
func (f *Fake) Encryption() Encryption { return fakeEncryption{f} }

// fakeWireGuard is what a WireGuard device has beyond other links. It is the
// link's with this index, and gone with it.
type fakeWireGuard struct {
	index   int
	key     WireGuardKey
	peers   map[WireGuardKey]WireGuardPeer
	owners  map[netip.Prefix]WireGuardKey // of allowed addresses
	traffic map[WireGuardKey]PeerTraffic
}

// encrypting returns the WireGuard device, or ENODEV. f.mu is held.
func (f *Fake) encrypting() (*fakeWireGuard, error) {
	l, exists := f.links[LinkWireGuard]
	switch {
	case !exists:
		return nil, fmt.Errorf("link %s: %w", LinkWireGuard, syscall.ENODEV)
	case l.Kind != string(WireGuard) || !IsTunnelLink(l):
		return nil, fmt.Errorf("link %s: %w: %w", LinkWireGuard, ErrForeign, syscall.ENODEV)
	}
	if f.wireguard.index != l.Index {
		f.wireguard = fakeWireGuard{
			index: l.Index, peers: make(map[WireGuardKey]WireGuardPeer),
			owners: make(map[netip.Prefix]WireGuardKey), traffic: make(map[WireGuardKey]PeerTraffic),
		}
		rand.Read(f.wireguard.key[:]) // never fails
	}
	return &f.wireguard, nil
}

type fakeEncryption struct{ *Fake }

func (f fakeEncryption) Peers() Table[WireGuardKey, WireGuardPeer] { return fakePeers(f) }

func (f fakeEncryption) Key(ctx context.Context) (WireGuardKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := cmp.Or(ctx.Err(), f.failure("read", "key"))
	if err == nil {
		var device *fakeWireGuard
		if device, err = f.encrypting(); err == nil {
			return device.key, nil
		}
	}
	return WireGuardKey{}, fmt.Errorf("read WireGuard key: %w", err)
}

func (f fakeEncryption) Traffic(ctx context.Context) ([]PeerTraffic, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "traffic")); err != nil {
		return nil, fmt.Errorf("read WireGuard traffic: %w", err)
	}
	device, err := f.encrypting()
	if err != nil {
		return nil, nil
	}
	var list []PeerTraffic
	for k, p := range device.peers {
		t := device.traffic[k]
		t.Key, t.Endpoint = k, p.Endpoint
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b PeerTraffic) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return list, nil
}

type fakePeers struct{ *Fake }

func (f fakePeers) Read(ctx context.Context) (map[WireGuardKey]WireGuardPeer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "peers")); err != nil {
		return nil, fmt.Errorf("read WireGuard peers: %w", err)
	}
	device, err := f.encrypting()
	if err != nil {
		return map[WireGuardKey]WireGuardPeer{}, nil
	}
	return copyMap(device.peers), nil
}

func (f fakePeers) Write(ctx context.Context, set map[WireGuardKey]WireGuardPeer, del []WireGuardKey) error {
	put := func(k WireGuardKey, p WireGuardPeer) error {
		if err := p.Check(k); err != nil {
			return err
		}
		return f.putPeer(k, p)
	}
	return fakeWrite(ctx, f.Fake, "WireGuard peers", set, del, put, f.delPeer)
}

// putPeer gives the device a peer, and the peer others' allowed addresses.
func (f *Fake) putPeer(k WireGuardKey, p WireGuardPeer) error {
	device, err := f.encrypting()
	if err != nil || k == device.key {
		return err
	}
	for _, prefix := range device.peers[k].Allowed.List() {
		delete(device.owners, prefix)
	}
	for _, prefix := range p.Allowed.List() {
		if owner, owned := device.owners[prefix]; owned {
			was := device.peers[owner]
			was.Allowed = PrefixesOf(slices.DeleteFunc(was.Allowed.List(), func(a netip.Prefix) bool { return a == prefix })...)
			device.peers[owner] = was
		}
		device.owners[prefix] = k
	}
	device.peers[k] = p
	return nil
}

func (f *Fake) delPeer(k WireGuardKey) error {
	if device, err := f.encrypting(); err == nil {
		for _, prefix := range device.peers[k].Allowed.List() {
			delete(device.owners, prefix)
		}
		delete(device.peers, k)
		delete(device.traffic, k)
	}
	return nil
}

// AddPeer does what "wg set" does. The link must be there.
func (f *Fake) AddPeer(k WireGuardKey, p WireGuardPeer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.putPeer(k, p); err != nil {
		panic(fmt.Sprintf("kernel.Fake: WireGuard peer %v: %v", k, err))
	}
}

// DropPeer does what "wg set peer remove" does.
func (f *Fake) DropPeer(k WireGuardKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.delPeer(k) // never fails
}

// SetTraffic says what went to and came from the peer with t.Key, which must be
// there. A valid t.Endpoint is where it sends from now.
func (f *Fake) SetTraffic(t PeerTraffic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	device, err := f.encrypting()
	if err != nil {
		panic(fmt.Sprintf("kernel.Fake: WireGuard traffic: %v", err))
	}
	p, exists := device.peers[t.Key]
	if !exists {
		panic(fmt.Sprintf("kernel.Fake: traffic of WireGuard peer %v, which does not exist", t.Key))
	}
	if t.Endpoint.IsValid() {
		p.Endpoint = t.Endpoint
		device.peers[t.Key] = p
	}
	device.traffic[t.Key] = t
}
