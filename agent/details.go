package agent

import (
	"context"
	"errors"
	"time"

	"cairn.network/cairn/agent/calc"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/kernel"
)

// details are what other nodes must know of a node's tunnel devices, as its Node
// has them. Comparable.
type details struct {
	ipip           string
	vxlan4, vxlan6 vtep
	wireguard      v1.NodeWireGuard // zero: none
}

// vtep is a VXLAN device as others know it.
type vtep struct{ addr, mac string }

func detailsOf(n *v1.Node) details {
	d := details{
		vxlan4: vtep{n.Spec.IPv4VXLANTunnelAddr, n.Spec.VXLANTunnelMACAddr},
		vxlan6: vtep{n.Spec.IPv6VXLANTunnelAddr, n.Spec.VXLANTunnelMACAddrV6},
	}
	if n.Spec.BGP != nil {
		d.ipip = n.Spec.BGP.IPv4IPIPTunnelAddr
	}
	if n.Spec.WireGuard != nil {
		d.wireguard = *n.Spec.WireGuard
	}
	return d
}

// writeTo puts the details into a Node that has addresses.
func (d details) writeTo(n *v1.Node) {
	n.Spec.BGP.IPv4IPIPTunnelAddr = d.ipip
	n.Spec.IPv4VXLANTunnelAddr, n.Spec.VXLANTunnelMACAddr = d.vxlan4.addr, d.vxlan4.mac
	n.Spec.IPv6VXLANTunnelAddr, n.Spec.VXLANTunnelMACAddrV6 = d.vxlan6.addr, d.vxlan6.mac
	n.Spec.WireGuard = nil
	if d.wireguard != (v1.NodeWireGuard{}) {
		n.Spec.WireGuard = &d.wireguard
	}
}

// offer is the details of one tunnel device; the zero offer takes them back.
type offer struct {
	keep       bool // the Node's stay as they are
	ipv4, ipv6 string
	mac        string
	key        string // WireGuard's
	port       int32
}

// offers are those of all devices, by link.
type offers map[string]offer

// over returns what the Node's details are to be, from what they are.
func (o offers) over(have details) details {
	want := have
	if of, ok := o[kernel.LinkIPIP]; ok && !of.keep {
		want.ipip = of.ipv4
	}
	if of, ok := o[kernel.LinkVXLAN4]; ok && !of.keep {
		want.vxlan4 = vtep{of.ipv4, of.mac}
	}
	if of, ok := o[kernel.LinkVXLAN6]; ok && !of.keep {
		want.vxlan6 = vtep{of.ipv6, of.mac}
	}
	if of, ok := o[kernel.LinkWireGuard]; ok && !of.keep {
		want.wireguard = v1.NodeWireGuard{PublicKey: of.key, ListeningPort: of.port, InterfaceIPv4Address: of.ipv4, InterfaceIPv6Address: of.ipv6}
	}
	return want
}

// offers returns what others may know now of this node's tunnel devices. A
// device's details are given once it, its addresses and the rules that guard it
// are in the kernel. They are taken back when this node sends nothing through it
// any more: others listen as long as they see them.
func (p *publisher) offers(ctx context.Context) offers {
	state := p.a.loop.state.Load()
	if state == nil || !p.a.loop.ready.Load() {
		return nil
	}
	all, failures := offers{}, p.a.loop.tunnels.Failures()
	for _, link := range kernel.TunnelLinks() {
		f, failed := failures[link]
		lacking := failed && errors.Is(f.Err, kernel.ErrUnsupported) // an earlier kernel may have had it
		switch {
		case state.Uses.At(link).Sending && !lacking:
			if p.a.loop.guarded(state, link) {
				all[link] = p.offer(ctx, state, link)
			}
		case (offers{link: {}}).over(p.fields.details) == p.fields.details: // the Node tells nothing of it
		case !p.a.loop.routes.Any(func(_ kernel.RouteKey, r kernel.Route) bool { return r.Hops.Uses(link) }):
			all[link] = offer{}
		}
	}
	return all
}

// guarded says whether the rules are in the kernel that guard a tunnel device.
func (l *loop) guarded(s *calc.State, link string) bool {
	for name := range s.Chains.All() {
		if calc.Protects(name, link) && !l.chains.Applied(name) {
			return false
		}
	}
	return l.elements.Err() == nil && len(l.elements.Failures()) == 0
}

// offer returns the details of a tunnel device whose rules are in place.
func (p *publisher) offer(ctx context.Context, s *calc.State, link string) offer {
	keep := offer{keep: true}
	t, ok := s.Tunnels.Get(link)
	if !ok || !p.a.loop.tunnels.Applied(link) {
		return keep
	}
	var of offer
	for a := range s.Addrs.All() {
		switch {
		case a.Link != link:
		case !p.a.loop.addrs.Applied(a):
			return keep
		case a.Prefix.Addr().Is4():
			of.ipv4 = a.Prefix.Addr().String()
		default:
			of.ipv6 = a.Prefix.Addr().String()
		}
	}
	if of.ipv4 == "" && of.ipv6 == "" {
		return keep
	}
	switch t.Kind {
	case kernel.VXLAN:
		of.mac = t.MAC.String()
	case kernel.WireGuard:
		key, err := p.key.get(ctx, p.a.drv.Encryption, p.a.loop.currentHost().Links[link].Index)
		if err != nil {
			return keep
		}
		of.key, of.port = key.String(), int32(t.Port)
	}
	return of
}

// keyAge is how long the WireGuard device's key is believed to be what it was.
const keyAge = time.Minute

// deviceKey keeps the public key of the WireGuard device.
type deviceKey struct {
	index int // of the device
	at    time.Time
	key   kernel.WireGuardKey
}

func (k *deviceKey) get(ctx context.Context, e kernel.Encryption, index int) (kernel.WireGuardKey, error) {
	if index == 0 {
		return kernel.WireGuardKey{}, errors.New("the device is not there")
	}
	if k.index == index && time.Since(k.at) < keyAge {
		return k.key, nil
	}
	key, err := e.Key(ctx)
	if err == nil {
		*k = deviceKey{index, time.Now(), key}
	}
	return key, err
}
