package kerneltest

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/kernel"
)

func attachment(netns, container string) kernel.Attachment {
	return kernel.Attachment{
		Netns: netns, PodLink: "eth0", HostLink: kernel.PodLink("default", "web", "eth0"), ContainerID: container,
		Namespace: "default", Pod: "web", MTU: 1450,
		IPv4: netip.MustParseAddr("10.9.0.7"), IPv6: netip.MustParseAddr("fd00:9::7"),
	}
}

var podTests = []test{
	{"attach, again, check, detach, again", func(t *testing.T, w World) {
		s := watch(t, w)
		a := attachment(w.NewPod(t), "c1")
		if err := w.Check(t.Context(), a); err == nil {
			t.Error("Check found nothing wrong before Attach")
		}
		mac, err := w.Attach(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		s.until("the pod's link", func() bool {
			l := s.host.Links[a.HostLink]
			return l.Up && l.Alias == kernel.PodAlias(a) && l.MTU == a.MTU && kernel.IsPodLink(l)
		})
		index := s.host.Links[a.HostLink].Index
		again, err := w.Attach(t.Context(), a)
		if err != nil || again != mac {
			t.Errorf("the same attachment again: %q, %v, want %q", again, err, mac)
		}
		s.settled(w)
		if now := s.host.Links[a.HostLink].Index; now != index {
			t.Errorf("the same attachment again replaced link %d by %d", index, now)
		}
		if err := w.Check(t.Context(), a); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := w.Detach(t.Context(), a); err != nil {
				t.Error(err)
			}
		}
		s.until("no link", func() bool { _, ok := s.host.Links[a.HostLink]; return !ok })
	}},
	{"the successor of a pod", func(t *testing.T, w World) {
		s := watch(t, w)
		old, successor := attachment(w.NewPod(t), "c1"), attachment(w.NewPod(t), "c2")
		for _, a := range []kernel.Attachment{old, successor} {
			if _, err := w.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Detach(t.Context(), old); err != nil {
			t.Error(err)
		}
		s.settled(w)
		if got := s.host.Links[successor.HostLink].Alias; got != kernel.PodAlias(successor) {
			t.Errorf("alias is %q, want the successor's", got)
		}
		if err := w.Check(t.Context(), old); err == nil {
			t.Error("Check takes the successor for its predecessor")
		}
		if err := w.Check(t.Context(), successor); err != nil {
			t.Error(err)
		}
	}},
	{"a link of that name that is no pod's", func(t *testing.T, w World) {
		a := attachment(w.NewPod(t), "c1")
		w.AddLink(t, a.HostLink)
		if err := w.Detach(t.Context(), a); err != nil {
			t.Error(err)
		}
		s := watch(t, w)
		if _, ok := s.host.Links[a.HostLink]; !ok {
			t.Error("Detach deleted a link without an alias")
		}
		if _, err := w.Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		s.until("the pod's link", func() bool { return s.host.Links[a.HostLink].Alias == kernel.PodAlias(a) })
	}},
	{"another MTU", func(t *testing.T, w World) {
		s := watch(t, w)
		a := attachment(w.NewPod(t), "c1")
		if err := w.SetMTU(t.Context(), a); err == nil {
			t.Error("SetMTU found nothing wrong before Attach")
		}
		if _, err := w.Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		s.until("the pod's link", func() bool { return s.host.Links[a.HostLink].MTU == a.MTU })
		index := s.host.Links[a.HostLink].Index
		for _, mtu := range []int{a.MTU - 100, 1280, a.MTU + 100, 9000, 9000} {
			a.MTU = mtu
			if err := w.SetMTU(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if err := w.Check(t.Context(), a); err != nil {
				t.Errorf("with %d: %v", mtu, err)
			}
			s.until("the new MTU", func() bool { return s.host.Links[a.HostLink].MTU == mtu })
		}
		if now := s.host.Links[a.HostLink].Index; now != index {
			t.Errorf("the link was made anew: %d, was %d", now, index)
		}
		small, other := a, a
		small.MTU, other.ContainerID, other.MTU = 1279, "c2", 1400
		for name, bad := range map[string]kernel.Attachment{"an MTU too small": small, "another container": other} {
			if err := w.SetMTU(t.Context(), bad); err == nil {
				t.Errorf("SetMTU took %s", name)
			}
		}
		if err := w.Check(t.Context(), a); err != nil {
			t.Errorf("after what was refused: %v", err)
		}
	}},
	{"bad attachments", func(t *testing.T, w World) {
		for name, spoil := range map[string]func(*kernel.Attachment){
			"no address":        func(a *kernel.Attachment) { a.IPv4, a.IPv6 = netip.Addr{}, netip.Addr{} },
			"families swapped":  func(a *kernel.Attachment) { a.IPv4, a.IPv6 = a.IPv6, a.IPv4 },
			"long name":         func(a *kernel.Attachment) { a.PodLink = "sixteen-letters-" },
			"name with a slash": func(a *kernel.Attachment) { a.PodLink = "a/b" },
			"no name":           func(a *kernel.Attachment) { a.HostLink = "" },
			"no container":      func(a *kernel.Attachment) { a.ContainerID = "" },
			"MTU too small":     func(a *kernel.Attachment) { a.MTU = 1279 },
			"MTU too great":     func(a *kernel.Attachment) { a.MTU = 65536 },
			"no MTU":            func(a *kernel.Attachment) { a.MTU = 0 },
		} {
			a := attachment(w.NewPod(t), "c1")
			spoil(&a)
			if _, err := w.Attach(t.Context(), a); err == nil {
				t.Errorf("%s: Attach took it", name)
			}
		}
	}},
}

var sysctlTests = []test{
	{"the host's", func(t *testing.T, w World) {
		want := kernel.HostSysctls()
		have, err := w.Sysctls().Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for k := range want {
			if _, ok := have[k]; !ok {
				t.Errorf("%s was not read", k)
			}
		}
		for range 2 {
			if err := w.Sysctls().Write(t.Context(), want, nil); err != nil {
				t.Fatal(err)
			}
			have, err = w.Sysctls().Read(t.Context())
			if diff := cmp.Diff(want, have); err != nil || diff != "" {
				t.Errorf("read back %v (-want +got):\n%s", err, diff)
			}
		}
	}},
	{"those of pods' links, and of no others", func(t *testing.T, w World) {
		a := attachment(w.NewPod(t), "c1")
		if _, err := w.Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		w.AddLink(t, kernel.PodLinkPrefix+"-other")
		want := kernel.HostSysctls()
		maps.Copy(want, kernel.PodLinkSysctls(a.HostLink))
		if err := w.Sysctls().Write(t.Context(), want, nil); err != nil {
			t.Fatal(err)
		}
		have, err := w.Sysctls().Read(t.Context())
		if diff := cmp.Diff(want, have); err != nil || diff != "" {
			t.Errorf("read back %v (-want +got):\n%s", err, diff)
		}
	}},
	{"a link that is gone", func(t *testing.T, w World) {
		set := kernel.HostSysctls()
		missing := kernel.Sysctl("net/ipv4/conf/gone/proxy_arp")
		set[missing] = "1"
		err := w.Sysctls().Write(t.Context(), set, []kernel.Sysctl{"net/ipv6/conf/gone/accept_ra"})
		var keyErr *kernel.KeyError[kernel.Sysctl]
		if !errors.As(err, &keyErr) || keyErr.Key != missing || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error is %v, want a KeyError of %s that it does not exist", err, missing)
		}
		have, err := w.Sysctls().Read(t.Context())
		if diff := cmp.Diff(kernel.HostSysctls(), have); err != nil || diff != "" {
			t.Errorf("its neighbours: %v (-want +got):\n%s", err, diff)
		}
	}},
}
