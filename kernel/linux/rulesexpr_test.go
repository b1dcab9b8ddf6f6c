//go:build linux

package linux

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"cairn.network/cairn/kernel"
)

// anyAddrMatch draws what a rule may ask of addresses of a family.
func anyAddrMatch(v6 bool) *rapid.Generator[kernel.AddrMatch] {
	return rapid.Custom(func(t *rapid.T) kernel.AddrMatch {
		a := kernel.AddrMatch{IPv6: v6, Not: rapid.Bool().Draw(t, "not"), Place: rapid.SampledFrom([]kernel.Place{kernel.Source, kernel.Destination}).Draw(t, "place")}
		switch rapid.IntRange(0, 2).Draw(t, "kind of address") {
		case 0:
			length := 4
			if v6 {
				length = 16
			}
			addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), length, length).Draw(t, "address"))
			a.Prefix = netip.PrefixFrom(addr, rapid.IntRange(0, 8*length).Draw(t, "bits")).Masked()
		case 1:
			a.Set = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "set")
		case 2:
			a.Set, a.Keys = "c", kernel.KeysServices
			if a.Place == kernel.Source {
				a.Keys = kernel.KeysSources
			}
		}
		return a
	})
}

func anyPortMatch(t *rapid.T) kernel.PortMatch {
	p := kernel.PortMatch{Not: rapid.Bool().Draw(t, "not"), Place: rapid.SampledFrom([]kernel.Place{kernel.Source, kernel.Destination}).Draw(t, "place")}
	if rapid.Bool().Draw(t, "ports in a set") {
		p.Set = "p"
		return p
	}
	p.First = rapid.Uint16().Draw(t, "first")
	p.Last = rapid.Uint16Range(p.First, 65535).Draw(t, "last")
	return p
}

func anyICMP(t *rapid.T) *kernel.ICMP {
	if rapid.Bool().Draw(t, "no ICMP") {
		return nil
	}
	return &kernel.ICMP{Type: rapid.Byte().Draw(t, "type"), Code: rapid.Byte().Draw(t, "code"), AnyCode: rapid.Bool().Draw(t, "any code")}
}

// anyRule draws a rule of a regular chain.
func anyRule(t *rapid.T) kernel.Rule {
	v6 := rapid.Bool().Draw(t, "IPv6")
	r := kernel.Rule{
		InLink: rapid.SampledFrom([]string{"", "eth0", "cairn*"}).Draw(t, "in"), OutLink: rapid.SampledFrom([]string{"", "eth0", "cairn*"}).Draw(t, "out"),
		Translated: rapid.Bool().Draw(t, "translated"), States: kernel.State(rapid.SampledFrom([]uint8{0, 1, 2, 6, 8, 64, 79}).Draw(t, "states")),
		Addrs: rapid.SliceOfN(anyAddrMatch(v6), 0, 3).Draw(t, "addresses"), Counter: rapid.Bool().Draw(t, "counter"),
		Comment: rapid.SampledFrom([]string{"", "why"}).Draw(t, "comment"),
	}
	r.NoInLink = r.InLink == "" && rapid.Bool().Draw(t, "no link")
	if rapid.Bool().Draw(t, "family") {
		if r.Family = 4; v6 {
			r.Family = 6
		}
	}
	switch r.Protocol = rapid.SampledFrom([]uint8{0, 1, 6, 17, 47, 58, 132}).Draw(t, "protocol"); r.Protocol {
	case 0:
		r.NotProtocol = rapid.Byte().Draw(t, "other protocol")
	case kernel.ProtoICMP, kernel.ProtoICMPv6:
		r.ICMP, r.NotICMP = anyICMP(t), anyICMP(t)
	case kernel.ProtoTCP, kernel.ProtoUDP:
		r.NoSYN = r.Protocol == kernel.ProtoTCP && rapid.Bool().Draw(t, "no SYN")
		r.DstPort = rapid.Uint16().Draw(t, "port")
		fallthrough
	case kernel.ProtoSCTP:
		for range rapid.IntRange(0, 3).Draw(t, "ports") {
			r.Ports = append(r.Ports, anyPortMatch(t))
		}
	}
	if rapid.Bool().Draw(t, "limit") {
		r.Limit = &kernel.Limit{Rate: rapid.Uint32Min(1).Draw(t, "rate"), Burst: rapid.Uint32Min(1).Draw(t, "burst")}
	}
	if rapid.Bool().Draw(t, "log") {
		r.Log = &kernel.Log{Group: rapid.Uint16().Draw(t, "group"), Prefix: rapid.SampledFrom([]string{"", "a: "}).Draw(t, "prefix")}
	}
	r.Verdict = rapid.SampledFrom([]kernel.Verdict{
		kernel.Accept, kernel.Drop, kernel.Return, kernel.Jump, kernel.Goto, kernel.InVerdicts, kernel.OutVerdicts, kernel.NoTrack, kernel.Continue,
	}).Draw(t, "verdict")
	if slices.Contains([]kernel.Verdict{kernel.Jump, kernel.Goto, kernel.InVerdicts, kernel.OutVerdicts}, r.Verdict) {
		r.Target = "there"
	}
	return r
}

// TestRulesAreReadAsWritten decompiles what was compiled, of any rule that can be
// written.
func TestRulesAreReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := kernel.Chain{Rules: kernel.RulesOf(anyRule(t))}
		if c.Check("it") != nil {
			return
		}
		want := c.Rules.List()[0]
		list := compile(want)
		got := decompile(list)
		got.Comment = want.Comment
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Fatalf("%s\n-written +read:\n%s", want, diff)
		}
		if !reflect.DeepEqual(compile(got), list) {
			t.Fatalf("%s: compiled twice it is another", want)
		}
		if again := kernel.RulesOf(got); again != c.Rules {
			t.Fatalf("%s: what was read is written as %s", want, again)
		}
	})
}
