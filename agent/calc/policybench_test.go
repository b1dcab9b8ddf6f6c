package calc

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

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

var keep any

func BenchmarkPoliced(b *testing.B) {
	in := policed(1000, 10000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		var c Calculator
		s := c.Desired(in)
		keep = []any{&c, s}
		if s.Elements.Len() < 1000 {
			b.Fatal(s.Elements.Len(), s.Issues)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MBheap")
}
