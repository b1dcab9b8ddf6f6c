package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

func TestCollector(t *testing.T) {
	a := ipam.Assignment{Handle: ipam.Handle{ContainerID: "a", Interface: "eth0"}, HostLink: "cairn0000000001"}
	b := ipam.Assignment{Handle: ipam.Handle{ContainerID: "b", Interface: "eth0"}, HostLink: "cairn0000000002"}
	linkOf := func(as ipam.Assignment, container string) kernel.Link {
		return kernel.Link{Name: as.HostLink, Alias: kernel.PodAlias(kernel.Attachment{ContainerID: container, PodLink: "eth0"})}
	}
	host := func(links ...kernel.Link) *kernel.Host {
		h := &kernel.Host{Links: map[string]kernel.Link{}}
		for _, l := range links {
			h.Links[l.Name] = l
		}
		return h
	}
	both := host(linkOf(a, "a"), linkOf(b, "b"))
	for _, test := range []struct {
		name  string
		looks []*kernel.Host
		want  []ipam.Handle // at the last look
	}{
		{"all there", []*kernel.Host{both, both, both}, nil},
		{"gone once", []*kernel.Host{both, host(linkOf(a, "a"))}, nil},
		{"gone twice", []*kernel.Host{host(linkOf(a, "a")), host(linkOf(a, "a"))}, []ipam.Handle{b.Handle}},
		{"gone, back, gone", []*kernel.Host{host(linkOf(a, "a")), both, host(linkOf(a, "a"))}, nil},
		{"the link is another container's", []*kernel.Host{host(linkOf(a, "a"), linkOf(b, "b2")), host(linkOf(a, "a"), linkOf(b, "b2"))}, []ipam.Handle{b.Handle}},
		{"a link without our mark", []*kernel.Host{host(linkOf(a, "a"), kernel.Link{Name: b.HostLink}), host(linkOf(a, "a"), kernel.Link{Name: b.HostLink})}, []ipam.Handle{b.Handle}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c collector
			var got []ipam.Handle
			for _, h := range test.looks {
				got = c.next(h, ipam.NewAssignments(a, b))
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
