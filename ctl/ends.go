package ctl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/policy"
)

// end is one end of packets: a pod, a node, a host endpoint or an address.
type end struct {
	name  string // to people
	kind  string // "pod", "node", "host endpoint", "address"
	node  string // that it is or is on; "": none that is known
	addrs []netip.Addr
	pod   *v1.WorkloadEndpoint // of a pod
	host  string               // name of a host endpoint
}

// at returns the end's address of a family; invalid if it has none.
func (n end) at(v6 bool) netip.Addr {
	for _, a := range n.addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// podEnd returns a pod as an end.
func podEnd(w *v1.WorkloadEndpoint) end {
	return end{name: w.Namespace + "/" + podName(w), kind: "pod", node: w.Spec.Node, addrs: w.Addrs(), pod: w}
}

// nodeEnd returns a node as an end.
func nodeEnd(n policy.Node) end {
	return end{name: "node/" + n.Name, kind: "node", node: n.Name, addrs: n.Addrs}
}

// prefixes of ends that are no pods.
var (
	nodePrefixes = []string{"node/", "no/"}
	hostPrefixes = []string{"hostendpoint/", "hep/"}
	podPrefixes  = []string{"pod/", "workloadendpoint/", "wep/"}
)

const endsText = `An end is a pod (NAMESPACE/NAME; NAME alone is one of the namespace of -n), a
node (node/NAME), a host endpoint (hep/NAME) or an address.`

// end returns what a text names; pods without a namespace are of this one.
func (c *cluster) end(text, namespace string) (end, error) {
	cut := func(prefixes []string) (string, bool) {
		for _, p := range prefixes {
			if len(text) >= len(p) && strings.EqualFold(text[:len(p)], p) {
				return text[len(p):], true
			}
		}
		return "", false
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return c.addressEnd(a.Unmap()), nil
	}
	if name, ok := cut(nodePrefixes); ok {
		return c.nodeNamed(name)
	}
	if name, ok := cut(hostPrefixes); ok {
		return c.hostNamed(name)
	}
	name, _ := cut(podPrefixes)
	if name == "" {
		name = text
	}
	if ns, pod, both := strings.Cut(name, "/"); both {
		namespace, name = ns, pod
	}
	if name == "" || namespace == "" || strings.Contains(name, "/") {
		return end{}, misuse("%q is no pod, node, host endpoint or address; write NAMESPACE/POD, node/NAME, hep/NAME or an address", text)
	}
	return c.podNamed(namespace, name)
}

// addressEnd returns what has an address, if that is known, else the address alone.
func (c *cluster) addressEnd(a netip.Addr) end {
	out := end{name: a.String(), kind: "address", addrs: []netip.Addr{a}}
	for _, w := range c.pods {
		if slices.Contains(w.Addrs(), a) {
			out.name += " (pod " + podEnd(w).name + ")"
			out.node = w.Spec.Node
			return out
		}
	}
	for _, n := range c.world.Nodes {
		if slices.Contains(n.Addrs, a) {
			out.name += " (node " + n.Name + ")"
			out.node = n.Name
			return out
		}
	}
	return out
}

func (c *cluster) nodeNamed(name string) (end, error) {
	for _, n := range c.world.Nodes {
		if n.Name != name {
			continue
		}
		if len(n.Addrs) == 0 {
			return end{}, fmt.Errorf("%s: spec.bgp: it has no address", datastore.Key{Kind: "Node", Name: name})
		}
		return nodeEnd(n), nil
	}
	return end{}, notFound(datastore.Key{Kind: "Node", Name: name})
}

// hostNamed returns a host endpoint: its addresses, or without any those of its node.
func (c *cluster) hostNamed(name string) (end, error) {
	for _, e := range c.world.Endpoints {
		if e.Kind != policy.KindHost || e.Name != name {
			continue
		}
		out := end{name: "hep/" + name, kind: "host endpoint", node: e.Node, addrs: e.Addrs, host: name}
		if len(out.addrs) > 0 {
			return out, nil
		}
		node, err := c.nodeNamed(e.Node)
		if err != nil {
			return end{}, fmt.Errorf("HostEndpoint %s: spec.node: %w", name, err)
		}
		out.addrs = node.addrs
		return out, nil
	}
	return end{}, notFound(datastore.Key{Kind: "HostEndpoint", Name: name})
}

// podNamed returns a pod, by its own name or that of its endpoint.
func (c *cluster) podNamed(namespace, name string) (end, error) {
	found := podsNamed(c.pods, namespace, name)
	switch len(found) {
	case 1:
		one := podEnd(found[0])
		if len(one.addrs) == 0 {
			return end{}, fmt.Errorf("WorkloadEndpoint %s/%s: spec.ipNetworks: it has no address", namespace, found[0].Name)
		}
		return one, nil
	case 0:
		return end{}, fmt.Errorf("pod %s/%s: not found%s", namespace, name, c.likely(namespace, name))
	}
	var names []string
	for _, w := range found {
		names = append(names, w.Name)
	}
	return end{}, fmt.Errorf("pod %s/%s: it has %d interfaces; name one: %s", namespace, name, len(found), strings.Join(names, ", "))
}

// podsNamed returns the endpoints with this name, or else of the pod with it.
func podsNamed(pods []*v1.WorkloadEndpoint, namespace, name string) []*v1.WorkloadEndpoint {
	var found []*v1.WorkloadEndpoint
	for _, w := range pods {
		switch {
		case w.Namespace != namespace:
		case w.Name == name:
			return []*v1.WorkloadEndpoint{w}
		case podName(w) == name:
			found = append(found, w)
		}
	}
	return found
}

// likely says what else was meant by the name of a pod that is not there.
func (c *cluster) likely(namespace, name string) string {
	var other []string
	for _, w := range c.pods {
		if podName(w) == name && w.Namespace != namespace {
			other = append(other, podEnd(w).name)
		}
	}
	for _, n := range c.world.Nodes {
		if n.Name == name {
			other = append(other, "node/"+name)
		}
	}
	for _, e := range c.world.Endpoints {
		if e.Kind == policy.KindHost && e.Name == name {
			other = append(other, "hep/"+name)
		}
	}
	if len(other) == 0 {
		return ""
	}
	return "; there is " + strings.Join(other[:min(3, len(other))], ", ")
}

// elsewhere is no node's name.
const elsewhere = "-"

// seenFrom returns the world in which packets of a host endpoint that was named pass by
// no other of its node.
func (c *cluster) seenFrom(ends ...end) *policy.World {
	w := *c.world
	changed := false
	for _, n := range ends {
		if n.host == "" {
			continue
		}
		changed = true
		w.Endpoints = slices.Clone(w.Endpoints)
		for i, e := range w.Endpoints {
			if e.Kind == policy.KindHost && e.Node == n.node && e.Name != n.host {
				other := *e
				other.Node = elsewhere
				w.Endpoints[i] = &other
			}
		}
	}
	if !changed {
		return c.world
	}
	return w.Remembering()
}
