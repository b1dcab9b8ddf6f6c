//go:build linux

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// podsWorld is a node between two pods, pod 0 by the link cairn0 and pod 1 by cairn1.
// What arrives at pod 1 is looked at.
type podsWorld struct {
	*rulesWorld
	life    testing.TB // as long as which its sockets are open
	pods    [2]*os.File
	raw     map[[2]int]int // sockets of pod 1, by family and protocol
	barrier map[bool]net.PacketConn
	sent    int
}

// pairAddrs are the addresses of the pods, of each family.
var pairAddrs = map[bool][2]string{false: {"10.65.0.2", "10.66.0.2"}, true: {"fd00:65::2", "fd00:66::2"}}

func newPodsWorld(t *testing.T) *podsWorld {
	w := &podsWorld{rulesWorld: newRulesWorld(t), life: t, pods: [2]*os.File{newNetns(t), newNetns(t)}, raw: make(map[[2]int]int)}
	for i, pod := range w.pods {
		link := fmt.Sprintf("cairn%d", i)
		attrs := vishnet.NewLinkAttrs()
		attrs.Name = link
		must(t, admin(t, w.netns).LinkAdd(&vishnet.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: vishnet.NsFd(int(pod.Fd()))}))
		give(t, w.netns, link, fmt.Sprintf("10.6%d.0.1/24", 5+i), fmt.Sprintf("fd00:6%d::1/64", 5+i))
		give(t, pod, "eth0", pairAddrs[false][i]+"/24", pairAddrs[true][i]+"/64")
		for _, all := range []string{"0.0.0.0/0", "::/0"} {
			route(t, pod, all, fmt.Sprintf("10.6%d.0.1", 5+i), fmt.Sprintf("fd00:6%d::1", 5+i))
		}
	}
	within(t, w.netns, func() {
		for _, sysctl := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			must(t, os.WriteFile("/proc/sys/net/"+sysctl, []byte("1"), 0))
		}
		for _, sysctl := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/cairn0/rp_filter"} {
			must(t, os.WriteFile("/proc/sys/net/"+sysctl, []byte("0"), 0))
		}
	})
	w.barrier = map[bool]net.PacketConn{
		false: openSocket(t, w.pods[1], "udp4", fmt.Sprintf(":%d", barrierPort)), true: openSocket(t, w.pods[1], "udp6", fmt.Sprintf(":%d", barrierPort)),
	}
	return w
}

// socket returns a socket that hears all of a protocol that comes to pod 1.
func (w *podsWorld) socket(t *testing.T, v6 bool, protocol uint8) int {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	key := [2]int{family, int(protocol)}
	if fd, ok := w.raw[key]; ok {
		return fd
	}
	within(t, w.pods[1], func() {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(protocol))
		must(t, err)
		w.raw[key] = fd
		w.life.Cleanup(func() { unix.Close(fd) })
	})
	return w.raw[key]
}

// arrives sends a packet from pod 0 and says whether it came to pod 1. Behind it goes
// one that always arrives, and what came before that is there already.
func (w *podsWorld) arrives(t *testing.T, d datagram) bool {
	t.Helper()
	v6 := d.dst.Is6()
	fd := w.socket(t, v6, d.protocol)
	w.sent++
	text, mark := fmt.Sprintf("packet %d.", w.sent), fmt.Sprintf("mark %d.", w.sent)
	d.payload = append(d.payload, text...)
	switch d.protocol {
	case unix.IPPROTO_ICMPV6: // whose sum is looked at
		pseudo := append(append(d.src.AsSlice(), d.dst.AsSlice()...), 0, 0, 0, byte(len(d.payload)), 0, 0, 0, d.protocol)
		binary.BigEndian.PutUint16(d.payload[2:], ^sum(append(pseudo, d.payload...)))
	case unix.IPPROTO_UDP:
		d = udp(d.src.String(), d.dst.String(), binary.BigEndian.Uint16(d.payload[2:]), []byte(text))
	}
	emit(t, w.pods[0], d, udp(pairAddrs[v6][0], pairAddrs[v6][1], barrierPort, []byte(mark)))
	heard(t, w.barrier[v6], mark)
	return w.came(t, fd, text)
}

// came says whether a packet that ends in text is among those at a socket.
func (w *podsWorld) came(t *testing.T, fd int, text string) (came bool) {
	t.Helper()
	b := make([]byte, 9000)
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return came
		}
		must(t, err)
		came = came || strings.HasSuffix(string(b[:n]), text)
	}
}

