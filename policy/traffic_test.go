package policy_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cairn.network/cairn/policy"
	"cairn.network/cairn/policy/policytest"
)

// TestRemembering holds that what a world remembers changes no verdict.
func TestRemembering(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := policytest.World().Draw(t, "world")
		remembering := w.Remembering()
		for range 4 {
			p := policytest.Packet(w).Draw(t, "packet")
			want, got := w.Evaluate(p), remembering.Evaluate(p)
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *policy.Endpoint) bool { return a == b })); diff != "" {
				t.Errorf("%v (-plain +remembering):\n%s", p, diff)
			}
		}
	})
}

// TestClass holds that packets between ends of the same classes have the same verdict.
func TestClass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := policytest.World().Draw(t, "world").Remembering()
		p := policytest.Packet(w).Draw(t, "packet")
		other := policytest.Packet(w).Draw(t, "ends")
		var ends []netip.Addr
		for _, e := range w.Endpoints {
			ends = append(ends, e.Addrs...)
		}
		ends = append(ends, other.Src, other.Dst)
		alike := func(a netip.Addr) []netip.Addr {
			return slices.DeleteFunc(slices.Clone(ends), func(b netip.Addr) bool { return w.Class(a) != w.Class(b) })
		}
		want := w.Evaluate(p).Action
		for _, src := range alike(p.Src) {
			for _, dst := range alike(p.Dst) {
				if w.OwnNode(src, dst) != w.OwnNode(p.Src, p.Dst) {
					continue
				}
				q := p
				q.Src, q.Dst = src, dst
				if got := w.Evaluate(q).Action; got != want {
					t.Errorf("%v: %s, but %v: %s", p, want, q, got)
				}
			}
		}
	})
}

// TestTraffic holds that every packet between two ends has the verdict of its traffic's
// example.
func TestTraffic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := policytest.World().Draw(t, "world")
		p := policytest.Packet(w).Draw(t, "packet")
		if policy.HasPorts(p.Protocol) {
			p.DstPort = max(p.DstPort, 1) // 0 is no port
		}
		var m policy.Mention
		m.Between(w, p.Src, p.Dst)
		all := m.Traffic(p.Src.Is6())
		var in []policy.Traffic
		for _, kind := range all {
			if holds(kind, p, all) {
				in = append(in, kind)
			}
		}
		if len(in) != 1 {
			t.Fatalf("%v is in %v of %v", p, in, all)
		}
		if policy.HasPorts(p.Protocol) {
			p.SrcPort = in[0].Source
		}
		example := in[0].Packet(p.Src, p.Dst)
		if want, got := w.Evaluate(example).Action, w.Evaluate(p).Action; got != want {
			t.Errorf("%v: %s, but %v, the example of %v: %s", p, got, example, in[0], want)
		}
	})
}

// holds says whether a packet is of the traffic, one of all.
func holds(kind policy.Traffic, p policy.Packet, all []policy.Traffic) bool {
	named := func(is func(policy.Traffic) bool) bool {
		return slices.ContainsFunc(all, func(o policy.Traffic) bool { return !o.Whole && !o.Rest && is(o) })
	}
	ports := func(o policy.Traffic) bool {
		return o.Protocol == p.Protocol && o.First <= p.DstPort && p.DstPort <= o.Last
	}
	switch {
	case kind.Whole:
		return !slices.ContainsFunc(all, func(o policy.Traffic) bool { return !o.Whole && o.Protocol == p.Protocol })
	case kind.Protocol != p.Protocol:
		return false
	case p.Protocol == 1 || p.Protocol == 58:
		code := func(o policy.Traffic) bool {
			return o.Protocol == p.Protocol && !o.ICMP.AnyCode && o.ICMP.Type == p.ICMPType && o.ICMP.Code == p.ICMPCode
		}
		kinds := func(o policy.Traffic) bool { return o.Protocol == p.Protocol && o.ICMP.Type == p.ICMPType }
		switch {
		case kind.Last > 0:
			return true
		case kind.Rest:
			return !named(kinds)
		case kind.ICMP.AnyCode:
			return kinds(kind) && !named(code)
		}
		return code(kind)
	case !policy.HasPorts(p.Protocol):
		return true
	case kind.Rest:
		return !named(ports)
	}
	return ports(kind)
}

// TestTrafficNames holds what traffic is called.
func TestTrafficNames(t *testing.T) {
	tcp := func(ports ...policy.Port) policy.Rule {
		return policy.Rule{Action: policy.Allow, Protocol: 6, Destination: policy.Peer{Ports: ports}}
	}
	for name, row := range map[string]struct {
		rules []policy.Rule
		v6    bool
		want  []string
	}{
		"nothing":           {nil, false, []string{"anything"}},
		"a protocol":        {[]policy.Rule{{Protocol: 6}}, false, []string{"tcp", "anything else"}},
		"its number":        {[]policy.Rule{{NotProtocol: 47}}, false, []string{"protocol 47", "anything else"}},
		"a port":            {[]policy.Rule{tcp(policy.Port{First: 80, Last: 80})}, false, []string{"tcp 80", "other tcp", "anything else"}},
		"overlapping":       {[]policy.Rule{tcp(policy.Port{First: 80, Last: 90}, policy.Port{First: 85, Last: 100})}, false, []string{"tcp 80-84", "tcp 85-90", "tcp 91-100", "other tcp", "anything else"}},
		"every port":        {[]policy.Rule{tcp(policy.Port{First: 0, Last: 65535})}, false, []string{"tcp", "anything else"}},
		"the border":        {[]policy.Rule{tcp(policy.Port{First: 65535, Last: 65535})}, false, []string{"tcp 65535", "other tcp", "anything else"}},
		"a name":            {[]policy.Rule{tcp(policy.Port{Name: "http"})}, false, []string{"tcp 80", "other tcp", "anything else"}},
		"ICMP":              {[]policy.Rule{{Protocol: 1}, {Protocol: 58}}, false, []string{"icmp", "anything else"}},
		"ICMPv6":            {[]policy.Rule{{Protocol: 1}, {Protocol: 58}}, true, []string{"icmpv6", "anything else"}},
		"a type of ICMP":    {[]policy.Rule{{Protocol: 1, ICMP: &policy.ICMP{Type: 0}}}, false, []string{"icmp type 0 code 0", "icmp type 0", "other icmp", "anything else"}},
		"types of any code": {[]policy.Rule{{Protocol: 1, ICMP: &policy.ICMP{Type: 8, AnyCode: true}}}, false, []string{"icmp type 8", "other icmp", "anything else"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := newWorld(of("p", 1, row.rules...))
			var m policy.Mention
			m.Between(w, p.db.Addrs[0], p.web.Addrs[0])
			var got []string
			for _, kind := range m.Traffic(row.v6) {
				got = append(got, kind.String())
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("traffic (-want +got):\n%s", diff)
			}
		})
	}
}
