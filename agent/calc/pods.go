package calc

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// pods is what this node's pods need of the host.
type pods struct {
	links   map[string]struct{} // the host sides that are there
	routes  map[kernel.RouteKey]kernel.Route
	origins map[kernel.RouteKey]Origin
	issues  []v1.Issue
}

type podsKey struct {
	assignments *ipam.Assignments
	host        *kernel.Host
}

// newPods returns what the pods need whose link is there. The alias says whose
// link it is: after a pod was made anew its predecessor's assignment may still
// be around. If that is what the earlier pods need, it returns those: most events
// of the host concern no pod.
func newPods(k podsKey, earlier *pods) *pods {
	ps := &pods{
		links:   map[string]struct{}{},
		routes:  map[kernel.RouteKey]kernel.Route{},
		origins: map[kernel.RouteKey]Origin{},
	}
	list := slices.SortedFunc(k.assignments.All(), func(a, b ipam.Assignment) int {
		return cmp.Or(strings.Compare(a.ContainerID, b.ContainerID), strings.Compare(a.Interface, b.Interface))
	})
	for _, a := range list {
		if a.IsTunnel() {
			continue
		}
		link, ok := k.host.Links[a.HostLink]
		on, aliased := kernel.ParsePodAlias(link.Alias)
		if !ok || !aliased || on.ContainerID != a.ContainerID || on.PodLink != a.Interface {
			continue
		}
		ps.links[a.HostLink] = struct{}{}
		if !link.Up {
			continue
		}
		for _, ip := range a.Addrs() {
			ps.add(ip, a)
		}
	}
	if earlier != nil && maps.Equal(ps.links, earlier.links) && maps.Equal(ps.routes, earlier.routes) &&
		maps.Equal(ps.origins, earlier.origins) && slices.Equal(ps.issues, earlier.issues) {
		return earlier
	}
	return ps
}

func (ps *pods) add(ip netip.Addr, a ipam.Assignment) {
	k := kernel.HostRoute(ip)
	name := a.Namespace + "/" + a.Pod
	if other, ok := ps.origins[k]; ok {
		ps.issues = append(ps.issues, v1.Issue{
			Object: "Pod " + name, Reason: fmt.Sprintf("%s is the address of pod %s too, which has the route", ip, other.From),
		})
		return
	}
	ps.routes[k] = kernel.Route{Hops: kernel.Hops(kernel.NextHop{Link: a.HostLink})}
	ps.origins[k] = Origin{OriginPod, name}
}
