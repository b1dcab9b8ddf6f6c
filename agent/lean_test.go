package agent

import (
	"fmt"
	"maps"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
)

func leanEndpoint(node, app string) *v1.WorkloadEndpoint {
	return &v1.WorkloadEndpoint{
		TypeMeta: typeMeta("WorkloadEndpoint"),
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "web", Name: "a-eth0", UID: "u", ResourceVersion: "7", Labels: map[string]string{"app": app},
			Annotations: map[string]string{v1.AnnotationAllowedSourcePrefixes: `["192.0.2.0/24"]`, "other": "note"},
		},
		Spec: v1.WorkloadEndpointSpec{
			Node: node, Pod: "a", ContainerID: "c1", Endpoint: "eth0", InterfaceName: "cairn1", IPNetworks: []string{"10.244.0.1/32"},
			ServiceAccountName: "web", Ports: []v1.NamedPort{{Name: "http", Protocol: "TCP", Port: 8080}},
		},
	}
}

// TestLean holds what is kept of an endpoint, and that what is given stays as it is.
func TestLean(t *testing.T) {
	own, others := leanEndpoint("n1", "web"), leanEndpoint("n2", "web")
	for _, w := range []*v1.WorkloadEndpoint{own, others} {
		delete(w.Annotations, "other")
	}
	others.Spec.ContainerID, others.Spec.InterfaceName = "", ""
	bare := &v1.WorkloadEndpoint{TypeMeta: typeMeta("WorkloadEndpoint"), ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "b-eth0"}}
	for _, test := range []struct {
		name       string
		give, want *v1.WorkloadEndpoint
	}{
		{"one of the own node", leanEndpoint("n1", "web"), own},
		{"one of another node", leanEndpoint("n2", "web"), others},
		{"one with nothing", bare, bare},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, before := newLean("n1"), test.give.DeepCopyObject()
			if d := cmp.Diff(test.want, l.endpoint(test.give)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if d := cmp.Diff(before, test.give.DeepCopyObject()); d != "" {
				t.Errorf("what was given changed (-before +after):\n%s", d)
			}
		})
	}
}

// TestLeanShares holds that equal labels are one map, however many there were between,
// and that what is remembered has a bound.
func TestLeanShares(t *testing.T) {
	l := newLean("n1")
	kept := func(app string) map[string]string {
		return l.endpoint(leanEndpoint("n2", app)).(*v1.WorkloadEndpoint).Labels
	}
	same := func(a, b map[string]string) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
	first := kept("web")
	if other := kept("db"); other["app"] != "db" || same(first, other) {
		t.Errorf("other labels: %v", other)
	}
	if !same(first, kept("web")) {
		t.Error("equal labels are kept twice")
	}
	for i := range leanMost {
		kept(fmt.Sprint(i))
	}
	if len(l.texts) > leanMost || len(l.labels) > leanMost {
		t.Errorf("%d texts and %d labels are remembered", len(l.texts), len(l.labels))
	}
	if again := kept("web"); !maps.Equal(again, first) {
		t.Errorf("after very many: %v", again)
	}
}
