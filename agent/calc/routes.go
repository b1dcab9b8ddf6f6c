package calc

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"

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

// preferred is the local preference that a path has unless somebody chose
// otherwise. A path with more is a better way than one that the datastore tells.
const preferred = 100

// newRoutes returns the routes; earlier ones, of which only what changed is made
// anew, save time.
func newRoutes(k routesKey, earlier *routes) *routes {
	if k.onlyPrefixesChanged(earlier) {
		return earlier.with(k)
	}
	r := &routes{
		routesKey:  k,
		routes:     make(map[kernel.RouteKey]kernel.Route, len(k.claims.blocks)),
		origins:    make(map[kernel.RouteKey]Origin, len(k.claims.blocks)),
		unused:     map[netip.Prefix]string{},
		neighbours: map[neighbourKey]neighbour{},
		nextHops:   map[netip.Addr]nextHop{},
	}
	for dst := range k.claims.blocks {
		r.route(dst)
	}
	for dst := range k.claims.lent {
		r.route(dst)
	}
	for dst := range k.rib.Routes {
		if _, block := k.claims.blocks[dst]; !block {
			r.route(dst)
		}
	}
	return r
}

// onlyPrefixesChanged says whether the earlier routes differ in no more than
// what is known of single prefixes. Own blocks concern the prefixes in them too.
func (k routesKey) onlyPrefixesChanged(earlier *routes) bool {
	if earlier == nil {
		return false
	}
	same := k
	same.claims, same.rib = earlier.claims, earlier.rib
	if same != earlier.routesKey {
		return false
	}
	if k.claims == earlier.claims {
		return true
	}
	own := func(cs *claims, dst netip.Prefix) bool {
		c, ok := cs.blocks[dst]
		return ok && c.node == k.members.node
	}
	for dst := range differ(earlier.claims.blocks, k.claims.blocks, equal[claim]) {
		if own(earlier.claims, dst) || own(k.claims, dst) {
			return false
		}
	}
	return true
}

// with returns the routes with what other blocks and another RIB change.
func (r *routes) with(k routesKey) *routes {
	next := *r
	next.routesKey = k
	next.routes, next.origins, next.unused = maps.Clone(r.routes), maps.Clone(r.origins), maps.Clone(r.unused)
	again := func(dst netip.Prefix) {
		delete(next.routes, mainRoute(dst))
		delete(next.origins, mainRoute(dst))
		delete(next.unused, dst)
		next.route(dst)
	}
	if k.claims != r.claims {
		for dst := range differ(r.claims.blocks, k.claims.blocks, equal[claim]) {
			again(dst)
		}
		for dst := range differ(r.claims.lent, k.claims.lent, equal[claim]) {
			again(dst)
		}
	}
	if k.rib != r.rib {
		for dst := range differ(r.rib.Routes, k.rib.Routes, slices.Equal[[]bgp.LearnedPath]) {
			again(dst)
		}
	}
	return &next
}

// differ returns the keys whose values are not the same in both maps.
func differ[K comparable, V any](a, b map[K]V, equal func(V, V) bool) iter.Seq[K] {
	return func(yield func(K) bool) {
		for k, v := range b {
			if old, ok := a[k]; (!ok || !equal(old, v)) && !yield(k) {
				return
			}
		}
		for k := range a {
			if _, ok := b[k]; !ok && !yield(k) {
				return
			}
		}
	}
}

func equal[V comparable](a, b V) bool { return a == b }

// mainRoute returns the key of our route to a prefix.
func mainRoute(dst netip.Prefix) kernel.RouteKey {
	return kernel.RouteKey{Table: kernel.MainTable, Dst: dst, Priority: kernel.RoutePriority}
}

// route decides about one prefix. Who has an address by itself counts more than
// whose block it is.
func (r *routes) route(dst netip.Prefix) {
	c, known := r.claims.lent[dst]
	lent := known
	if !lent {
		c, known = r.claims.blocks[dst]
	}
	paths := r.rib.Routes[dst]
	switch {
	case known && c.node != r.members.node:
		if r.members.own != nil {
			r.toNode(dst, c, paths)
		}
	case known:
		if !lent && !dst.IsSingleIP() {
			r.set(dst, kernel.Route{Type: kernel.Blackhole}, OriginBlock, c.pool)
		}
		if len(paths) > 0 && r.members.own != nil {
			r.unused[dst] = fmt.Sprintf("peer %s tells a way to what this node has itself", paths[0].Peer)
		}
	case len(paths) > 0 && r.members.own != nil:
		r.learn(dst, paths)
	}
}

// set adds a route, unless one of others has its place: ours would replace it.
func (r *routes) set(dst netip.Prefix, route kernel.Route, kind OriginKind, from string) {
	k := mainRoute(dst)
	if taken, ok := r.fabric.foreign[k]; ok {
		r.unused[dst] = fmt.Sprintf("there is a route %s that is not Cairn's, with the same metric", taken)
		return
	}
	r.routes[k] = route
	r.origins[k] = Origin{kind, from}
}

// toNode routes another node's block or borrowed address.
func (r *routes) toNode(dst netip.Prefix, c claim, paths []bgp.LearnedPath) {
	way, why := kernel.NextHops{}, "clusterRoutes is "+string(v1.ClusterRoutesBGP)
	if r.settings.source != v1.ClusterRoutesBGP {
		way, why = r.computed(dst, c)
	}
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
	if p := r.pools.of(dst); p != nil && (p.mode == v1.EncapAlways || p.mode == v1.EncapCrossSubnet && n.elsewhere) {
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
