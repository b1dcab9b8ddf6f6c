package kernel_test

import (
	"testing"

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
