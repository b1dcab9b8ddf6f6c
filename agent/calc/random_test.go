package calc

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// dice makes random inputs, good and bad, from few values so that they meet.
type dice struct{ roll func(n int) int }

func pick[T any](d dice, from ...T) T { return from[d.roll(len(from))] }

// some returns up to n values.
func some[T any](d dice, n int, one func() T) []T {
	list := make([]T, d.roll(n+1))
	for i := range list {
		list[i] = one()
	}
	return list
}

func (d dice) node() string { return pick(d, "n1", "n1", "n2", "n3", "n4", "n5", "") }

func (d dice) address() string {
	return pick(d, "192.0.2.1", "192.0.2.11", "192.0.2.12", "198.51.100.13", "198.51.100.1", "203.0.113.9",
		"10.244.0.1", "10.244.0.2", "10.244.0.65", "10.244.0.130", "2001:db8:a::1", "2001:db8:a::11", "2001:db8:a::12",
		"2001:db8:b::13", "fd00:244::1", "fd00:244::41", "::ffff:192.0.2.1", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "no", "")
}

func (d dice) prefix() string {
	return pick(d, "10.244.0.0/26", "10.244.0.0/26", "10.244.0.64/26", "10.244.0.128/26", "10.244.0.192/26", "10.244.0.0/24",
		"10.244.0.0/16", "10.244.0.65/32", "10.244.0.2/32", "10.244.0.130/32", "10.244.0.0/28", "10.0.0.0/8", "0.0.0.0/0", "203.0.113.0/24",
		"192.0.2.0/24", "192.0.2.12/32", "192.0.2.0/25", "192.0.0.0/16", "198.51.100.0/24", "198.51.100.1/32",
		"fd00:244::/122", "fd00:244::40/122", "fd00:244::/64", "fd00:244::41/128", "::/0", "2001:db8:a::/64", "2001:db8:b::/64",
		"10.244.0.9/26", "::ffff:10.0.0.0/104", "224.0.0.0/4", "no", "", "10.244.0.0/33")
}

// link is one of few names, not all of which exist.
func (d dice) link() string {
	return pick(d, "eth0", "eth0", "eth1", "lo", kernel.LinkIPIP, kernel.PodLink("default", "a", "eth0"), "none", "")
}

func (d dice) meta(kind, name string) (metav1.TypeMeta, metav1.ObjectMeta) {
	return metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: kind}, metav1.ObjectMeta{
		Name: name, CreationTimestamp: metav1.Unix(int64(d.roll(3)), 0),
		Labels: map[string]string{"rack": pick(d, "a", "b")},
	}
}

