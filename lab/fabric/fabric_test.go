package fabric_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/topology"
)

func build(t *testing.T, file string) (*topology.Topology, string) {
	t.Helper()
	topo, err := topology.Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := netns.DeleteAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := fabric.Build(topo, dir); err != nil {
		t.Fatal(err)
	}
	return topo, dir
}

// dial opens a TCP connection from one host to an address of another.
func dial(t *testing.T, dir, from, to string, addr netip.Addr) {
	t.Helper()
	var l net.Listener
	err := netns.Do(fabric.Path(dir, to), func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = netns.Do(fabric.Path(dir, from), func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
			if err == nil {
				c.Close()
			}
			// The kernel adds the local route of an IPv6 address a moment after the address.
			if !errors.Is(err, syscall.EHOSTUNREACH) {
				return err
			}
		}
	})
	if err != nil {
		t.Errorf("%s to %s: %v", from, to, err)
	}
}

func named(t *testing.T, name string) string {
	t.Helper()
	b, err := topology.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryHostReachesEveryOther(t *testing.T) {
	const twoRouters = `
racks:
- {name: r1, subnets: [10.1.0.0/24, "fd00:1::/64"], nodes: [a]}
- {name: r2, subnets: [10.2.0.0/24, "fd00:2::/64"], nodes: [b]}
routers: [{name: left, announce: [192.0.2.0/24]}, {name: right}]
`
	tests := []struct{ name, file string }{
		{"plain", named(t, topology.Plain)},
		{"two routers", twoRouters},
		{"IPv4 alone", `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: 2}]`},
		{"IPv6 alone", `racks: [{name: r1, subnets: ["fd00:1::/64"], nodes: 2}]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, err := net.Interfaces()
			if err != nil {
				t.Fatal(err)
			}
			topo, dir := build(t, tt.file)
			hosts := append([]topology.Host{topo.Etcd}, topo.Nodes...)
			for _, to := range hosts {
				for _, addr := range to.Addrs {
					for _, from := range hosts {
						dial(t, dir, from.Name, to.Name, addr.Addr())
					}
				}
			}
			if r := topo.Routers[0]; len(topo.Routers) == 1 { // else the other may be asked, which does not know
				for _, p := range r.Announce {
					dial(t, dir, topo.Nodes[0].Name, r.Name, p.Addr().Next())
				}
			}
			after, err := net.Interfaces()
			if err != nil {
				t.Fatal(err)
			}
			if len(after) != len(before) {
				t.Errorf("the host had %d links and has %d", len(before), len(after))
			}
		})
	}
}

func TestReaddress(t *testing.T) {
	topo, dir := build(t, named(t, topology.Plain))
	n := topo.Nodes[0]
	for i, a := range n.Addrs {
		n.Addrs[i] = netip.PrefixFrom(a.Addr().Next().Next().Next(), a.Bits())
	}
	for range 2 { // the same again is no error
		if err := fabric.Readdress(dir, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range n.Addrs {
		dial(t, dir, topo.Nodes[3].Name, n.Name, a.Addr())
		dial(t, dir, n.Name, n.Name, a.Addr())
	}
	for _, a := range topo.Nodes[3].Addrs { // by its default routes
		dial(t, dir, n.Name, topo.Nodes[3].Name, a.Addr())
	}
}

func TestBuildWithoutFolder(t *testing.T) {
	topo, err := topology.Parse([]byte(named(t, topology.Plain)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() + "/none"
	if err := fabric.Build(topo, dir); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("made the folder")
	}
}
