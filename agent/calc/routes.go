package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// view is everything that routes depend on, as it is at one moment.
type view struct {
	viewKey
	members  *members
	claims   *claims
	sessions *sessions
	rib      *bgp.RIB
	pods     *pods
	met      immutable.Map[kernel.WireGuardKey, bool]

	// What was found out for one range and holds for others too.

	ways     map[wayKey]way
	nextHops map[netip.Addr]way
}

// viewKey is what every route may depend on. The rest concerns single ranges.
type viewKey struct {
	own      *member
	pools    *pools
	settings *settings
	fabric   *fabric
	tunnels  *tunnels
}

// verdict is what becomes of a range.
type verdict struct {
	route  kernel.Route
	origin Origin // without a kind there is no route
	unused string // why what is known of the range is not used
	held   bool   // what is routed there now stays for the time being
}

// preferred is the local preference that a path has unless somebody chose
// otherwise. A path with more is a better way than one that the datastore tells.
const preferred = 100

// mainRoute returns the key of our route to a prefix.
func mainRoute(dst netip.Prefix) kernel.RouteKey {
	return kernel.RouteKey{Table: kernel.MainTable, Dst: dst, Priority: kernel.RoutePriority}
}

// decide decides about one range. A pod's route goes before any other to the
// same address: what is here need not be looked for elsewhere.
func (v *view) decide(dst netip.Prefix) verdict {
	d := v.elsewhere(dst)
	k := mainRoute(dst)
	if r, ok := v.pods.routes[k]; ok {
		if d.origin.Kind != "" {
			d.unused = "a pod of this node has the address, so it is not routed to " + string(d.origin.Kind) + " " + d.origin.From
		}
		d.route, d.origin, d.held = r, v.pods.origins[k], false
		return d
	}
	if taken, ok := v.fabric.foreign[k]; ok && d.origin.Kind != "" {
		return verdict{unused: fmt.Sprintf("there is a route %s that is not Cairn's, with the same metric", taken)}
	}
	return d
}

// elsewhere decides about a range that no pod here has.
func (v *view) elsewhere(dst netip.Prefix) verdict {
	c, lent, known := v.claims.claimed(dst)
	paths := v.rib.Routes[dst]
	switch {
	case known && c.node != v.members.node:
		if v.own != nil {
			return v.another(dst, c, paths)
		}
	case known:
		var d verdict
		if !lent && !dst.IsSingleIP() {
			d.route, d.origin = kernel.Route{Type: kernel.Blackhole}, Origin{OriginBlock, c.pool}
		}
		if len(paths) > 0 && v.own != nil {
			d.unused = fmt.Sprintf("peer %s tells a way to what this node has itself", paths[0].Peer)
		}
		return d
	case len(paths) > 0 && v.own != nil:
		return v.learn(dst, paths)
	}
	return verdict{}
}

// another decides about another node's block or borrowed address.
func (v *view) another(dst netip.Prefix, c claim, paths []bgp.LearnedPath) verdict {
	w := way{why: "clusterRoutes is " + string(v1.ClusterRoutesBGP)}
	if v.settings.source != v1.ClusterRoutesBGP {
		w = v.toNode(dst, c.node)
	}
	computed := v.routed(w, OriginNode, c.node)
	if w.why == "" && (len(paths) == 0 || paths[0].LocalPref <= preferred) {
		return computed
	}
	told, from := v.told(dst, paths, c.node)
	switch {
	case from != "":
		return v.routed(told, OriginBGP, from)
	case w.why == "":
		return computed
	}
	d := verdict{unused: w.why, held: w.waits || told.waits}
	switch {
	case told.why != "" && told.why != w.why:
		d.unused += "; " + told.why
	case len(paths) == 0 && !w.waits:
		d.unused += " and no BGP peer has told a way"
	}
	return d
}

// routed returns the route to pods elsewhere by a way.
func (v *view) routed(w way, kind OriginKind, from string) verdict {
	return verdict{
		route:  kernel.Route{Hops: w.hops, Source: w.source, MTU: v.mtu(w.list)},
		origin: Origin{kind, from},
	}
}

// routes is where everything is, and why.
type routes struct {
	key     viewKey
	rib     *bgp.RIB
	pods    *pods
	near    map[netip.Addr][]netip.Prefix // see told; nil: to be made
	routes  immutable.Map[kernel.RouteKey, kernel.Route]
	origins immutable.Map[kernel.RouteKey, Origin]
	unused  immutable.Map[netip.Prefix, string]
	held    immutable.Map[kernel.RouteKey, string]
}