func (d dice) object() v1.Object {
	if d.roll(3) > 0 {
		return d.sensible()
	}
	switch d.roll(9) {
	case 0, 1:
		return d.nodeObject()
	case 2:
		o := &v1.IPPool{Spec: v1.IPPoolSpec{
			CIDR: d.prefix(), BlockSize: pick(d, 0, 26, 122, 99), NodeSelector: pick(d, "", "all()", "rack == 'a'", "(("),
			IPIPMode: d.mode(), VXLANMode: d.mode(), DisableBGPExport: d.roll(4) == 0, Disabled: d.roll(4) == 0,
			NATOutgoing: d.roll(4) == 0,
		}}
		o.TypeMeta, o.ObjectMeta = d.meta("IPPool", pick(d, "p1", "p2", "p3"))
		return o
	case 3, 4, 5:
		o := &v1.IPAMBlock{Spec: v1.IPAMBlockSpec{
			CIDR: d.prefix(), Pool: pick(d, "p1", "p2", ""), Node: d.node(),
			State: pick(d, v1.BlockConfirmed, v1.BlockConfirmed, v1.BlockPending, v1.BlockReleasing, ""),
			Allocations: some(d, 2, func() v1.Allocation {
				return v1.Allocation{Address: d.address(), Node: d.node()}
			}),
		}}
		name := fmt.Sprintf("b%d", d.roll(6))
		if cidr := o.Prefix(); cidr.IsValid() && d.roll(6) > 0 {
			name = v1.BlockName(cidr)
		}
		o.TypeMeta, o.ObjectMeta = d.meta("IPAMBlock", name)
		return o
	case 6:
		o := &v1.BGPConfiguration{Spec: v1.BGPConfigurationSpec{
			NodeToNodeMeshEnabled: pick(d, nil, new(true), new(false)), ASNumber: pick(d, nil, new(uint32(0)), new(uint32(65000))),
			ListenPort: pick[int32](d, 0, 1179, -1, 70000), NodeMeshMaxRestartTime: d.duration(),
			ClusterRoutes: pick(d, "", v1.ClusterRoutesDatastore, v1.ClusterRoutesBGP, "no"),
		}}
		o.TypeMeta, o.ObjectMeta = d.meta("BGPConfiguration", pick(d, v1.DefaultName, "other"))
		return o
	case 7:
		o := &v1.AgentConfiguration{Spec: v1.AgentConfigurationSpec{
			WireGuardEnabled: pick(d, nil, new(true), new(true), new(false)), WireGuardListeningPort: pick(d, nil, new(int32(51821)), new(int32(0))),
			VXLANVNI: pick(d, nil, nil, new(int32(4097)), new(int32(0))), VXLANPort: pick(d, nil, nil, new(int32(8472))),
			VXLANChecksumOffload: pick(d, nil, new(v1.ChecksumOffloadDisabled), new(v1.ChecksumOffload("no"))),
		}}
		o.TypeMeta, o.ObjectMeta = d.meta("AgentConfiguration", pick(d, v1.DefaultName, v1.DefaultName, "node.n1", "node.n2", "other"))
		return o
	}
	o := &v1.BGPPeer{Spec: v1.BGPPeerSpec{
		Node: pick(d, "", "", "n1", "n2"), NodeSelector: pick(d, "", "", "all()", "rack == 'a'", "rack =="),
		PeerIP: d.address() + pick(d, "", "", ":179", ":0"), ASNumber: pick[uint32](d, 0, 64512, 65001),
		MaxRestartTime: d.duration(), KeepaliveTime: d.duration(), AcceptCIDRs: some(d, 3, d.prefix),
	}}
	o.TypeMeta, o.ObjectMeta = d.meta("BGPPeer", fmt.Sprintf("tor%d", d.roll(4)))
	return o
}

