package lab

import (
	"context"
	"fmt"

	"cairn.network/cairn/lab/probe"
)

// Check asks every pod from every pod and every node, by ping, TCP and UDP, by
// each family, until all have answered well or ctx is done.
func (l *Lab) Check(ctx context.Context) (*probe.Matrix, error) {
	pods, err := l.Pods()
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("check: there are no pods")
	}
	var clients []probe.Client
	var servers []probe.Server
	for _, p := range pods {
		clients = append(clients, probe.Client{Name: p.String(), Netns: p.Netns, Own: p.Addrs})
		servers = append(servers, probe.Server{Name: p.String(), Addrs: p.Addrs})
	}
	for _, n := range l.Topology.Nodes {
		path, err := l.Netns(n.Name)
		if err != nil {
			return nil, fmt.Errorf("check: %w", err)
		}
		clients = append(clients, probe.Client{Name: n.Name, Netns: path, Own: addrs(n.Addrs)})
	}
	return probe.AskAll(ctx, clients, servers), nil
}
