package calc

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// tunnel is one of this node's tunnel devices.
type tunnel struct {
	link string
	// wanted says that the device should be there: this node sends through it, or
	// others may.
	wanted, sending bool
	// lacking says that the kernel has no such devices.
	lacking bool
	// needs4 and needs6 say of which families it must have an address; v4 and v6 are
	// those it has from IPAM, invalid: none yet.
	needs4, needs6 bool
	v4, v6         netip.Addr
	pools          string // see Use
	device         kernel.Tunnel
}

func (t *tunnel) address(f bgp.Family) netip.Addr {
	if f == bgp.IPv4 {
		return t.v4
	}
	return t.v6
}

func (t *tunnel) needs(f bgp.Family) bool {
	if f == bgp.IPv4 {
		return t.needs4
	}
	return t.needs6
}

// there says whether the device is wanted and can be.
func (t *tunnel) there() bool { return t.wanted && !t.lacking }

// name is what people call the tunnel.
func tunnelName(link string) string {
	switch link {
	case kernel.LinkIPIP:
		return "IPIP"
	case kernel.LinkVXLAN4, kernel.LinkVXLAN6:
		return "VXLAN"
	}
	return "WireGuard"
}

func tunnelKind(link string) kernel.TunnelKind {
	switch link {
	case kernel.LinkIPIP:
		return kernel.IPIP
	case kernel.LinkVXLAN4, kernel.LinkVXLAN6:
		return kernel.VXLAN
	}
	return kernel.WireGuard
}

// tunnelCount is the number of tunnel devices, see kernel.TunnelLinks.
const tunnelCount = 4

// tunnels is all of this node's tunnel devices, in the order of
// kernel.TunnelLinks, and the MTU of pods with them.
type tunnels struct {
	all [tunnelCount]tunnel
	mtu int
}

// at returns the tunnel of a link.
func (ts *tunnels) at(link string) *tunnel {
	return &ts.all[slices.IndexFunc(ts.all[:], func(t tunnel) bool { return t.link == link })]
}

// tunnelsKey is everything that the tunnels depend on.
type tunnelsKey struct {
	own      *member
	pools    *pools
	settings *agentSettings
	fabric   *fabric
	lacking  immutable.Map[kernel.TunnelKind, bool]

	// By tunnel: what IPAM gave, whether any node publishes its end, and what it adds
	// to packets.

	assigned  [tunnelCount]addressPair
	published [tunnelCount]bool
	overhead  [tunnelCount]int
}

// addressPair is up to one address of each family.
type addressPair struct{ v4, v6 netip.Addr }

func newTunnelsKey(ms *members, ps *pools, as *agentSettings, f *fabric, in *Inputs) tunnelsKey {
	k := tunnelsKey{own: ms.own(), pools: ps, settings: as, fabric: f, lacking: in.Lacking}
	for i, link := range kernel.TunnelLinks() {
		if a, ok := in.Pods.Get(ipam.TunnelHandle(link)); ok {
			k.assigned[i] = addressPair{a.IPv4, a.IPv6}
		}
		k.published[i] = ms.publishers[link] > 0
		k.overhead[i] = overhead(link, k.own, ms)
	}
	return k
}

// tunnels returns the devices; the earlier ones if they are the same.
func (k tunnelsKey) tunnels(earlier *tunnels) *tunnels {
	ts := &tunnels{mtu: k.fabric.mtu(k.own, bgp.IPv4, bgp.IPv6)}
	most := 0
	for i, link := range kernel.TunnelLinks() {
		ts.all[i] = k.tunnel(i, link)
		if ts.all[i].there() {
			most = max(most, k.overhead[i])
		}
	}
	with6 := slices.ContainsFunc(k.pools.list, func(p *pool) bool { return p.cidr.Addr().Is6() })
	ts.mtu = lessened(ts.mtu, most, with6)
	if earlier != nil && *ts == *earlier {
		return earlier
	}
	return ts
}

// tunnel returns one device.
func (k tunnelsKey) tunnel(i int, link string) tunnel {
	t := tunnel{link: link, lacking: k.lacking.Has(tunnelKind(link))}
	over := slices.DeleteFunc(families(link), func(f bgp.Family) bool { return k.own == nil || !k.own.address(f).IsValid() })
	if len(over) == 0 {
		return t
	}
	t.sending = k.settings.WireGuardEnabled
	if link != kernel.LinkWireGuard {
		t.sending = slices.ContainsFunc(k.pools.list, func(p *pool) bool { return p.link == link })
	}
	t.wanted = t.sending || k.published[i]
	if !t.wanted {
		return t
	}
	var from []*pool
	for _, f := range families(link) {
		var pools []*pool
		if t.sending && !t.lacking {
			pools = k.sources(link, f)
		}
		from = append(from, pools...)
		if f == bgp.IPv4 {
			t.v4 = k.assigned[i].v4
			t.needs4 = t.v4.IsValid() || len(pools) > 0
		} else {
			t.v6 = k.assigned[i].v6
			t.needs6 = t.v6.IsValid() || len(pools) > 0
		}
	}
	t.pools = names(from)
	t.device = k.device(link, k.overhead[i])
	return t
}

