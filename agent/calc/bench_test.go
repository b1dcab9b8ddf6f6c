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
	host := &kernel.Host{
		Links: map[string]kernel.Link{"eth0": {Name: "eth0", MTU: 1500, Up: true}},
		Addrs: map[kernel.Addr]struct{}{{Link: "eth0", Prefix: nodeAddress(0)}: {}},
		Foreign: map[kernel.RouteKey]kernel.Route{
			{Table: kernel.MainTable, Dst: nodeAddress(0).Masked()}: {Hops: kernel.Hops(kernel.NextHop{Link: "eth0"})},
		},
	}
	router := netip.MustParseAddr("172.16.0.1")
	rib := &bgp.RIB{Routes: map[netip.Prefix][]bgp.LearnedPath{}, Complete: true}
	var objects []v1.Object
	for i := range nodes {
		objects = append(objects, nodeObject(i), blockObject(i))
		if i%2 == 1 {
			rib.Routes[blockCIDR(i)] = []bgp.LearnedPath{{Peer: router, NextHop: router, LocalPref: 100}}
		}
	}
	mesh := false
	objects = append(objects,
		&v1.IPPool{TypeMeta: typeMeta("IPPool"), ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: v1.IPPoolSpec{CIDR: "10.0.0.0/8", BlockSize: 26}},
		&v1.BGPConfiguration{
			TypeMeta: typeMeta("BGPConfiguration"), ObjectMeta: metav1.ObjectMeta{Name: v1.DefaultName},
			Spec: v1.BGPConfigurationSpec{NodeToNodeMeshEnabled: &mesh},
		},
		&v1.BGPPeer{
			TypeMeta: typeMeta("BGPPeer"), ObjectMeta: metav1.ObjectMeta{Name: "tor"},
			Spec: v1.BGPPeerSpec{PeerIP: router.String(), ASNumber: 65001},
		})
	in := Inputs{Node: "n0", Store: datastore.NewSnapshot(objects...), Pods: ipam.NewAssignments(), Host: host, RIB: rib}
	for range 30 {
		in.Pods, in.Host = withPod(in)
	}
	return in
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
		Spec: v1.NodeSpec{BGP: &v1.NodeBGP{IPv4Address: nodeAddress(i).String()}},
	}
}

func blockCIDR(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

func blockObject(i int) *v1.IPAMBlock {
	cidr := blockCIDR(i)
	name := fmt.Sprintf("n%d", i)
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

func BenchmarkDesired(b *testing.B) {
	for _, nodes := range []int{100, 1000, 10000} {
		in := cluster(nodes)
		b.Run(fmt.Sprintf("nodes=%d/cold", nodes), func(b *testing.B) {
			for b.Loop() {
				Desired(in)
			}
		})
		change := func(name string, variants ...Inputs) {
			b.Run(fmt.Sprintf("nodes=%d/%s", nodes, name), func(b *testing.B) {
				var c Calculator
				for i := 0; b.Loop(); i++ {
					c.Desired(variants[i%len(variants)])
				}
			})
		}
		moved := blockObject(1)
		moved.Spec.Node = "n2"
		change("block", mirrored(b, in, moved)...)
		filled := blockObject(1)
		filled.Spec.Allocations = filled.Spec.Allocations[:5]
		change("allocation", mirrored(b, in, filled)...)
		more := in
		more.Pods, more.Host = withPod(in)
		change("pod", in, more)
		rib := in
		rib.RIB = &bgp.RIB{Routes: maps.Clone(in.RIB.Routes), Complete: true}
		delete(rib.RIB.Routes, blockCIDR(1))
		change("rib", in, rib)
	}
}

// mirrored returns the input twice, before and after a change of one object, with
// snapshots that share what did not change.
func mirrored(b *testing.B, in Inputs, o v1.Object) []Inputs {
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
	old, err := store.Get(b.Context(), key)
	if err != nil {
		b.Fatal(err)
	}
	o.SetResourceVersion(old.GetResourceVersion())
	if _, err := store.Update(b.Context(), o); err != nil {
		b.Fatal(err)
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
