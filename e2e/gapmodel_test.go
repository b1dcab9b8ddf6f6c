package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/probe"
	"cairn.network/cairn/policy"
)

// TestChangesKeepPorts holds that, by the reference model, all that TestNoGap makes of
// policies allows one port and denies the others.
func TestChangesKeepPorts(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &changes{rnd: rand.New(rand.NewPCG(seed, 0)), store: datastore.NewMemory(), pods: map[string]lab.Pod{}, there: map[string]bool{}}
	for i, name := range []string{"client", "near", "far"} {
		p := lab.Pod{Name: name, Node: "n1", Addrs: []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("10.244.87.%d", i)), netip.MustParseAddr(fmt.Sprintf("fd00:10:244::%d", i)),
		}}
		c.pods[name] = p
		if _, err := c.store.Create(t.Context(), endpointOf(p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range gapChanges {
		if err := c.change(t.Context()); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		if i%10 != 0 { // the model takes its time
			continue
		}
		w := c.world(t.Context(), t)
		for _, f := range gapFlows(c.pods) {
			if v := w.Evaluate(f.packet(c.pods)); (v.Action == policy.Allow) != (f.expect == probe.ExpectPass) {
				t.Fatalf("change %d: %s from %s: want %s, got %v", i, f.exchange, f.from, f.expect, v)
			}
		}
	}
}

// endpointOf returns what the agent would write of a pod.
func endpointOf(p lab.Pod) *v1.WorkloadEndpoint {
	w := &v1.WorkloadEndpoint{}
	w.Namespace, w.Name, w.Labels = "default", p.Name+"-eth0", map[string]string{"team": "red"}
	w.Spec.Node, w.Spec.Pod, w.Spec.ContainerID, w.Spec.Endpoint, w.Spec.InterfaceName = p.Node, p.Name, p.Name, "eth0", "cairn-"+p.Name
	for _, a := range p.Addrs {
		w.Spec.IPNetworks = append(w.Spec.IPNetworks, netip.PrefixFrom(a, a.BitLen()).String())
	}
	for _, port := range []uint16{portOpen, portIn, portOut} {
		for _, protocol := range protocols() {
			w.Spec.Ports = append(w.Spec.Ports, v1.NamedPort{Name: portName(port, protocol), Port: int32(port), Protocol: protocol})
		}
	}
	w.Default()
	return w
}

// world returns the reference model of what is in the datastore.
func (c *changes) world(ctx context.Context, t *testing.T) *policy.World {
	t.Helper()
	var objects []v1.Object
	for _, kind := range []string{"Tier", "GlobalNetworkPolicy", "GlobalNetworkSet", "WorkloadEndpoint", "Namespace", "EndpointSlice"} {
		some, err := c.store.List(ctx, kind)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, some...)
	}
	w, issues := policy.NewWorld(objects...)
	if len(issues) > 0 {
		t.Fatalf("issues: %v", issues)
	}
	return w
}

// packet returns the first packet of the flow.
func (f gapFlow) packet(pods map[string]lab.Pod) policy.Packet {
	p := policy.Packet{Protocol: 6, SrcPort: 40000, Dst: f.exchange.Addr.Addr(), DstPort: f.exchange.Addr.Port()}
	if f.exchange.Protocol == probe.UDP {
		p.Protocol = 17
	}
	for _, a := range pods[f.from].Addrs {
		if a.Is6() == p.Dst.Is6() {
			p.Src = a
		}
	}
	return p
}