// sensible is an object of a cluster that works: nodes in two racks, pools of
// every mode, blocks and borrowed addresses, with few things out of the ordinary.
func (d dice) sensible() v1.Object {
	nodes := []string{"n1", "n2", "n3", "n4"}
	switch d.roll(9) {
	case 0, 1, 2:
		n := d.roll(len(nodes))
		rack, subnet := pick(d, "a", "a", "b"), "192.0.2."
		if rack == "b" {
			subnet = "198.51.100."
		}
		o := &v1.Node{Spec: v1.NodeSpec{BGP: &v1.NodeBGP{
			IPv4Address: fmt.Sprintf("%s%d/%s", subnet, 11+n, pick(d, "24", "24", "25", "32")),
			IPv6Address: pick(d, "", fmt.Sprintf("2001:db8:%s::%d/64", rack, 11+n)),
		}}}
		if n == 0 {
			o.Spec.BGP.IPv4Address, o.Spec.BGP.IPv6Address = pick(d, "192.0.2.11/24", "192.0.2.11/32"), "2001:db8:a::11/64"
		}
		if d.roll(4) == 0 {
			o.Spec.BGP.IPv4Address = "192.0.2.12/24" // whoever it is
		}
		d.publish(o)
		o.TypeMeta, o.ObjectMeta = d.meta("Node", nodes[n])
		return o
	case 3:
		cidrs := []string{"10.244.0.0/25", "10.244.0.128/25", "fd00:244::/64"}
		n := d.roll(len(cidrs))
		o := &v1.IPPool{Spec: v1.IPPoolSpec{CIDR: cidrs[n], Disabled: d.roll(6) == 0, NATOutgoing: d.roll(3) == 0}}
		mode := pick(d, v1.EncapNever, v1.EncapAlways, v1.EncapCrossSubnet)
		if n < 2 && d.roll(2) == 0 {
			o.Spec.IPIPMode = mode
		} else {
			o.Spec.VXLANMode = mode
		}
		o.TypeMeta, o.ObjectMeta = d.meta("IPPool", fmt.Sprintf("p%d", n+1))
		return o
	case 4:
		enabled := d.roll(2) == 0
		o := &v1.AgentConfiguration{Spec: v1.AgentConfigurationSpec{WireGuardEnabled: &enabled}}
		o.TypeMeta, o.ObjectMeta = d.meta("AgentConfiguration", pick(d, v1.DefaultName, "node.n1"))
		return o
	case 5:
		o := &v1.BGPPeer{Spec: v1.BGPPeerSpec{
			PeerIP: pick(d, "192.0.2.11", "192.0.2.12", "192.0.2.1", "2001:db8:a::12"), ASNumber: 64512,
			AcceptCIDRs: some(d, 1, func() string { return "203.0.113.0/24" }), NodeSelector: pick(d, "", "rack == 'a'"),
		}}
		o.TypeMeta, o.ObjectMeta = d.meta("BGPPeer", fmt.Sprintf("tor%d", d.roll(4)))
		return o
	}
	o := &v1.IPAMBlock{Spec: v1.IPAMBlockSpec{
		CIDR: pick(d, "10.244.0.0/26", "10.244.0.64/26", "10.244.0.128/26", "10.244.0.192/26", "10.244.0.192/32", "192.0.2.0/25",
			"fd00:244::/122", "fd00:244::40/122"),
		Pool: "p1", Node: pick(d, nodes...), State: pick(d, v1.BlockConfirmed, v1.BlockConfirmed, v1.BlockConfirmed, v1.BlockPending),
		Allocations: some(d, 2, func() v1.Allocation {
			return v1.Allocation{Address: pick(d, d.tunnelAddress4(), d.tunnelAddress6()), Node: pick(d, nodes...)}
		}),
	}}
	o.TypeMeta, o.ObjectMeta = d.meta("IPAMBlock", v1.BlockName(o.Prefix()))
	return o
}

func (d dice) nodeObject() v1.Object {
	o := &v1.Node{}
	if d.roll(6) > 0 {
		o.Spec.BGP = &v1.NodeBGP{
			IPv4Address: pick(d, "192.0.2.11/24", "192.0.2.12/24", "198.51.100.13/24", "192.0.2.13/32", "192.0.2.0/24", "no", ""),
			IPv6Address: pick(d, "2001:db8:a::11/64", "2001:db8:a::12/64", "2001:db8:b::13/64", "", "fe80::1/64", "192.0.2.11/24"),
			ASNumber:    pick(d, nil, nil, new(uint32(64600)), new(uint32(0))),
		}
	}
	if d.roll(3) > 0 {
		d.publish(o)
	}
	o.TypeMeta, o.ObjectMeta = d.meta("Node", pick(d, "n1", "n1", "n2", "n3", "n4"))
	return o
}