// toPort is a packet of a protocol that has ports, without its text.
func toPort(src, dst string, protocol uint8, port uint16) datagram {
	d := datagram{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), protocol: protocol}
	d.payload = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 40000), port)
	d.payload = append(d.payload, make([]byte, 8)...) // of SCTP: 12 bytes
	return d
}

// icmpOf is a packet of ICMP, without its text and sum.
func icmpOf(src, dst string, kind, code uint8) datagram {
	d := datagram{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), protocol: unix.IPPROTO_ICMP, payload: []byte{kind, code, 0, 0, 0, 0, 0, 0}}
	if d.src.Is6() {
		d.protocol = unix.IPPROTO_ICMPV6
	}
	return d
}

// policySets are the sets of the rules, and what is in them.
func policySets() (map[string]kernel.Set, []kernel.Element) {
	sets := map[string]kernel.Set{
		"from": {Keys: kernel.KeysLinks}, "to": {Keys: kernel.KeysLinks}, "ports": {Keys: kernel.KeysPorts, Ranges: true},
		"services4": {Keys: kernel.KeysServices}, "services6": {Keys: kernel.KeysServices, IPv6: true},
		"sources4": {Keys: kernel.KeysSources}, "sources6": {Keys: kernel.KeysSources, IPv6: true},
	}
	elements := []kernel.Element{{Set: "ports", Port: 80}, {Set: "ports", Port: 1000, LastPort: 2000}}
	for v6, suffix := range map[bool]string{false: "4", true: "6"} {
		for i, addr := range pairAddrs[v6] {
			service, source := kerneltest.Member("services"+suffix, addr), kerneltest.Member("sources"+suffix, addr)
			service.Protocol, service.Port = kernel.ProtoSCTP, 443
			source.Beside = fmt.Sprintf("cairn%d", i)
			elements = append(elements, service, source)
		}
	}
	return sets, elements
}

// policyChains have packets go by the chains of the links that they come by and leave
// by.
func policyChains() map[string]kernel.Chain {
	chain := func(rules ...kernel.Rule) kernel.Chain { return kernel.Chain{Rules: kernel.RulesOf(rules...)} }
	barrier := kernel.Rule{Protocol: kernel.ProtoUDP, DstPort: barrierPort, Verdict: kernel.Accept, Comment: "barrier"}
	dst := kernel.Destination
	var out, in []kernel.Rule
	for _, v6 := range []bool{false, true} {
		suffix, icmp, kind := "4", uint8(kernel.ProtoICMP), uint8(13)
		if v6 {
			suffix, icmp, kind = "6", kernel.ProtoICMPv6, 144
		}
		out = append(out, kernel.Rule{
			Addrs: []kernel.AddrMatch{{Place: kernel.Source, IPv6: v6, Not: true, Set: "sources" + suffix, Keys: kernel.KeysSources}}, Verdict: kernel.Drop, Comment: "not its own address",
		})
		in = append(in,
			kernel.Rule{Addrs: []kernel.AddrMatch{{Place: dst, IPv6: v6, Set: "services" + suffix, Keys: kernel.KeysServices}}, Verdict: kernel.Accept},
			kernel.Rule{Protocol: icmp, ICMP: &kernel.ICMP{Type: kind, Code: 1}, Verdict: kernel.Accept},
			kernel.Rule{Protocol: icmp, ICMP: &kernel.ICMP{Type: kind + 1, AnyCode: true}, Verdict: kernel.Accept},
			kernel.Rule{Protocol: icmp, NotICMP: &kernel.ICMP{Type: kind, Code: 2}, Addrs: []kernel.AddrMatch{{Place: kernel.Source, IPv6: v6, Prefix: netip.PrefixFrom(netip.MustParseAddr(pairAddrs[v6][0]), 20).Masked()}}, Verdict: kernel.Jump, Target: "not/icmp"},
		)
	}
	in = append(in,
		kernel.Rule{States: kernel.StateEstablished | kernel.StateRelated, Verdict: kernel.Accept},
		kernel.Rule{Protocol: kernel.ProtoUDP, Ports: []kernel.PortMatch{{Place: dst, Set: "ports"}}, Verdict: kernel.Accept},
		kernel.Rule{Protocol: kernel.ProtoUDP, DstPort: 7, Counter: true, Limit: &kernel.Limit{Rate: 1000, Burst: 1000}, Log: &kernel.Log{Group: 5, Prefix: "it"}, Verdict: kernel.Continue, Comment: "counted"},
		kernel.Rule{Protocol: kernel.ProtoUDP, Ports: []kernel.PortMatch{{Place: dst, First: 7, Last: 8}, {Place: kernel.Source, Not: true, First: 1, Last: 39999}}, Verdict: kernel.Accept},
		kernel.Rule{Verdict: kernel.Drop, Comment: "the rest"},
	)
	return map[string]kernel.Chain{
		"forward": {Hook: kernel.HookForward, Type: kernel.ChainFilter, Rules: kernel.RulesOf(barrier,
			kernel.Rule{Verdict: kernel.Jump, Target: "dispatch/from"}, kernel.Rule{Verdict: kernel.Jump, Target: "dispatch/to"})},
		"dispatch/from": chain(kernel.Rule{Verdict: kernel.InVerdicts, Target: "from"}, kernel.Rule{InLink: "cairn*", Verdict: kernel.Drop, Comment: "unknown"}),
		"dispatch/to":   chain(kernel.Rule{Verdict: kernel.OutVerdicts, Target: "to"}, kernel.Rule{OutLink: "cairn*", Verdict: kernel.Drop, Comment: "unknown"}),
		"pods/0/out":    chain(out...), "pods/1/in": chain(in...), "pods/any": chain(kernel.Rule{Verdict: kernel.Return}),
		"not/icmp":                        chain(kernel.Rule{Family: 4, Protocol: kernel.ProtoICMP, Verdict: kernel.Return}, kernel.Rule{Family: 6, Verdict: kernel.Return}, kernel.Rule{Verdict: kernel.Drop}),
		kernel.EntryKey("from", "cairn0"): {To: "pods/0/out"}, kernel.EntryKey("from", "cairn1"): {To: "pods/any"},
		kernel.EntryKey("to", "cairn0"): {To: "pods/any"}, kernel.EntryKey("to", "cairn1"): {To: "pods/1/in"},
	}
}

