package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"testing"

	"cairn.network/cairn/selector"
)

func benchAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// benchPod is pod i: ten are of an app, a hundred of a namespace.
func benchPod(i int) *Endpoint {
	return &Endpoint{
		ID: ID{KindPod, fmt.Sprintf("ns-%d", i/100), fmt.Sprintf("app-%d-%d", i/10, i)},
		Labels: map[string]string{
			"app": fmt.Sprintf("app-%d", i/10), "version": "v1", "pod-template-hash": fmt.Sprintf("hash-%d", i/10),
			"part-of": fmt.Sprintf("shop-%d", i%3), "managed-by": "helm", "release": fmt.Sprintf("app-%d", i/10),
		},
		ServiceAccount: "default", Node: "node-1", Link: fmt.Sprintf("cali%d", i), Addrs: []netip.Addr{benchAddr(i)},
	}
}

func benchSelector(i int) *selector.Selector {
	return selector.And(selector.Equal(LabelNamespace, fmt.Sprintf("ns-%d", i/10)), selector.Equal("app", fmt.Sprintf("app-%d", i)))
}

func benchMembers(selectors, endpoints int) *Members {
	m := NewMembers(Edits{Prefix: func(string, netip.Prefix, bool) {}, Port: func(NamedPorts, netip.AddrPort, bool) {}})
	for i := range selectors {
		m.Watch(benchSelector(i))
	}
	for i := range endpoints {
		m.SetEndpoint(benchPod(i))
	}
	return m
}

// BenchmarkMembers shows that a change costs the same however much else there is, and
// how much memory an endpoint takes besides its own.
func BenchmarkMembers(b *testing.B) {
	for _, size := range []struct{ selectors, endpoints int }{{1000, 10_000}, {1000, 50_000}, {10_000, 10_000}, {10_000, 50_000}} {
		m := benchMembers(size.selectors, size.endpoints)
		run := func(name string, change func(i int)) {
			b.Run(fmt.Sprintf("%s/%d_selectors/%d_endpoints", name, size.selectors, size.endpoints), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					change(i)
				}
			})
		}
		pod := benchPod(77)
		run("endpoint", func(int) {
			m.DeleteEndpoint(pod.ID)
			m.SetEndpoint(pod)
		})
		run("address", func(i int) {
			moved := *pod
			moved.Addrs = []netip.Addr{benchAddr(1<<23 + i%2)}
			m.SetEndpoint(&moved)
		})
		run("label", func(i int) {
			moved := *pod
			moved.Labels = maps.Clone(pod.Labels)
			moved.Labels["app"] = fmt.Sprintf("app-%d", i%2)
			m.SetEndpoint(&moved)
		})
		s := selector.And(selector.Equal("app", "app-9"), selector.Has("version"))
		run("selector", func(int) {
			m.Watch(s)
			m.Unwatch(s)
		})
		m.Watch(selector.Equal(NamespacePrefix+"team", "a"))
		run("namespace", func(i int) {
			m.SetNamespace("ns-5", map[string]string{"team": []string{"a", "b"}[i%2]})
		})
	}
}

// BenchmarkMembersMemory reports the bytes that Members keep for each endpoint, next
// to those of the endpoint itself.
func BenchmarkMembersMemory(b *testing.B) {
	for _, n := range []int{10_000, 50_000} {
		b.Run(fmt.Sprintf("%d_endpoints", n), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				pods := make([]*Endpoint, n)
				for i := range pods {
					pods[i] = benchPod(i)
				}
				between := heap()
				m := benchMembers(1000, 0)
				for _, e := range pods {
					m.SetEndpoint(e)
				}
				after := heap()
				b.ReportMetric(float64(between-before)/float64(n), "pod-B/endpoint")
				b.ReportMetric(float64(after-between)/float64(n), "B/endpoint")
				runtime.KeepAlive(pods)
				runtime.KeepAlive(m)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
