package calc

import (
	"slices"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// sysctls is the kernel's parameters: the host's, and those of the links that
// belong to pods and tunnels and are there.
type sysctls struct {
	key   sysctlsKey
	links map[string]struct{} // nil: none set yet
	all   immutable.Map[kernel.Sysctl, string]
}

type sysctlsKey struct {
	pods    *pods
	tunnels *tunnels
	host    *kernel.Host
}

// update takes in the pods, the tunnels and the host's links as they are now. The
// cost of a parameter is that of a link which comes or goes.
func (s *sysctls) update(ps *pods, ts *tunnels, h *kernel.Host) {
	k := sysctlsKey{ps, ts, h}
	if k == s.key {
		return
	}
	s.key = k
	links := make(map[string]struct{}, len(ps.links)+tunnelCount)
	for link := range ps.links {
		links[link] = struct{}{}
	}
	for _, t := range ts.all {
		if t.wanted && h.Links[t.link].Alias == kernel.TunnelAlias {
			links[t.link] = struct{}{}
		}
	}
	e := s.all.Edit()
	if s.links == nil {
		for k, v := range kernel.HostSysctls() {
			e.Set(k, v)
		}
	}
	for link := range s.links {
		if _, ok := links[link]; !ok {
			for k := range linkSysctls(link) {
				e.Delete(k)
			}
		}
	}
	for link := range links {
		if _, ok := s.links[link]; !ok {
			for k, v := range linkSysctls(link) {
				e.Set(k, v)
			}
		}
	}
	s.links, s.all = links, e.Map()
}

// linkSysctls returns the parameters of a link that is Cairn's.
func linkSysctls(link string) map[kernel.Sysctl]string {
	if slices.Contains(kernel.TunnelLinks(), link) {
		return kernel.TunnelLinkSysctls(link)
	}
	return kernel.PodLinkSysctls(link)
}
