package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/policy"
)

// checks writes a verdict: what, and each check with what it decides.
func checks(v policy.Verdict) []string {
	lines := []string{string(v.Action)}
	for _, c := range v.Checks {
		lines = append(lines, fmt.Sprintf("%s %s %s: %s: %s", c.Endpoint.Name, c.Direction, c.Phase, c.Action, c.Reason))
	}
	return lines
}

func TestEvaluate(t *testing.T) {
	everywhere := func(name, selector string, a policy.Action) *policy.Policy {
		return with(of(name, 1), func(p *policy.Policy) {
			p.Selector, p.Applies = sel(selector), [2]bool{true, true}
			p.Rules = [2][]policy.Rule{{do(a)}, {do(a)}}
		})
	}
	kind := func(p *policy.Policy, change func(*policy.Policy)) *policy.Policy {
		return with(p, func(p *policy.Policy) { p.ApplyOnForward = true; change(p) })
	}
	forward := func(a policy.Action) *policy.Policy {
		return kind(everywhere("forward", "host == 'eth0'", a), func(*policy.Policy) {})
	}
	untracked := func(a policy.Action) *policy.Policy {
		return kind(everywhere("untracked", "host == 'eth0'", a), func(p *policy.Policy) { p.DoNotTrack = true })
	}
	preDNAT := func(a policy.Action) *policy.Policy {
		return kind(everywhere("preDNAT", "host == 'eth0'", a), func(p *policy.Policy) { p.PreDNAT, p.Applies[policy.Egress] = true, false })
	}
	noWeb, noHost := everywhere("noweb", "app == 'web'", policy.Deny), everywhere("nohost", "host == 'eth0'", policy.Deny)
	const webToDB, clientToWeb, hairpin = "6 10.0.0.1:1 > 10.0.0.2:2", "6 [fd00::3]:1 > [fd00::1]:2", "6 10.0.0.1:1 > 10.0.0.1:2"
	for name, row := range map[string]struct {
		policies []*policy.Policy
		packet   string
		want     []string
	}{
		"no policies":   {nil, webToDB, []string{"Allow", "web egress normal: Allow: no policy", "db ingress normal: Allow: no policy"}},
		"source denies": {[]*policy.Policy{noWeb}, webToDB, []string{"Deny", "web egress normal: Deny: rule", "db ingress normal: Allow: no policy"}},
		"destination denies": {[]*policy.Policy{noWeb}, clientToWeb, []string{
			"Deny", "client egress normal: Allow: no policy", "web ingress normal: Deny: rule"}},
		"hairpin passes both": {[]*policy.Policy{noWeb}, hairpin, []string{"Deny", "web egress normal: Deny: rule", "web ingress normal: Deny: rule"}},
		"from outside":        {[]*policy.Policy{noWeb}, "6 198.51.100.1:1 > 10.0.0.1:2", []string{"Deny", "web ingress normal: Deny: rule"}},
		"to the outside":      {[]*policy.Policy{noWeb}, "6 10.0.0.1:1 > 198.51.100.1:2", []string{"Deny", "web egress normal: Deny: rule"}},
		"outside only":        {[]*policy.Policy{noWeb, noHost}, "6 198.51.100.1:1 > 198.51.100.2:2", []string{"Allow"}},

		"node to its own pod":     {[]*policy.Policy{noWeb, noHost}, "6 192.0.2.1:1 > 10.0.0.1:2", []string{"Allow", "web ingress normal: Allow: own node"}},
		"node to another's pod":   {[]*policy.Policy{noWeb}, "6 192.0.2.2:1 > 10.0.0.1:2", []string{"Deny", "web ingress normal: Deny: rule"}},
		"pod to its own node":     {[]*policy.Policy{noWeb, noHost}, "6 10.0.0.1:1 > 192.0.2.1:2", []string{"Deny", "web egress normal: Deny: rule"}},
		"pod to another's node":   {[]*policy.Policy{noHost}, "6 10.0.0.3:1 > 192.0.2.1:2", []string{"Deny", "client egress normal: Allow: no policy", "eth0 ingress normal: Deny: rule"}},
		"outside to a host":       {[]*policy.Policy{noHost}, "6 198.51.100.1:1 > 192.0.2.1:2", []string{"Deny", "eth0 ingress normal: Deny: rule"}},
		"outside to a fail-safe":  {[]*policy.Policy{noHost}, "6 198.51.100.1:1 > 192.0.2.1:22", []string{"Allow", "eth0 ingress normal: Allow: fail-safe port"}},
		"host to the outside":     {[]*policy.Policy{noHost}, "6 192.0.2.1:1 > 198.51.100.1:2", []string{"Deny", "eth0 egress normal: Deny: rule"}},
		"host without endpoints":  {[]*policy.Policy{noHost}, "6 192.0.2.2:1 > 198.51.100.1:2", []string{"Allow"}},
		"host policy, forwarded":  {[]*policy.Policy{noHost}, clientToWeb, []string{"Allow", "client egress normal: Allow: no policy", "web ingress normal: Allow: no policy"}},
		"forward, in":             {[]*policy.Policy{forward(policy.Deny)}, clientToWeb, []string{"Deny", "client egress normal: Allow: no policy", "eth0 ingress forward: Deny: rule", "web ingress normal: Allow: no policy"}},
		"forward, out":            {[]*policy.Policy{forward(policy.Deny)}, "6 10.0.0.1:1 > 10.0.0.3:1", []string{"Deny", "web egress normal: Allow: no policy", "eth0 egress forward: Deny: rule", "client ingress normal: Allow: no policy"}},
		"forward, on one node":    {[]*policy.Policy{forward(policy.Deny)}, webToDB, []string{"Allow", "web egress normal: Allow: no policy", "db ingress normal: Allow: no policy"}},
		"untracked, in":           {[]*policy.Policy{untracked(policy.Allow), noHost}, "6 198.51.100.1:1 > 192.0.2.1:2", []string{"Allow", "eth0 ingress untracked: Allow: rule"}},
		"untracked, out":          {[]*policy.Policy{untracked(policy.Allow), noHost}, "6 192.0.2.1:1 > 198.51.100.1:2", []string{"Allow", "eth0 egress untracked: Allow: rule"}},
		"untracked, denied":       {[]*policy.Policy{untracked(policy.Deny)}, "6 198.51.100.1:1 > 192.0.2.1:2", []string{"Deny", "eth0 ingress untracked: Deny: rule", "eth0 ingress normal: Allow: no policy"}},
		"untracked, to a pod":     {[]*policy.Policy{untracked(policy.Allow), forward(policy.Deny)}, clientToWeb, []string{"Deny", "client egress normal: Allow: no policy", "eth0 ingress untracked: Allow: rule", "eth0 ingress forward: Deny: rule", "web ingress normal: Allow: no policy"}},
		"untracked, from a pod":   {[]*policy.Policy{untracked(policy.Deny)}, "6 10.0.0.1:1 > 198.51.100.1:2", []string{"Allow", "web egress normal: Allow: no policy"}},
		"preDNAT, allowed":        {[]*policy.Policy{preDNAT(policy.Allow), noHost}, "6 198.51.100.1:1 > 192.0.2.1:2", []string{"Deny", "eth0 ingress preDNAT: Allow: rule", "eth0 ingress normal: Deny: rule"}},
		"preDNAT, denied to pods": {[]*policy.Policy{preDNAT(policy.Deny)}, clientToWeb, []string{"Deny", "client egress normal: Allow: no policy", "eth0 ingress preDNAT: Deny: rule", "web ingress normal: Allow: no policy"}},
		"preDNAT, going out":      {[]*policy.Policy{preDNAT(policy.Deny)}, "6 192.0.2.1:1 > 198.51.100.1:2", []string{"Allow", "eth0 egress normal: Allow: no policy"}},
		"untracked and preDNAT":   {[]*policy.Policy{untracked(policy.Allow), preDNAT(policy.Deny)}, "6 198.51.100.1:1 > 192.0.2.1:2", []string{"Allow", "eth0 ingress untracked: Allow: rule"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newWorld(row.policies...)
			v := w.Evaluate(packet(t, row.packet))
			if diff := cmp.Diff(row.want, checks(v)); diff != "" {
				t.Error(diff)
			}
			if v.Staged != nil {
				t.Error("a verdict of staged policies, and there are none")
			}
		})
	}
}

