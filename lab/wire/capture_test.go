package wire

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/probe"
	"cairn.network/cairn/lab/topology"
)

// TestCapture sees packets of a tunnel made by hand, and of none, at the router
// between two racks and in the fabric.
func TestCapture(t *testing.T) {
	topo, err := topology.Parse([]byte(`{racks: [{name: r1, subnets: [10.1.0.0/24], nodes: [a]}, {name: r2, subnets: [10.2.0.0/24], nodes: [b]}], routers: [{name: tor, speaker: none}]}`))
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
	outside := map[string]netip.Addr{"a": netip.MustParseAddr("10.1.0.11"), "b": netip.MustParseAddr("10.2.0.11")}
	inside := map[string]netip.Addr{"a": netip.MustParseAddr("10.9.0.1"), "b": netip.MustParseAddr("10.9.0.2")}
	for host, peer := range map[string]string{"a": "b", "b": "a"} {
		err := netns.Do(fabric.Path(dir, host), func() error { return tunnel(outside[host], outside[peer], inside[host]) })
		if err != nil {
			t.Fatal(err)
		}
	}
	logs := map[string]*Log{topology.Fabric: {}, "tor": {}}
	for host, log := range logs {
		c, err := StartCapture(fabric.Path(dir, host), Ports{4789: VXLAN}, func(p Packet) { log.Add(Fabric, p) })
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, dst := range []netip.Addr{outside["b"], inside["b"]} {
		if err := probe.AskUntil(ctx, fabric.Path(dir, "a"), probe.Ping, dst, func() []netip.Addr { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	vxlan := Transport{VXLAN, 77, 4789, outside["a"], outside["b"]}
	back := Transport{VXLAN, 77, 4789, outside["b"], outside["a"]}
	want := []Packet{
		{Transport{Kind: Plain}, outside["a"], outside["b"]}, {Transport{Kind: Plain}, outside["b"], outside["a"]},
		{vxlan, inside["a"], inside["b"]}, {back, inside["b"], inside["a"]},
	}
	for host, log := range logs {
		for _, p := range want {
			for !log.has(p) && ctx.Err() == nil {
				time.Sleep(time.Millisecond) // between two looks
			}
			if !log.has(p) {
				t.Errorf("%s: %s, %s > %s was not seen", host, p.Transport, p.Src, p.Dst)
			}
		}
	}
	if _, err := StartCapture(dir+"/none", nil, nil); err == nil {
		t.Error("a capture nowhere: no error")
	}
}

func (l *Log) has(p Packet) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.seen[sighting{Fabric, p}]
	return ok
}

// tunnel makes a VXLAN device to one peer in the calling thread's namespace.
func tunnel(local, remote, inside netip.Addr) error {
	v := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: "hand"},
		VxlanId:   77, Port: 4789, SrcAddr: net.IP(local.AsSlice()), Group: net.IP(remote.AsSlice()),
	}
	if err := netlink.LinkAdd(v); err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: inside.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(v, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(v)
}
