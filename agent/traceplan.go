package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// origin is where a traced packet begins.
type origin struct {
	node  bool   // on this node
	netns string // of the pod; "": the host's
}

// Source ports of traced packets are chosen from these: few others do, as they are out
// of the way of what Linux chooses by itself (ip_local_port_range).
const (
	firstTracePort = 61100
	lastTracePort  = 65500
)

// ownPod returns the assignment of a pod (namespace/name) of this node.
func (a *Agent) ownPod(name string) (ipam.Assignment, bool) {
	host := a.loop.currentHost()
	for as := range a.pods.Assignments().All() {
		if !as.IsTunnel() && as.Namespace+"/"+as.Pod == name && host != nil && attached(host, as) {
			return as, true
		}
	}
	return ipam.Assignment{}, false
}

// planTrace returns which packet a trace is to send, from where, and the nodes on its way
// as far as they are known, this one first.
func (a *Agent) planTrace(ctx context.Context, spec *v1.PacketTraceSpec) (origin, kernel.Packet, []string, error) {
	from := origin{node: true}
	p := kernel.Packet{Protocol: spec.Protocol.Number(), SrcPort: uint16(spec.SourcePort), DstPort: uint16(spec.Port), ICMPID: traceEchoID}
	if p.DstPort != 0 && p.SrcPort == 0 {
		p.SrcPort = firstTracePort + rand.N[uint16](lastTracePort-firstTracePort+1)
	}
	dsts, node, err := a.traceEnd(spec.Destination)
	if err != nil {
		return from, p, nil, fmt.Errorf("find the destination: %w", err)
	}
	var srcs []netip.Addr
	if spec.Source.Pod != "" {
		as, ok := a.ownPod(spec.Source.Pod)
		if !ok {
			return from, p, nil, fmt.Errorf("pod %s is not on this node any more", spec.Source.Pod)
		}
		srcs, from.netns = as.Addrs(), as.Netns
		if as.Netns == "" {
			return from, p, nil, fmt.Errorf("the network namespace of pod %s is not known", spec.Source.Pod)
		}
	}
	for _, v6 := range []bool{false, true} {
		if !wants(spec, v6) {
			continue
		}
		src, dst := of(srcs, v6), of(dsts, v6)
		if dst.IsValid() && from.netns == "" {
			d, err := a.drv.Packets.Lookup.Route(ctx, kernel.RouteQuery{Dst: dst, Protocol: p.Protocol, DstPort: p.DstPort})
			if err != nil {
				return from, p, nil, err
			}
			if src = d.Src; !src.IsValid() {
				return from, p, nil, fmt.Errorf("this node has no route to %s: %s", dst, d.Type)
			}
		}
		if src.IsValid() && dst.IsValid() {
			p.Src, p.Dst = src, dst
			nodes := []string{a.cfg.Node}
			if node != "" && node != a.cfg.Node {
				nodes = append(nodes, node)
			}
			return from, p, nodes, kernel.CheckProbe(p)
		}
	}
	return from, p, nil, fmt.Errorf("%s and %s have no addresses of one family that can be used: %v, %v", spec.Source, spec.Destination, srcs, dsts)
}

// wants says whether a trace may use a family.
func wants(spec *v1.PacketTraceSpec, v6 bool) bool {
	version := 4
	if v6 {
		version = 6
	}
	icmp := map[v1.Protocol]int{v1.ProtocolICMP: 4, v1.ProtocolICMPv6: 6}[spec.Protocol]
	return (spec.IPVersion == 0 || spec.IPVersion == version) && (icmp == 0 || icmp == version)
}

// of returns the first address of a family.
func of(addrs []netip.Addr, v6 bool) netip.Addr {
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is6() == v6 })
	if i < 0 {
		return netip.Addr{}
	}
	return addrs[i]
}

// traceEnd returns the addresses of a destination, and the node that it is on; "" if
// that is not known.
func (a *Agent) traceEnd(end v1.TraceEnd) ([]netip.Addr, string, error) {
	s := a.mirror.Snapshot()
	switch {
	case s == nil:
		return nil, "", fmt.Errorf("the datastore: not in sync yet")
	case end.Node != "":
		n, ok := datastore.Get[*v1.Node](s, "", end.Node)
		if !ok {
			return nil, "", fmt.Errorf("there is no Node %s", end.Node)
		}
		var addrs []netip.Addr
		for _, p := range n.Addresses() {
			addrs = append(addrs, p.Addr())
		}
		return addrs, end.Node, nil
	case end.Pod != "":
		if as, ok := a.ownPod(end.Pod); ok {
			return as.Addrs(), a.cfg.Node, nil
		}
		namespace, pod, _ := strings.Cut(end.Pod, "/")
		for w := range datastore.All[*v1.WorkloadEndpoint](s) {
			if w.Namespace == namespace && w.Spec.Pod == pod {
				return w.Addrs(), w.Spec.Node, nil
			}
		}
		return nil, "", fmt.Errorf("there is no pod %s", end.Pod)
	}
	addr, err := netip.ParseAddr(end.Address)
	if err != nil {
		return nil, "", err
	}
	return []netip.Addr{addr}, nodeOf(s, addr), nil
}

// nodeOf returns the node that an address is on; "" if that is not known.
func nodeOf(s *datastore.Snapshot, addr netip.Addr) string {
	for n := range datastore.All[*v1.Node](s) {
		if slices.Contains(policy.FromNode(n).Addrs, addr) {
			return n.Name
		}
	}
	for w := range datastore.All[*v1.WorkloadEndpoint](s) {
		if slices.Contains(w.Addrs(), addr) {
			return w.Spec.Node
		}
	}
	return ""
}
