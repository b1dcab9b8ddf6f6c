package policy_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/policy"
)

// text writes a decision: what, what decided, and the steps.
func text(d policy.Decision) string {
	s := fmt.Sprintf("%s: %s", d.Action, d.Reason)
	if d.Tier != "" {
		s += " of " + ruleText(d.RuleID)
	}
	if d.Fault != "" {
		s += " (" + d.Fault + ")"
	}
	var steps []string
	for _, step := range d.Steps {
		steps = append(steps, strings.TrimSpace(ruleText(step.RuleID)+" "+string(step.Action)))
	}
	return strings.TrimSuffix(s+"; "+strings.Join(steps, ", "), "; ")
}

func ruleText(r policy.RuleID) string {
	s := r.Tier
	if r.Policy.Name != "" {
		s += "/" + r.Policy.Name
	}
	if r.Rule >= 0 {
		s += fmt.Sprintf("[%d]", r.Rule)
	}
	return s
}

func in(tier string, p *policy.Policy) *policy.Policy {
	return with(p, func(p *policy.Policy) { p.Tier = tier })
}

// TestDecide asks a pod about a packet that comes to it.
func TestDecide(t *testing.T) {
	allow, deny, pass, log := do(policy.Allow), do(policy.Deny), do(policy.Pass), do(policy.Log)
	other := policy.Rule{Action: policy.Deny, Protocol: 17}
	for name, row := range map[string]struct {
		policies []*policy.Policy
		want     string
	}{
		"no policy":            {nil, "Allow: no policy"},
		"allowed":              {[]*policy.Policy{of("a", 1, allow)}, "Allow: rule of default/a[0]; default/a[0] Allow"},
		"denied":               {[]*policy.Policy{of("a", 1, deny)}, "Deny: rule of default/a[0]; default/a[0] Deny"},
		"no rules":             {[]*policy.Policy{of("a", 1)}, "Deny: default action of default; default/a, default Deny"},
		"no rule matches":      {[]*policy.Policy{of("a", 1, other)}, "Deny: default action of default; default/a, default Deny"},
		"the second rule":      {[]*policy.Policy{of("a", 1, other, allow, deny)}, "Allow: rule of default/a[1]; default/a[1] Allow"},
		"the second policy":    {[]*policy.Policy{of("a", 1, other), of("b", 1, allow)}, "Allow: rule of default/b[0]; default/a, default/b[0] Allow"},
		"by order":             {[]*policy.Policy{of("a", 2, deny), of("b", 1, allow)}, "Allow: rule of default/b[0]; default/b[0] Allow"},
		"none is last":         {[]*policy.Policy{of("a", policy.Last, deny), of("b", math.MaxFloat64, allow)}, "Allow: rule of default/b[0]; default/b[0] Allow"},
		"order below zero":     {[]*policy.Policy{of("a", 0, deny), of("b", -1, allow)}, "Allow: rule of default/b[0]; default/b[0] Allow"},
		"by name":              {[]*policy.Policy{of("b", 1, deny), of("a", 1, allow)}, "Allow: rule of default/a[0]; default/a[0] Allow"},
		"by kind before name":  {[]*policy.Policy{with(of("a", 1, deny), func(p *policy.Policy) { p.Kind = "NetworkPolicy" }), of("b", 1, allow)}, "Allow: rule of default/b[0]; default/b[0] Allow"},
		"selects another":      {[]*policy.Policy{with(of("a", 1, deny), func(p *policy.Policy) { p.Selector = sel("app == 'db'") })}, "Allow: no policy"},
		"of another direction": {[]*policy.Policy{with(of("a", 1, deny), func(p *policy.Policy) { p.Applies = [2]bool{false, true} })}, "Allow: no policy"},
		"rules of another direction": {[]*policy.Policy{with(of("a", 1), func(p *policy.Policy) {
			p.Applies, p.Rules[policy.Egress] = [2]bool{true, true}, []policy.Rule{allow}
		})}, "Deny: default action of default; default/a, default Deny"},

		"log goes on":           {[]*policy.Policy{of("a", 1, log, other, log, allow)}, "Allow: rule of default/a[3]; default/a[0] Log, default/a[2] Log, default/a[3] Allow"},
		"log is no decision":    {[]*policy.Policy{of("a", 1, log)}, "Deny: default action of default; default/a[0] Log, default/a, default Deny"},
		"no log behind the end": {[]*policy.Policy{of("a", 1, allow, log), of("b", 2, log)}, "Allow: rule of default/a[0]; default/a[0] Allow"},

		"tiers by order":           {[]*policy.Policy{of("a", 1, deny), in("early", of("b", 2, allow))}, "Allow: rule of early/b[0]; early/b[0] Allow"},
		"deny by the first tier":   {[]*policy.Policy{of("a", 1, allow), in("early", of("b", 2))}, "Deny: default action of early; early/b, early Deny"},
		"pass skips the tier":      {[]*policy.Policy{of("a", 1, allow), in("early", of("b", 1, pass, deny)), in("early", of("c", 2, deny))}, "Allow: rule of default/a[0]; early/b[0] Pass, default/a[0] Allow"},
		"pass to no tier":          {[]*policy.Policy{of("a", 1, pass)}, "Allow: passed; default/a[0] Pass"},
		"tier that passes":         {[]*policy.Policy{in("admin", of("a", 1, other)), of("b", 1, deny)}, "Deny: rule of default/b[0]; admin/a, admin Pass, default/b[0] Deny"},
		"only tier that passes":    {[]*policy.Policy{in("admin", of("a", 1))}, "Allow: passed; admin/a, admin Pass"},
		"tier of another endpoint": {[]*policy.Policy{in("early", with(of("a", 1), func(p *policy.Policy) { p.Selector = sel("app == 'db'") })), of("b", 1, allow)}, "Allow: rule of default/b[0]; default/b[0] Allow"},

		"fault":              {[]*policy.Policy{with(of("a", 1), func(p *policy.Policy) { p.Fault = "too big" })}, "Deny: fault of default/a (too big); default/a Deny"},
		"fault in its place": {[]*policy.Policy{with(of("b", 1), func(p *policy.Policy) { p.Fault = "too big" }), of("a", 1, allow)}, "Allow: rule of default/a[0]; default/a[0] Allow"},
		"fault is about both directions": {[]*policy.Policy{with(of("a", 1), func(p *policy.Policy) {
			p.Fault, p.Applies = "too big", [2]bool{false, true}
		})}, "Deny: fault of default/a (too big); default/a Deny"},
		"fault of another endpoint": {[]*policy.Policy{with(of("a", 1), func(p *policy.Policy) { p.Fault, p.Selector = "too big", sel("app == 'db'") })}, "Allow: no policy"},
		"tier that does not exist":  {[]*policy.Policy{in("none", of("z", 9, allow)), in("admin", of("a", 1, allow))}, "Deny: fault of none/z (there is no tier none); none/z Deny"},

		"staged":             {[]*policy.Policy{in("early", with(of("a", 1, deny), func(p *policy.Policy) { p.Staged = true }))}, "Allow: no policy"},
		"staged with fault":  {[]*policy.Policy{with(of("a", 1), func(p *policy.Policy) { p.Staged, p.Fault = true, "too big" }), of("b", 1, allow)}, "Allow: rule of default/b[0]; default/b[0] Allow"},
		"doNotTrack":         {[]*policy.Policy{with(of("a", 1, deny), func(p *policy.Policy) { p.DoNotTrack, p.ApplyOnForward = true, true })}, "Allow: no policy"},
		"preDNAT":            {[]*policy.Policy{with(of("a", 1, deny), func(p *policy.Policy) { p.PreDNAT, p.ApplyOnForward = true, true })}, "Allow: no policy"},
		"applyOnForward":     {[]*policy.Policy{with(of("a", 1, deny), func(p *policy.Policy) { p.ApplyOnForward = true })}, "Deny: rule of default/a[0]; default/a[0] Deny"},
		"no fail-safe ports": {[]*policy.Policy{of("a", 1)}, "Deny: default action of default; default/a, default Deny"},
	} {
		t.Run(name, func(t *testing.T) {
			w, at := newWorld(row.policies...)
			got := w.Decide(at.web, policy.Ingress, policy.Normal, packet(t, "6 10.0.0.3:1024 > 10.0.0.1:22"))
			if diff := cmp.Diff(row.want, text(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTiersOfOneOrder(t *testing.T) {
	w, at := newWorld(in("y", of("a", 1, do(policy.Deny))), in("x", of("b", 2, do(policy.Allow))))
	w.Tiers = []policy.Tier{{Name: "y", Order: 1, Default: policy.Deny}, {Name: "x", Order: 1, Default: policy.Deny}, {Name: "w", Order: policy.Last, Default: policy.Deny}}
	got := w.Decide(at.web, policy.Ingress, policy.Normal, packet(t, "6 10.0.0.3:1 > 10.0.0.1:80"))
	if diff := cmp.Diff("Allow: rule of x/b[0]; x/b[0] Allow", text(got)); diff != "" {
		t.Error(diff)
	}
}

func TestLogged(t *testing.T) {
	w, at := newWorld(of("a", 1, do(policy.Log), do(policy.Log), do(policy.Allow)))
	got := w.Decide(at.web, policy.Ingress, policy.Normal, packet(t, "6 10.0.0.3:1 > 10.0.0.1:80")).Logged()
	id := policy.ID{Kind: "GlobalNetworkPolicy", Name: "a"}
	if diff := cmp.Diff([]policy.RuleID{{Tier: "default", Policy: id, Rule: 0}, {Tier: "default", Policy: id, Rule: 1}}, got); diff != "" {
		t.Error(diff)
	}
}

// TestPhases asks a host endpoint about packets in each phase.
func TestPhases(t *testing.T) {
	normal := of("p", 1, do(policy.Deny))
	forward := with(normal, func(p *policy.Policy) { p.ApplyOnForward = true })
	untracked := with(forward, func(p *policy.Policy) { p.DoNotTrack = true })
	preDNAT := with(forward, func(p *policy.Policy) { p.PreDNAT = true })
	rules := func(p *policy.Policy, rules ...policy.Rule) *policy.Policy {
		return with(p, func(p *policy.Policy) { p.Rules = [2][]policy.Rule{rules, rules} })
	}
	both := func(p *policy.Policy) *policy.Policy {
		return with(rules(p, p.Rules[0]...), func(p *policy.Policy) { p.Applies = [2]bool{true, true} })
	}
	const (
		in   = "6 198.51.100.1:1024 > 192.0.2.1:80"
		ssh  = "6 198.51.100.1:1024 > 192.0.2.1:22"
		sshd = "6 192.0.2.1:22 > 198.51.100.1:1024"
		dns  = "17 192.0.2.1:1024 > 198.51.100.1:53"
		dnsd = "17 198.51.100.1:53 > 192.0.2.1:1024"
	)
	for name, row := range map[string]struct {
		policy *policy.Policy
		packet string
		d      policy.Direction
		// want holds what each of the phases Normal, Forward, Untracked, PreDNAT decides.
		want [4]string
	}{
		"normal":                   {normal, in, policy.Ingress, [4]string{"Deny: rule", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"forward":                  {forward, in, policy.Ingress, [4]string{"Deny: rule", "Deny: rule", "Pass: no policy", "Pass: no policy"}},
		"forward, default":         {rules(forward), in, policy.Ingress, [4]string{"Deny: default action", "Deny: default action", "Pass: no policy", "Pass: no policy"}},
		"untracked":                {untracked, in, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Deny: rule", "Pass: no policy"}},
		"untracked, allow":         {rules(untracked, do(policy.Allow)), in, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Allow: rule", "Pass: no policy"}},
		"untracked, no default":    {rules(untracked), in, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: passed", "Pass: no policy"}},
		"untracked, pass":          {rules(untracked, do(policy.Pass), do(policy.Deny)), in, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: passed", "Pass: no policy"}},
		"preDNAT":                  {preDNAT, in, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: no policy", "Deny: rule"}},
		"preDNAT, allow":           {rules(preDNAT, do(policy.Allow)), in, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: no policy", "Allow: rule"}},
		"preDNAT, no default":      {rules(preDNAT), in, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: no policy", "Pass: passed"}},
		"preDNAT, fault":           {with(preDNAT, func(p *policy.Policy) { p.Fault = "too big" }), dns, policy.Egress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"egress":                   {both(untracked), "6 192.0.2.1:1 > 198.51.100.1:1", policy.Egress, [4]string{"Allow: no policy", "Allow: no policy", "Deny: rule", "Pass: no policy"}},
		"fail-safe":                {normal, ssh, policy.Ingress, [4]string{"Allow: fail-safe port", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, forwarded":     {forward, ssh, policy.Ingress, [4]string{"Allow: fail-safe port", "Deny: rule", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, untracked":     {untracked, ssh, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: fail-safe port", "Pass: no policy"}},
		"fail-safe, preDNAT":       {preDNAT, ssh, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: no policy", "Pass: fail-safe port"}},
		"fail-safe, without need":  {rules(normal, do(policy.Allow)), ssh, policy.Ingress, [4]string{"Allow: fail-safe port", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, of the net":    {normal, "6 10.1.1.1:1 > 192.0.2.1:6443", policy.Ingress, [4]string{"Allow: fail-safe port", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, not the net":   {normal, "6 11.1.1.1:1 > 192.0.2.1:6443", policy.Ingress, [4]string{"Deny: rule", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, net and IPv6":  {normal, "6 [fd00::9]:1 > [2001:db8::1]:6443", policy.Ingress, [4]string{"Deny: rule", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, any net, IPv6": {normal, "6 [fd00::9]:1 > [2001:db8::1]:22", policy.Ingress, [4]string{"Allow: fail-safe port", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, protocol":      {normal, "17 198.51.100.1:1 > 192.0.2.1:22", policy.Ingress, [4]string{"Deny: rule", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, out":           {both(normal), dns, policy.Egress, [4]string{"Allow: fail-safe port", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"fail-safe, not out":       {both(normal), "6 192.0.2.1:1 > 198.51.100.1:22", policy.Egress, [4]string{"Deny: rule", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"answer out, tracked":      {both(normal), sshd, policy.Egress, [4]string{"Deny: rule", "Allow: no policy", "Pass: no policy", "Pass: no policy"}},
		"answer out, untracked":    {both(untracked), sshd, policy.Egress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: fail-safe port", "Pass: no policy"}},
		"answer in, untracked":     {both(untracked), dnsd, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: fail-safe port", "Pass: no policy"}},
		"answer in, preDNAT":       {preDNAT, dnsd, policy.Ingress, [4]string{"Allow: no policy", "Allow: no policy", "Pass: no policy", "Deny: rule"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, at := newWorld(row.policy)
			var got [4]string
			for ph := range got {
				d := w.Decide(at.host, row.d, policy.Phase(ph), packet(t, row.packet))
				got[ph] = fmt.Sprintf("%s: %s", d.Action, d.Reason)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOnlyHostsHavePhases: pods are concerned in the phase Normal only, network sets in
// none.
func TestOnlyHostsHavePhases(t *testing.T) {
	forward := with(of("p", 1, do(policy.Deny)), func(p *policy.Policy) { p.ApplyOnForward = true })
	w, at := newWorld(forward)
	for ph, want := range map[policy.Phase]int{policy.Normal: 1, policy.Forward: 0, policy.Untracked: 0, policy.PreDNAT: 0} {
		if got := w.Concerning(at.web, policy.Ingress, ph); len(got) != want {
			t.Errorf("%s: %d tiers concern a pod, want %d", ph, len(got), want)
		}
		if got := w.Concerning(w.Endpoints[4], policy.Ingress, ph); len(got) != 0 {
			t.Errorf("%s: %d tiers concern a network set", ph, len(got))
		}
	}
}
