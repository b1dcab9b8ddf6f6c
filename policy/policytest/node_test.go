package policytest

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// nodeWithHost is node n1 with a pod, and with a host endpoint for its link eth0. One
// policy lets nothing in to either but TCP to port 80; change may give it another phase
// or direction.
func nodeWithHost(change func(p *policy.Policy)) Node {
	p := &policy.Policy{
		ID: policy.ID{Kind: global, Name: "p"}, Tier: "default", Selector: sel("all()"), Applies: [2]bool{true, false},
		Rules: [2][]policy.Rule{{{Action: policy.Allow, Protocol: 6, Destination: policy.Peer{Ports: []policy.Port{{First: 80, Last: 80}}}}, {Action: policy.Deny}}},
	}
	if change != nil {
		change(p)
	}
	return Node{Name: "n1", Links: map[string][]netip.Addr{"eth0": nil, "eth1": nil}, World: &policy.World{
		Tiers: []policy.Tier{{Name: "default", Default: policy.Deny}}, Policies: []*policy.Policy{p},
		Endpoints: []*policy.Endpoint{
			{ID: policy.ID{Kind: policy.KindPod, Namespace: "ns1", Name: "p1"}, Node: "n1", Link: "cairn0000000001", Addrs: addrs("10.0.0.1", "fd00::1")},
			{ID: policy.ID{Kind: policy.KindHost, Name: "h1"}, Node: "n1", Link: "eth0"},
		},
	}}
}

func TestExpect(t *testing.T) {
	forward := func(p *policy.Policy) { p.ApplyOnForward = true }
	untracked := func(p *policy.Policy) { p.ApplyOnForward, p.DoNotTrack, p.Applies[1] = true, true, true }
	preDNAT := func(p *policy.Policy) { p.ApplyOnForward, p.PreDNAT = true, true }
	both := func(p *policy.Policy) { p.Applies, p.Rules[1] = [2]bool{true, true}, p.Rules[0] }
	untrackedBoth := func(p *policy.Policy) { untracked(p); both(p) }
	at := func(in, out string, change ...func(*PacketAt)) PacketAt {
		return tcp(append(change, func(p *PacketAt) { p.InLink, p.OutLink = in, out })...)
	}
	bad := func(p *PacketAt) { p.DstPort = 81 }
	known := func(p *PacketAt) { p.State = kernel.StateEstablished }
	loose := func(p *PacketAt) { p.State = kernel.StateUntracked }
	const pod = "cairn0000000001"
	for name, row := range map[string]struct {
		policy           func(*policy.Policy)
		hook             kernel.Hook
		packet           PacketAt
		dropped, noTrack bool
	}{
		"to a pod":                   {nil, kernel.HookForward, at("eth1", pod), false, false},
		"to a pod, denied":           {nil, kernel.HookForward, at("eth1", pod, bad), true, false},
		"to a pod, known":            {nil, kernel.HookForward, at("eth1", pod, bad, known), false, false},
		"to a pod, untracked":        {nil, kernel.HookForward, at("eth1", pod, bad, loose), true, false},
		"from a pod":                 {nil, kernel.HookForward, at(pod, "eth1", bad), false, false},
		"from a pod, denied":         {both, kernel.HookForward, at(pod, "eth1", bad), true, false},
		"from a pod to the host":     {both, kernel.HookInput, at(pod, "", bad), true, false},
		"through a host":             {nil, kernel.HookForward, at("eth0", "eth1", bad), false, false},
		"through a host, denied":     {forward, kernel.HookForward, at("eth0", "eth1", bad), true, false},
		"through a host, outward":    {forward, kernel.HookForward, at("eth1", "eth0", bad), false, false},
		"to the host":                {nil, kernel.HookInput, at("eth0", ""), false, false},
		"to the host, denied":        {nil, kernel.HookInput, at("eth0", "", bad), true, false},
		"to the host, known":         {nil, kernel.HookInput, at("eth0", "", bad, known), false, false},
		"to the host, untracked":     {nil, kernel.HookInput, at("eth0", "", bad, loose), false, false},
		"to the host by another":     {nil, kernel.HookInput, at("eth1", "", bad), false, false},
		"from the host":              {both, kernel.HookOutput, at("", "eth0", bad), true, false},
		"from the host to its pod":   {both, kernel.HookOutput, at("", pod, bad), false, false},
		"raw, no policy":             {nil, kernel.HookPrerouting, at("eth0", "", bad), false, false},
		"raw, allowed":               {untracked, kernel.HookPrerouting, at("eth0", ""), false, true},
		"raw, denied, though known":  {untracked, kernel.HookPrerouting, at("eth0", "", bad, known), true, false},
		"raw, out, allowed":          {untrackedBoth, kernel.HookOutput, at("", "eth0"), false, true},
		"raw, out, denied":           {untrackedBoth, kernel.HookOutput, at("", "eth0", bad), true, false},
		"raw, no rule":               {untracked, kernel.HookOutput, at("", "eth0", bad), false, false},
		"before translation":         {preDNAT, kernel.HookPrerouting, at("eth0", ""), false, false},
		"before translation, denied": {preDNAT, kernel.HookPrerouting, at("eth0", "", bad), true, false},
		"before translation, known":  {preDNAT, kernel.HookPrerouting, at("eth0", "", bad, known), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := nodeWithHost(row.policy).Expect(row.hook, row.packet); got.Dropped != row.dropped || got.NoTrack != row.noTrack {
				t.Errorf("want dropped %v, not tracked %v: %v", row.dropped, row.noTrack, got)
			}
		})
	}
}