// TestStaged shows verdicts beside those with staged policies enforced.
func TestStaged(t *testing.T) {
	staged := func(p *policy.Policy) *policy.Policy {
		return with(p, func(p *policy.Policy) { p.Staged, p.Kind = true, "Staged"+p.Kind })
	}
	deleted := func(p *policy.Policy) *policy.Policy {
		return with(staged(p), func(p *policy.Policy) { p.Delete = true })
	}
	allow, deny := of("a", 5, do(policy.Allow)), of("a", 5, do(policy.Deny))
	for name, row := range map[string]struct {
		policies []*policy.Policy
		// enforced and staged are what the pod decides.
		enforced, staged string
	}{
		"new":              {[]*policy.Policy{staged(deny)}, "Allow: no policy", "Deny: rule of default/a[0]; default/a[0] Deny"},
		"replaces":         {[]*policy.Policy{deny, staged(allow)}, "Deny: rule of default/a[0]; default/a[0] Deny", "Allow: rule of default/a[0]; default/a[0] Allow"},
		"replaces, before": {[]*policy.Policy{staged(allow), deny}, "Deny: rule of default/a[0]; default/a[0] Deny", "Allow: rule of default/a[0]; default/a[0] Allow"},
		"deletes":          {[]*policy.Policy{deny, deleted(allow)}, "Deny: rule of default/a[0]; default/a[0] Deny", "Allow: no policy"},
		"deletes none":     {[]*policy.Policy{of("b", 1, do(policy.Deny)), deleted(allow)}, "Deny: rule of default/b[0]; default/b[0] Deny", "Deny: rule of default/b[0]; default/b[0] Deny"},
		"of another kind": {[]*policy.Policy{with(deny, func(p *policy.Policy) { p.Kind = "NetworkPolicy" }), deleted(allow)},
			"Deny: rule of default/a[0]; default/a[0] Deny", "Deny: rule of default/a[0]; default/a[0] Deny"},
		"of another namespace": {[]*policy.Policy{deny, with(deleted(allow), func(p *policy.Policy) { p.Namespace = "a" })},
			"Deny: rule of default/a[0]; default/a[0] Deny", "Deny: rule of default/a[0]; default/a[0] Deny"},
		// NetworkPolicy is behind GlobalNetworkPolicy, though StagedGlobalNetworkPolicy
		// would be behind NetworkPolicy.
		"in the place of its kind": {[]*policy.Policy{with(of("b", 5, do(policy.Allow)), func(p *policy.Policy) { p.Kind = "NetworkPolicy" }), staged(deny)},
			"Allow: rule of default/b[0]; default/b[0] Allow", "Deny: rule of default/a[0]; default/a[0] Deny"},
		"only staged ones in the tier": {[]*policy.Policy{allow, in("early", staged(of("s", 1)))},
			"Allow: rule of default/a[0]; default/a[0] Allow", "Deny: default action of early; early/s, early Deny"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newWorld(row.policies...)
			v := w.Evaluate(packet(t, "6 198.51.100.1:1 > 10.0.0.1:80"))
			if v.Staged == nil {
				t.Fatal("nothing about staged policies")
			}
			if diff := cmp.Diff(row.enforced, text(v.Checks[0].Decision)); diff != "" {
				t.Error("enforced:", diff)
			}
			if diff := cmp.Diff(row.staged, text(v.Staged.Checks[0].Decision)); diff != "" {
				t.Error("staged:", diff)
			}
		})
	}
}

