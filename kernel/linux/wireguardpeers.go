//go:build linux

package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"cairn.network/cairn/kernel"
)

// wireGuardBatch and wireGuardBatchAllowed bound the peers in one message and
// what is allowed to them: larger ones wgctrl would send peer by peer.
const (
	wireGuardBatch        = 32
	wireGuardBatchAllowed = 256
)

// wireGuardProbe is how often the kernel probes a peer.
const wireGuardProbe = time.Second

// wireGuardPeers is the table of the device's peers.
type wireGuardPeers struct{ *encryption }

func (t wireGuardPeers) Read(ctx context.Context) (map[kernel.WireGuardKey]kernel.WireGuardPeer, error) {
	peers := make(map[kernel.WireGuardKey]kernel.WireGuardPeer)
	index, device, err := t.device(ctx)
	switch {
	case errors.Is(err, unix.ENODEV):
		return peers, nil
	case err != nil:
		return nil, fmt.Errorf("read WireGuard peers: %w", err)
	}
	seen := newWireGuardDevice(index)
	for _, p := range device.Peers {
		key, peer := kernel.WireGuardKey(p.PublicKey), peerOf(p)
		peers[key] = peer
		seen.set(key, peer.Allowed, nil)
	}
	t.mu.Lock()
	t.seen = seen
	t.mu.Unlock()
	return peers, nil
}

// peerOf returns the peer as the table has it: without an endpoint, so that it
// equals none that is wanted, if another hand gave it what ours never have.
func peerOf(p wgtypes.Peer) kernel.WireGuardPeer {
	peer := kernel.WireGuardPeer{Probe: p.PersistentKeepaliveInterval == wireGuardProbe}
	if p.Endpoint != nil && p.PresharedKey == (wgtypes.Key{}) && (peer.Probe || p.PersistentKeepaliveInterval == 0) {
		peer.Endpoint = p.Endpoint.AddrPort()
	}
	allowed := make([]netip.Prefix, 0, len(p.AllowedIPs))
	for _, a := range p.AllowedIPs {
		addr, _ := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		allowed = append(allowed, netip.PrefixFrom(addr, bits))
	}
	peer.Allowed = kernel.PrefixesOf(allowed...)
	return peer
}

