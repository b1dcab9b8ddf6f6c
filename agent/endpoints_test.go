package agent_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/datastore"
)

// told writes what the agent says of its endpoints.
func told(all []localapi.Endpoint) []string {
	var lines []string
	for _, e := range all {
		lines = append(lines, fmt.Sprintf("%s %s in force %v%s", e.Kind, e.Name, e.InForce, suffix(e.Reason)))
		for way, list := range [2][]localapi.EndpointPolicy{e.Ingress, e.Egress} {
			for _, p := range list {
				lines = append(lines, fmt.Sprintf("  %s %s/%s%s: %s%s", []string{"ingress", "egress"}[way], p.Tier, p.Policy, strings.TrimRight(" "+p.Phase, " "), p.State, suffix(p.Reason)))
			}
		}
	}
	return lines
}

func suffix(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// TestEndpoints holds what the agent says of its pods and host endpoints: in force,
// failing, pending.
func TestEndpoints(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.create(&v1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "both", Namespace: "default"}, Spec: v1.NetworkPolicySpec{
			Types: []v1.PolicyType{v1.PolicyIngress, v1.PolicyEgress}, Ingress: []v1.Rule{{Action: v1.ActionAllow}}, Egress: []v1.Rule{{Action: v1.ActionPass}},
		}})
		s.create(&v1.HostEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "eth0", Labels: map[string]string{"host": "yes"}}, Spec: v1.HostEndpointSpec{Node: "n1", InterfaceName: "eth0"}})
		s.create(&v1.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "through"}, Spec: v1.GlobalNetworkPolicySpec{
			NetworkPolicySpec: v1.NetworkPolicySpec{Selector: "has(host)", Ingress: []v1.Rule{{Action: v1.ActionAllow}}}, ApplyOnForward: true,
		}})
		s.start()
		expect := func(why string, want ...string) {
			t.Helper()
			s.settle(time.Minute)
			got, err := s.agent.Endpoints(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, told(got)); d != "" {
				t.Errorf("%s (-want +got):\n%s", why, d)
			}
		}
		host := []string{"HostEndpoint eth0 in force true", "  ingress default/GlobalNetworkPolicy through forward too: in force"}
		expect("without pods", host...)
		s.attach(request(protocol.VerbAdd, "one"))
		one := []string{"WorkloadEndpoint one-eth0 in force true", "  ingress default/NetworkPolicy default/both: in force", "  egress default/NetworkPolicy default/both: in force"}
		expect("with a pod", append(host, one...)...)

		s.kernel.Fail("set", nil, errors.New("no memory"))
		s.create(&v1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "new", Namespace: "default"}, Spec: v1.NetworkPolicySpec{Ingress: []v1.Rule{{Action: v1.ActionAllow}}}})
		s.settle(time.Minute)
		got, err := s.agent.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pod := got[len(got)-1]
		if pod.InForce || !strings.Contains(pod.Reason, "no memory") || pod.Ingress[1].State != localapi.PolicyFailing || pod.Egress[0].State != localapi.PolicyInForce {
			t.Errorf("with a chain that can't be written: %s", strings.Join(told(got), "\n"))
		}
		s.kernel.Fail("set", nil, nil)
		expect("when it can", append(host, one[0], one[1], "  ingress default/NetworkPolicy default/new: in force", one[2])...)

		if err := s.store.Delete(t.Context(), datastore.Key{Kind: "NetworkPolicy", Namespace: "default", Name: "new"}, ""); err != nil {
			t.Fatal(err)
		}
		lost := &v1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "lost", Namespace: "default"}, Spec: v1.NetworkPolicySpec{Tier: "nowhere", Types: []v1.PolicyType{v1.PolicyEgress}}}
		s.create(lost)
		const why = ": failing: it can't be enforced as written, so it denies: there is no tier nowhere"
		expect("without its tier", append(host, one[0], "  ingress nowhere/NetworkPolicy default/lost"+why, one[1], "  egress nowhere/NetworkPolicy default/lost"+why, one[2])...)
	})
}

// TestEndpointsTooEarly holds that an agent without a first pass says why.
func TestEndpointsTooEarly(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.store.SetDown(errors.New("away"))
		s.start()
		if _, err := s.agent.Endpoints(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "the agent is not ready: ") {
			t.Errorf("Endpoints: %v", err)
		}
	})
}
