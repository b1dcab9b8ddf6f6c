//go:build linux

package linux

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"cairn.network/cairn/kernel"
)

func manyRoutes(n int) map[kernel.RouteKey]kernel.Route {
	set := make(map[kernel.RouteKey]kernel.Route, n)
	for i := range n {
		set[testKey(fmt.Sprintf("10.%d.%d.0/24", 100+i/250, i%250))] = testRoute("10.0.1.2", "east")
	}
	return set
}

func manyRoutes6(n int) map[kernel.RouteKey]kernel.Route {
	set := make(map[kernel.RouteKey]kernel.Route, n)
	for i := range n {
		set[testKey(fmt.Sprintf("fd00:9:0:%x::/64", i))] = testRoute("fd00:1::2", "east")
	}
	return set
}

func write(b *testing.B, w *world, set map[kernel.RouteKey]kernel.Route, del []kernel.RouteKey) {
	b.Helper()
	if err := w.routes.Write(b.Context(), set, del); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRoutes adds, reads, replaces and deletes 10,000 routes.
func BenchmarkRoutes(b *testing.B) {
	for _, fam := range []struct {
		name   string
		routes map[kernel.RouteKey]kernel.Route
		other  kernel.Route
	}{
		{"IPv4", manyRoutes(10_000), testRoute("10.0.2.2", "west")},
		{"IPv6", manyRoutes6(10_000), testRoute("fd00:2::2", "west")},
	} {
		w := newRoutedWorld(b)
		keys := slices.Collect(maps.Keys(fam.routes))
		changed := make(map[kernel.RouteKey]kernel.Route)
		for _, k := range keys {
			changed[k] = fam.other
		}
		b.Run(fam.name+"/add", func(b *testing.B) {
			for b.Loop() {
				write(b, w, fam.routes, nil)
				b.StopTimer()
				write(b, w, nil, keys)
				b.StartTimer()
			}
		})
		write(b, w, fam.routes, nil)
		b.Run(fam.name+"/read", func(b *testing.B) {
			for b.Loop() {
				if have, err := w.routes.Read(b.Context()); err != nil || len(have) != len(keys) {
					b.Fatal(len(have), err)
				}
			}
		})
		b.Run(fam.name+"/replace", func(b *testing.B) {
			for b.Loop() {
				write(b, w, changed, nil)
			}
		})
		b.Run(fam.name+"/delete", func(b *testing.B) {
			for b.Loop() {
				write(b, w, nil, keys)
				b.StopTimer()
				write(b, w, fam.routes, nil)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkOneRoute changes one route among 10,000.
func BenchmarkOneRoute(b *testing.B) {
	w := newRoutedWorld(b)
	write(b, w, manyRoutes(10_000), nil)
	write(b, w, manyRoutes6(10_000), nil)
	for _, fam := range []struct {
		name, old, new string
		ways           []kernel.Route
	}{
		{"IPv4", "10.100.7.0/24", "10.200.0.0/24", []kernel.Route{testRoute("10.0.2.2", "west"), testRoute("10.0.1.2", "east")}},
		{"IPv6", "fd00:9:0:7::/64", "fd00:a::/64", []kernel.Route{testRoute("fd00:2::2", "west"), testRoute("fd00:1::2", "east")}},
	} {
		b.Run(fam.name+"/replace", func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				write(b, w, map[kernel.RouteKey]kernel.Route{testKey(fam.old): fam.ways[i%2]}, nil)
			}
		})
		b.Run(fam.name+"/add and delete", func(b *testing.B) {
			for b.Loop() {
				write(b, w, map[kernel.RouteKey]kernel.Route{testKey(fam.new): fam.ways[0]}, nil)
				write(b, w, nil, []kernel.RouteKey{testKey(fam.new)})
			}
		})
	}
}
