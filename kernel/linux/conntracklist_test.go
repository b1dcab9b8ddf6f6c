//go:build linux

package linux

import (
	"fmt"
	"os/exec"
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// Connect makes an entry by conntrack(8), which is the witness of how the driver reads
// it.
func (w *world) Connect(t testing.TB, c kernel.Connection) {
	t.Helper()
	o := c.Original
	args := []string{"-I", "-s", o.Src.String(), "-d", o.Dst.String(), "-t", "1000"}
	add := func(name string, value any) { args = append(args, name, fmt.Sprint(value)) }
	if c.Zone != 0 {
		add("-w", c.Zone)
	}
	switch o.Protocol {
	case kernel.ProtoTCP:
		add("-p", "tcp")
		add("--state", "ESTABLISHED")
	case kernel.ProtoUDP:
		add("-p", "udp")
	case kernel.ProtoICMP:
		add("-p", "icmp")
		add("--icmp-type", o.ICMPType)
		add("--icmp-code", o.ICMPCode)
		add("--icmp-id", o.ICMPID)
	case kernel.ProtoICMPv6:
		add("-p", "icmpv6")
		add("--icmpv6-type", o.ICMPType)
		add("--icmpv6-code", o.ICMPCode)
		add("--icmpv6-id", o.ICMPID)
	}
	if o.SrcPort != 0 {
		add("--sport", o.SrcPort)
		add("--dport", o.DstPort)
	}
	port := func(a fmt.Stringer, port uint16) string {
		if o.Src.Is6() {
			return fmt.Sprintf("[%s]:%d", a, port)
		}
		return fmt.Sprintf("%s:%d", a, port)
	}
	if c.DstTranslated {
		add("--dst-nat", port(c.Reply.Src, c.Reply.SrcPort))
	}
	if c.SrcTranslated {
		add("--src-nat", port(c.Reply.Dst, c.Reply.DstPort))
	}
	within(t, w.netns, func() {
		if out, err := exec.Command("conntrack", args...).CombinedOutput(); err != nil {
			t.Fatalf("conntrack (Debian package conntrack) %v: %v\n%s", args, err, out)
		}
	})
}

func TestConntrackPassesTheSuite(t *testing.T) {
	kerneltest.RunConntrack(t, func(t *testing.T) kerneltest.ConntrackWorld { return newWorld(t) })
}
