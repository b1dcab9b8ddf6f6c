package policytest

import (
	"fmt"
	"math/bits"
	"net/netip"

	"pgregory.net/rapid"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
	"cairn.network/cairn/selector"
)

// dice draws values from few, so that they meet.
type dice struct{ *rapid.T }

// roll draws a number below n, each as likely: rapid's own numbers are mostly the
// lowest, and what comes together seldom would hardly ever.
func (d dice) roll(n int, what string) int {
	v := 0
	for range bits.Len(uint(n)) + 2 {
		v <<= 1
		if rapid.Bool().Draw(d.T, what) {
			v++
		}
	}
	return v % n
}

// pick draws one of several values; one that is listed twice comes twice as often.
func pick[V any](d dice, what string, from ...V) V { return from[d.roll(len(from), what)] }

// some draws up to n values.
func some[V any](d dice, n int, what string, one func() V) []V {
	var list []V
	for range d.roll(n+1, what) {
		list = append(list, one())
	}
	return list
}

// oneIn says yes in one of n cases.
func (d dice) oneIn(n int, what string) bool { return d.roll(n, what) == n-1 }

// World returns random small worlds: two nodes, pods and host endpoints on both,
// network sets whose nets overlap, a Service, and policies of all shapes, staged and
// faulty ones among them. Labels, addresses and ports are few, so that rules often
// match. What resources are refused for at the door is not in it.
func World() *rapid.Generator[*policy.World] {
	return rapid.Custom(func(t *rapid.T) *policy.World {
		d := dice{t}
		w := &policy.World{
			Tiers: []policy.Tier{{Name: "default", Order: 1e6, Default: d.tierDefault()}},
			Nodes: []policy.Node{
				{Name: "n1", Labels: d.labels("rack"), Addrs: addrs("192.0.2.1", "2001:db8::1")},
				{Name: "n2", Labels: d.labels("rack"), Addrs: addrs("192.0.2.2", "2001:db8::2")},
			},
			Namespaces:      map[string]map[string]string{"ns1": d.labels("team"), "ns2": d.labels("team")},
			ServiceAccounts: map[policy.ID]map[string]string{{Namespace: "ns1", Name: "sa"}: d.labels("role")},
			Services:        map[policy.ID][]policy.ServiceEndpoint{{Namespace: "ns1", Name: "svc"}: some(d, 4, "behind the service", d.serviceEndpoint)},
			FailSafe:        [2][]policy.FailSafe{some(d, 2, "fail-safe in", d.failSafe), some(d, 2, "fail-safe out", d.failSafe)},
		}
		for _, name := range []string{"early", "early2", "late"} {
			if d.oneIn(2, "tier "+name) {
				w.Tiers = append(w.Tiers, policy.Tier{Name: name, Order: pick(d, "order of a tier", 10, 10, 2e6, policy.Last), Default: d.tierDefault()})
			}
		}
		for i := range 1 + d.roll(5, "pods") {
			w.Endpoints = append(w.Endpoints, d.pod(i))
		}
		for i := range d.roll(4, "host endpoints") {
			w.Endpoints = append(w.Endpoints, d.host(i))
		}
		for i := range d.roll(4, "network sets") {
			w.Endpoints = append(w.Endpoints, d.networkSet(i))
		}
		for i := range d.roll(11, "policies") {
			w.Policies = append(w.Policies, d.policy(w, i))
		}
		return w
	})
}

func (d dice) tierDefault() policy.Action {
	return pick(d, "default action", policy.Deny, policy.Deny, policy.Pass)
}

func (d dice) labels(key string) map[string]string {
	labels := make(map[string]string)
	if v := pick(d, "label "+key, "a", "a", "b", ""); v != "" {
		labels[key] = v
	}
	return labels
}

// selector draws one of selectors that choose some of few labels.
func (d dice) selector() *selector.Selector {
	return sel(pick(d, "selector",
		"all()", "all()", "all()", "has(app)", "app == 'a'", "app == 'a'", "app != 'a'", "app in {'a', 'b'}", "!has(app)", "!all()",
		"pcns.team == 'a'", "projectcalico.org/namespace == 'ns1'", "projectcalico.org/orchestrator == 'k8s'",
		"projectcalico.org/serviceaccount == 'sa'", "pcsa.role == 'a'", "app == 'a' && pcns.team == 'b'", "!has(projectcalico.org/namespace)",
	))
}

