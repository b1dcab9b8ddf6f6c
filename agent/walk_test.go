package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cairn.network/cairn/agent"
	"cairn.network/cairn/kernel"
)

// packet is what travels between nodes.
type packet struct {
	src, dst netip.Addr

	// What follows is of a packet that carries another.

	inner *packet
	link  string // the kind of tunnel, as the receiver names it
	port  uint16 // UDP
	vni   uint32
	mac   kernel.MAC          // of the receiver's device
	to    kernel.WireGuardKey // for whom it is encrypted
	from  kernel.WireGuardKey // by whom
}

func (p packet) protocol() uint8 {
	switch p.link {
	case "":
		return 0
	case kernel.LinkIPIP:
		return kernel.ProtoIPIP
	}
	return kernel.ProtoUDP
}

// travel follows a packet from a node until a pod has it, by every next hop that
// the kernels give, and returns the tunnels it went through.
func (c *cluster) travel(at *node, p packet, ttl int) (via string, err error) {
	if ttl == 0 {
		return "", fmt.Errorf("a loop at %s", at.name)
	}
	if p.dst == at.v4.Addr() || p.dst == at.v6.Addr() {
		return c.receive(at, p, ttl)
	}
	k, r, ok := lookup(at.kernel, p.dst)
	switch {
	case !ok:
		return "", fmt.Errorf("%s has no route to %s", at.name, p.dst)
	case r.Type == kernel.Blackhole:
		return "", fmt.Errorf("%s drops it by %s", at.name, k)
	}
	for _, h := range r.Hops.List() {
		way, err := c.leave(at, p, h, ttl)
		if err != nil {
			return "", fmt.Errorf("%s by %s: %w", at.name, h, err)
		}
		via = way
	}
	return via, nil
}

// leave sends a packet out of a node by one next hop.
func (c *cluster) leave(at *node, p packet, h kernel.NextHop, ttl int) (string, error) {
	l := at.kernel.Host().Links[h.Link]
	if !l.Up {
		return "", fmt.Errorf("link %s is down or gone", h.Link)
	}
	if slices.Contains(kernel.TunnelLinks(), h.Link) {
		outer, err := wrap(at, p, h)
		if err != nil {
			return "", err
		}
		via, err := c.travel(at, outer, ttl-1)
		return strings.TrimSuffix(h.Link+" "+via, " "), err
	}
	if pod, ok := kernel.ParsePodAlias(l.Alias); ok {
		if h.Gateway.IsValid() || p.dst != pod.IPv4 && p.dst != pod.IPv6 {
			return "", fmt.Errorf("link %s is another pod's", h.Link)
		}
		return "", nil
	}
	gateway := h.Gateway
	if !gateway.IsValid() {
		gateway = p.dst // on the link itself
	}
	next, err := c.forward(gateway, p.dst)
	if err != nil {
		return "", err
	}
	return c.travel(next, p, ttl-1)
}

// wrap puts a packet into a tunnel's.
func wrap(at *node, p packet, h kernel.NextHop) (packet, error) {
	outer := packet{src: at.v4.Addr(), inner: &p, link: h.Link}
	ctx := context.Background()
	switch h.Link {
	case kernel.LinkIPIP:
		outer.dst = h.Gateway
		return outer, nil
	case kernel.LinkWireGuard:
		return encrypt(at, outer)
	}
	devices, err := at.kernel.Tunnels().Read(ctx)
	if err != nil {
		return outer, err
	}
	neighbours, err := at.kernel.Neighbours().Read(ctx)
	if err != nil {
		return outer, err
	}
	forwarding, err := at.kernel.Forwarding().Read(ctx)
	if err != nil {
		return outer, err
	}
	device := devices[h.Link]
	mac, known := neighbours[kernel.Neighbour{Link: h.Link, IP: h.Gateway}]
	remote, there := forwarding[kernel.Forwarding{Link: h.Link, MAC: mac}]
	if !known || !there {
		return outer, fmt.Errorf("%s knows no way to %s", h.Link, h.Gateway)
	}
	outer.src, outer.dst = device.Local, remote
	outer.port, outer.vni, outer.mac = device.Port, device.VNI, mac
	return outer, nil
}