// rules are what policies of nodeWithHost may be compiled to: port is what is allowed.
func rules(t *testing.T, port uint16) *Ruleset {
	to := func(v kernel.Verdict, target string) kernel.Rule { return kernel.Rule{Verdict: v, Target: target} }
	known := kernel.Rule{States: kernel.StateEstablished, Verdict: kernel.Accept}
	return load(t, setsOf{"to": {Keys: kernel.KeysLinks}, "from": {Keys: kernel.KeysLinks}}, nil, chainsOf{
		"forward": base(kernel.HookForward, 0, known, to(kernel.OutVerdicts, "to")),
		"input":   base(kernel.HookInput, 0, known, kernel.Rule{States: kernel.StateUntracked, Verdict: kernel.Accept}, to(kernel.InVerdicts, "from")),
		"p": list(
			kernel.Rule{Protocol: 6, Ports: []kernel.PortMatch{{Place: kernel.Destination, First: 80, Last: port}}, Verdict: kernel.Return},
			kernel.Rule{Verdict: kernel.Drop, Comment: "p denies"},
		),
		kernel.EntryKey("to", "cairn0000000001"): {To: "p"},
		kernel.EntryKey("from", "eth0"):          {To: "p"},
	})
}

func TestAgree(t *testing.T) {
	n := nodeWithHost(nil)
	right := rules(t, 80)
	rapid.Check(t, func(t *rapid.T) { n.Agree(t, right) })
}

// TestCompare finds rules that differ from the model, and says how.
func TestCompare(t *testing.T) {
	n := nodeWithHost(nil)
	p := tcp(func(p *PacketAt) { p.InLink, p.OutLink, p.DstPort = "eth1", "cairn0000000001", 81 })
	if diff := n.Compare(rules(t, 80), kernel.HookForward, p); diff != "" {
		t.Error(diff)
	}
	diff := n.Compare(rules(t, 81), kernel.HookForward, p)
	for _, want := range []string{"6 10.0.0.1:1024 > 10.0.0.2:81, eth1 to cairn0000000001, at forward", "the rules: dropped false", "the model: dropped true", "Deny at WorkloadEndpoint ns1/p1, ingress, normal"} {
		if !strings.Contains(diff, want) {
			t.Errorf("%q is not in: %s", want, diff)
		}
	}
}
