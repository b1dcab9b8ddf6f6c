// Package fabric builds the hosts of a topology as network namespaces and joins
// them: one bridge for each segment, a link from every member to it, addresses
// and default routes.
//
// It guarantees that nothing is made outside these namespaces, not even for a
// moment. It runs nothing in them.
package fabric

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/topology"
)

// NodeLink is the name of a node's (and the datastore's) one interface.
const NodeLink = "eth0"

// Path returns where the namespace of a host is held: a file of the host's name
// in the folder.
func Path(dir, host string) string { return filepath.Join(dir, host) }

// Build makes every host of the topology, with its namespace held in the folder,
// which must exist and be empty. After an error part of it may be there.
func Build(t *topology.Topology, dir string) error {
	b := builder{dir: dir}
	if err := b.fabric(t.Segments); err != nil {
		return err
	}
	for _, r := range t.Routers {
		if err := b.router(r); err != nil {
			return err
		}
	}
	for _, h := range append([]topology.Host{t.Etcd}, t.Nodes...) {
		if err := b.host(h); err != nil {
			return err
		}
	}
	return nil
}

// Prepare makes the calling thread's new namespace as a container runtime would
// hand it to CNI: loopback up, and ping sockets open to everyone.
func Prepare() error {
	if err := sysctls(map[string]string{"net/ipv4/ping_group_range": "0 2147483647"}); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// prepareHost is Prepare for the hosts of the fabric, whose addresses are all
// given: no autoconfiguration, no waiting for duplicate-address detection.
func prepareHost() error {
	err := sysctls(map[string]string{
		"net/ipv6/conf/all/accept_ra":      "0",
		"net/ipv6/conf/default/accept_ra":  "0",
		"net/ipv6/conf/default/autoconf":   "0",
		"net/ipv6/conf/default/accept_dad": "0",
	})
	if err != nil {
		return err
	}
	return Prepare()
}

type builder struct {
	dir   string
	ports int // made on the bridges so far
}

// fabric makes the namespace with a bridge for each segment. It has no
// addresses at all, so that it can only pass frames on.
func (b *builder) fabric(segments []topology.Segment) error {
	err := netns.New(Path(b.dir, topology.Fabric), func() error {
		if err := sysctls(map[string]string{"net/ipv6/conf/default/disable_ipv6": "1"}); err != nil {
			return err
		}
		for _, s := range segments {
			snooping := false // no host reports its groups here, so neighbour discovery would be lost
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName(s.Name)}, MulticastSnooping: &snooping}
			if err := netlink.LinkAdd(bridge); err != nil {
				return fmt.Errorf("add bridge %s: %w", bridge.Name, err)
			}
			if err := netlink.LinkSetUp(bridge); err != nil {
				return fmt.Errorf("set bridge %s up: %w", bridge.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("build fabric: %w", err)
	}
	return nil
}

func bridgeName(segment string) string { return "br-" + segment }

func (b *builder) router(r topology.Router) error {
	err := netns.New(Path(b.dir, r.Name), func() error {
		if err := prepareHost(); err != nil {
			return err
		}
		err := sysctls(map[string]string{
			"net/ipv4/ip_forward":                "1",
			"net/ipv6/conf/all/forwarding":       "1",
			"net/ipv4/fib_multipath_hash_policy": "1",
			"net/ipv6/fib_multipath_hash_policy": "1",
			"net/ipv4/conf/all/rp_filter":        "0",
			"net/ipv4/conf/default/rp_filter":    "0",
		})
		if err != nil {
			return err
		}
		for _, p := range r.Ports {
			if _, err := b.plug(p.Link, r.Name, p.Segment, p.Addrs); err != nil {
				return err
			}
		}
		return announced(r.Announce)
	})
	if err != nil {
		return fmt.Errorf("build router %s: %w", r.Name, err)
	}
	return nil
}

// announced makes the router answer on the first address of each prefix that it
// announces, in place of the world behind it.
func announced(prefixes []netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for _, p := range prefixes {
		first := p.Addr()
		if !p.IsSingleIP() {
			first = first.Next()
		}
		if err := addAddr(lo, netip.PrefixFrom(first, first.BitLen())); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) host(h topology.Host) error {
	err := netns.New(Path(b.dir, h.Name), func() error {
		if err := prepareHost(); err != nil {
			return err
		}
		link, err := b.plug(NodeLink, h.Name, h.Segment, h.Addrs)
		if err != nil {
			return err
		}
		return addDefaults(link, h)
	})
	if err != nil {
		return fmt.Errorf("build host %s: %w", h.Name, err)
	}
	return nil
}

// Readdress gives a host that was built the addresses in the place of those it had.
func Readdress(dir string, h topology.Host) error {
	err := netns.Do(Path(dir, h.Name), func() error {
		link, err := netlink.LinkByName(NodeLink)
		if err != nil {
			return err
		}
		old, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range old {
			if a.Scope == int(netlink.SCOPE_LINK) {
				continue
			}
			if err := netlink.AddrDel(link, &a); err != nil {
				return err
			}
		}
		for _, a := range h.Addrs {
			if err := addAddr(link, a); err != nil {
				return err
			}
		}
		return addDefaults(link, h) // the kernel dropped them with the addresses, if not all
	})
	if err != nil {
		return fmt.Errorf("readdress host %s: %w", h.Name, err)
	}
	return nil
}

func addDefaults(link netlink.Link, h topology.Host) error {
	for _, gateways := range h.Gateway {
		if err := addDefault(link, gateways); err != nil {
			return err
		}
	}
	return nil
}

// plug gives the calling thread's namespace a link to a segment's bridge, with
// addresses, and returns it.
func (b *builder) plug(name, host, segment string, addrs []netip.Prefix) (netlink.Link, error) {
	fabric, err := os.Open(Path(b.dir, topology.Fabric))
	if err != nil {
		return nil, fmt.Errorf("open fabric: %w", err)
	}
	defer fabric.Close()
	b.ports++
	port := fmt.Sprintf("p%d", b.ports)
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name},
		PeerName:  port, PeerNamespace: netlink.NsFd(int(fabric.Fd())),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("add link %s: %w", name, err)
	}
	err = netns.Do(Path(b.dir, topology.Fabric), func() error { return join(port, bridgeName(segment), host) })
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set link %s up: %w", name, err)
	}
	for _, a := range addrs {
		if err := addAddr(link, a); err != nil {
			return nil, err
		}
	}
	return link, nil
}

// join puts a port into a bridge of the calling thread's namespace. The port's
// alias says who is at its other end.
func join(port, bridge, host string) error {
	link, err := netlink.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s: %w", port, err)
	}
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	if err := netlink.LinkSetAlias(link, host); err != nil {
		return fmt.Errorf("name port %s: %w", port, err)
	}
	if err := netlink.LinkSetMaster(link, master); err != nil {
		return fmt.Errorf("put port %s into %s: %w", port, bridge, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set port %s up: %w", port, err)
	}
	return nil
}

func addAddr(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

// addDefault adds the default route, over all gateways alike.
func addDefault(link netlink.Link, gateways []netip.Addr) error {
	dst := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if gateways[0].Is6() {
		dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	r := &netlink.Route{Dst: ipNet(dst), Protocol: unix.RTPROT_STATIC}
	if len(gateways) == 1 {
		r.LinkIndex, r.Gw = link.Attrs().Index, gateways[0].AsSlice()
	} else {
		for _, gw := range gateways {
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()})
		}
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("add route %s via %v: %w", dst, gateways, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// sysctls sets kernel parameters of the calling thread's namespace. One that
// this kernel lacks for want of a whole protocol is left out.
func sysctls(values map[string]string) error {
	for key, value := range values {
		err := os.WriteFile("/proc/sys/"+key, []byte(value), 0)
		if os.IsNotExist(err) && strings.HasPrefix(key, "net/ipv6/") {
			continue
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", key, err)
		}
	}
	return nil
}
