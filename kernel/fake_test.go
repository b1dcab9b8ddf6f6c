package kernel_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// fakeWorld lets the suite shape a fake host.
type fakeWorld struct{ *kernel.Fake }

func (w fakeWorld) NewPod(testing.TB) string { return "/fake/netns" }

func (w fakeWorld) AddLink(_ testing.TB, name string) {
	w.SetLink(kernel.Link{Name: name, Kind: "veth", MTU: 1500, Up: true})
}

func (w fakeWorld) SetUp(t testing.TB, name string, up bool) {
	l, ok := w.Host().Links[name]
	if !ok {
		t.Fatalf("no link %s", name)
	}
	l.Up = up
	w.SetLink(l)
}

func (w fakeWorld) DelLink(_ testing.TB, name string)         { w.Fake.DelLink(name) }
func (w fakeWorld) AddAddr(_ testing.TB, a kernel.Addr)       { w.Fake.AddAddr(a) }
func (w fakeWorld) DelAddr(_ testing.TB, a kernel.Addr)       { w.Fake.DelAddr(a) }
func (w fakeWorld) DropRoute(_ testing.TB, k kernel.RouteKey) { w.Fake.DropRoute(k) }

func (w fakeWorld) PutRoute(_ testing.TB, k kernel.RouteKey, r kernel.Route, protocol uint8) {
	w.Fake.PutRoute(k, r, protocol)
}

func TestFakePassesTheSuite(t *testing.T) {
	kerneltest.Run(t, func(*testing.T) kerneltest.World { return fakeWorld{kernel.NewFake()} })
}

// TestFakeFails injects a fault into each operation.
func TestFakeFails(t *testing.T) {
	f := kernel.NewFake()
	f.SetLink(kernel.Link{Name: "eth0", MTU: 1500, Up: true})
	k := kernel.HostRoute(netip.MustParseAddr("10.0.0.1"))
	other := kernel.HostRoute(netip.MustParseAddr("10.0.0.2"))
	r := kernel.Route{Hops: kernel.Hops(kernel.NextHop{Link: "eth0"})}
	forwarding := kernel.Sysctl("net/ipv4/ip_forward")
	a := kernel.Attachment{HostLink: "cairn0", PodLink: "eth0", ContainerID: "c1", IPv4: netip.MustParseAddr("10.0.0.1"), MTU: 1500}
	connection := f.AddConnection(kernel.Connection{Original: kernel.Tuple{Src: a.IPv4}})
	ctx := t.Context()
	for _, tt := range []struct {
		op  string
		key any
		do  func() error
	}{
		{"read", "routes", func() error { _, err := f.Routes().Read(ctx); return err }},
		{"set", k, func() error { return f.Routes().Write(ctx, map[kernel.RouteKey]kernel.Route{k: r, other: r}, nil) }},
		{"delete", k, func() error { return f.Routes().Write(ctx, nil, []kernel.RouteKey{k, other}) }},
		{"read", "sysctls", func() error { _, err := f.Sysctls().Read(ctx); return err }},
		{"set", forwarding, func() error { return f.Sysctls().Write(ctx, map[kernel.Sysctl]string{forwarding: "1"}, nil) }},
		{"delete", forwarding, func() error { return f.Sysctls().Write(ctx, nil, []kernel.Sysctl{forwarding}) }},
		{"attach", "c1", func() error { _, err := f.Attach(ctx, a); return err }},
		{"check", "c1", func() error { return f.Check(ctx, a) }},
		{"mtu", "c1", func() error { return f.SetMTU(ctx, a) }},
		{"detach", "c1", func() error { return f.Detach(ctx, a) }},
		{"flush", a.IPv4, func() error { return f.Flush(ctx, a.IPv4) }},
		{"list", nil, func() error { return f.List(ctx, func(kernel.Connection) bool { return true }) }},
		{"forget", connection, func() error { return f.Delete(ctx, []kernel.Connection{connection}) }},
	} {
		for _, key := range []any{tt.key, nil} {
			f.Fail(tt.op, key, syscall.EIO)
			if err := tt.do(); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s %v: %v, want the fault", tt.op, tt.key, err)
			}
			f.Fail(tt.op, key, nil)
			if err := tt.do(); err != nil {
				t.Errorf("%s %v after the fault: %v", tt.op, tt.key, err)
			}
		}
	}
	if want := []netip.Addr{a.IPv4, a.IPv4}; !slices.Equal(f.Flushed(), want) {
		t.Errorf("flushed %v, want %v", f.Flushed(), want)
	}
}

func TestFakeCountsWrites(t *testing.T) {
	f := kernel.NewFake()
	k := kernel.HostRoute(netip.MustParseAddr("10.0.0.1"))
	if _, err := f.Routes().Read(t.Context()); err != nil || f.Writes() != 0 {
		t.Errorf("%d writes after a read, %v", f.Writes(), err)
	}
	for i, want := range []int{1, 2} {
		err := f.Routes().Write(t.Context(), map[kernel.RouteKey]kernel.Route{k: {Type: kernel.Blackhole}}, nil)
		if err != nil || f.Writes() != want {
			t.Errorf("%d writes after %d, %v", f.Writes(), i+1, err)
		}
	}
	if err := f.Routes().Write(t.Context(), nil, nil); err != nil || f.Writes() != 2 {
		t.Errorf("%d writes after one of nothing, %v", f.Writes(), err)
	}
}

// TestFakeInSynctest shows that a watcher of the fake blocks durably.
func TestFakeInSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := kernel.NewFake()
		ctx, cancel := context.WithCancel(t.Context())
		var events []kernel.Event
		ended := make(chan error, 1)
		go func() { ended <- f.Watch(ctx, func(e kernel.Event) { events = append(events, e) }) }()
		synctest.Wait()
		if len(events) != 1 || events[0].Host.Links["lo"].Index != 1 {
			t.Fatalf("told %+v, want the host", events)
		}
		f.SetLink(kernel.Link{Name: "eth0", Up: true})
		synctest.Wait()
		f.SetLink(kernel.Link{Name: "eth0", Up: true}) // as it is
		synctest.Wait()
		f.Overrun()
		synctest.Wait()
		if len(events) != 3 || !events[1].Host.Links["eth0"].Up || !events[2].Overrun || events[2].Host != events[1].Host {
			t.Errorf("told %+v, want the link, then the overrun", events)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}

		broken := errors.New("broken")
		f.Fail("watch", nil, broken)
		if err := f.Watch(t.Context(), func(kernel.Event) { t.Error("told something") }); !errors.Is(err, broken) {
			t.Errorf("Watch: %v, want the fault", err)
		}
	})
}
