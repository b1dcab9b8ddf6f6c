package policy_test

import (
	"testing"

	"cairn.network/cairn/policy"
)

// TestRuleMatches asks one rule about packets that come to a pod.
func TestRuleMatches(t *testing.T) {
	src := func(p policy.Peer) policy.Rule { return policy.Rule{Source: p} }
	dst := func(p policy.Peer) policy.Rule { return policy.Rule{Destination: p} }
	tcpTo := func(p policy.Peer) policy.Rule { return policy.Rule{Protocol: 6, Destination: p} }
	port := func(first, last uint16) []policy.Port { return []policy.Port{{First: first, Last: last}} }
	http := []policy.Port{{Name: "http"}}
	const tcp, tcp6 = "6 10.0.0.3:1024 > 10.0.0.1:80", "6 [fd00::3]:1024 > [fd00::1]:80"
	for name, row := range map[string]struct {
		rule    policy.Rule
		yes, no []string
	}{
		"nothing asked for": {policy.Rule{}, []string{tcp, tcp6, "47 10.9.9.9 > 10.0.0.1"}, nil},
		"IPv4":              {policy.Rule{IPVersion: 4}, []string{tcp}, []string{tcp6}},
		"IPv6":              {policy.Rule{IPVersion: 6}, []string{tcp6}, []string{tcp}},

		"protocol":             {policy.Rule{Protocol: 6}, []string{tcp, tcp6}, []string{"17 10.0.0.3:1024 > 10.0.0.1:80", "47 10.0.0.3 > 10.0.0.1"}},
		"not protocol":         {policy.Rule{NotProtocol: 6}, []string{"17 10.0.0.3:1024 > 10.0.0.1:80", "47 10.0.0.3 > 10.0.0.1"}, []string{tcp, tcp6}},
		"both":                 {policy.Rule{Protocol: 6, NotProtocol: 6}, nil, []string{tcp, "47 10.0.0.3 > 10.0.0.1"}},
		"ICMP is IPv4's":       {policy.Rule{Protocol: 1}, []string{"1 10.0.0.3 > 10.0.0.1 type 8 code 0"}, []string{"1 fd00::3 > fd00::1 type 8 code 0", "58 fd00::3 > fd00::1 type 8 code 0"}},
		"ICMPv6 is IPv6's":     {policy.Rule{Protocol: 58}, []string{"58 fd00::3 > fd00::1 type 128 code 0"}, []string{"58 10.0.0.3 > 10.0.0.1 type 128 code 0"}},
		"ICMP type":            {policy.Rule{Protocol: 1, ICMP: &policy.ICMP{Type: 8, AnyCode: true}}, []string{"1 10.0.0.3 > 10.0.0.1 type 8 code 0", "1 10.0.0.3 > 10.0.0.1 type 8 code 1"}, []string{"1 10.0.0.3 > 10.0.0.1 type 0 code 0", tcp}},
		"ICMP type 0, code 0":  {policy.Rule{Protocol: 1, ICMP: &policy.ICMP{}}, []string{"1 10.0.0.3 > 10.0.0.1 type 0 code 0"}, []string{"1 10.0.0.3 > 10.0.0.1 type 0 code 1", tcp}},
		"ICMPv6 type and code": {policy.Rule{Protocol: 58, ICMP: &policy.ICMP{Type: 1, Code: 4}}, []string{"58 fd00::3 > fd00::1 type 1 code 4"}, []string{"58 fd00::3 > fd00::1 type 1 code 3", "58 fd00::3 > fd00::1 type 2 code 4"}},
		"not ICMP type":        {policy.Rule{Protocol: 1, NotICMP: &policy.ICMP{Type: 8, AnyCode: true}}, []string{"1 10.0.0.3 > 10.0.0.1 type 0 code 0"}, []string{"1 10.0.0.3 > 10.0.0.1 type 8 code 9", tcp}},
		"not ICMP code":        {policy.Rule{Protocol: 1, NotICMP: &policy.ICMP{Type: 3, Code: 1}}, []string{"1 10.0.0.3 > 10.0.0.1 type 3 code 0", "1 10.0.0.3 > 10.0.0.1 type 8 code 1"}, []string{"1 10.0.0.3 > 10.0.0.1 type 3 code 1"}},

		"selector":                    {src(policy.Peer{Selector: sel("app == 'client'")}), []string{tcp, tcp6}, []string{"6 10.0.0.2:1024 > 10.0.0.1:80", "6 10.9.9.9:1024 > 10.0.0.1:80"}},
		"selector of all":             {src(policy.Peer{Selector: sel("all()")}), []string{tcp, "6 192.0.2.1:1024 > 10.0.0.1:80", "6 198.51.100.1:1024 > 10.0.0.1:80"}, []string{"6 10.9.9.9:1024 > 10.0.0.1:80", "6 192.0.2.2:1024 > 10.0.0.1:80"}},
		"selector of a namespace":     {src(policy.Peer{Selector: sel("pcns.team == 'blue'")}), []string{tcp, tcp6}, []string{"6 10.0.0.2:1024 > 10.0.0.1:80"}},
		"selector of service account": {src(policy.Peer{Selector: sel("projectcalico.org/serviceaccount == 'sa' && pcsa.role == 'reader'")}), []string{tcp}, []string{"6 10.0.0.2:1024 > 10.0.0.1:80"}},
		"selector of a network set":   {src(policy.Peer{Selector: sel("set == 'lan'")}), []string{"6 198.51.100.255:1 > 10.0.0.1:80", "6 198.51.100.0:1 > 10.0.0.1:80", "6 [2001:db8:1::9]:1 > [fd00::1]:80"}, []string{"6 198.51.101.0:1 > 10.0.0.1:80", "6 203.0.113.1:1 > 10.0.0.1:80"}},
		"what is in no namespace":     {src(policy.Peer{Selector: sel("!has(projectcalico.org/namespace)")}), []string{"6 203.0.113.1:1 > 10.0.0.1:80", "6 192.0.2.1:1 > 10.0.0.1:80"}, []string{tcp, "6 198.51.100.1:1 > 10.0.0.1:80"}},
		"not selector":                {src(policy.Peer{NotSelector: sel("app == 'client'")}), []string{"6 10.0.0.2:1024 > 10.0.0.1:80", "6 10.9.9.9:1024 > 10.0.0.1:80"}, []string{tcp, tcp6}},
		"selector and not selector":   {src(policy.Peer{Selector: sel("has(app)"), NotSelector: sel("app == 'client'")}), []string{"6 10.0.0.2:1024 > 10.0.0.1:80"}, []string{tcp, "6 10.9.9.9:1024 > 10.0.0.1:80"}},
		"destination selector":        {dst(policy.Peer{Selector: sel("app == 'web'")}), []string{tcp, tcp6}, []string{"6 10.0.0.3:1024 > 10.0.0.2:80"}},
		"nodes":                       {src(policy.Peer{Nodes: sel("rack == 'b'")}), []string{"6 192.0.2.2:1 > 10.0.0.1:80", "6 [2001:db8::2]:1 > [fd00::1]:80"}, []string{"6 192.0.2.1:1 > 10.0.0.1:80", tcp}},

		"nets":                    {src(policy.Peer{Nets: nets("10.0.0.2/31", "192.0.2.0/24")}), []string{tcp, "6 10.0.0.2:1 > 10.0.0.1:80", "6 192.0.2.255:1 > 10.0.0.1:80"}, []string{"6 10.0.0.4:1 > 10.0.0.1:80", tcp6}},
		"nets of both":            {src(policy.Peer{Nets: nets("10.0.0.0/8", "fd00::/8")}), []string{tcp, tcp6}, []string{"6 192.0.2.1:1 > 10.0.0.1:80"}},
		"not nets":                {src(policy.Peer{NotNets: nets("10.0.0.2/31")}), []string{"6 10.0.0.4:1 > 10.0.0.1:80", tcp6}, []string{tcp, "6 10.0.0.2:1 > 10.0.0.1:80"}},
		"nets but not a part":     {src(policy.Peer{Nets: nets("10.0.0.0/24"), NotNets: nets("10.0.0.3/32")}), []string{"6 10.0.0.2:1 > 10.0.0.1:80"}, []string{tcp, "6 10.0.1.1:1 > 10.0.0.1:80"}},
		"nets of two families":    {policy.Rule{Source: policy.Peer{Nets: nets("10.0.0.0/8")}, Destination: policy.Peer{Nets: nets("fd00::/8")}}, nil, []string{tcp, tcp6}},
		"net against version":     {policy.Rule{IPVersion: 6, Source: policy.Peer{Nets: nets("0.0.0.0/0")}}, nil, []string{tcp, tcp6}},
		"selector and nets":       {src(policy.Peer{Selector: sel("has(app)"), Nets: nets("10.0.0.3/32")}), []string{tcp}, []string{"6 10.0.0.2:1 > 10.0.0.1:80", tcp6}},
		"source and destination":  {policy.Rule{Source: policy.Peer{Nets: nets("10.0.0.3/32")}, Destination: policy.Peer{Nets: nets("10.0.0.2/32")}}, nil, []string{tcp, "6 10.0.0.2:1 > 10.0.0.3:80"}},
		"port":                    {tcpTo(policy.Peer{Ports: port(80, 80)}), []string{tcp, tcp6}, []string{"6 10.0.0.3:80 > 10.0.0.1:81", "6 10.0.0.3:80 > 10.0.0.1:79", "17 10.0.0.3:1024 > 10.0.0.1:80"}},
		"range":                   {tcpTo(policy.Peer{Ports: append(port(80, 90), port(65535, 65535)...)}), []string{tcp, "6 10.0.0.3:1 > 10.0.0.1:90", "6 10.0.0.3:1 > 10.0.0.1:65535"}, []string{"6 10.0.0.3:1 > 10.0.0.1:79", "6 10.0.0.3:1 > 10.0.0.1:91"}},
		"port 0":                  {tcpTo(policy.Peer{Ports: port(0, 0)}), []string{"6 10.0.0.3:1 > 10.0.0.1:0"}, []string{tcp}},
		"not port":                {tcpTo(policy.Peer{NotPorts: port(80, 90)}), []string{"6 10.0.0.3:1 > 10.0.0.1:79", "6 10.0.0.3:1 > 10.0.0.1:91"}, []string{tcp, "6 10.0.0.3:1 > 10.0.0.1:90"}},
		"source port":             {policy.Rule{Protocol: 132, Source: policy.Peer{Ports: port(1024, 65535)}}, []string{"132 10.0.0.3:1024 > 10.0.0.1:1"}, []string{"132 10.0.0.3:1023 > 10.0.0.1:1024"}},
		"ports without protocol":  {dst(policy.Peer{Ports: port(0, 65535)}), []string{tcp, "136 10.0.0.3:1 > 10.0.0.1:1"}, []string{"47 10.0.0.3 > 10.0.0.1"}},
		"no ports without either": {dst(policy.Peer{NotPorts: port(1, 1)}), []string{tcp}, []string{"47 10.0.0.3 > 10.0.0.1"}},

		"named port":                  {tcpTo(policy.Peer{Ports: http}), []string{tcp, tcp6, "6 10.0.0.3:1 > 10.0.0.2:8080"}, []string{"6 10.0.0.3:1 > 10.0.0.2:80", "6 10.0.0.3:1 > 10.0.0.1:8080", "6 10.0.0.3:1 > 10.9.9.9:80"}},
		"named port of a selector":    {tcpTo(policy.Peer{Ports: http, Selector: sel("app == 'web'")}), []string{tcp}, []string{"6 10.0.0.3:1 > 10.0.0.2:8080"}},
		"named port and a number":     {tcpTo(policy.Peer{Ports: append(port(9, 9), http...)}), []string{tcp, "6 10.0.0.3:1 > 10.9.9.9:9"}, []string{"6 10.0.0.3:1 > 10.9.9.9:80"}},
		"named port, other protocol":  {policy.Rule{Protocol: 17, Destination: policy.Peer{Ports: http}}, nil, []string{"17 10.0.0.3:1 > 10.0.0.1:80", tcp}},
		"named port that nobody has":  {tcpTo(policy.Peer{Ports: []policy.Port{{Name: "none"}}}), nil, []string{tcp}},
		"not a named port":            {tcpTo(policy.Peer{NotPorts: http}), []string{"6 10.0.0.3:1 > 10.0.0.1:81", "6 10.0.0.3:1 > 10.0.0.2:80"}, []string{tcp, tcp6}},
		"named source port":           {policy.Rule{Protocol: 6, Source: policy.Peer{Ports: http}}, []string{"6 10.0.0.2:8080 > 10.0.0.1:1"}, []string{"6 10.0.0.3:8080 > 10.0.0.1:1"}},
		"service":                     {dst(policy.Peer{Service: policy.ID{Namespace: "a", Name: "svc"}}), []string{"6 10.0.0.1:1 > 10.0.0.2:8080"}, []string{"17 10.0.0.1:1 > 10.0.0.2:8080", "6 10.0.0.1:1 > 10.0.0.2:80", tcp}},
		"service with every port":     {dst(policy.Peer{Service: policy.ID{Namespace: "a", Name: "svc"}}), []string{"6 [fd00::1]:1 > [fd00::2]:1"}, []string{"17 [fd00::1]:1 > [fd00::2]:1"}},
		"service without ports":       {dst(policy.Peer{Service: policy.ID{Namespace: "a", Name: "svc"}}), nil, []string{"6 10.0.0.1:1 > 10.0.0.3:1", "47 10.0.0.1 > 10.0.0.3"}},
		"service as a source":         {src(policy.Peer{Service: policy.ID{Namespace: "a", Name: "svc"}}), []string{"17 10.0.0.2:1 > 10.0.0.1:1", tcp, "47 10.0.0.3 > 10.0.0.1"}, []string{"6 10.0.0.1:8080 > 10.0.0.2:8080"}},
		"service that does not exist": {src(policy.Peer{Service: policy.ID{Namespace: "b", Name: "svc"}}), nil, []string{tcp}},
	} {
		t.Run(name, func(t *testing.T) {
			row.rule.Action = policy.Allow
			w, at := newWorld(of("it", 1, row.rule))
			for want, packets := range map[policy.Reason][]string{policy.ReasonRule: row.yes, policy.ReasonDefault: row.no} {
				for _, text := range packets {
					if got := w.Decide(at.web, policy.Ingress, policy.Normal, packet(t, text)); got.Reason != want {
						t.Errorf("%s: %s by %s, want by %s", text, got.Action, got.Reason, want)
					}
				}
			}
		})
	}
}

