package kernel

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
