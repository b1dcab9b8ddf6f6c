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
	seen := wireGuardDevice{index: index, allowed: make(map[kernel.WireGuardKey]kernel.Prefixes)}
	if hasKey(device) {
		seen.key = kernel.WireGuardKey(device.PublicKey)
	}
	for _, p := range device.Peers {
		key, peer := kernel.WireGuardKey(p.PublicKey), peerOf(p)
		peers[key], seen.allowed[key] = peer, peer.Allowed
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
	w := peersWrite{allowed: t.now(index).allowed}
	w.plan(set, del, missing)
	if len(w.changes) > 0 {
		err := t.wireGuard(func(client *wgctrl.Client) error { return w.send(ctx, client) })
		if err != nil {
			w.failed = append(w.failed, fmt.Errorf("write WireGuard peers: %w", err))
		}
	}
	return errors.Join(w.failed...)
}

// peersWrite is one Write.
type peersWrite struct {
	allowed map[kernel.WireGuardKey]kernel.Prefixes // as seen, see wireGuardDevice
	changes []peerChange
	failed  []error
}

// peerChange is what becomes of one peer.
type peerChange struct {
	key     kernel.WireGuardKey
	allowed kernel.Prefixes
	wgtypes.PeerConfig
}

// plan orders the changes: those that take nothing from a peer come first, so
// that a prefix which moves is without a peer at no time.
func (w *peersWrite) plan(set map[kernel.WireGuardKey]kernel.WireGuardPeer, del []kernel.WireGuardKey, missing error) {
	var last []peerChange
	for _, key := range slices.SortedFunc(maps.Keys(set), func(a, b kernel.WireGuardKey) int { return bytes.Compare(a[:], b[:]) }) {
		peer := set[key]
		if err := peer.Check(key); err != nil || missing != nil {
			w.fail("set", key, errors.Join(err, missing))
			continue
		}
		c := peerChange{key, peer.Allowed, peerConfig(key, peer)}
		was, seen := w.allowed[key]
		takes := seen && !includes(peer.Allowed, was)
		// What is allowed is replaced in two steps: between them the peer's packets are
		// lost. So it is not done to a peer that only gets more.
		c.ReplaceAllowedIPs = takes || !seen
		if takes {
			last = append(last, c)
		} else {
			w.changes = append(w.changes, c)
		}
	}
	w.changes = append(w.changes, last...)
	for _, key := range del {
		remove := wgtypes.PeerConfig{PublicKey: wgtypes.Key(key), Remove: true, UpdateOnly: true}
		w.changes = append(w.changes, peerChange{key: key, PeerConfig: remove})
	}
}

// includes says whether all of the part are in the whole.
func includes(whole, part kernel.Prefixes) bool {
	if whole == part {
		return true
	}
	all := whole.List()
	for _, p := range part.List() {
		if _, found := slices.BinarySearchFunc(all, p, netip.Prefix.Compare); !found {
			return false
		}
	}
	return true
}

func peerConfig(key kernel.WireGuardKey, peer kernel.WireGuardPeer) wgtypes.PeerConfig {
	c := wgtypes.PeerConfig{
		PublicKey: wgtypes.Key(key), Endpoint: net.UDPAddrFromAddrPort(peer.Endpoint),
		PresharedKey: new(wgtypes.Key), PersistentKeepaliveInterval: new(time.Duration), // zero: none
	}
	if peer.Probe {
		*c.PersistentKeepaliveInterval = wireGuardProbe
	}
	for _, p := range peer.Allowed.List() {
		c.AllowedIPs = append(c.AllowedIPs, net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return c
}

// send makes the changes, many in one message.
func (w *peersWrite) send(ctx context.Context, client *wgctrl.Client) error {
	for left := w.changes; len(left) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, prefixes := 1, len(left[0].AllowedIPs)
		for n < min(len(left), wireGuardBatch) && prefixes+len(left[n].AllowedIPs) <= wireGuardBatchAllowed {
			prefixes += len(left[n].AllowedIPs)
			n++
		}
		w.apply(client, left[:n])
		left = left[n:]
	}
	return nil
}

// apply makes the changes in one message. The kernel stops at the first that it
// does not take, and does not say which: then they are made one by one.
func (w *peersWrite) apply(client *wgctrl.Client, changes []peerChange) {
	var c wgtypes.Config
	for _, change := range changes {
		c.Peers = append(c.Peers, change.PeerConfig)
	}
	err := client.ConfigureDevice(kernel.LinkWireGuard, c)
	if err != nil && len(changes) > 1 {
		for i := range changes {
			w.apply(client, changes[i:i+1])
		}
		return
	}
	for _, change := range changes {
		switch {
		case err != nil:
			delete(w.allowed, change.key)
			w.fail(change.op(), change.key, wireGuardRefusal(err))
		case change.Remove:
			delete(w.allowed, change.key)
		default:
			w.allowed[change.key] = change.allowed
		}
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
