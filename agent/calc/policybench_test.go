package calc

import (
	"fmt"
	"net/netip"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// policed returns a node with 100 pods, each with a label of its own. Policies select
// them by these labels, and let the endpoints of other nodes with one of ten labels come
// to a port.
func policed(policies, endpoints int) Inputs {
	var objects []v1.Object
	tcp := v1.ProtocolTCP
	label := func(i int) (string, string) { return fmt.Sprintf("role-%d", i%10), fmt.Sprintf("value-%d", i/10) }
	for i := range policies {
		l, v := label(i)
		objects = append(objects, &v1.NetworkPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "NetworkPolicy"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: fmt.Sprintf("policy-%05d", i)},
			Spec: v1.NetworkPolicySpec{
				Selector: fmt.Sprintf("app == 'app-%03d'", i%100),
				Ingress: []v1.Rule{{Action: v1.ActionAllow, Protocol: &tcp,
					Source:      v1.EntityRule{Selector: fmt.Sprintf("%s == '%s'", l, v)},
					Destination: v1.EntityRule{Ports: []v1.Port{"10000"}}}},
			},
		})
	}
	for i := range endpoints {
		values := policies / 10
		labels := map[string]string{"pod-template-hash": fmt.Sprintf("%x-%x", i%values, i/values/10)}
		for k := range 10 {
			l, v := label(i%values*10 + k)
			labels[l] = v
		}
		a := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
		objects = append(objects, &v1.WorkloadEndpoint{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "WorkloadEndpoint"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: fmt.Sprintf("remote-%05d-eth0", i), Labels: labels},
			Spec: v1.WorkloadEndpointSpec{Node: fmt.Sprintf("n%d", 2+i/100), Pod: fmt.Sprintf("remote-%05d", i), ContainerID: fmt.Sprintf("%064x", i),
				Endpoint: "eth0", InterfaceName: fmt.Sprintf("cairn%08x", i), IPNetworks: []string{a.String() + "/32"}},
		})
	}
	var pods []ipam.Assignment
	for i := range 100 {
		pods = append(pods, ipam.Assignment{Handle: ipam.Handle{ContainerID: fmt.Sprint("c", i), Interface: "eth0"}, Namespace: "bench", Pod: fmt.Sprint("p", i),
			HostLink: fmt.Sprintf("cairn%d", i), IPv4: netip.AddrFrom4([4]byte{10, 244, 0, byte(i)}), Labels: map[string]string{"app": fmt.Sprintf("app-%03d", i)}})
	}
	objects = append(objects, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	for _, o := range objects {
		o.Default()
	}
	host := &kernel.Host{Links: map[string]kernel.Link{"net0": {Name: "net0", Index: 2, MTU: 1500, Up: true}}}
	return Inputs{Node: "n1", Store: datastore.NewSnapshot(objects...), Host: host, Pods: ipam.NewAssignments(pods...)}
}

// BenchmarkPolicies is the first computation, for these numbers of policies and endpoints
// of other nodes.
func BenchmarkPolicies(b *testing.B) {
	for _, size := range [][2]int{{100, 1_000}, {1_000, 10_000}} {
		in := policed(size[0], size[1])
		b.Run(fmt.Sprintf("policies=%d/endpoints=%d", size[0], size[1]), func(b *testing.B) {
			for b.Loop() {
				if s := Desired(in); s.Policies.Len() != size[0] {
					b.Fatalf("%d policies in force", s.Policies.Len())
				}
			}
		})
	}
}
