package agent

import (
	"net/netip"
	"sync"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// owners says whose addresses are. It reads what the datastore tells when it is asked
// for the first time, and from then on what changed only. The zero value is ready.
type owners struct {
	mu    sync.Mutex
	nodes *datastore.Part
	pods  *datastore.Part
	names map[netip.Addr]string
}

// of returns whose an address is: namespace/pod, or the name of a node; "" if that is
// not known.
func (o *owners) of(s *datastore.Snapshot, a netip.Addr) string {
	if s == nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.names == nil {
		o.names = map[netip.Addr]string{}
	}
	follow(o.names, o.nodes, s.Part("Node"), func(n *v1.Node) (string, []netip.Addr) { return n.Name, policy.FromNode(n).Addrs })
	follow(o.names, o.pods, s.Part("WorkloadEndpoint"), func(w *v1.WorkloadEndpoint) (string, []netip.Addr) {
		return w.Namespace + "/" + w.Spec.Pod, w.Addrs()
	})
	o.nodes, o.pods = s.Part("Node"), s.Part("WorkloadEndpoint")
	return o.names[a]
}

// follow makes names what the objects say that changed.
func follow[T interface {
	v1.Object
	comparable
}](names map[netip.Addr]string, old, new *datastore.Part, owns func(T) (string, []netip.Addr)) {
	var none T
	if old == new {
		return
	}
	for was := range datastore.Changed[T](old, new) {
		if was == none {
			continue
		}
		name, addrs := owns(was)
		for _, a := range addrs {
			if names[a] == name { // and no other's by now
				delete(names, a)
			}
		}
	}
	for _, is := range datastore.Changed[T](old, new) {
		if is == none {
			continue
		}
		name, addrs := owns(is)
		for _, a := range addrs {
			names[a] = name
		}
	}
}

// owner returns whose an address is that a packet has: by the link that leads to a pod
// of this node, because that is known before the datastore tells; otherwise as of does.
func (a *Agent) owner(addr netip.Addr, link string) string {
	if pod, ok := podOf(a.loop.currentHost(), link); ok && (pod.IPv4 == addr || pod.IPv6 == addr) {
		return podName(pod)
	}
	return a.owners.of(a.mirror.Snapshot(), addr)
}

// podName returns a pod's name as people write it.
func podName(p kernel.Attachment) string { return p.Namespace + "/" + p.Pod }
