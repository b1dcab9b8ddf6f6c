package kernel

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// AddConnection adds an entry to the table of connections, or replaces the one of the
// same original tuple. An ID of 0 gives it the next one. It returns the entry.
func (f *Fake) AddConnection(c Connection) Connection {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.ID == 0 {
		f.nextConnection++
		c.ID = f.nextConnection
	}
	f.connections = slices.DeleteFunc(f.connections, func(old Connection) bool {
		return old.Original == c.Original && old.Zone == c.Zone
	})
	f.connections = append(f.connections, c)
	return c
}

// Connections returns the entries that are left of those added, in order.
func (f *Fake) Connections() []Connection {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.connections)
}

// Flush notes the addresses, see Flushed, and forgets their connections.
func (f *Fake) Flush(ctx context.Context, addrs ...netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, addr := range addrs {
		f.writes++
		if err := cmp.Or(ctx.Err(), f.failure("flush", addr)); err != nil {
			return err
		}
		f.flushed = append(f.flushed, addr)
		f.connections = slices.DeleteFunc(f.connections, func(c Connection) bool { return c.Concerns(addr.Unmap()) })
	}
	return nil
}

// List calls fn with the entries of AddConnection, in order. Fail("list", nil, err)
// makes it fail.
func (f *Fake) List(ctx context.Context, fn func(Connection) bool, addrs ...netip.Addr) error {
	f.mu.Lock()
	list, err := slices.Clone(f.connections), cmp.Or(ctx.Err(), f.failure("list", nil))
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	for _, c := range list {
		if (len(addrs) == 0 || c.Concerns(unmapped(addrs)...)) && !fn(c) {
			return nil
		}
	}
	return nil
}

// Delete forgets entries of AddConnection. Fail("forget", connection, err) makes it
// fail.
func (f *Fake) Delete(ctx context.Context, connections []Connection) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range connections {
		f.writes++
		if err := cmp.Or(ctx.Err(), f.failure("forget", c)); err != nil {
			return fmt.Errorf("delete connection %v: %w", c, err)
		}
		f.connections = slices.DeleteFunc(f.connections, func(old Connection) bool {
			return old.Original == c.Original && old.Zone == c.Zone && old.ID == c.ID
		})
	}
	return nil
}

func unmapped(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.Unmap())
	}
	return out
}