// TestSharedAddress: an address may be of two endpoints, as of a pod that has ended and
// its successor.
func TestSharedAddress(t *testing.T) {
	for name, row := range map[string]struct {
		peer policy.Peer
		want policy.Action
	}{
		"chosen by the one":        {policy.Peer{Selector: sel("app == 'client'")}, policy.Allow},
		"chosen by the other":      {policy.Peer{Selector: sel("app == 'old'")}, policy.Allow},
		"not if either is chosen":  {policy.Peer{NotSelector: sel("app == 'old'")}, policy.Deny},
		"chosen, and the other no": {policy.Peer{Selector: sel("app == 'client'"), NotSelector: sel("app == 'old'")}, policy.Deny},
		"by nobody":                {policy.Peer{Selector: sel("app == 'old' && app == 'client'")}, policy.Deny},
	} {
		t.Run(name, func(t *testing.T) {
			w, at := newWorld(of("it", 1, policy.Rule{Action: policy.Allow, Source: row.peer}))
			w.Endpoints = append(w.Endpoints, pod("a", "old", "n1", map[string]string{"app": "old"}, "10.0.0.3"))
			if got := w.Decide(at.web, policy.Ingress, policy.Normal, packet(t, "6 10.0.0.3:1 > 10.0.0.1:80")); got.Action != row.want {
				t.Errorf("%s by %s, want %s", got.Action, got.Reason, row.want)
			}
		})
	}
}
