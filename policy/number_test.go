package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/policy"
)

// TestNumber holds that rules are counted as people count them in the resource, however
// many of ours one of them makes.
func TestNumber(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want []int // of the rules of ingress
	}{
		"none": {`{apiVersion: cairn.network/v1, kind: NetworkPolicy, metadata: {name: p}}`, nil},
		"one each": {`{apiVersion: cairn.network/v1, kind: NetworkPolicy, metadata: {name: p},
			spec: {ingress: [{action: Log}, {action: Allow}]}}`, []int{1, 2}},
		"Kubernetes, two peers and two protocols": {`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {ingress: [
			{from: [{podSelector: {}}, {namespaceSelector: {}}], ports: [{port: 1}, {port: 1, protocol: UDP}]}, {}]}}`, []int{1, 1, 1, 1, 2}},
		"cluster's, two peers": {`{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p}, spec: {tier: Admin, priority: 1,
			subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}, {action: Accept, from: [{namespaces: {}}, {namespaces: {}}]}]}}`, []int{1, 2, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := v1.Decode([]byte(row.text))
			if err != nil {
				t.Fatal(err)
			}
			p, issues := policy.Convert(objects[0])
			if len(issues) > 0 {
				t.Fatal(issues)
			}
			var got []int
			for i := range p.Rules[policy.Ingress] {
				got = append(got, p.Number(policy.Ingress, i))
			}
			if d := cmp.Diff(row.want, got); d != "" {
				t.Errorf("numbers (-want +got):\n%s", d)
			}
			if n := p.Number(policy.Ingress, -1); n != 0 {
				t.Errorf("no rule has number %d", n)
			}
		})
	}
}
