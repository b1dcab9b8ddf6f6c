package cni

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"cairn.network/cairn/kernel"
)

// Places in a result's list of interfaces.
const (
	hostInterface = 0
	podInterface  = 1
)

// resultOf returns what the runtime is told of an attachment.
func resultOf(a kernel.Attachment, mac string, dns types.DNS) *types100.Result {
	r := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			hostInterface: {Name: a.HostLink, Mac: kernel.HostMAC, Mtu: a.MTU},
			podInterface:  {Name: a.PodLink, Mac: mac, Mtu: a.MTU, Sandbox: a.Netns},
		},
		DNS: dns,
	}
	for _, f := range []struct{ ip, gateway, anywhere netip.Addr }{
		{a.IPv4, kernel.PodGateway4, netip.IPv4Unspecified()},
		{a.IPv6, kernel.PodGateway6, netip.IPv6Unspecified()},
	} {
		if !f.ip.IsValid() {
			continue
		}
		r.IPs = append(r.IPs, &types100.IPConfig{
			Interface: new(podInterface), Address: ipNet(f.ip, f.ip.BitLen()), Gateway: f.gateway.AsSlice(),
		})
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(f.anywhere, 0), GW: f.gateway.AsSlice()})
	}
	return r
}

func ipNet(ip netip.Addr, bits int) net.IPNet {
	return net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(bits, ip.BitLen())}
}

// attachmentOf returns what a result says of the pod's link, as far as it does.
func attachmentOf(r *types100.Result, p pod) kernel.Attachment {
	a := kernel.Attachment{Netns: p.netns, PodLink: p.ifName, ContainerID: p.containerID, Namespace: p.namespace, Pod: p.name}
	pod := -1
	for i, link := range r.Interfaces {
		switch {
		case link == nil:
		case link.Sandbox != "" && link.Name == p.ifName:
			pod = i
			a.MTU = link.Mtu
		case link.Sandbox == "" && link.Mac == kernel.HostMAC:
			a.HostLink = link.Name
		}
	}
	for _, ip := range r.IPs {
		if ip == nil || ip.Interface == nil || *ip.Interface != pod {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			continue
		}
		if addr = addr.Unmap(); addr.Is4() {
			a.IPv4 = addr
		} else {
			a.IPv6 = addr
		}
	}
	return a
}
