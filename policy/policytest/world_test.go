package policytest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"cairn.network/cairn/policy"
)

// TestWorldsMeet checks that packets of random worlds meet everything that policies can
// do, each often enough for a property test of a hundred worlds.
func TestWorldsMeet(t *testing.T) {
	const worlds, packets = 300, 10
	seen := make(map[string]int)
	for seed := range worlds {
		w := World().Example(seed)
		met := make(map[string]bool)
		for i := range packets {
			p := Packet(w).Example(seed*packets + i)
			for _, e := range w.Endpoints {
				for ph := policy.Normal; ph <= policy.PreDNAT; ph++ {
					for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
						d := w.Decide(e, dir, ph, p)
						met[fmt.Sprintf("%s %s", d.Action, d.Reason)] = true
						if e.Kind == policy.KindHost {
							met[fmt.Sprintf("%s %s %s", ph, dir, d.Action)] = true
						}
						for _, s := range d.Steps {
							met["step "+string(s.Action)] = true
							met["step of "+s.Policy.Kind] = true
						}
						maps.Copy(met, decisive(w, d, dir))
					}
				}
			}
		}
		for what := range met {
			seen[what]++
		}
	}
	for _, what := range []string{
		"Allow rule", "Deny rule", "Deny default action", "Deny fault", "Allow no policy", "Pass no policy", "Allow passed", "Pass passed",
		"Allow fail-safe port", "Pass fail-safe port",
		"normal ingress Deny", "normal egress Deny", "forward ingress Deny", "forward egress Deny",
		"untracked ingress Allow", "untracked ingress Deny", "untracked egress Deny", "preDNAT ingress Allow", "preDNAT ingress Deny",
		"step Log", "step Pass", "step ", "step of NetworkPolicy", "step of GlobalNetworkPolicy", "step of KubernetesNetworkPolicy",
		"by version", "by protocol", "by not protocol", "by ICMP", "by not ICMP", "by selector", "by not selector", "by nodes",
		"by nets", "by not nets", "by ports", "by port name", "by not ports", "by service",
	} {
		if seen[what]*100 < worlds {
			t.Errorf("%s: in %d of %d worlds only", what, seen[what], worlds)
		}
	}
	if t.Failed() {
		for _, what := range slices.Sorted(maps.Keys(seen)) {
			t.Logf("%s: %d", what, seen[what])
		}
	}
}

// decisive says what the rule that decided asked for.
func decisive(w *policy.World, d policy.Decision, dir policy.Direction) map[string]bool {
	i := slices.IndexFunc(w.Policies, func(p *policy.Policy) bool { return p.ID == d.Policy })
	if d.Reason != policy.ReasonRule || i < 0 {
		return nil
	}
	r := w.Policies[i].Rules[dir][d.Rule]
	by := map[string]bool{
		"by version": r.IPVersion != 0, "by protocol": r.Protocol != 0, "by not protocol": r.NotProtocol != 0,
		"by ICMP": r.ICMP != nil, "by not ICMP": r.NotICMP != nil,
	}
	for _, p := range []policy.Peer{r.Source, r.Destination} {
		named := slices.ContainsFunc(p.Ports, func(p policy.Port) bool { return p.Name != "" })
		for what, asked := range map[string]bool{
			"by selector": p.Selector != nil, "by not selector": p.NotSelector != nil, "by nodes": p.Nodes != nil,
			"by nets": len(p.Nets) > 0, "by not nets": len(p.NotNets) > 0, "by ports": len(p.Ports) > 0, "by port name": named,
			"by not ports": len(p.NotPorts) > 0, "by service": p.Service != policy.ID{},
		} {
			by[what] = by[what] || asked
		}
	}
	maps.DeleteFunc(by, func(_ string, asked bool) bool { return !asked })
	return by
}
