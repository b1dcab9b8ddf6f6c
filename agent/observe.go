package agent

import (
	"net/netip"
	"slices"
	"strings"

	"cairn.network/cairn/kernel"
)

// observe takes an event of the host. It does not block.
func (l *loop) observe(e kernel.Event) {
	news := false
	for k, v := range e.Routes {
		news = l.routes.Observe(k, v) || news
	}
	for k, v := range e.Neighbours {
		news = l.neighbours.Observe(k, v) || news
	}
	for k, v := range e.Forwarding {
		news = l.forwarding.Observe(k, v) || news
	}
	if e.Rules {
		l.sets.Doubt()
		l.elements.Doubt()
		l.chains.Doubt()
	}
	if len(e.Tunnels) > 0 {
		l.tunnels.Doubt()
		l.addrs.Doubt()
	}
	if e.Overrun {
		for _, t := range l.base {
			t.Doubt()
		}
	}
	l.mu.Lock()
	old := l.host
	l.host = e.Host
	l.mu.Unlock()
	if len(e.Down) > 0 {
		l.forgetLinks(e.Down, old)
	}
	if news || e.Host != old || e.Rules || e.Overrun || len(e.Tunnels) > 0 {
		l.kick()
	}
}

// forgetLinks puts in doubt what the kernel drops with links. Old is the host as it
// was.
func (l *loop) forgetLinks(names []string, old *kernel.Host) {
	var wide []string // links that any route may use
	for _, name := range names {
		pod, ok := podOf(old, name)
		if !ok {
			wide = append(wide, name)
			continue
		}
		for _, ip := range []netip.Addr{pod.IPv4, pod.IPv6} {
			if ip.IsValid() {
				l.routes.Observe(kernel.HostRoute(ip), nil)
			}
		}
	}
	if len(wide) > 0 {
		l.routes.Forget(func(_ kernel.RouteKey, r kernel.Route) bool { return slices.ContainsFunc(wide, r.Hops.Uses) })
	}
	l.sysctls.Forget(func(k kernel.Sysctl, _ string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.Contains(string(k), "/"+name+"/") })
	})
	if slices.Contains(names, kernel.LinkWireGuard) {
		l.wireguard.Doubt() // of the peers nothing else tells
	}
}

// podOf returns whose a link was, if it was a pod's.
func podOf(h *kernel.Host, link string) (kernel.Attachment, bool) {
	if h == nil {
		return kernel.Attachment{}, false
	}
	l, ok := h.Links[link]
	if !ok || !kernel.IsPodLink(l) {
		return kernel.Attachment{}, false
	}
	return kernel.ParsePodAlias(l.Alias)
}
