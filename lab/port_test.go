package lab

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePort(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Port // zero: refused
	}{
		{"http=80", Port{"http", "TCP", 80}},
		{"dns-1=65535/udp", Port{"dns-1", "UDP", 65535}},
		{"s=1/SCTP", Port{"s", "SCTP", 1}},
		{"", Port{}}, {"80", Port{}}, {"=80", Port{}}, {"http=", Port{}}, {"http=0", Port{}}, {"http=65536", Port{}},
		{"http=80/", Port{}}, {"http=80/icmp", Port{}}, {"HTTP=80", Port{}}, {"80=80", Port{}}, {"sixteen-letters-a=80", Port{}},
	} {
		got, err := ParsePort(tt.text)
		if got != tt.want || (err == nil) == (tt.want == Port{}) {
			t.Errorf("%q: %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestServerPorts(t *testing.T) {
	for want, p := range map[string]Pod{
		"8080":                {},
		"8080,80/tcp,53/udp":  {Ports: []Port{{"http", "TCP", 80}, {"dns", "UDP", 53}}},
		"8080,80/tcp,80/sctp": {Ports: []Port{{"http", "TCP", 80}, {"s", "SCTP", 80}}},
	} {
		if got := p.serverPorts(); got != want {
			t.Errorf("%+v: %s, want %s", p, got, want)
		}
	}
}

// TestNetworkTells holds what the plug-in is told of a pod.
func TestNetworkTells(t *testing.T) {
	l := saved(t, t.TempDir(), "a")
	for _, tt := range []struct {
		name string
		pod  Pod
		want string // args
	}{
		{"nothing", Pod{Node: "n1"}, `null`},
		{"labels", Pod{Node: "n1", Labels: map[string]string{"b": "2", "a": "1"}}, `{"cni":{"labels":[{"key":"a","value":"1"},{"key":"b","value":"2"}]}}`},
		{"account and ports", Pod{Node: "n1", ServiceAccount: "web", Ports: []Port{{"http", "TCP", 80}}},
			`{"cni":{"ports":[{"name":"http","protocol":"TCP","port":80}],"serviceAccount":"web"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plugin := l.network(tt.pod)["plugins"].([]any)[0].(map[string]any)
			got, err := json.Marshal(plugin["args"])
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, string(got)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestEagerRefuses(t *testing.T) {
	l := saved(t, t.TempDir(), "a")
	for _, to := range []string{"", "tcp", "tcp:10.0.0.1", "10.0.0.1:80", "tcp:fd00::1:80", "ping:10.0.0.1"} {
		if _, err := l.AddPod(t.Context(), Pod{Namespace: "default", Name: "a", Node: "n1", Eager: []string{to}}); err == nil {
			t.Errorf("accepted %q", to)
		}
	}
	if _, err := l.Eager(t.Context(), "default", "none"); err == nil {
		t.Error("results of a pod that never was")
	}
	if err := l.savePod(Pod{Namespace: "default", Name: "a", Node: "n1"}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Eager(t.Context(), "default", "a"); err == nil {
		t.Error("results of a pod that tried nothing")
	}
	for _, to := range []string{"tcp:10.0.0.1:80", "udp:[fd00::1]:80", "icmp:fd00::1"} {
		if e, err := parseEager(to); err != nil || !e.Addr.IsValid() {
			t.Errorf("%q: %v, %v", to, e, err)
		}
	}
}