func TestHostEndpointOf(t *testing.T) {
	own := host("own", "n1", "eth0")
	ownElsewhere := host("elsewhere", "n2", "eth0")
	byAddr, byAddr6 := host("byaddr", "n1", "", "192.0.2.1"), host("byaddr6", "n1", "", "2001:db8::1")
	otherLink := host("other", "n1", "eth1", "192.0.2.1")
	all := host("any", "n1", policy.AnyLink, "192.0.2.9")
	for name, row := range map[string]struct {
		hosts []*policy.Endpoint
		link  string
		addrs []netip.Addr
		want  string
	}{
		"none":                              {nil, "eth0", nil, ""},
		"by name":                           {[]*policy.Endpoint{all, byAddr, own}, "eth0", addrs("192.0.2.1"), "own"},
		"by name, equal but another's":      {[]*policy.Endpoint{ownElsewhere}, "eth0", nil, ""},
		"two by name":                       {[]*policy.Endpoint{own, host("a", "n1", "eth0")}, "eth0", nil, "a"},
		"by address":                        {[]*policy.Endpoint{all, byAddr}, "eth0", addrs("198.51.100.1", "192.0.2.1"), "byaddr"},
		"by address of IPv6":                {[]*policy.Endpoint{all, byAddr6}, "eth0", addrs("2001:db8::1"), "byaddr6"},
		"two by address":                    {[]*policy.Endpoint{byAddr6, byAddr}, "eth0", addrs("2001:db8::1", "192.0.2.1"), "byaddr"},
		"an address it lacks":               {[]*policy.Endpoint{byAddr}, "eth0", addrs("192.0.2.2"), ""},
		"another link's, with this address": {[]*policy.Endpoint{otherLink}, "eth0", addrs("192.0.2.1"), ""},
		"any":                               {[]*policy.Endpoint{otherLink, all}, "eth0", addrs("192.0.2.1"), "any"},
		"any, by no address":                {[]*policy.Endpoint{all, byAddr}, "eth0", addrs("192.0.2.9"), "any"},
		"two for any":                       {[]*policy.Endpoint{all, host("all", "n1", "*")}, "eth0", nil, "all"},
		"a pod's link":                      {[]*policy.Endpoint{asPod(own)}, "eth0", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // in whichever order
				w := &policy.World{Endpoints: row.hosts}
				got := ""
				if e := w.HostEndpointOf("n1", row.link, row.addrs); e != nil {
					got = e.Name
				}
				if got != row.want {
					t.Errorf("got %q, want %q", got, row.want)
				}
				slices.Reverse(row.hosts)
			}
		})
	}
}

