package calc

import (
	"fmt"
	"net/netip"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/kernel"
)

// routesKey is everything that routes other than pods' depend on.
type routesKey struct {
	members  *members
	pools    *pools
	settings *settings
	claims   *claims
	fabric   *fabric
	sessions *sessions
	rib      *bgp.RIB
}

// routes is where everything but this node's pods is.
type routes struct {
	routesKey
	routes  map[kernel.RouteKey]kernel.Route
	origins map[kernel.RouteKey]Origin
	unused  map[netip.Prefix]string

	neighbours map[neighbourKey]neighbour
	nextHops   map[netip.Addr]nextHop
}

// preferred is the local preference that every path has unless somebody chose
// otherwise (RFC 4271 5.1.5 leaves the value to us; all speakers take 100). A
// path with more is a better way than one that the datastore tells.
const preferred = 100

func newRoutes(k routesKey) *routes {
	r := &routes{
		routesKey:  k,
		routes:     make(map[kernel.RouteKey]kernel.Route, len(k.claims.blocks)+len(k.rib.Routes)),
		origins:    make(map[kernel.RouteKey]Origin, len(k.claims.blocks)+len(k.rib.Routes)),
		unused:     map[netip.Prefix]string{},
		neighbours: map[neighbourKey]neighbour{},
		nextHops:   map[netip.Addr]nextHop{},
	}
	for cidr, c := range k.claims.blocks {
		if c.node == k.members.node && !cidr.IsSingleIP() {
			r.set(cidr, kernel.Route{Type: kernel.Blackhole}, OriginBlock, c.pool)
		}
	}
	if k.members.own == nil {
		return r
	}
	for cidr, c := range k.claims.blocks {
		if _, lent := k.claims.lent[cidr]; !lent && c.node != k.members.node {
			r.toNode(cidr, c)
		}
	}
	for address, c := range k.claims.lent {
		if c.node != k.members.node {
			r.toNode(address, c)
		}
	}
	for dst, paths := range k.rib.Routes {
		if len(paths) > 0 {
			r.learn(dst, paths)
		}
	}
	return r
}

func (r *routes) set(dst netip.Prefix, route kernel.Route, kind OriginKind, from string) {
	k := kernel.RouteKey{Table: kernel.MainTable, Dst: dst, Priority: kernel.RoutePriority}
	r.routes[k] = route
	r.origins[k] = Origin{kind, from}
}

// toNode routes another node's block or borrowed address.
func (r *routes) toNode(dst netip.Prefix, c claim) {
	way, why := kernel.NextHops{}, "clusterRoutes is "+string(v1.ClusterRoutesBGP)
	if r.settings.source != v1.ClusterRoutesBGP {
		way, why = r.computed(dst, c)
	}
	paths := r.rib.Routes[dst]
	if why == "" && (len(paths) == 0 || paths[0].LocalPref <= preferred) {
		r.set(dst, kernel.Route{Hops: way}, OriginNode, c.node)
		return
	}
	told, from, refusal := r.told(dst, paths, true)
	switch {
	case from != "":
		r.set(dst, kernel.Route{Hops: told}, OriginBGP, from)
	case why == "":
		r.set(dst, kernel.Route{Hops: way}, OriginNode, c.node)
	case refusal != "":
		r.unused[dst] = why + "; " + refusal
	default:
		r.unused[dst] = why + " and no BGP peer has told a way"
	}
}

// computed returns the way to another node's addresses as far as the datastore
// and the host know it; else why they don't.
func (r *routes) computed(dst netip.Prefix, c claim) (kernel.NextHops, string) {
	n := r.neighbour(c.node, bgp.FamilyOf(dst.Addr()))
	if p := r.pools.of(c.pool, dst); p != nil && (p.mode == v1.EncapAlways || p.mode == v1.EncapCrossSubnet && n.elsewhere) {
		return kernel.NextHops{}, fmt.Sprintf("IPPool %s wants a tunnel to node %s", p.name, c.node)
	}
	if n.why == "" && n.reach.cutOff(dst) {
		return kernel.NextHops{}, fmt.Sprintf("it holds the address of node %s itself", c.node)
	}
	return n.hops, n.why
}

type neighbourKey struct {
	node   string
	family bgp.Family
}

// neighbour is the plain way to another node.
type neighbour struct {
	reach     reach
	hops      kernel.NextHops
	elsewhere bool   // in another subnet
	why       string // if there is no way: the reason
}

func (r *routes) neighbour(node string, f bgp.Family) neighbour {
	k := neighbourKey{node, f}
	n, ok := r.neighbours[k]
	if !ok {
		n = r.findNeighbour(node, f)
		r.neighbours[k] = n
	}
	return n
}

func (r *routes) findNeighbour(node string, f bgp.Family) neighbour {
	m, own := r.members.byName[node], r.members.own.address(f)
	switch {
	case m == nil:
		return neighbour{why: fmt.Sprintf("node %s has no address", node)}
	case !m.address(f).IsValid():
		return neighbour{why: fmt.Sprintf("node %s has no %s address", node, f)}
	case !own.IsValid():
		return neighbour{why: fmt.Sprintf("this node has no %s address", f)}
	case !own.Contains(m.address(f).Addr()):
		return neighbour{elsewhere: true, why: fmt.Sprintf("node %s is in another subnet", node)}
	}
	way := r.fabric.direct(own.Addr(), m.address(f).Addr())
	return neighbour{reach: way, hops: kernel.Hops(way.hops...), why: way.why}
}