// publish adds tunnel devices to a node, which others may have too.
func (d dice) publish(o *v1.Node) {
	if o.Spec.BGP != nil && d.roll(2) == 0 {
		o.Spec.BGP.IPv4IPIPTunnelAddr = d.tunnelAddress4()
	}
	if d.roll(2) == 0 {
		o.Spec.IPv4VXLANTunnelAddr, o.Spec.VXLANTunnelMACAddr = d.tunnelAddress4(), d.mac()
	}
	if d.roll(2) == 0 {
		o.Spec.IPv6VXLANTunnelAddr, o.Spec.VXLANTunnelMACAddrV6 = d.tunnelAddress6(), d.mac()
	}
	if d.roll(2) == 0 {
		key := kernel.WireGuardKey{byte(d.roll(5))}
		o.Spec.WireGuard = &v1.NodeWireGuard{
			PublicKey: key.String(), ListeningPort: pick[int32](d, 51820, 51821),
			InterfaceIPv4Address: d.tunnelAddress4(), InterfaceIPv6Address: d.tunnelAddress6(),
		}
		if d.roll(20) == 0 {
			o.Spec.WireGuard.PublicKey = "no"
		}
	}
}

func (d dice) tunnelAddress4() string {
	return pick(d, "", "10.244.0.3", "10.244.0.66", "10.244.0.131", "10.244.0.65", "192.0.2.12")
}

func (d dice) tunnelAddress6() string {
	return pick(d, "", "fd00:244::3", "fd00:244::43", "fd00:244::41", "2001:db8:a::12")
}

func (d dice) mac() string {
	return pick(d, "66:00:00:00:00:01", "66:00:00:00:00:02", "66:00:00:00:00:03", "00:00:00:00:00:00")
}

func (d dice) met() immutable.Map[kernel.WireGuardKey, bool] {
	var m immutable.Map[kernel.WireGuardKey, bool]
	for i := range byte(5) {
		if d.roll(3) > 0 {
			m = m.With(kernel.WireGuardKey{i}, true)
		}
	}
	return m
}

func (d dice) lacking() immutable.Map[kernel.TunnelKind, bool] {
	var m immutable.Map[kernel.TunnelKind, bool]
	for _, k := range []kernel.TunnelKind{kernel.IPIP, kernel.VXLAN, kernel.WireGuard} {
		if d.roll(6) == 0 {
			m = m.With(k, true)
		}
	}
	return m
}

func (d dice) mode() v1.EncapMode {
	return pick(d, "", "", v1.EncapNever, v1.EncapAlways, v1.EncapCrossSubnet, "no")
}

func (d dice) duration() *metav1.Duration {
	return pick(d, nil, &metav1.Duration{}, &metav1.Duration{Duration: 7 * time.Second}, &metav1.Duration{Duration: -time.Hour},
		&metav1.Duration{Duration: 1500 * time.Millisecond}, &metav1.Duration{Duration: 9999 * time.Hour})
}

func (d dice) pods() *ipam.Assignments {
	list := some(d, 4, d.pod)
	for _, link := range kernel.TunnelLinks() {
		if d.roll(3) > 0 {
			a := ipam.Assignment{Handle: ipam.TunnelHandle(link)}
			a.IPv4, _ = netip.ParseAddr(d.tunnelAddress4())
			a.IPv6, _ = netip.ParseAddr(d.tunnelAddress6())
			list = append(list, a)
		}
	}
	return ipam.NewAssignments(list...)
}

func (d dice) pod() ipam.Assignment {
	v4, _ := netip.ParseAddr(pick(d, "10.244.0.1", "10.244.0.2", "10.244.0.65", ""))
	v6, _ := netip.ParseAddr(pick(d, "fd00:244::1", "fd00:244::41", ""))
	return ipam.Assignment{
		Handle: ipam.Handle{ContainerID: pick(d, "c1", "c2", "c3"), Interface: pick(d, "eth0", "eth1")},
		IPv4:   v4, IPv6: v6, Namespace: "default", Pod: pick(d, "a", "b"), HostLink: d.link(),
	}
}