// TestPolicyPackets sends packets past every kind of rule that policies need.
func TestPolicyPackets(t *testing.T) {
	w := newPodsWorld(t)
	sets, elements := policySets()
	kerneltest.Put(t, w.sets, sets)
	kerneltest.Put(t, w.elements, elementMap(elements))
	kerneltest.Put(t, w.chains, policyChains())
	wants := func(t *testing.T, d datagram, want bool) {
		t.Helper()
		if got := w.arrives(t, d); got != want {
			t.Errorf("arrives: %t, want %t", got, want)
		}
	}
	for v6, addrs := range pairAddrs {
		src, dst, other, kind := addrs[0], addrs[1], "10.65.0.9", uint8(13)
		if v6 {
			other, kind = "fd00:65::9", 144
		}
		for _, tt := range []struct {
			name string
			datagram
			arrives bool
		}{
			{"port of the set", toPort(src, dst, kernel.ProtoUDP, 80), true},
			{"first port of a range", toPort(src, dst, kernel.ProtoUDP, 1000), true},
			{"last port of a range", toPort(src, dst, kernel.ProtoUDP, 2000), true},
			{"port behind a range", toPort(src, dst, kernel.ProtoUDP, 2001), false},
			{"port of another protocol", toPort(src, dst, kernel.ProtoSCTP, 80), false},
			{"service", toPort(src, dst, kernel.ProtoSCTP, 443), true},
			{"port of a service, of another protocol", toPort(src, dst, kernel.ProtoUDP, 443), false},
			{"not the pod's own address", toPort(other, dst, kernel.ProtoUDP, 80), false},
			{"type and code", icmpOf(src, dst, kind, 1), true},
			{"type and another code", icmpOf(src, dst, kind, 2), false},
			{"type and any code", icmpOf(src, dst, kind+1, 9), true},
			{"another type", icmpOf(src, dst, kind+2, 1), false},
			{"logged", toPort(src, dst, kernel.ProtoUDP, 7), true},
			{"not logged", toPort(src, dst, kernel.ProtoUDP, 8), true},
		} {
			t.Run(fmt.Sprintf("IPv6 %t, %s", v6, tt.name), func(t *testing.T) { wants(t, tt.datagram, tt.arrives) })
		}
		t.Run(fmt.Sprintf("IPv6 %t, established", v6), func(t *testing.T) {
			wants(t, toPort(src, dst, kernel.ProtoUDP, 40000), false)
			emit(t, w.pods[1], udp(dst, src, 40000, nil)) // from port 40000
			wants(t, toPort(src, dst, kernel.ProtoUDP, 40000), true)
		})
	}
	counts, err := NewCounters(In(int(w.netns.Fd()))).RuleCounters(t.Context())
	must(t, err)
	if len(counts) != 1 || len(counts["pods/1/in"]) != 1 || counts["pods/1/in"][0].Comment != "counted" || counts["pods/1/in"][0].Packets != 2 || counts["pods/1/in"][0].Bytes == 0 {
		t.Errorf("counted %+v, want two packets of one rule", counts)
	}
	kerneltest.WantRules(t, w, sets, elements, policyChains()) // whatever was counted

	entry := kernel.EntryKey("from", "cairn0")
	packet := toPort("10.65.0.9", pairAddrs[false][1], kernel.ProtoUDP, 80)
	kerneltest.Put(t, w.chains, map[string]kernel.Chain{entry: {To: "pods/any"}})
	wants(t, packet, true)
	kerneltest.Put(t, w.chains, nil, entry)
	wants(t, packet, false)
}

