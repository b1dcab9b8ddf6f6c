package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"cairn.network/cairn/policy"
	"cairn.network/cairn/selector"
)

// sel parses a selector; "" is none.
func sel(text string) *selector.Selector {
	if text == "" {
		return nil
	}
	s, err := selector.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, a := range texts {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

func nets(texts ...string) (list []netip.Prefix) {
	for _, n := range texts {
		list = append(list, netip.MustParsePrefix(n))
	}
	return list
}

// packet reads what Packet.String writes.
func packet(t testing.TB, text string) (p policy.Packet) {
	var src, dst string
	if _, err := fmt.Sscanf(text, "%d %s > %s", &p.Protocol, &src, &dst); err != nil {
		t.Fatalf("packet %q: %v", text, err)
	}
	if from, err := netip.ParseAddrPort(src); err == nil {
		to := netip.MustParseAddrPort(dst)
		p.Src, p.SrcPort, p.Dst, p.DstPort = from.Addr(), from.Port(), to.Addr(), to.Port()
	} else {
		p.Src, p.Dst = netip.MustParseAddr(src), netip.MustParseAddr(dst)
	}
	if _, icmp, ok := strings.Cut(text, " type "); ok {
		if _, err := fmt.Sscanf(icmp, "%d code %d", &p.ICMPType, &p.ICMPCode); err != nil {
			t.Fatalf("packet %q: %v", text, err)
		}
	}
	if p.String() != text {
		t.Fatalf("packet %q reads as %q", text, p)
	}
	return p
}

func pod(namespace, name, node string, labels map[string]string, at ...string) *policy.Endpoint {
	return &policy.Endpoint{
		ID:   policy.ID{Kind: policy.KindPod, Namespace: namespace, Name: name},
		Node: node, Link: "cairn-" + name, Labels: labels, Addrs: addrs(at...),
	}
}

func host(name, node, link string, at ...string) *policy.Endpoint {
	return &policy.Endpoint{
		ID:   policy.ID{Kind: policy.KindHost, Name: name},
		Node: node, Link: link, Labels: map[string]string{"host": name}, Addrs: addrs(at...),
	}
}

// places are the endpoints of the tests' world.
type places struct{ web, db, client, host *policy.Endpoint }

// newWorld returns a world with policies: pods a/web and a/db on node n1, b/client on
// n2, and the host endpoint eth0 of n1.
func newWorld(policies ...*policy.Policy) (*policy.World, places) {
	p := places{
		web:    pod("a", "web", "n1", map[string]string{"app": "web"}, "10.0.0.1", "fd00::1"),
		db:     pod("a", "db", "n1", map[string]string{"app": "db"}, "10.0.0.2", "fd00::2"),
		client: pod("b", "client", "n2", map[string]string{"app": "client"}, "10.0.0.3", "fd00::3"),
		host:   host("eth0", "n1", "eth0", "192.0.2.1", "2001:db8::1"),
	}
	p.web.Ports = []policy.NamedPort{{Name: "http", Protocol: 6, Port: 80}, {Name: "dns", Protocol: 17, Port: 53}}
	p.db.Ports = []policy.NamedPort{{Name: "http", Protocol: 6, Port: 8080}}
	p.client.ServiceAccount = "sa"
	w := &policy.World{
		Tiers: []policy.Tier{
			{Name: "default", Order: 1e6, Default: policy.Deny},
			{Name: "early", Order: 10, Default: policy.Deny},
			{Name: "admin", Order: 1, Default: policy.Pass},
		},
		Policies: policies,
		Endpoints: []*policy.Endpoint{
			p.web, p.db, p.client, p.host,
			{ID: policy.ID{Kind: policy.KindSet, Namespace: "a", Name: "lan"}, Labels: map[string]string{"set": "lan"}, Nets: nets("198.51.100.0/24", "198.51.100.128/25", "2001:db8:1::/64")},
			{ID: policy.ID{Kind: policy.KindGlobal, Name: "wan"}, Labels: map[string]string{"set": "wan"}, Nets: nets("203.0.113.0/24")},
		},
		Nodes: []policy.Node{
			{Name: "n1", Labels: map[string]string{"rack": "a"}, Addrs: addrs("192.0.2.1", "2001:db8::1")},
			{Name: "n2", Labels: map[string]string{"rack": "b"}, Addrs: addrs("192.0.2.2", "2001:db8::2")},
		},
		Namespaces:      map[string]map[string]string{"a": {"team": "red"}, "b": {"team": "blue"}},
		ServiceAccounts: map[policy.ID]map[string]string{{Namespace: "b", Name: "sa"}: {"role": "reader"}},
		Services: map[policy.ID][]policy.ServiceEndpoint{{Namespace: "a", Name: "svc"}: {
			{Addr: netip.MustParseAddr("10.0.0.2"), Protocol: 6, Port: 8080},
			{Addr: netip.MustParseAddr("fd00::2"), Protocol: 6},
			{Addr: netip.MustParseAddr("10.0.0.3")},
		}},
		FailSafe: [2][]policy.FailSafe{
			{{Protocol: 6, Port: 22}, {Protocol: 6, Port: 6443, Net: netip.MustParsePrefix("10.0.0.0/8")}},
			{{Protocol: 17, Port: 53}},
		},
	}
	return w, p
}

// of returns a policy for pods and hosts alike, about what comes in.
func of(name string, order float64, rules ...policy.Rule) *policy.Policy {
	return &policy.Policy{
		ID: policy.ID{Kind: "GlobalNetworkPolicy", Name: name}, Tier: "default", Order: order,
		Selector: sel("all()"), Applies: [2]bool{true, false}, Rules: [2][]policy.Rule{rules, nil},
	}
}

// with returns the policy with changes.
func with(p *policy.Policy, change func(*policy.Policy)) *policy.Policy {
	changed := *p
	change(&changed)
	return &changed
}

func do(a policy.Action) policy.Rule { return policy.Rule{Action: a} }
