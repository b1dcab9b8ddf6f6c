package agent

import (
	"testing"
	"time"

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
	none := host(linkOf(a, "a"))
	type look struct {
		after time.Duration // of the look before
		host  *kernel.Host
	}
	for _, test := range []struct {
		name  string
		looks []look
		want  []ipam.Handle // at the last look
	}{
		{"all there", []look{{0, both}, {collectAfter, both}}, nil},
		{"gone once", []look{{0, both}, {collectAfter, none}}, nil},
		{"gone twice", []look{{0, none}, {collectAfter, none}}, []ipam.Handle{b.Handle}},
		{"gone twice, not for long enough", []look{{0, none}, {collectAfter - 1, none}}, nil},
		{"gone many times, for long enough", []look{{0, none}, {collectAfter - 1, none}, {1, none}}, []ipam.Handle{b.Handle}},
		{"gone, back, gone", []look{{0, none}, {collectAfter, both}, {collectAfter, none}}, nil},
		{"the link is another container's", []look{
			{0, host(linkOf(a, "a"), linkOf(b, "b2"))}, {collectAfter, host(linkOf(a, "a"), linkOf(b, "b2"))},
		}, []ipam.Handle{b.Handle}},
		{"a link without our mark", []look{
			{0, host(linkOf(a, "a"), kernel.Link{Name: b.HostLink})}, {collectAfter, host(linkOf(a, "a"), kernel.Link{Name: b.HostLink})},
		}, []ipam.Handle{b.Handle}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c collector
			var got []ipam.Handle
			var now time.Time
			for _, l := range test.looks {
				now = now.Add(l.after)
				got = c.next(l.host, ipam.NewAssignments(a, b), now)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