// flood sends packets from pod 0 to pod 1 until stop is called, which returns how many.
func (w *podsWorld) flood(t *testing.T, text string) (stop func() int) {
	var packets []datagram
	for range 100 {
		packets = append(packets, udp(pairAddrs[false][0], pairAddrs[false][1], 80, []byte(text)))
	}
	done, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-done:
				sent <- n
				return
			default:
				emit(t, w.pods[0], packets...)
				n += len(packets)
			}
		}
	}()
	return func() int {
		close(done)
		return <-sent
	}
}

// TestSwitchesLeaveNoGap sends packets all the time while rules change from one state in
// which they are dropped to another. What is accepted meanwhile is asked by none.
func TestSwitchesLeaveNoGap(t *testing.T) {
	chain := func(rules ...kernel.Rule) kernel.Chain { return kernel.Chain{Rules: kernel.RulesOf(rules...)} }
	verdict := func(v kernel.Verdict) kernel.Chain { return chain(kernel.Rule{Verdict: v}) }
	barrier := kernel.Rule{Protocol: kernel.ProtoUDP, DstPort: barrierPort, Verdict: kernel.Accept}
	forward := func(r kernel.Rule) kernel.Chain {
		return kernel.Chain{Hook: kernel.HookForward, Type: kernel.ChainFilter, Rules: kernel.RulesOf(barrier, r, kernel.Rule{Verdict: kernel.Drop})}
	}
	entry := kernel.EntryKey("to", "cairn1")
	// Kernels before 6.17 may find no entry at all in the moment when one is replaced: the
	// next rule must drop. An empty chain that an entry leads to would end in the policy.
	byEntry := forward(kernel.Rule{Verdict: kernel.OutVerdicts, Target: "to"})
	for _, tt := range []struct {
		name  string
		state func(i int) (set map[string]kernel.Chain, del []string)
	}{
		{"chains that exchange their rules", func(i int) (map[string]kernel.Chain, []string) {
			asked, other := [2]string{"a", "b"}[i%2], [2]string{"b", "a"}[i%2]
			return map[string]kernel.Chain{asked: verdict(kernel.Drop), other: verdict(kernel.Accept), "forward": forward(kernel.Rule{Verdict: kernel.Goto, Target: asked})}, nil
		}},
		{"an entry that leads to a new chain", func(i int) (map[string]kernel.Chain, []string) {
			name := fmt.Sprintf("new/%d", i)
			return map[string]kernel.Chain{name: verdict(kernel.Drop), entry: {To: name}, "forward": byEntry}, []string{fmt.Sprintf("new/%d", i-1)}
		}},
		{"an entry that leads to what a new chain jumps to", func(i int) (map[string]kernel.Chain, []string) {
			name, below := fmt.Sprintf("new/%d", i), fmt.Sprintf("below/%d", i)
			return map[string]kernel.Chain{
				below: verdict(kernel.Drop), name: chain(kernel.Rule{Verdict: kernel.Jump, Target: below}), entry: {To: name}, "forward": byEntry,
			}, []string{fmt.Sprintf("below/%d", i-1), fmt.Sprintf("new/%d", i-1)}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newPodsWorld(t)
			kerneltest.Put(t, w.sets, map[string]kernel.Set{"to": {Keys: kernel.KeysLinks}})
			set, _ := tt.state(0)
			kerneltest.Put(t, w.chains, set)
			fd := w.socket(t, false, kernel.ProtoUDP)
			stop := w.flood(t, "let in")
			for i := range 300 {
				set, del := tt.state(i + 1)
				if err := w.chains.Write(t.Context(), set, del); err != nil {
					t.Error(err)
					break
				}
			}
			sent := stop()
			const mark = "the last"
			emit(t, w.pods[0], udp(pairAddrs[false][0], pairAddrs[false][1], barrierPort, []byte(mark)))
			heard(t, w.barrier[false], mark)
			if w.came(t, fd, "let in") || sent == 0 {
				t.Errorf("of %d packets some were let in, or none was sent", sent)
			}
		})
	}
}