func (t wireGuardPeers) Write(ctx context.Context, set map[kernel.WireGuardKey]kernel.WireGuardPeer, del []kernel.WireGuardKey) error {
	if len(set)+len(del) == 0 {
		return nil
	}
	index, missing := t.wireGuardIndex(ctx)
	switch {
	case errors.Is(missing, unix.ENODEV):
		del = nil // they went with it
	case missing != nil:
		return fmt.Errorf("write WireGuard peers: %w", missing)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w := peersWrite{seen: t.now(index)}
	if changes := w.plan(set, del, missing); len(changes) > 0 {
		err := t.wireGuard(func(client *wgctrl.Client) error {
			w.client = client
			return w.send(ctx, changes)
		})
		if err != nil {
			w.failed = append(w.failed, fmt.Errorf("write WireGuard peers: %w", err))
		}
	}
	if len(w.failed) > 0 {
		t.seen = wireGuardDevice{} // a part may have been done
	}
	return errors.Join(w.failed...)
}

// peersWrite is one Write.
type peersWrite struct {
	client *wgctrl.Client
	seen   *wireGuardDevice
	failed []error
}

// peerChange is what becomes of one peer.
type peerChange struct {
	key     kernel.WireGuardKey
	allowed kernel.Prefixes
	wgtypes.PeerConfig
}

// plan returns the changes, and notes the failure of those that can't be made.
func (w *peersWrite) plan(set map[kernel.WireGuardKey]kernel.WireGuardPeer, del []kernel.WireGuardKey, missing error) []peerChange {
	var changes []peerChange
	for _, key := range slices.SortedFunc(maps.Keys(set), func(a, b kernel.WireGuardKey) int { return bytes.Compare(a[:], b[:]) }) {
		peer := set[key]
		if err := peer.Check(key); err != nil || missing != nil {
			w.fail("set", key, errors.Join(err, missing))
			continue
		}
		c := peerChange{key, peer.Allowed, peerConfig(key, peer)}
		// The kernel replaces what is allowed in two steps, and between them it drops the
		// peer's packets. So this is for peers only of which nothing is known.
		_, known := w.seen.allowed[key]
		c.ReplaceAllowedIPs = !known
		changes = append(changes, c)
	}
	for _, key := range del {
		remove := wgtypes.PeerConfig{PublicKey: wgtypes.Key(key), Remove: true, UpdateOnly: true}
		changes = append(changes, peerChange{key: key, PeerConfig: remove})
	}
	return changes
}

func peerConfig(key kernel.WireGuardKey, peer kernel.WireGuardPeer) wgtypes.PeerConfig {
	c := wgtypes.PeerConfig{
		PublicKey: wgtypes.Key(key), Endpoint: net.UDPAddrFromAddrPort(peer.Endpoint),
		PresharedKey: new(wgtypes.Key), PersistentKeepaliveInterval: new(time.Duration), // zero: none
	}
	if peer.Probe {
		*c.PersistentKeepaliveInterval = wireGuardProbe
	}
	c.AllowedIPs = ipNets(peer.Allowed.List())
	return c
}

func ipNets(prefixes []netip.Prefix) []net.IPNet {
	list := make([]net.IPNet, 0, len(prefixes))
	for _, p := range prefixes {
		list = append(list, net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return list
}

// send makes the changes, many in one message.
func (w *peersWrite) send(ctx context.Context, changes []peerChange) error {
	surplus := make(map[netip.Prefix]kernel.WireGuardKey)
	for left := changes; len(left) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, prefixes := 1, len(left[0].AllowedIPs)
		for n < min(len(left), wireGuardBatch) && prefixes+len(left[n].AllowedIPs) <= wireGuardBatchAllowed {
			prefixes += len(left[n].AllowedIPs)
			n++
		}
		w.apply(left[:n], surplus)
		left = left[n:]
	}
	w.disallow(surplus)
	return nil
}

// apply makes the changes in one message. The kernel stops at the first that it
// does not take, and does not say which: then they are made one by one. What peers
// are still allowed that they should not be goes into surplus.
func (w *peersWrite) apply(changes []peerChange, surplus map[netip.Prefix]kernel.WireGuardKey) {
	var c wgtypes.Config
	for _, change := range changes {
		c.Peers = append(c.Peers, change.PeerConfig)
	}
	err := w.client.ConfigureDevice(kernel.LinkWireGuard, c)
	if err != nil && len(changes) > 1 {
		for i := range changes {
			w.apply(changes[i:i+1], surplus)
		}
		return
	}
	for _, change := range changes {
		switch {
		case err != nil:
			w.fail(change.op(), change.key, wireGuardRefusal(err))
		case change.Remove:
			w.seen.drop(change.key)
		default:
			w.seen.set(change.key, change.allowed, surplus)
		}
	}
}

// disallow takes prefixes from the peers that still have them. The kernel knows no
// such request; but a prefix that is given to another peer goes from the first at
// once, and with that other peer when this is removed.
func (w *peersWrite) disallow(surplus map[netip.Prefix]kernel.WireGuardKey) {
	maps.DeleteFunc(surplus, func(p netip.Prefix, k kernel.WireGuardKey) bool { return w.seen.owners[p] != k })
	if len(surplus) == 0 {
		return
	}
	key, err := wgtypes.GenerateKey()
	if err == nil {
		take := wgtypes.PeerConfig{PublicKey: key, AllowedIPs: ipNets(slices.Collect(maps.Keys(surplus)))}
		remove := wgtypes.PeerConfig{PublicKey: key, Remove: true, UpdateOnly: true}
		err = w.client.ConfigureDevice(kernel.LinkWireGuard, wgtypes.Config{Peers: []wgtypes.PeerConfig{take, remove}})
	}
	if err != nil {
		failed := make(map[kernel.WireGuardKey]bool)
		for _, k := range surplus {
			if !failed[k] {
				w.fail("set", k, fmt.Errorf("take away what is allowed no more: %w", wireGuardRefusal(err)))
			}
			failed[k] = true
		}
		return
	}
	for p := range surplus {
		delete(w.seen.owners, p)
	}
}

func (c peerChange) op() string {
	if c.Remove {
		return "delete"
	}
	return "set"
}

func (w *peersWrite) fail(op string, key kernel.WireGuardKey, err error) {
	w.failed = append(w.failed, &kernel.KeyError[kernel.WireGuardKey]{Op: op, Key: key, Err: err})
}
