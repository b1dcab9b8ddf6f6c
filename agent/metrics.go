package agent

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
)

// ruleLabels are the labels of what a policy's rule has counted.
var ruleLabels = []string{"kind", "namespace", "name", "tier", "direction", "rule", "action"}

// metrics collects from the agent's status when it is scraped.
type metrics struct{ a *Agent }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cairn_"+name, help, labels, nil)
}

var (
	descReady       = desc("ready", "1 once the first full pass is in the kernel.")
	descDatastore   = desc("datastore_up", "1 while the datastore answers.")
	descPods        = desc("pods", "Pods attached to this node.")
	descObjects     = desc("objects", "Objects that are wanted, by table and what became of them.", "table", "state")
	descWrites      = desc("writes_total", "Objects written or deleted, by table.", "table")
	descPasses      = desc("passes_total", "Passes of the reconcile loop.")
	descForeign     = desc("foreign_changes_total", "Changes that others made to Cairn's objects, as far as they were told one by one, by table; each is healed.", "table")
	descTunnel      = desc("tunnel_up", "1 while the tunnel device and its address are as they should be.", "device")
	descRemote      = desc("tunnel_remote_nodes", "Nodes to which packets are sent through the tunnel device.", "device")
	descHandshake   = desc("wireguard_peer_handshake_seconds", "Time since the last handshake with the node.", "node")
	descTraffic     = desc("wireguard_peer_bytes_total", "Bytes to and from the node since the device was made.", "node", "direction")
	descIssues      = desc("issues", "Faults found in resources.")
	descPeerUp      = desc("bgp_peer_up", "1 while the session is Established.", "peer", "type")
	descPeerSince   = desc("bgp_peer_state_seconds", "Time since the session's state began.", "peer", "state")
	descPeerFlaps   = desc("bgp_peer_flaps_total", "How often the session left Established.", "peer")
	descRulePackets = desc("policy_rule_packets_total", "Packets that a policy's rule has matched since its chain was written; of connections that are allowed, the first. Rule 0: the tier's default action.", ruleLabels...)
	descRuleBytes   = desc("policy_rule_bytes_total", "Bytes of such packets.", ruleLabels...)
	descDropped     = desc("dropped_packets_total", "Packets that were dropped for another reason than a policy.", "reason")
	descFlows       = desc("flows_total", "Packets of which listeners were told what policies did with them, by verdict.", "verdict")
	descFlowsLost   = desc("flows_lost_total", "Packets that could not be told, at least.")
	descPrefixes    = desc("bgp_peer_prefixes", "Prefixes of a session.", "peer", "family", "direction")
)

// Describe sends nothing: which peers there are changes.
func (metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends the state as of now.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	l := m.a.loop
	gauge(descReady, truth(l.ready.Load()))
	gauge(descDatastore, truth(m.a.mirror.Snapshot() != nil && m.a.mirror.Down() == nil))
	counter(descPasses, float64(l.passes.Load()))
	l.each(func(t table) {
		counts := t.Status()
		gauge(descObjects, float64(counts.Wanted), t.label, "wanted")
		gauge(descObjects, float64(counts.Applied), t.label, "applied")
		gauge(descObjects, float64(counts.Failed), t.label, "failed")
		counter(descWrites, float64(counts.Writes), t.label)
		counter(descForeign, float64(counts.Foreign), t.label)
	})
	m.policies(ctx, out, counter)
	s, err := m.a.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(descReady, err)
		return
	}
	gauge(descPods, float64(s.Status.Pods))
	gauge(descIssues, float64(len(s.Status.Issues)))
	for _, t := range s.Status.Tunnels {
		gauge(descTunnel, truth(t.State != v1.TunnelFailing), t.Device)
		gauge(descRemote, float64(t.RemoteNodes), t.Device)
	}
	if w := s.Status.WireGuard; w != nil {
		for _, p := range w.Peers {
			if p.Node == "" {
				continue // the Node is gone
			}
			if !p.LastHandshake.IsZero() {
				gauge(descHandshake, time.Since(p.LastHandshake.Time).Seconds(), p.Node)
			}
			counter(descTraffic, float64(p.ReceivedBytes), p.Node, "received")
			counter(descTraffic, float64(p.SentBytes), p.Node, "sent")
		}
	}
	for _, p := range s.Status.BGP.Peers {
		gauge(descPeerUp, truth(p.State == string(bgp.Established)), p.Address, p.Type)
		if !p.Since.IsZero() { // the speaker has the peer
			gauge(descPeerSince, time.Since(p.Since.Time).Seconds(), p.Address, p.State)
		}
		counter(descPeerFlaps, float64(p.Flaps), p.Address)
		for family, c := range map[string][3]uint64{
			"ipv4": {p.IPv4.Received, p.IPv4.Accepted, p.IPv4.Advertised},
			"ipv6": {p.IPv6.Received, p.IPv6.Accepted, p.IPv6.Advertised},
		} {
			gauge(descPrefixes, float64(c[0]), p.Address, family, "received")
			gauge(descPrefixes, float64(c[1]), p.Address, family, "accepted")
			gauge(descPrefixes, float64(c[2]), p.Address, family, "advertised")
		}
	}
}

// policies sends what policies did.
func (m metrics) policies(ctx context.Context, out chan<- prometheus.Metric, counter func(*prometheus.Desc, float64, ...string)) {
	told, lost := m.a.flows.sums()
	for verdict, n := range told {
		counter(descFlows, float64(n), verdict)
	}
	counter(descFlowsLost, float64(lost))
	counts, err := m.a.Counters(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(descRulePackets, err)
		return
	}
	for _, c := range counts {
		if c.Reason != "" {
			counter(descDropped, float64(c.Packets), c.Reason)
			continue
		}
		labels := []string{c.Kind, c.Namespace, c.Name, c.Tier, c.Direction, strconv.Itoa(c.Rule), c.Action}
		counter(descRulePackets, float64(c.Packets), labels...)
		counter(descRuleBytes, float64(c.Bytes), labels...)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
