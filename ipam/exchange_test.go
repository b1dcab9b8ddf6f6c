package ipam

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "cairn.network/cairn/api/v1"
)

// tunnel is a request for the addresses of a tunnel device.
func tunnel(ipv4, ipv6 bool, pools ...string) Request {
	return Request{Handle: TunnelHandle("vxlan.cairn"), IPv4: ipv4, IPv6: ipv6, Pools: pools}
}

func TestTunnelHandle(t *testing.T) {
	if !TunnelHandle("tunl0").IsTunnel() || TunnelHandle("tunl0") == TunnelHandle("vxlan.cairn") {
		t.Error("a tunnel's handle is none, or another's")
	}
	if (Handle{ContainerID: "tunnel", Interface: "tunl0"}).IsTunnel() {
		t.Error("a container's handle is a tunnel's")
	}
}

// TestExchange holds what becomes of the addresses of a handle when its request
// changes: what fits stays, the rest is exchanged or given back.
func TestExchange(t *testing.T) {
	const none = "none"
	for _, test := range []struct {
		name        string
		first, then Request
		disabled    string // pool that is disabled in between
		v4, v6      string // the pool of the address then; "same": it stays; none: there is none
		err         error
	}{
		{name: "nothing changed", first: tunnel(true, false, "four"), then: tunnel(true, false, "four"), v4: "same", v6: none},
		{name: "a pool more", first: tunnel(true, false, "four"), then: tunnel(true, false, "four", "other"), v4: "same", v6: none},
		{name: "another pool", first: tunnel(true, false, "four"), then: tunnel(true, false, "other"), v4: "other", v6: none},
		{name: "a family more", first: tunnel(true, false, "four"), then: tunnel(true, true, "four", "six"), v4: "same", v6: "six"},
		{name: "a family less", first: tunnel(true, true, "four", "six"), then: tunnel(false, true, "six"), v4: none, v6: "same"},
		{name: "both others", first: tunnel(true, false, "four"), then: tunnel(false, true, "six"), v4: none, v6: "six"},
		{name: "its pool is disabled", first: tunnel(true, false), then: tunnel(true, false), disabled: "four", v4: "other", v6: none},
		{name: "no such pool", first: tunnel(true, false, "four"), then: tunnel(true, false, "gone"), v4: "same", v6: none, err: ErrInvalid},
		{name: "a full pool", first: tunnel(true, false, "four"), then: tunnel(true, false, "tiny"), v4: "same", v6: none, err: ErrExhausted},
		{name: "no family", first: tunnel(true, false, "four"), then: tunnel(false, false), v4: "same", v6: none, err: ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, testPool("four", "10.0.0.0/24", 26), testPool("other", "10.1.0.0/24", 26),
					testPool("six", "fd00::/112", 122), testPool("tiny", "10.2.0.0/32", 32))
				journal := filepath.Join(t.TempDir(), "journal")
				a := c.start(t, Options{Journal: journal, Reserve: 2})
				if _, err := a.Assign(t.Context(), Request{Handle: Handle{"c1", "eth0"}, IPv4: true, Pools: []string{"tiny"}}); err != nil {
					t.Fatal(err)
				}
				was, err := a.Exchange(t.Context(), test.first)
				if err != nil {
					t.Fatal(err)
				}
				if test.disabled != "" {
					pools := slices.Clone(c.pools)
					i := slices.IndexFunc(pools, func(p *v1.IPPool) bool { return p.Name == test.disabled })
					pools[i] = pools[i].DeepCopy()
					pools[i].Spec.Disabled = true
					a.SetPools(pools, nil)
				}
				got, err := a.Exchange(t.Context(), test.then)
				if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
					t.Fatalf("Exchange: %v, want %v", err, test.err)
				}
				is, _ := a.Assignments().Get(test.first.Handle)
				if err == nil && !slices.Equal(got.Addrs(), is.Addrs()) {
					t.Errorf("answered %v, has %v", got.Addrs(), is.Addrs())
				}
				for _, f := range []struct {
					want     string
					was, now netip.Addr
				}{{test.v4, was.IPv4, is.IPv4}, {test.v6, was.IPv6, is.IPv6}} {
					switch {
					case f.want == none && f.now.IsValid(), f.want == "same" && f.now != f.was:
						t.Errorf("had %v, has %v, want %s", f.was, f.now, f.want)
					case f.want != none && f.want != "same":
						i := slices.IndexFunc(c.pools, func(p *v1.IPPool) bool { return p.Name == f.want })
						if !c.pools[i].Prefix().Contains(f.now) {
							t.Errorf("has %v, want one of %s", f.now, f.want)
						}
					}
				}
				flush(t, a)
				c.checkOwners(t, a.Assignments())
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				again, err := Open(Options{Node: "n1", Store: c, Journal: journal})
				if err != nil {
					t.Fatal(err)
				}
				defer again.Close()
				if after, _ := again.Assignments().Get(test.first.Handle); !slices.Equal(after.Addrs(), is.Addrs()) {
					t.Errorf("after a restart it has %v, want %v", after.Addrs(), is.Addrs())
				}
			})
		})
	}
}

