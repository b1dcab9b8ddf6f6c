package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// cluster returns what node n0 of a cluster sees: half of the nodes are in its
// subnet, the others are told by the router; each has one block; 30 pods here.
func cluster(nodes int) Inputs {
	router := netip.MustParseAddr("172.16.0.1")
	rib := &bgp.RIB{Routes: map[netip.Prefix][]bgp.LearnedPath{}, Complete: true}
	for i := 1; i < nodes; i += 2 {
		rib.Routes[blockCIDR(i)] = []bgp.LearnedPath{{Peer: router, NextHop: router, LocalPref: 100}}
	}
	objects := append(clusterObjects(nodes, nodes, false),
		&v1.IPPool{TypeMeta: typeMeta("IPPool"), ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: v1.IPPoolSpec{CIDR: "10.0.0.0/8", BlockSize: 26}},
		&v1.BGPPeer{
			TypeMeta: typeMeta("BGPPeer"), ObjectMeta: metav1.ObjectMeta{Name: "tor"},
			Spec: v1.BGPPeerSpec{PeerIP: router.String(), ASNumber: 65001},
		})
	in := Inputs{Node: "n0", Store: datastore.NewSnapshot(objects...), Pods: ipam.NewAssignments(), Host: benchHost(), RIB: rib}
	for range 30 {
		in.Pods, in.Host = withPod(in)
	}
	return in
}

// overlay returns what node n0 sees of a cluster whose packets all travel by
// VXLAN, without peers or in a full mesh.
func overlay(nodes, blocks int, mesh bool) Inputs {
	objects := append(clusterObjects(nodes, blocks, mesh), &v1.IPPool{
		TypeMeta: typeMeta("IPPool"), ObjectMeta: metav1.ObjectMeta{Name: "pods"},
		Spec: v1.IPPoolSpec{CIDR: "10.0.0.0/8", BlockSize: 26, VXLANMode: v1.EncapAlways},
	})
	device := ipam.Assignment{Handle: ipam.TunnelHandle(kernel.LinkVXLAN4), IPv4: blockCIDR(0).Addr()}
	return Inputs{
		Node: "n0", Store: datastore.NewSnapshot(objects...), Pods: ipam.NewAssignments(device), Host: benchHost(),
		RIB: &bgp.RIB{Complete: true},
	}
}

func benchHost() *kernel.Host {
	return &kernel.Host{
		Links: map[string]kernel.Link{"eth0": {Name: "eth0", MTU: 1500, Up: true}},
		Addrs: map[kernel.Addr]struct{}{{Link: "eth0", Prefix: nodeAddress(0)}: {}},
		Foreign: map[kernel.RouteKey]kernel.Route{
			{Table: kernel.MainTable, Dst: nodeAddress(0).Masked()}: {Hops: kernel.Hops(kernel.NextHop{Link: "eth0"})},
		},
	}
}

func clusterObjects(nodes, blocks int, mesh bool) []v1.Object {
	objects := []v1.Object{&v1.BGPConfiguration{
		TypeMeta: typeMeta("BGPConfiguration"), ObjectMeta: metav1.ObjectMeta{Name: v1.DefaultName},
		Spec: v1.BGPConfigurationSpec{NodeToNodeMeshEnabled: &mesh},
	}}
	for i := range nodes {
		objects = append(objects, nodeObject(i))
	}
	for i := range blocks {
		objects = append(objects, blockObject(i, i%nodes))
	}
	return objects
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: kind}
}

// nodeAddress puts even nodes into 172.16.0.0/16, odd ones into 172.17.0.0/16.
func nodeAddress(i int) netip.Prefix {
	n := i/2 + 10
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i%2), byte(n >> 8), byte(n)}), 16)
}

func nodeObject(i int) *v1.Node {
	return &v1.Node{
		TypeMeta: typeMeta("Node"), ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)},
		Spec: v1.NodeSpec{
			BGP:                 &v1.NodeBGP{IPv4Address: nodeAddress(i).String()},
			IPv4VXLANTunnelAddr: blockCIDR(i).Addr().String(), VXLANTunnelMACAddr: fmt.Sprintf("66:00:00:00:%02x:%02x", i>>8, i&255),
		},
	}
}

func blockCIDR(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

func blockObject(i, node int) *v1.IPAMBlock {
	cidr := blockCIDR(i)
	name := fmt.Sprintf("n%d", node)
	o := &v1.IPAMBlock{
		TypeMeta: typeMeta("IPAMBlock"), ObjectMeta: metav1.ObjectMeta{Name: v1.BlockName(cidr)},
		Spec: v1.IPAMBlockSpec{CIDR: cidr.String(), Pool: "pods", Node: name, State: v1.BlockConfirmed},
	}
	ip := cidr.Addr()
	for range 30 {
		o.Spec.Allocations = append(o.Spec.Allocations, v1.Allocation{Address: ip.String(), Node: name})
		ip = ip.Next()
	}
	return o
}

// withPod returns the pods and the host with one pod more.
func withPod(in Inputs) (*ipam.Assignments, *kernel.Host) {
	n := in.Pods.Len()
	a := ipam.Assignment{
		Handle: ipam.Handle{ContainerID: fmt.Sprintf("c%d", n), Interface: "eth0"},
		IPv4:   netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), Namespace: "default", Pod: fmt.Sprintf("p%d", n),
	}
	a.HostLink = kernel.PodLink(a.Namespace, a.Pod, a.Interface)
	list := []ipam.Assignment{a}
	for other := range in.Pods.All() {
		list = append(list, other)
	}
	host := *in.Host
	host.Links = maps.Clone(host.Links)
	host.Links[a.HostLink] = podLink(a)
	return ipam.NewAssignments(list...), &host
}

