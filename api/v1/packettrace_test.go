package v1

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPacketTraceIsChecked(t *testing.T) {
	good := PacketTraceSpec{Source: TraceEnd{Pod: "default/a"}, Destination: TraceEnd{Address: "192.0.2.1"}, Port: 80}
	second := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	for _, tt := range []struct {
		name   string
		change func(*PacketTraceSpec)
		want   string // in the refusal; "": none
	}{
		{"good", func(*PacketTraceSpec) {}, ""},
		{"from a node to a pod by UDP", func(s *PacketTraceSpec) {
			s.Source, s.Destination, s.Protocol = TraceEnd{Node: "n1"}, TraceEnd{Pod: "a/b"}, ProtocolUDP
		}, ""},
		{"echo", func(s *PacketTraceSpec) { s.Protocol, s.Port, s.IPVersion = ProtocolICMPv6, 0, 6 }, ""},
		{"longest wait", func(s *PacketTraceSpec) { s.Timeout = second(30 * time.Second) }, ""},
		{"no source", func(s *PacketTraceSpec) { s.Source = TraceEnd{} }, "spec.source: Invalid value"},
		{"two sources", func(s *PacketTraceSpec) { s.Source.Node = "n1" }, "must be one of a pod, a node and an address"},
		{"from an address", func(s *PacketTraceSpec) { s.Source = TraceEnd{Address: "192.0.2.2"} }, "packets are sent from a pod or a node"},
		{"a pod without namespace", func(s *PacketTraceSpec) { s.Source.Pod = "a" }, "must be namespace/name"},
		{"no address", func(s *PacketTraceSpec) { s.Destination.Address = "web" }, "spec.destination.address"},
		{"no port", func(s *PacketTraceSpec) { s.Port = 0 }, "spec.port"},
		{"a port of an echo", func(s *PacketTraceSpec) { s.Protocol = ProtocolICMP }, "ICMP has no ports"},
		{"an echo of the other family", func(s *PacketTraceSpec) { s.Protocol, s.Port, s.IPVersion = ProtocolICMP, 0, 6 }, "must be that of ICMP"},
		{"another protocol", func(s *PacketTraceSpec) { s.Protocol = ProtocolSCTP }, "spec.protocol: Unsupported value"},
		{"another version", func(s *PacketTraceSpec) { s.IPVersion = 5 }, "must be 4 or 6"},
		{"no wait", func(s *PacketTraceSpec) { s.Timeout = second(0) }, "spec.timeout"},
		{"longest wait + 1", func(s *PacketTraceSpec) { s.Timeout = second(30*time.Second + 1) }, "spec.timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			trace := &PacketTrace{ObjectMeta: metav1.ObjectMeta{Name: "t"}, Spec: good}
			tt.change(&trace.Spec)
			trace.Default()
			err := Check(trace)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("refused with %v, want %q", err, tt.want)
			}
		})
	}
}