// encrypt addresses a packet of WireGuard by what it carries.
func encrypt(at *node, outer packet) (packet, error) {
	e := at.kernel.Encryption()
	peers, err := e.Peers().Read(context.Background())
	if err != nil {
		return outer, err
	}
	if outer.from, err = e.Key(context.Background()); err != nil {
		return outer, err
	}
	for key, peer := range peers {
		if contains(peer.Allowed.List(), outer.inner.dst) {
			outer.to, outer.dst, outer.port = key, peer.Endpoint.Addr(), peer.Endpoint.Port()
			if outer.dst.Is6() {
				outer.src = at.v6.Addr()
			}
			return outer, nil
		}
	}
	return outer, fmt.Errorf("no WireGuard peer is allowed %s", outer.inner.dst)
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// receive takes in a packet for the node itself.
func (c *cluster) receive(at *node, p packet, ttl int) (string, error) {
	if p.inner == nil {
		return "", nil
	}
	if err := admits(at.kernel, p); err != nil {
		return "", fmt.Errorf("%s: %w", at.name, err)
	}
	ctx := context.Background()
	devices, err := at.kernel.Tunnels().Read(ctx)
	if err != nil {
		return "", err
	}
	device, ok := devices[p.link]
	if !ok || !at.kernel.Host().Links[p.link].Up {
		return "", fmt.Errorf("%s has no %s", at.name, p.link)
	}
	switch device.Kind {
	case kernel.VXLAN:
		if device.Port != p.port || device.VNI != p.vni || device.MAC != p.mac {
			return "", fmt.Errorf("%s of %s is %s, the packet is for port %d, VNI %d, %s", p.link, at.name, device, p.port, p.vni, p.mac)
		}
	case kernel.WireGuard:
		key, err := at.kernel.Encryption().Key(ctx)
		if err != nil {
			return "", err
		}
		peers, err := at.kernel.Encryption().Peers().Read(ctx)
		if err != nil {
			return "", err
		}
		sender, known := peers[p.from]
		if key != p.to || device.Port != p.port || !known || p.inner.src.IsValid() && !contains(sender.Allowed.List(), p.inner.src) {
			return "", fmt.Errorf("%s of %s does not take it from %s: %v", p.link, at.name, p.inner.src, sender)
		}
	}
	return c.travel(at, *p.inner, ttl-1)
}

// admits says whether the rules for what comes in let a packet pass.
func admits(f *kernel.Fake, p packet) error {
	ctx := context.Background()
	chains, err := f.Chains().Read(ctx)
	if err != nil {
		return err
	}
	elements, err := f.Elements().Read(ctx)
	if err != nil {
		return err
	}
	in := func(s kernel.InSet, a netip.Addr) bool {
		if s.Set == "" {
			return true
		}
		if s.IPv6 != a.Is6() {
			return false
		}
		for e := range elements {
			if e.Set == s.Set && e.Prefix.Contains(a) {
				return !s.Not
			}
		}
		return s.Not
	}
	for name, chain := range chains {
		if chain.Hook != kernel.HookInput && chain.Hook != kernel.HookPrerouting {
			continue
		}
		for _, r := range chain.Rules.List() {
			if r.InLink != "" && r.InLink != "eth0" || r.Fragment || r.Translated || r.Other != "" || !in(r.Src, p.src) || !in(r.Dst, p.dst) ||
				r.Protocol != 0 && r.Protocol != p.protocol() || r.DstPort != 0 && r.DstPort != p.port || r.VNI != 0 && r.VNI != p.vni {
				continue
			}
			if r.Verdict == kernel.Drop {
				return fmt.Errorf("chain %s drops it: %s", name, r)
			}
			if r.Verdict == kernel.Accept {
				break
			}
		}
	}
	return nil
}

// flow is packets from one pod to another.
type flow struct{ from, to string }

// pod is where a pod is, and its addresses.
type pod struct {
	on    *node
	addrs [2]netip.Addr // IPv4, IPv6
}

// vigil looks after every write to any kernel whether each flow that came through
// before still does.
type vigil struct {
	c    *cluster
	came map[flow]bool // by the address of the destination too
	lost []string
}

// pods returns every pod by name.
func (c *cluster) pods() map[string]pod {
	all := map[string]pod{}
	for _, n := range c.nodes {
		for name, resp := range n.pods {
			all[name] = pod{on: n, addrs: [2]netip.Addr{resp.IPv4, resp.IPv6}}
		}
	}
	return all
}

// look sends a packet for each flow. What tells why it looks.
func (v *vigil) look(what string) {
	pods := v.c.pods()
	for from, a := range pods {
		for to, b := range pods {
			for i := range a.addrs {
				if a.on == b.on || !a.addrs[i].IsValid() || !b.addrs[i].IsValid() {
					continue
				}
				f := flow{from, to + " " + b.addrs[i].String()}
				_, err := v.c.travel(a.on, packet{src: a.addrs[i], dst: b.addrs[i]}, 12)
				if err == nil {
					v.came[f] = true
				} else if v.came[f] {
					v.came[f] = false
					v.lost = append(v.lost, fmt.Sprintf("after %s: %s to %s: %v", what, f.from, f.to, err))
				}
			}
		}
	}
}

// guard returns tables whose every write is looked after.
func (c *cluster) guard(n *node, k agent.Kernel) agent.Kernel {
	k.Sets = guarded[string, kernel.Set]{k.Sets, c, n.name + " sets"}
	k.Elements = guarded[kernel.Element, struct{}]{k.Elements, c, n.name + " elements"}
	k.Chains = guarded[string, kernel.Chain]{k.Chains, c, n.name + " chains"}
	k.Tunnels = guarded[string, kernel.Tunnel]{k.Tunnels, c, n.name + " tunnels"}
	k.Addrs = guarded[kernel.Addr, struct{}]{k.Addrs, c, n.name + " addresses"}
	k.Neighbours = guarded[kernel.Neighbour, kernel.MAC]{k.Neighbours, c, n.name + " neighbours"}
	k.Forwarding = guarded[kernel.Forwarding, netip.Addr]{k.Forwarding, c, n.name + " forwarding"}
	k.Encryption = guardedPeers{k.Encryption, c, n.name + " WireGuard peers"}
	k.Routes = guarded[kernel.RouteKey, kernel.Route]{k.Routes, c, n.name + " routes"}
	return k
}

type guarded[K, V comparable] struct {
	kernel.Table[K, V]
	c    *cluster
	what string
}

func (g guarded[K, V]) Write(ctx context.Context, set map[K]V, del []K) error {
	g.c.world.Lock()
	defer g.c.world.Unlock()
	err := g.Table.Write(ctx, set, del)
	g.c.shakeHands()
	if g.c.vigil != nil {
		g.c.vigil.look(fmt.Sprintf("a write to %s: set %v, delete %v, %v", g.what, set, del, err))
	}
	return err
}

// shakeHands does what WireGuard does of itself: two devices that know each other
// agree on keys once one of them probes the other.
func (c *cluster) shakeHands() {
	ctx := context.Background()
	type end struct {
		n     *node
		key   kernel.WireGuardKey
		peers map[kernel.WireGuardKey]kernel.WireGuardPeer
		met   map[kernel.WireGuardKey]bool
	}
	var ends []end
	for _, n := range c.nodes {
		e := end{n: n, met: map[kernel.WireGuardKey]bool{}}
		var err error
		if e.key, err = n.kernel.Encryption().Key(ctx); err != nil {
			continue
		}
		if e.peers, err = n.kernel.Encryption().Peers().Read(ctx); err != nil {
			continue
		}
		traffic, err := n.kernel.Encryption().Traffic(ctx)
		if err != nil {
			continue
		}
		for _, t := range traffic {
			e.met[t.Key] = !t.LastHandshake.IsZero()
		}
		ends = append(ends, e)
	}
	for _, a := range ends {
		for _, b := range ends {
			_, knows := a.peers[b.key]
			peer, known := b.peers[a.key]
			if knows && known && !a.met[b.key] && (peer.Probe || a.peers[b.key].Probe) {
				a.n.kernel.SetTraffic(kernel.PeerTraffic{Key: b.key, LastHandshake: time.Now()})
			}
		}
	}
}

type guardedPeers struct {
	kernel.Encryption
	c    *cluster
	what string
}

func (g guardedPeers) Peers() kernel.Table[kernel.WireGuardKey, kernel.WireGuardPeer] {
	return guarded[kernel.WireGuardKey, kernel.WireGuardPeer]{g.Encryption.Peers(), g.c, g.what}
}

// watchFlows begins a vigil. The returned function ends it and returns what was lost.
func (c *cluster) watchFlows() (stop func() error) {
	c.world.Lock()
	defer c.world.Unlock()
	c.vigil = &vigil{c: c, came: map[flow]bool{}}
	c.vigil.look("the start")
	return func() error {
		c.world.Lock()
		defer c.world.Unlock()
		v := c.vigil
		v.look("the end")
		c.vigil = nil
		for f, came := range v.came {
			if !came {
				v.lost = append(v.lost, fmt.Sprintf("%s to %s is cut off", f.from, f.to))
			}
		}
		if len(v.lost) == 0 {
			return nil
		}
		return errors.New(strings.Join(v.lost[:min(len(v.lost), 10)], "\n"))
	}
}
