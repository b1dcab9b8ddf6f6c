//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// proberWorld is a host with a pod.
type proberWorld struct {
	*packetWorld
	prober kernel.Prober
	pod    *os.File
}

func newProberWorld(t *testing.T) *proberWorld {
	t.Helper()
	w := &proberWorld{packetWorld: newPacketWorld(t), pod: newNetns(t)}
	w.prober = NewProber(In(int(w.netns.Fd())))
	attrs := vishnet.NewLinkAttrs()
	attrs.Name = "cairnpod"
	must(t, admin(t, w.netns).LinkAdd(&vishnet.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: vishnet.NsFd(int(w.pod.Fd()))}))
	give(t, w.netns, "cairnpod", "10.9.1.1/24", "fd00:91::1/64")
	give(t, w.pod, "eth0", "10.9.1.2/24", "fd00:91::2/64")
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		route(t, w.pod, all, "10.9.1.1", "fd00:91::1")
	}
	return w
}

func (w *proberWorld) Send(ctx context.Context, netns string, p kernel.Packet) (kernel.Answer, error) {
	return w.prober.Send(ctx, netns, p)
}

func (w *proberWorld) Pod() string { return fmt.Sprintf("/proc/self/fd/%d", w.pod.Fd()) }

func (w *proberWorld) Listen(t testing.TB, port uint16) {
	t.Helper()
	for _, a := range kerneltest.PacketsTo {
		at := netip.AddrPortFrom(a, port)
		within(t, w.netns, func() {
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
			must(t, err)
			t.Cleanup(func() { l.Close() })
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			must(t, err)
			t.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 100)
				for {
					n, from, err := c.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					_, _ = c.WriteToUDPAddrPort(buf[:n], from) // who asked sees that nothing comes
				}
			}()
		})
	}
}

func (w *proberWorld) Silence(t testing.TB, port uint16) {
	w.nft(t, fmt.Sprintf(`table inet silence { chain it { type filter hook input priority 0; udp dport %d drop; }; }`, port))
}

func TestProberPassesTheSuite(t *testing.T) {
	kerneltest.RunProber(t, func(t *testing.T) kerneltest.ProberWorld { return newProberWorld(t) })
}

// TestProberFails is about what can't be sent, and what rules drop where it begins.
func TestProberFails(t *testing.T) {
	w := newProberWorld(t)
	p := kernel.Packet{Src: kerneltest.ProbesFrom[0], Dst: kerneltest.PacketsTo[0], Protocol: kernel.ProtoUDP, SrcPort: 1, DstPort: 2}
	file := filepath.Join(t.TempDir(), "netns")
	must(t, os.WriteFile(file, nil, 0o600))
	stranger := p
	stranger.Src = netip.MustParseAddr("192.0.2.99")
	for _, tt := range []struct {
		name, netns string
		packet      kernel.Packet
		want        error
	}{
		{"a namespace that is gone", file + "2", p, os.ErrNotExist},
		{"no namespace", file, p, nil},
		{"the host's own", fmt.Sprintf("/proc/self/fd/%d", w.netns.Fd()), p, nil},
		{"another's address", w.Pod(), stranger, unix.EADDRNOTAVAIL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if a, err := w.Send(t.Context(), tt.netns, tt.packet); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%q, %v, want %v", a, err, tt.want)
			}
		})
	}
	w.nft(t, `table inet shut { chain it { type filter hook output priority 0; udp dport 2 drop; }; }`)
	p.Src = kerneltest.PacketsFrom[0]
	if a, err := w.Send(t.Context(), "", p); err != nil || a != kernel.NoAnswer {
		t.Errorf("dropped at once: %q, %v, want no answer", a, err)
	}
}