func sel(text string) *selector.Selector {
	s, err := selector.Parse(text)
	if err != nil {
		panic(fmt.Sprintf("policytest: selector %s: %v", text, err))
	}
	return s
}

func addrs(texts ...string) []netip.Addr {
	list := make([]netip.Addr, len(texts))
	for i, a := range texts {
		list[i] = netip.MustParseAddr(a)
	}
	return list
}

// pod draws the pod with this number. Two may have the same address, as one that has
// ended and its successor have for a while.
func (d dice) pod(n int) *policy.Endpoint {
	e := &policy.Endpoint{
		ID:   policy.ID{Kind: policy.KindPod, Namespace: pick(d, "namespace", "ns1", "ns1", "ns2"), Name: fmt.Sprintf("p%d", n)},
		Node: pick(d, "node", "n1", "n1", "n2"), Link: fmt.Sprintf("%s%010x", kernel.PodLinkPrefix, n),
		Labels: d.labels("app"), ServiceAccount: pick(d, "service account", "", "sa", "sa"), Ports: some(d, 2, "named ports", d.namedPort),
	}
	at := n
	if d.oneIn(6, "shared address") {
		at = 0
	}
	both := addrs(fmt.Sprintf("10.0.0.%d", 1+at), fmt.Sprintf("fd00::%d", 1+at))
	e.Addrs = pick(d, "families", both, both, both, both[:1], both[1:])
	return e
}

// host draws the host endpoint with this number.
func (d dice) host(n int) *policy.Endpoint {
	e := &policy.Endpoint{
		ID:   policy.ID{Kind: policy.KindHost, Name: fmt.Sprintf("h%d", n)},
		Node: pick(d, "node", "n1", "n1", "n2"), Link: pick(d, "link", "eth0", "eth1", "", policy.AnyLink),
		Labels: d.labels("app"), Ports: some(d, 1, "named ports", d.namedPort),
	}
	if e.Link == "" || d.oneIn(2, "expected addresses") {
		at := map[string]string{"n1": "1", "n2": "2"}[e.Node]
		e.Addrs = pick(d, "expected addresses", addrs("192.0.2."+at), addrs("192.0.2."+at, "2001:db8::"+at), addrs("198.51.100."+at))
	}
	return e
}

func (d dice) networkSet(n int) *policy.Endpoint {
	e := &policy.Endpoint{
		ID:     policy.ID{Kind: policy.KindGlobal, Name: fmt.Sprintf("s%d", n)},
		Labels: d.labels("app"), Nets: some(d, 3, "nets", d.net),
	}
	if d.oneIn(2, "in a namespace") {
		e.Kind, e.Namespace = policy.KindSet, pick(d, "namespace", "ns1", "ns2")
	}
	return e
}

// net draws one of nets that overlap.
func (d dice) net() netip.Prefix {
	return netip.MustParsePrefix(pick(d, "net", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.0/29", "10.0.0.1/32", "10.0.0.2/31", "203.0.113.0/24", "203.0.113.128/25", "0.0.0.0/0",
		"fd00::/126", "fd00::/16", "fd00::/16", "fd00::1/128", "2001:db8:1::/64", "::/0"))
}

func (d dice) namedPort() policy.NamedPort {
	return policy.NamedPort{Name: d.portName(), Protocol: pick[uint8](d, "protocol", 6, 6, 17, 132), Port: d.port()}
}

func (d dice) portName() string { return pick(d, "name of a port", "http", "http", "dns") }

func (d dice) port() uint16 { return pick[uint16](d, "port", 80, 80, 81, 53, 0, 65535) }

func (d dice) addr() netip.Addr {
	return netip.MustParseAddr(pick(d, "address", "10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "203.0.113.1", "2001:db8:1::1"))
}

func (d dice) serviceEndpoint() policy.ServiceEndpoint {
	s := policy.ServiceEndpoint{Addr: d.addr(), Protocol: pick[uint8](d, "protocol", 6, 6, 17, 0)}
	if s.Protocol != 0 {
		s.Port = pick[uint16](d, "port of an endpoint", 80, 81, 53)
	}
	return s
}

func (d dice) failSafe() policy.FailSafe {
	f := policy.FailSafe{Protocol: pick[uint8](d, "protocol", 6, 17), Port: pick[uint16](d, "fail-safe port", 22, 81, 53)}
	if d.oneIn(2, "fail-safe net") {
		f.Net = d.net()
	}
	return f
}