// sources returns the pools that a tunnel's address of a family may come from:
// enabled ones, best those whose packets it carries and that this node may use.
func (k tunnelsKey) sources(link string, f bgp.Family) []*pool {
	enabled := func(p *pool) bool { return !p.disabled && bgp.FamilyOf(p.cidr.Addr()) == f }
	selects := func(p *pool) bool { return enabled(p) && p.nodes.Match(k.own.labels) }
	carried := func(p *pool) bool { return selects(p) && (p.link == link || link == kernel.LinkWireGuard) }
	for _, fits := range []func(*pool) bool{carried, selects, enabled} {
		list := slices.DeleteFunc(slices.Clone(k.pools.list), func(p *pool) bool { return !fits(p) })
		if len(list) > 0 {
			return list
		}
	}
	return nil
}

// device returns the device's parameters.
func (k tunnelsKey) device(link string, overhead int) kernel.Tunnel {
	over := families(link)
	d := kernel.Tunnel{Kind: tunnelKind(link), MTU: lessened(k.fabric.mtu(k.own, over...), overhead, slices.Contains(over, bgp.IPv6))}
	switch d.Kind {
	case kernel.VXLAN:
		d.VNI, d.Port = uint32(k.settings.VXLANVNI), uint16(k.settings.VXLANPort)
		d.Local = k.own.address(over[0]).Addr()
		d.MAC = hardwareAddress(k.own.name, link)
		d.NoChecksumOffload = k.withoutOffload()
	case kernel.WireGuard:
		d.Port = uint16(k.settings.WireGuardListeningPort)
	}
	return d
}

// hardwareAddress returns a MAC address that is the same whenever a node makes
// the device, locally administered and unicast (IEEE 802, section 8.2).
func hardwareAddress(node, link string) kernel.MAC {
	sum := sha256.Sum256([]byte(node + "/" + link))
	sum[0] = sum[0]&^1 | 2
	return kernel.MAC(sum[:6])
}

// withoutOffload says whether the kernel rather than the network card is to
// compute checksums inside VXLAN. Before Linux 5.7 address translation put a
// wrong checksum where VXLAN had left it out, and vmxnet3 computes a wrong one.
func (k tunnelsKey) withoutOffload() bool {
	if set := k.settings.VXLANChecksumOffload; set != v1.ChecksumOffloadAuto {
		return set == v1.ChecksumOffloadDisabled
	}
	return k.fabric.vmxnet3 || before(k.fabric.release, 5, 7)
}

// before says whether a kernel's release, such as 6.1.0-41-amd64, is older than a
// version. One that says nothing of the kind is not.
func before(release string, major, minor int) bool {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r == '.' || r == '-' || r == '+' })
	if len(parts) < 2 {
		return false
	}
	a, err := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err == nil && err2 == nil && (a < major || a == major && b < minor)
}

// issues says what does not work for want of a kind of device.
func (k tunnelsKey) issues(ts *tunnels) []v1.Issue {
	var issues []v1.Issue
	for i := range ts.all {
		t := &ts.all[i]
		if !t.sending || !t.lacking {
			continue
		}
		if t.link == kernel.LinkWireGuard {
			issues = append(issues, v1.Issue{
				Object: k.settings.wireGuardBy, Field: "spec.wireguardEnabled",
				Reason: lack(t.link) + ": what this node and others send to each other's pods is not encrypted",
			})
			continue
		}
		for _, p := range k.pools.list {
			if p.link != t.link {
				continue
			}
			which := "other nodes' pods"
			if p.mode == v1.EncapCrossSubnet {
				which = "pods of nodes in other subnets"
			}
			issues = append(issues, v1.Issue{
				Object: "IPPool " + p.name, Field: modeField(p.link),
				Reason: fmt.Sprintf("%s: packets to %s have no route in this pool", lack(p.link), which),
			})
		}
	}
	return issues
}

// lack says that the kernel has no devices of a tunnel's kind.
func lack(link string) string {
	return fmt.Sprintf("this kernel has no %s devices", tunnelKind(link))
}

// uses returns what the devices are needed for.
func (ts *tunnels) uses() map[string]Use {
	uses := map[string]Use{}
	for _, t := range ts.all {
		if t.wanted {
			uses[t.link] = Use{IPv4: t.needs4, IPv6: t.needs6, Pools: t.pools, Sending: t.sending}
		}
	}
	return uses
}

// devices returns the devices to be.
func (ts *tunnels) devices() map[string]kernel.Tunnel {
	devices := map[string]kernel.Tunnel{}
	for _, t := range ts.all {
		if t.wanted {
			devices[t.link] = t.device
		}
	}
	return devices
}

// addrs returns the addresses of the devices.
func (ts *tunnels) addrs() map[kernel.Addr]struct{} {
	addrs := map[kernel.Addr]struct{}{}
	for _, t := range ts.all {
		for _, a := range []netip.Addr{t.v4, t.v6} {
			if t.there() && a.IsValid() {
				addrs[kernel.Addr{Link: t.link, Prefix: netip.PrefixFrom(a, a.BitLen())}] = struct{}{}
			}
		}
	}
	return addrs
}
