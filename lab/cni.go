package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"cairn.network/cairn/lab/netns"
)

// cniDir, of a node's folder, holds the network configuration and libcni's cache.
const cniDir = "cni"

// Network is the name of the pods' network.
const Network = "cairn"

// podLink is the name of the interface inside a pod.
const podLink = "eth0"

// NetworkFile returns the path of a node's CNI network configuration.
func (l *Lab) NetworkFile(node string) string { return l.hostFile(node, cniDir+"/10-cairn.conflist") }

// writeNetwork writes a node's CNI network configuration.
func (l *Lab) writeNetwork(node string) error {
	b, err := json.MarshalIndent(l.network(Pod{Node: node}), "", "  ")
	if err != nil {
		return fmt.Errorf("configure CNI: %w", err)
	}
	if err := os.WriteFile(l.NetworkFile(node), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("configure CNI: %w", err)
	}
	return nil
}

// network returns a node's CNI network configuration for a pod. What is told of the
// pod is in args.cni, where the CNI conventions have labels.
func (l *Lab) network(p Pod) map[string]any {
	plugin := map[string]any{
		"type":   "cairn-cni",
		"socket": l.hostFile(p.Node, runDir+"/cni.sock"),
		"spool":  l.hostFile(p.Node, stateDir+"/cni/spool"),
	}
	if len(p.Pools) > 0 {
		plugin["ipam"] = l.ipam(p.Pools)
	}
	told := map[string]any{}
	if len(p.Labels) > 0 {
		var list []map[string]string
		for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
			list = append(list, map[string]string{"key": k, "value": p.Labels[k]})
		}
		told["labels"] = list
	}
	if p.ServiceAccount != "" {
		told["serviceAccount"] = p.ServiceAccount
	}
	if len(p.Ports) > 0 {
		told["ports"] = p.Ports
	}
	if len(told) > 0 {
		plugin["args"] = map[string]any{"cni": told}
	}
	return map[string]any{"cniVersion": "1.1.0", "name": Network, "plugins": []any{plugin}}
}

// ipam returns what the network's configuration says of a pod's pools. Those that
// the topology does not know are taken for IPv4's.
func (l *Lab) ipam(pools []string) map[string]any {
	lists := map[string][]string{}
	for _, name := range pools {
		key := "ipv4_pools"
		for _, p := range l.Topology.Pools {
			if p.Name == name && strings.Contains(p.CIDR, ":") {
				key = "ipv6_pools"
			}
		}
		lists[key] = append(lists[key], name)
	}
	_, is4 := lists["ipv4_pools"]
	_, is6 := lists["ipv6_pools"]
	ipam := map[string]any{"assign_ipv4": is4, "assign_ipv6": is6}
	for k, list := range lists {
		ipam[k] = list
	}
	return ipam
}

// Runtime returns what a container runtime on a node needs to call the plug-in:
// the library with its paths, and the network for a pod. Its
// calls must be made inside the node's namespace.
func (l *Lab) Runtime(p Pod) (*libcni.CNIConfig, *libcni.NetworkConfigList, error) {
	b, err := json.Marshal(l.network(p))
	if err != nil {
		return nil, nil, fmt.Errorf("configure CNI: %w", err)
	}
	list, err := libcni.NetworkConfFromBytes(b)
	if err != nil {
		return nil, nil, fmt.Errorf("configure CNI: %w", err)
	}
	return libcni.NewCNIConfigWithCacheDir([]string{l.bin}, l.hostFile(p.Node, cniDir+"/cache"), nil), list, nil
}

// RuntimeConf returns a pod as the plug-in is told of it.
func RuntimeConf(p Pod) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.ContainerID, NetNS: p.Netns, IfName: podLink,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", p.Namespace},
			{"K8S_POD_NAME", p.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.ContainerID},
		},
	}
}

// attach calls the plug-in's ADD on the pod's node and returns the pod's
// addresses.
func (l *Lab) attach(ctx context.Context, p Pod) ([]netip.Addr, error) {
	cni, list, err := l.Runtime(p)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	err = l.onNode(p.Node, func() error {
		got, err := cni.AddNetworkList(ctx, list, RuntimeConf(p))
		if err != nil {
			return fmt.Errorf("CNI ADD: %w", err)
		}
		result, err := types100.NewResultFromResult(got)
		if err != nil {
			return fmt.Errorf("CNI ADD: %w", err)
		}
		for _, ip := range result.IPs {
			a, ok := netip.AddrFromSlice(ip.Address.IP)
			if !ok {
				return fmt.Errorf("CNI ADD: the plug-in returned address %v", ip.Address)
			}
			addrs = append(addrs, a.Unmap())
		}
		return nil
	})
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, err
}

// detach calls the plug-in's DEL on the pod's node.
func (l *Lab) detach(ctx context.Context, p Pod) error {
	cni, list, err := l.Runtime(p)
	if err != nil {
		return err
	}
	return l.onNode(p.Node, func() error {
		if err := cni.DelNetworkList(ctx, list, RuntimeConf(p)); err != nil {
			return fmt.Errorf("CNI DEL: %w", err)
		}
		return nil
	})
}

// onNode runs f inside a node's namespace; programs that f runs are inside too.
func (l *Lab) onNode(node string, f func() error) error {
	path, err := l.Netns(node)
	if err != nil {
		return err
	}
	return netns.Do(path, f)
}
