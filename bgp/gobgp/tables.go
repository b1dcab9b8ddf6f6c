package gobgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// peerTable is the table of peers.
type peerTable struct{ *Speaker }

// Read is kernel.Table's.
func (t peerTable) Read(context.Context) (map[netip.Addr]bgp.Peer, error) {
	out := map[netip.Addr]bgp.Peer{}
	if i := t.running.Load(); i != nil {
		for addr, p := range i.snapshotPeers() {
			out[addr] = p.settings()
		}
	}
	return out, nil
}

// Write is kernel.Table's.
func (t peerTable) Write(ctx context.Context, set map[netip.Addr]bgp.Peer, del []netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.running.Load()
	if i == nil {
		return refuse(set, bgp.ErrStopped)
	}
	defer i.settle()
	defer i.startDeferral(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.running.Load() == i {
			i.endDeferral()
		}
	})
	return i.writePeers(ctx, set, del)
}

func (i *instance) writePeers(ctx context.Context, set map[netip.Addr]bgp.Peer, del []netip.Addr) error {
	var errs []error
	fail := func(op string, addr netip.Addr, err error) {
		if err != nil {
			errs = append(errs, &kernel.KeyError[netip.Addr]{Op: op, Key: addr, Err: err})
		}
	}
	peers := i.snapshotPeers()
	for _, addr := range del {
		if p := peers[addr]; p != nil {
			fail("delete", addr, i.remove(ctx, p))
			delete(peers, addr)
		}
	}
	set = maps.Clone(set)
	maps.DeleteFunc(set, func(addr netip.Addr, want bgp.Peer) bool {
		err := want.Validate(addr)
		fail("set", addr, err)
		return err != nil
	})
	again, err := i.writePolicies(ctx, peers, set)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for addr, want := range set {
		p := peers[addr]
		switch {
		case p == nil:
			fail("set", addr, i.add(addr, want, nil))
		case p.settings().Resets(want):
			fail("set", addr, i.replace(ctx, p, want))
		default:
			p.adopt(want)
			if again[addr] {
				fail("set", addr, i.reconsider(ctx, addr))
			}
		}
	}
	return errors.Join(errs...)
}

// writePolicies puts the policies in force that peers and set need, and returns
// the addresses whose routes must be looked at again.
func (i *instance) writePolicies(ctx context.Context, peers map[netip.Addr]*peer, set map[netip.Addr]bgp.Peer) (map[netip.Addr]bool, error) {
	all, again := map[netip.Addr]bgp.Peer{}, map[netip.Addr]bool{}
	for addr, p := range peers {
		all[addr] = p.settings()
	}
	changed := false
	for addr, want := range set {
		old, ok := all[addr]
		changed = changed || old != want
		again[addr] = ok && old.Import != want.Import
		all[addr] = want
	}
	if !changed {
		return nil, nil
	}
	if err := i.server.SetPolicies(ctx, policies(all)); err != nil {
		return nil, fmt.Errorf("set policies: %w", err)
	}
	return again, nil
}

// reconsider applies the policies to what the peer told before.
func (i *instance) reconsider(ctx context.Context, addr netip.Addr) error {
	err := i.server.ResetPeer(ctx, &api.ResetPeerRequest{
		Address: addr.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_IN,
	})
	if err != nil {
		return fmt.Errorf("apply import policy: %w", err)
	}
	return nil
}

// pathTable is the table of own paths.
type pathTable struct{ *Speaker }

// Read is kernel.Table's.
func (t pathTable) Read(context.Context) (map[netip.Prefix]bgp.Path, error) {
	if i := t.running.Load(); i != nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		return maps.Clone(i.paths), nil
	}
	return map[netip.Prefix]bgp.Path{}, nil
}

// Write is kernel.Table's.
func (t pathTable) Write(_ context.Context, set map[netip.Prefix]bgp.Path, del []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.running.Load()
	if i == nil {
		return refuse(set, bgp.ErrStopped)
	}
	return errors.Join(i.withdraw(del), i.advertise(set))
}

func (i *instance) withdraw(del []netip.Prefix) error {
	var paths []*apiutil.Path
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, prefix := range del {
		if _, ok := i.paths[prefix]; !ok {
			continue
		}
		p, err := encode(prefix, bgp.Path{})
		if err != nil {
			return err // it was encoded before
		}
		paths = append(paths, p)
	}
	if len(paths) == 0 {
		return nil
	}
	if err := i.server.DeletePath(apiutil.DeletePathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("withdraw paths: %w", err)
	}
	for _, prefix := range del {
		delete(i.paths, prefix)
	}
	return nil
}

func (i *instance) advertise(set map[netip.Prefix]bgp.Path) error {
	var errs []error
	fresh := map[netip.Prefix]bgp.Path{}
	var paths []*apiutil.Path
	i.mu.Lock()
	defer i.mu.Unlock()
	for prefix, want := range set {
		if have, ok := i.paths[prefix]; ok && have == want {
			continue
		}
		p, err := encode(prefix, want)
		if err != nil {
			errs = append(errs, &kernel.KeyError[netip.Prefix]{Op: "set", Key: prefix, Err: err})
			continue
		}
		fresh[prefix] = want
		paths = append(paths, p)
	}
	if len(paths) > 0 {
		if _, err := i.server.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
			return errors.Join(append(errs, fmt.Errorf("advertise paths: %w", err))...)
		}
		maps.Copy(i.paths, fresh)
	}
	return errors.Join(errs...)
}

// refuse returns err for each key.
func refuse[K comparable, V any](set map[K]V, err error) error {
	var errs []error
	for k := range set {
		errs = append(errs, &kernel.KeyError[K]{Op: "set", Key: k, Err: err})
	}
	return errors.Join(errs...)
}