func (d dice) host() *kernel.Host {
	h := &kernel.Host{
		Release: pick(d, "6.1.0-41-amd64", "5.6.0", ""),
		Links:   map[string]kernel.Link{}, Addrs: map[kernel.Addr]struct{}{}, Foreign: map[kernel.RouteKey]kernel.Route{},
	}
	for range d.roll(6) {
		a := d.pod()
		l := podLink(a)
		l.Name, l.MTU, l.Up, l.Index = d.link(), pick(d, 0, 1400, 9000), d.roll(4) > 0, d.roll(9)
		if d.roll(2) == 0 {
			l.Alias = pick(d, "", "cairn.network/pod x", "mine")
		}
		h.Links[l.Name] = l
	}
	delete(h.Links, "")
	for _, link := range kernel.TunnelLinks() {
		if d.roll(3) == 0 {
			h.Links[link] = kernel.Link{Name: link, MTU: 1400, Up: d.roll(4) > 0, Alias: pick(d, kernel.TunnelAlias, kernel.TunnelAlias, "")}
			p, _ := netip.ParsePrefix(pick(d, "10.244.0.3/32", "192.0.2.11/32", "fd00:244::3/128"))
			h.Addrs[kernel.Addr{Link: link, Prefix: p}] = struct{}{}
		}
	}
	if d.roll(4) > 0 {
		h.Links["eth0"] = kernel.Link{Name: "eth0", MTU: 1500, Up: true}
		h.Addrs[kernel.Addr{Link: "eth0", Prefix: netip.MustParsePrefix("192.0.2.11/24")}] = struct{}{}
		h.Foreign[kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix("0.0.0.0/0")}] = kernel.Route{
			Hops: kernel.Hops(kernel.NextHop{Gateway: netip.MustParseAddr("192.0.2.1"), Link: "eth0"}),
		}
	}
	for range d.roll(4) {
		p, _ := netip.ParsePrefix(pick(d, "192.0.2.11/24", "192.0.2.11/32", "2001:db8:a::11/64", "fe80::1/64", "10.244.0.1/24", ""))
		h.Addrs[kernel.Addr{Link: d.link(), Prefix: p}] = struct{}{}
	}
	for range d.roll(6) {
		p, _ := netip.ParsePrefix(d.prefix())
		k := kernel.RouteKey{Table: pick[uint32](d, kernel.MainTable, kernel.MainTable, 255), Dst: p.Masked(), Priority: pick[uint32](d, 0, 100, 1024)}
		hops := slices.DeleteFunc(some(d, 2, d.hop), func(h kernel.NextHop) bool {
			return h.Gateway.IsValid() && h.Gateway.Is4() != p.Addr().Is4()
		})
		h.Foreign[k] = kernel.Route{Type: pick(d, kernel.Unicast, kernel.Unicast, kernel.Blackhole), Hops: kernel.Hops(hops...)}
	}
	return h
}

func (d dice) hop() kernel.NextHop {
	gateway, _ := netip.ParseAddr(pick(d, "", "192.0.2.1", "198.51.100.1", "2001:db8:a::1", "10.244.0.1"))
	return kernel.NextHop{Gateway: gateway, Link: d.link(), OnLink: d.roll(4) == 0, Weight: uint8(d.roll(3))}
}

func (d dice) rib() *bgp.RIB {
	if d.roll(8) == 0 {
		return &bgp.RIB{}
	}
	r := &bgp.RIB{Routes: map[netip.Prefix][]bgp.LearnedPath{}, Complete: d.roll(2) == 0}
	for range d.roll(8) {
		p, _ := netip.ParsePrefix(d.prefix())
		r.Routes[p] = some(d, 3, func() bgp.LearnedPath {
			peer, _ := netip.ParseAddr(d.address())
			via, _ := netip.ParseAddr(d.address())
			if d.roll(4) > 0 { // another node
				peer = netip.MustParseAddr(pick(d, "192.0.2.12", "192.0.2.1", "198.51.100.13"))
				if p.Addr().Is6() {
					peer = netip.MustParseAddr(pick(d, "2001:db8:a::12", "2001:db8:b::13"))
				}
				via = peer
			}
			return bgp.LearnedPath{Peer: peer, NextHop: via, LocalPref: pick[uint32](d, 0, 100, 101)}
		})
	}
	return r
}