// asPod returns a pod that is like a host endpoint otherwise.
func asPod(e *policy.Endpoint) *policy.Endpoint {
	changed := *e
	changed.Kind = policy.KindPod
	return &changed
}

// TestUplink shows by which host endpoint packets are taken to come to a pod on another
// node.
func TestUplink(t *testing.T) {
	anyLink, other := host("any", "n1", "*"), host("other", "n1", "eth1", "198.51.100.1")
	for name, row := range map[string]struct {
		hosts []*policy.Endpoint
		want  string
	}{
		"none":                  {nil, ""},
		"only one":              {[]*policy.Endpoint{host("one", "n1", "eth1")}, "one"},
		"the node's address":    {[]*policy.Endpoint{anyLink, other, host("up", "n1", "eth0", "192.0.2.1")}, "up"},
		"the node's, by IPv6":   {[]*policy.Endpoint{anyLink, other, host("up", "n1", "", "2001:db8::1")}, "up"},
		"every link":            {[]*policy.Endpoint{other, anyLink}, "any"},
		"not to be told":        {[]*policy.Endpoint{other, host("one", "n1", "eth0")}, ""},
		"another node's":        {[]*policy.Endpoint{host("one", "n3", "*")}, ""},
		"the only one of two":   {[]*policy.Endpoint{host("one", "n3", "*"), other}, "other"},
		"two that would do":     {[]*policy.Endpoint{host("b", "n1", "", "192.0.2.1"), host("a", "n1", "", "192.0.2.1")}, "a"},
		"two for every link":    {[]*policy.Endpoint{host("b", "n1", "*"), host("a", "n1", "*")}, "a"},
		"one with and a second": {[]*policy.Endpoint{host("a", "n1", "eth1"), host("b", "n1", "eth0", "192.0.2.1")}, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			p := with(of("p", 1), func(p *policy.Policy) { p.ApplyOnForward, p.Selector = true, sel("has(host)") })
			w, at := newWorld(p)
			w.Endpoints = append([]*policy.Endpoint{at.web, at.client}, row.hosts...)
			got := ""
			for _, c := range w.Evaluate(packet(t, "6 10.0.0.3:1 > 10.0.0.1:1")).Checks {
				if c.Phase == policy.Forward {
					got += c.Endpoint.Name
				}
			}
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}
