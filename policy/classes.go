package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/selector"
)

// asked is all that rules of a world ask of addresses.
type asked struct {
	selectors, nodes []*selector.Selector
	nets             []netip.Prefix
	services         []ID
	names            map[string]bool // of ports
	hosts            bool            // there are host endpoints
}

// asked returns what rules ask of addresses; a world that remembers finds it out once.
func (w *World) asked() *asked {
	if w.memo.asked != nil {
		return w.memo.asked
	}
	a := &asked{names: map[string]bool{}}
	selectors, nodes := map[string]*selector.Selector{}, map[string]*selector.Selector{}
	nets, services := map[netip.Prefix]bool{}, map[ID]bool{}
	for _, p := range w.Policies {
		for _, r := range slices.Concat(p.Rules[Ingress], p.Rules[Egress]) {
			for _, peer := range []Peer{r.Source, r.Destination} {
				for _, s := range []*selector.Selector{peer.Selector, peer.NotSelector} {
					if s != nil {
						selectors[s.String()] = s
					}
				}
				if peer.Nodes != nil {
					nodes[peer.Nodes.String()] = peer.Nodes
				}
				for _, n := range slices.Concat(peer.Nets, peer.NotNets) {
					nets[n] = true
				}
				for _, port := range slices.Concat(peer.Ports, peer.NotPorts) {
					a.names[port.Name] = port.Name != ""
				}
				if peer.Service != (ID{}) {
					services[ID{Namespace: peer.Service.Namespace, Name: peer.Service.Name}] = true
				}
			}
		}
	}
	for _, f := range slices.Concat(w.FailSafe[Ingress], w.FailSafe[Egress]) {
		if f.Net.IsValid() {
			nets[f.Net] = true
		}
	}
	a.selectors, a.nodes = inNameOrder(selectors), inNameOrder(nodes)
	a.nets = slices.SortedFunc(maps.Keys(nets), netip.Prefix.Compare)
	a.services = slices.SortedFunc(maps.Keys(services), ID.Compare)
	a.hosts = slices.ContainsFunc(w.Endpoints, func(e *Endpoint) bool { return e.Kind == KindHost })
	if w.memo.byAddr != nil {
		w.memo.asked = a
	}
	return a
}

func inNameOrder(by map[string]*selector.Selector) []*selector.Selector {
	var all []*selector.Selector
	for _, name := range slices.Sorted(maps.Keys(by)) {
		all = append(all, by[name])
	}
	return all
}

// Class returns a text that says all that policies tell of an address: packets of which
// both ends have the same classes have the same verdict, if OwnNode says the same of
// them, too. Ask a world that is Remembering.
func (w *World) Class(a netip.Addr) string {
	var b strings.Builder
	asked := w.asked()
	bit := func(set bool) {
		if set {
			b.WriteByte('1')
		} else {
			b.WriteByte('0')
		}
	}
	at := w.siteOf(a)
	bit(a.Is4())
	bit(at.pod != nil)
	bit(at.node != "")
	if at.pod != nil {
		w.writeConcerns(&b, at.pod)
	}
	if asked.hosts {
		b.WriteString(" on " + at.node)
		if host := w.uplink(at.node, a); host != nil {
			b.WriteString(" by " + host.Name)
		}
	}
	for _, n := range asked.nets {
		bit(n.Contains(a))
	}
	for _, s := range asked.nodes {
		bit(w.selectsNode(s, a))
	}
	for _, id := range asked.services {
		for _, s := range w.Services[id] {
			if s.Addr == a {
				b.WriteString(" " + id.String() + protocolText(s.Protocol) + Port{First: s.Port, Last: s.Port}.String())
			}
		}
	}
	for _, e := range w.at(a) {
		if e.has(a) {
			w.writeMember(&b, asked, e)
		}
	}
	return b.String()
}

// writeConcerns writes which policies concern a pod.
func (w *World) writeConcerns(b *strings.Builder, e *Endpoint) {
	for d := range Direction(2) {
		b.WriteString(" " + d.String())
		for _, t := range w.Concerning(e, d, Normal) {
			for _, p := range t.Policies {
				b.WriteString(" " + p.ID.String())
			}
		}
	}
}

// writeMember writes what rules tell of an endpoint or network set.
func (w *World) writeMember(b *strings.Builder, asked *asked, e *Endpoint) {
	b.WriteByte('/')
	labels := w.labelsOf(e)
	for _, s := range asked.selectors {
		if s.Matches(labels) {
			b.WriteByte('1')
		} else {
			b.WriteByte('0')
		}
	}
	ports := slices.SortedFunc(slices.Values(e.Ports), func(x, y NamedPort) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), cmp.Compare(x.Protocol, y.Protocol), cmp.Compare(x.Port, y.Port))
	})
	for _, p := range ports {
		if asked.names[p.Name] {
			b.WriteString(" " + p.String())
		}
	}
}

// OwnNode says whether one address is a node's and the other that of a pod on it: such
// packets are always let through to the pod.
func (w *World) OwnNode(src, dst netip.Addr) bool {
	from, to := w.siteOf(src), w.siteOf(dst)
	return from.pod == nil && to.pod != nil && from.node != "" && from.node == to.node
}