// BenchmarkFirst is the first computation, without anything kept.
func BenchmarkFirst(b *testing.B) {
	for _, size := range []struct{ nodes, blocks int }{{100, 100}, {1_000, 1_000}, {1_000, 10_000}, {10_000, 10_000}} {
		for _, mode := range []string{"plain", "vxlan"} {
			b.Run(fmt.Sprintf("nodes=%d/blocks=%d/%s", size.nodes, size.blocks, mode), func(b *testing.B) {
				in := overlay(size.nodes, size.blocks, false)
				if mode == "plain" {
					in = cluster(size.nodes)
				}
				for b.Loop() {
					Desired(in)
				}
			})
		}
	}
}

// BenchmarkChange is the computation after one change.
func BenchmarkChange(b *testing.B) {
	for _, nodes := range []int{100, 1_000, 10_000} {
		in, meshed := overlay(nodes, nodes, false), overlay(nodes, nodes, true)
		change := func(name string, variants ...Inputs) {
			b.Run(fmt.Sprintf("nodes=%d/%s", nodes, name), func(b *testing.B) {
				var c Calculator
				for _, in := range variants {
					c.Desired(in)
				}
				for i := 0; b.Loop(); i++ {
					c.Desired(variants[i%len(variants)])
				}
			})
		}
		moved := nodeObject(1)
		moved.Spec.BGP.IPv4Address = "172.18.0.1/16"
		change("address", mirrored(b, in, moved)...)
		moved = nodeObject(1)
		moved.Spec.BGP.IPv4Address = "172.18.0.1/16"
		change("address in the mesh", mirrored(b, meshed, moved)...)
		vtep := nodeObject(1)
		vtep.Spec.VXLANTunnelMACAddr = "66:00:00:00:ff:ff"
		change("vtep", mirrored(b, in, vtep)...)
		change("new block", mirrored(b, in, blockObject(nodes, 1))...)
		taken := blockObject(1, 2)
		change("block", mirrored(b, in, taken)...)
		filled := blockObject(1, 1)
		filled.Spec.Allocations = filled.Spec.Allocations[:5]
		change("allocation", mirrored(b, in, filled)...)
		plain := cluster(nodes)
		more := plain
		more.Pods, more.Host = withPod(plain)
		change("pod", plain, more)
		rib := plain
		rib.RIB = &bgp.RIB{Routes: maps.Clone(plain.RIB.Routes), Complete: true}
		delete(rib.RIB.Routes, blockCIDR(1))
		change("rib", plain, rib)
	}
}

// mirrored returns the input twice, before and after one object is set, with
// snapshots that share what did not change.
func mirrored(b testing.TB, in Inputs, o v1.Object) []Inputs {
	b.Helper()
	store := datastore.NewMemory()
	for _, old := range allObjects(in.Store) {
		if _, err := store.Create(b.Context(), old); err != nil {
			b.Fatal(err)
		}
	}
	mirror := datastore.NewMirror(store, "Node", "IPPool", "IPAMBlock", "BGPConfiguration", "BGPPeer", "AgentConfiguration")
	go mirror.Run(b.Context())
	before := in
	for before.Store = nil; before.Store == nil; before.Store = mirror.Snapshot() {
		<-mirror.Changed()
	}
	key := datastore.KeyOf(o)
	if old, err := store.Get(b.Context(), key); err != nil {
		_, err = store.Create(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
	} else {
		o.SetResourceVersion(old.GetResourceVersion())
		if _, err := store.Update(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
	after := before
	for after.Store == before.Store {
		<-mirror.Changed()
		after.Store = mirror.Snapshot()
	}
	return []Inputs{before, after}
}

func allObjects(s *datastore.Snapshot) []v1.Object {
	var list []v1.Object
	for o := range datastore.All[*v1.Node](s) {
		list = append(list, o)
	}
	for o := range datastore.All[*v1.IPAMBlock](s) {
		list = append(list, o)
	}
	for o := range datastore.All[*v1.IPPool](s) {
		list = append(list, o)
	}
	for o := range datastore.All[*v1.BGPConfiguration](s) {
		list = append(list, o)
	}
	for o := range datastore.All[*v1.BGPPeer](s) {
		list = append(list, o)
	}
	return list
}
