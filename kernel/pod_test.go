package kernel_test

import (
	"net/netip"
	"strings"
	"testing"

	"cairn.network/cairn/kernel"
)

func TestPodLink(t *testing.T) {
	seen := make(map[string]string)
	for _, tt := range [][3]string{
		{"default", "web", "eth0"},
		{"default", "web", "eth1"},
		{"default", "web2", "eth0"},
		{"defaultweb", "", "eth0"},
		{"", "", "eth0"},
		{strings.Repeat("n", 63), strings.Repeat("p", 253), "eth0"},
	} {
		name := kernel.PodLink(tt[0], tt[1], tt[2])
		if len(name) != 15 || !strings.HasPrefix(name, kernel.PodLinkPrefix) {
			t.Errorf("PodLink(%q) is %q, want 15 characters", tt, name)
		}
		if again := kernel.PodLink(tt[0], tt[1], tt[2]); again != name {
			t.Errorf("PodLink(%q) is %q, then %q", tt, name, again)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("PodLink(%q) is that of %s", tt, other)
		}
		seen[name] = strings.Join(tt[:], "/")
	}
	// The name is part of what a running host shows: it must not change.
	if got := kernel.PodLink("default", "web", "eth0"); got != "cairn82b3ade9d0" {
		t.Errorf("PodLink of default/web is %s", got)
	}
}

func FuzzPodAlias(f *testing.F) {
	f.Add("c1", "eth0", "10.0.0.1", "fd00::1", "default", "web")
	f.Add("c1", "eth0", "", "fd00::1", "default", "web")
	f.Add("c1", "eth0", "10.0.0.1", "", "default", "web")
	f.Add(strings.Repeat("0123456789abcdef", 4), "eth0", "10.100.200.255", "2001:db8:1111:2222:3333:4444:5555:6666", strings.Repeat("n", 63), strings.Repeat("p", 253))
	f.Add(strings.Repeat("0123456789abcdef", 4), "sixteenletters1", "", "", strings.Repeat("n", 63), strings.Repeat("p", 83))
	f.Fuzz(func(t *testing.T, container, link, v4, v6, namespace, pod string) {
		a := kernel.Attachment{ContainerID: container, PodLink: link, Namespace: namespace, Pod: pod, HostLink: "h", MTU: 1500}
		a.IPv4, _ = netip.ParseAddr(v4)
		a.IPv6, _ = netip.ParseAddr(v6)
		// What Kubernetes and Attach refuse anyway: names are DNS labels.
		for _, s := range []string{namespace, pod} {
			if s == "" || s == "-" || strings.Contains(s, " ") {
				return
			}
		}
		if a.Validate() != nil || len(container) > 64 {
			return
		}
		alias := kernel.PodAlias(a)
		if len(alias) > 255 {
			t.Fatalf("alias of %d bytes", len(alias))
		}
		got, ok := kernel.ParsePodAlias(alias)
		if !ok {
			t.Fatalf("%q is not understood", alias)
		}
		want := a
		want.HostLink, want.MTU = "", 0
		if got.Pod == "" && got.Namespace == "" { // too long to be kept
			want.Pod, want.Namespace = "", ""
		}
		if got != want {
			t.Fatalf("%q is read as %+v, want %+v", alias, got, want)
		}
	})
}

func FuzzParsePodAlias(f *testing.F) {
	f.Add("cairn.network/pod c1 eth0 10.0.0.1 - default web")
	f.Add("cairn.network/pod c1 eth0 10.0.0.1 - - -")
	f.Add("")
	f.Fuzz(func(t *testing.T, alias string) {
		a, ok := kernel.ParsePodAlias(alias)
		if !ok {
			if a != (kernel.Attachment{}) {
				t.Fatalf("%q is refused, but gives %+v", alias, a)
			}
			return
		}
		if again, ok := kernel.ParsePodAlias(kernel.PodAlias(a)); !ok || again != a && len(kernel.PodAlias(a)) < 255 && len(alias) <= 255 {
			t.Fatalf("%q is read as %+v, and its alias as %+v", alias, a, again)
		}
	})
}

func TestIsPodLink(t *testing.T) {
	alias := kernel.PodAlias(kernel.Attachment{ContainerID: "c1", PodLink: "eth0", Namespace: "n", Pod: "p"})
	for _, tt := range []struct {
		name string
		link kernel.Link
		want bool
	}{
		{"name and alias", kernel.Link{Name: "cairn0123456789", Alias: alias}, true},
		{"name only", kernel.Link{Name: "cairn0123456789"}, false},
		{"alias only", kernel.Link{Name: "eth0", Alias: alias}, false},
		{"another alias", kernel.Link{Name: "cairn0123456789", Alias: "uplink"}, false},
		{"nothing", kernel.Link{}, false},
	} {
		if got := kernel.IsPodLink(tt.link); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
