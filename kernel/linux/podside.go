//go:build linux

package linux

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// podSide is a pod's network namespace.
type podSide struct {
	config
	file   *os.File
	handle *vishnet.Handle
}

func (t attacher) openPod(a kernel.Attachment) (*podSide, error) {
	f, err := t.openNetns(a.Netns)
	if err != nil {
		return nil, err
	}
	p := &podSide{config: config{netns: int(f.Fd())}, file: f}
	if p.handle, err = p.config.handle(); err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func (p *podSide) close() {
	p.handle.Close()
	p.file.Close()
}

func (p *podSide) link(name string) (vishnet.Link, error) { return findLink(p.handle, name) }

// podSysctls are the parameters of the pod's end: no duplicate-address
// detection, which would delay the pod by a second or two, and no router but the
// host.
func podSysctls(a kernel.Attachment) []podSysctl {
	if !a.IPv6.IsValid() {
		return nil
	}
	dir := kernel.Sysctl("net/ipv6/conf/" + a.PodLink)
	return []podSysctl{{dir + "/disable_ipv6", "0"}, {dir + "/accept_dad", "0"}, {dir + "/accept_ra", "0"}}
}

// podSysctl is one parameter; their order matters.
type podSysctl struct {
	key   kernel.Sysctl
	value string
}

// podAddrs are the addresses of the pod's end.
func podAddrs(a kernel.Attachment) []*vishnet.Addr {
	var addrs []*vishnet.Addr
	for _, ip := range []netip.Addr{a.IPv4, a.IPv6} {
		if !ip.IsValid() {
			continue
		}
		addr := &vishnet.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}}
		if ip.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		addrs = append(addrs, addr)
	}
	return addrs
}

// gateways are the next hops of the pod's default routes.
func gateways(a kernel.Attachment) []netip.Addr {
	var gws []netip.Addr
	if a.IPv4.IsValid() {
		gws = append(gws, kernel.PodGateway4)
	}
	if a.IPv6.IsValid() {
		gws = append(gws, kernel.PodGateway6)
	}
	return gws
}

// podRoutes are the routes of the pod.
func podRoutes(a kernel.Attachment) map[kernel.RouteKey]kernel.Route {
	routes := make(map[kernel.RouteKey]kernel.Route)
	for _, gw := range gateways(a) {
		everything := netip.PrefixFrom(gw, 0).Masked()
		key := kernel.RouteKey{Table: kernel.MainTable, Dst: everything, Priority: kernel.RoutePriority}
		// Onlink, so that it does not matter which route is made first.
		routes[key] = kernel.Route{Hops: kernel.Hops(kernel.NextHop{Gateway: gw, Link: a.PodLink, OnLink: true})}
		if gw.Is4() {
			key.Dst = netip.PrefixFrom(gw, gw.BitLen())
			routes[key] = kernel.Route{Hops: kernel.Hops(kernel.NextHop{Link: a.PodLink})}
		}
	}
	return routes
}

// podNeighs are the permanent entries by which the pod reaches its gateways.
func podNeighs(a kernel.Attachment, index int) ([]*vishnet.Neigh, error) {
	mac, err := net.ParseMAC(kernel.HostMAC)
	if err != nil {
		return nil, err
	}
	var neighs []*vishnet.Neigh
	for _, gw := range gateways(a) {
		neighs = append(neighs, &vishnet.Neigh{
			LinkIndex: index, Family: int(family(gw)), State: vishnet.NUD_PERMANENT, IP: gw.AsSlice(), HardwareAddr: mac,
		})
	}
	return neighs, nil
}

// configure makes the pod's side what it must be and returns its MAC address.
func (p *podSide) configure(ctx context.Context, a kernel.Attachment) (mac string, err error) {
	err = p.in(func() error {
		for _, s := range podSysctls(a) {
			if err := setSysctl(s.key, s.value); err != nil {
				return fmt.Errorf("set %s of the pod: %w", s.key, err)
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	for _, name := range []string{"lo", a.PodLink} {
		l, err := p.link(name)
		if err != nil {
			return "", err
		}
		if l == nil {
			return "", fmt.Errorf("the pod has no link %s: %w", name, unix.ENODEV)
		}
		if name == a.PodLink {
			if mac, err = l.Attrs().HardwareAddr.String(), p.configureLink(l, a); err != nil {
				return "", err
			}
		}
		if err := p.handle.LinkSetUp(l); err != nil {
			return "", fmt.Errorf("set %s of the pod up: %w", name, refusal(err))
		}
	}
	if err := (&routes{config: p.config}).Write(ctx, podRoutes(a), nil); err != nil {
		return "", fmt.Errorf("set routes of the pod: %w", err)
	}
	return mac, nil
}

func (p *podSide) configureLink(l vishnet.Link, a kernel.Attachment) error {
	if l.Attrs().MTU != a.MTU {
		if err := p.handle.LinkSetMTU(l, a.MTU); err != nil {
			return fmt.Errorf("set MTU of the pod: %w", refusal(err))
		}
	}
	for _, addr := range podAddrs(a) {
		if err := p.handle.AddrReplace(l, addr); err != nil {
			return fmt.Errorf("set address %s of the pod: %w", addr.IPNet, refusal(err))
		}
	}
	neighs, err := podNeighs(a, l.Attrs().Index)
	if err != nil {
		return err
	}
	for _, n := range neighs {
		if err := p.handle.NeighSet(n); err != nil {
			return fmt.Errorf("set neighbour %s of the pod: %w", n.IP, refusal(err))
		}
	}
	return nil
}

// check names what differs from what configure makes.
func (p *podSide) check(ctx context.Context, a kernel.Attachment, hostLink vishnet.Link, differs func(string, ...any)) error {
	l, err := p.link(a.PodLink)
	if err != nil {
		return err
	}
	if l == nil {
		differs("the pod has no link %s", a.PodLink)
		return nil
	}
	if l.Attrs().ParentIndex != hostLink.Attrs().Index {
		differs("the other end of the pod's %s is not %s", a.PodLink, a.HostLink)
	}
	checkLink(l, a.MTU, differs)
	if err := checkAddrs(p.handle, l, podAddrs(a), differs); err != nil {
		return err
	}
	have, err := (&routes{config: p.config}).Read(ctx)
	if err != nil {
		return err
	}
	for k, r := range podRoutes(a) {
		if have[k] != r {
			differs("route %v of the pod is %q, want %q", k, have[k], r)
		}
	}
	return p.checkNeighs(a, l, differs)
}

func (p *podSide) checkNeighs(a kernel.Attachment, l vishnet.Link, differs func(string, ...any)) error {
	want, err := podNeighs(a, l.Attrs().Index)
	if err != nil {
		return err
	}
	have, err := whole(func() ([]vishnet.Neigh, error) { return p.handle.NeighList(l.Attrs().Index, unix.AF_UNSPEC) })
	if err != nil {
		return fmt.Errorf("list neighbours of the pod: %w", refusal(err))
	}
	macs := make(map[string]string)
	for _, n := range have {
		if n.State&vishnet.NUD_PERMANENT != 0 {
			macs[n.IP.String()] = n.HardwareAddr.String()
		}
	}
	for _, n := range want {
		if macs[n.IP.String()] != n.HardwareAddr.String() {
			differs("neighbour %s of the pod is %q, want %s", n.IP, macs[n.IP.String()], n.HardwareAddr)
		}
	}
	return nil
}
