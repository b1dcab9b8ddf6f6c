package kernel

import "maps"

// Sysctl is the key of a kernel parameter: its path below /proc/sys, such as
// net/ipv4/ip_forward or net/ipv4/conf/cairn0123456789/proxy_arp (a link's name
// may hold dots, so paths are written with slashes).
type Sysctl string

// HostSysctls are the parameters of the host as a whole that Cairn sets.
func HostSysctls() map[Sysctl]string {
	return map[Sysctl]string{
		"net/ipv4/ip_forward":          "1",
		"net/ipv6/conf/all/forwarding": "1",
		// Equal-cost paths are chosen by the flow's ports too, not its addresses alone.
		"net/ipv4/fib_multipath_hash_policy": "1",
		"net/ipv6/fib_multipath_hash_policy": "1",
	}
}

// PodLinkSysctls are the parameters of the host side of a pod's link.
func PodLinkSysctls(link string) map[Sysctl]string {
	v4, v6 := "net/ipv4/conf/"+link+"/", "net/ipv6/conf/"+link+"/"
	neigh := Sysctl("net/ipv4/neigh/" + link + "/proxy_delay")
	return map[Sysctl]string{
		Sysctl(v4 + "forwarding"):     "1",
		Sysctl(v4 + "proxy_arp"):      "1",
		Sysctl(v4 + "route_localnet"): "0",
		Sysctl(v4 + "rp_filter"):      "1",
		neigh:                         "0",
		Sysctl(v6 + "forwarding"):     "1",
		Sysctl(v6 + "accept_ra"):      "0",
		Sysctl(v6 + "proxy_ndp"):      "1",
	}
}

// TunnelLinkSysctls are the parameters of a tunnel device: those of IPv4 for one
// that carries it, those of IPv6 likewise.
func TunnelLinkSysctls(link string) map[Sysctl]string {
	v4, v6 := "net/ipv4/conf/"+link+"/", "net/ipv6/conf/"+link+"/"
	of4 := map[Sysctl]string{
		Sysctl(v4 + "forwarding"): "1",
		// Loose: the answer to what came through one tunnel may leave another way. The
		// greater of a link's value and the host's counts, so this holds where all of
		// the host's links are checked strictly.
		Sysctl(v4 + "rp_filter"): "2",
	}
	of6 := map[Sysctl]string{
		Sysctl(v6 + "forwarding"): "1",
		Sysctl(v6 + "accept_ra"):  "0",
	}
	switch link {
	case LinkVXLAN6:
		return of6
	case LinkWireGuard:
		maps.Copy(of4, of6)
	}
	return of4
}

// SysctlsOf are the parameters that Cairn sets of a link; nil: none, the link is
// neither a pod's nor a tunnel of Cairn's.
func SysctlsOf(l Link) map[Sysctl]string {
	switch {
	case IsPodLink(l):
		return PodLinkSysctls(l.Name)
	case IsTunnelLink(l):
		return TunnelLinkSysctls(l.Name)
	}
	return nil
}