// checkOwners holds that the datastore knows just these users of addresses.
func (c *cluster) checkOwners(t *testing.T, want *Assignments) {
	t.Helper()
	left := map[netip.Addr]Handle{}
	for as := range want.All() {
		for _, ip := range as.Addrs() {
			left[ip] = as.Handle
		}
	}
	for _, b := range c.blocks(t) {
		for _, al := range b.Spec.Allocations {
			ip := parsed(al.Address)
			if al.Owner == nil {
				continue
			}
			if h := (Handle{al.Owner.ContainerID, al.Owner.Interface}); left[ip] != h {
				t.Errorf("%s is %s's in the datastore, want %s", ip, h, left[ip])
			}
			delete(left, ip)
		}
	}
	for ip, h := range left {
		t.Errorf("%s of %s is nobody's in the datastore", ip, h)
	}
}

// fullDisk is a disk on which nothing can be written while it is full.
type fullDisk struct {
	osDisk
	full *atomic.Bool
}

func (d fullDisk) Create(path string) (file, error) {
	f, err := d.osDisk.Create(path)
	return fullFile{f, d.full}, err
}

type fullFile struct {
	file
	full *atomic.Bool
}

func (f fullFile) Write(b []byte) (int, error) {
	if f.full.Load() {
		return 0, errors.New("no space left on device")
	}
	return f.file.Write(b)
}

// TestExchangeRests holds that what was given back rests, and that a journal which
// can't be written leaves all as it was.
func TestExchangeRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, testPool("one", "10.0.0.0/32", 32), testPool("two", "10.1.0.0/32", 32))
		var full atomic.Bool
		a := c.start(t, Options{disk: fullDisk{full: &full}})
		was, err := a.Exchange(t.Context(), tunnel(true, false, "one"))
		if err != nil {
			t.Fatal(err)
		}
		full.Store(true)
		if _, err := a.Exchange(t.Context(), tunnel(true, false, "two")); err == nil {
			t.Error("an exchange that is not in the journal was answered")
		}
		if is, _ := a.Assignments().Get(was.Handle); is.IPv4 != was.IPv4 {
			t.Errorf("has %v after an exchange that failed, had %v", is.IPv4, was.IPv4)
		}
		full.Store(false)
		is, err := a.Exchange(t.Context(), tunnel(true, false, "two"))
		if err != nil {
			t.Fatal(err)
		}
		if is.IPv4 == was.IPv4 {
			t.Fatal("nothing was exchanged")
		}
		other := Request{Handle: Handle{"c1", "eth0"}, IPv4: true, Pools: []string{"one"}}
		if _, err := a.Assign(t.Context(), other); !errors.Is(err, ErrExhausted) {
			t.Errorf("an address given back just now: %v, want that it rests", err)
		}
		time.Sleep(30 * time.Second)
		if _, err := a.Assign(t.Context(), other); err != nil {
			t.Error(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if _, err := a.Exchange(ctx, tunnel(true, false, "two")); err != nil {
			t.Errorf("what is there needs no waiting: %v", err)
		}
	})
}
