package agent

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cairn.network/cairn/bgp"
)

// metrics collects from the agent's status when it is scraped.
type metrics struct{ a *Agent }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cairn_"+name, help, labels, nil)
}

var (
	descReady     = desc("ready", "1 once the first full pass is in the kernel.")
	descDatastore = desc("datastore_up", "1 while the datastore answers.")
	descPods      = desc("pods", "Pods attached to this node.")
	descRoutes    = desc("routes", "Routes that are Cairn's, by what became of them.", "state")
	descWrites    = desc("writes_total", "Objects written or deleted, by table.", "table")
	descPasses    = desc("passes_total", "Passes of the reconcile loop.")
	descForeign   = desc("foreign_changes_total", "Changes that others made to Cairn's routes; each is healed.")
	descIssues    = desc("issues", "Faults found in resources.")
	descPeerUp    = desc("bgp_peer_up", "1 while the session is Established.", "peer", "type")
	descPeerSince = desc("bgp_peer_state_seconds", "Time since the session's state began.", "peer", "state")
	descPeerFlaps = desc("bgp_peer_flaps_total", "How often the session left Established.", "peer")
	descPrefixes  = desc("bgp_peer_prefixes", "Prefixes of a session.", "peer", "family", "direction")
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
	counter(descForeign, float64(l.routes.Status().Foreign))
	for table, writes := range map[string]uint64{
		"sysctls": l.sysctls.Status().Writes, "routes": l.routes.Status().Writes,
		"bgp_peers": l.peers.Status().Writes, "bgp_paths": l.paths.Status().Writes,
	} {
		counter(descWrites, float64(writes), table)
	}
	s, err := m.a.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(descReady, err)
		return
	}
	gauge(descPods, float64(s.Status.Pods))
	gauge(descIssues, float64(len(s.Status.Issues)))
	gauge(descRoutes, float64(s.Status.Routes.Wanted), "wanted")
	gauge(descRoutes, float64(s.Status.Routes.Applied), "applied")
	gauge(descRoutes, float64(s.Status.Routes.Failed), "failed")
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

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