// update decides about the ranges anew that something changed for: what every
// route depends on, nodes, claims, or peers that came or went; and what it sees
// itself, the RIB and pods.
func (r *routes) update(v *view, anew bool, nodes []memberChange, claimed []claimChange, peers []netip.Addr) {
	v.ways, v.nextHops = map[wayKey]way{}, map[netip.Addr]way{}
	dirty := map[netip.Prefix]struct{}{}
	if r.rib != v.rib {
		r.near = nil
	}
	if anew || r.pods == nil || v.viewKey != r.key {
		r.all(v, dirty)
	} else {
		r.changed(v, nodes, claimed, peers, dirty)
	}
	r.key, r.rib, r.pods = v.viewKey, v.rib, v.pods
	r.decide(v, dirty)
}

// all adds every range that there is or was.
func (r *routes) all(v *view, dirty map[netip.Prefix]struct{}) {
	for dst := range v.claims.blocks {
		dirty[dst] = struct{}{}
	}
	for dst := range v.claims.lent {
		dirty[dst] = struct{}{}
	}
	for dst := range v.rib.Routes {
		dirty[dst] = struct{}{}
	}
	for k := range v.pods.routes {
		dirty[k.Dst] = struct{}{}
	}
	for k := range r.routes.All() {
		dirty[k.Dst] = struct{}{}
	}
	for dst := range r.unused.All() {
		dirty[dst] = struct{}{}
	}
}

// changed adds the ranges that single changes concern.
func (r *routes) changed(v *view, nodes []memberChange, claimed []claimChange, peers []netip.Addr, dirty map[netip.Prefix]struct{}) {
	add := func(list []netip.Prefix) {
		for _, dst := range list {
			dirty[dst] = struct{}{}
		}
	}
	for _, c := range claimed {
		dirty[c.dst] = struct{}{}
		if !c.ownBlock {
			continue
		}
		for dst := range v.rib.Routes {
			if contains(c.dst, dst) {
				dirty[dst] = struct{}{}
			}
		}
	}
	for _, c := range nodes {
		add(v.claims.of[c.name])
		for _, m := range []*member{c.was, c.is} {
			if m == nil {
				continue
			}
			for _, a := range m.addresses() {
				add(r.told(v.rib)[a.Addr()])
			}
		}
	}
	for _, a := range peers {
		add(r.told(v.rib)[a])
	}
	if r.rib != v.rib {
		differ(r.rib.Routes, v.rib.Routes, dirty)
	}
	if r.pods != v.pods {
		for _, ps := range []*pods{r.pods, v.pods} {
			for k, route := range ps.routes {
				if r.pods.routes[k] != route || v.pods.routes[k] != route || r.pods.origins[k] != v.pods.origins[k] {
					dirty[k.Dst] = struct{}{}
				}
			}
		}
	}
}

// told returns the ranges of the RIB by the addresses of peers and next hops.
func (r *routes) told(rib *bgp.RIB) map[netip.Addr][]netip.Prefix {
	if r.near != nil {
		return r.near
	}
	r.near = map[netip.Addr][]netip.Prefix{}
	for dst, paths := range rib.Routes {
		for _, p := range paths {
			hop := p.NextHop.Unmap()
			r.near[hop] = append(r.near[hop], dst)
			if p.Peer != hop {
				r.near[p.Peer] = append(r.near[p.Peer], dst)
			}
		}
	}
	return r.near
}

// differ adds the ranges that two RIBs do not have alike.
func differ(a, b map[netip.Prefix][]bgp.LearnedPath, dirty map[netip.Prefix]struct{}) {
	for dst, paths := range b {
		if old, ok := a[dst]; !ok || !slices.Equal(old, paths) {
			dirty[dst] = struct{}{}
		}
	}
	for dst := range a {
		if _, ok := b[dst]; !ok {
			dirty[dst] = struct{}{}
		}
	}
}

// decide decides about ranges and keeps what comes of it.
func (r *routes) decide(v *view, dirty map[netip.Prefix]struct{}) {
	if len(dirty) == 0 {
		return
	}
	routes, origins, unused, held := r.routes.Edit(), r.origins.Edit(), r.unused.Edit(), r.held.Edit()
	for dst := range maps.Keys(dirty) {
		k, d := mainRoute(dst), v.decide(dst)
		put(routes, k, d.route, d.origin.Kind != "")
		put(origins, k, d.origin, d.origin.Kind != "")
		put(unused, dst, d.unused, d.unused != "")
		put(held, k, d.unused, d.held)
	}
	r.routes, r.origins, r.unused, r.held = routes.Map(), origins.Map(), unused.Map(), held.Map()
}

// put sets a key, or deletes it if nothing is there.
func put[K, V comparable](e *immutable.Editor[K, V], k K, value V, there bool) {
	if there {
		e.Set(k, value)
	} else {
		e.Delete(k)
	}
}
