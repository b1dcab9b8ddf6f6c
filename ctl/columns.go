package ctl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
)

// column is one column of a kind's table.
type column struct {
	head string
	wide bool // only with -o wide
	cell func(v1.Object) string
}

// col is a column of every table of T's kind.
func col[T v1.Object](head string, cell func(T) string) column {
	return column{head: head, cell: func(o v1.Object) string {
		t, ok := o.(T)
		if !ok {
			return ""
		}
		return cell(t)
	}}
}

// wide is a column of T's wide table.
func wide[T v1.Object](head string, cell func(T) string) column {
	c := col(head, cell)
	c.wide = true
	return c
}

// columnsOf returns the columns of a kind behind its name. Where calicoctl has
// such a table they are its columns, in its order.
func columnsOf(kind string) []column {
	switch kind {
	case "IPPool":
		return poolColumns()
	case "BGPConfiguration":
		return bgpConfigurationColumns()
	case "AgentConfiguration":
		return agentConfigurationColumns()
	case "BGPPeer":
		return bgpPeerColumns()
	case "Node":
		return nodeColumns()
	case "WorkloadEndpoint":
		return endpointColumns()
	case "IPAMBlock":
		return blockColumns()
	case "NodeStatus":
		return statusColumns()
	case "PacketTrace":
		return traceColumns()
	}
	return policyColumnsOf(kind)
}

func poolColumns() []column {
	return []column{
		col("CIDR", func(p *v1.IPPool) string { return p.Spec.CIDR }),
		wide("BLOCKSIZE", func(p *v1.IPPool) string { return strconv.Itoa(p.Spec.BlockSize) }),
		wide("NAT", func(p *v1.IPPool) string { return strconv.FormatBool(p.Spec.NATOutgoing) }),
		wide("IPIPMODE", func(p *v1.IPPool) string { return string(p.Spec.IPIPMode) }),
		wide("VXLANMODE", func(p *v1.IPPool) string { return string(p.Spec.VXLANMode) }),
		wide("DISABLED", func(p *v1.IPPool) string { return strconv.FormatBool(p.Spec.Disabled) }),
		wide("DISABLEBGPEXPORT", func(p *v1.IPPool) string { return strconv.FormatBool(p.Spec.DisableBGPExport) }),
		col("SELECTOR", func(p *v1.IPPool) string { return p.Spec.NodeSelector }),
	}
}

func bgpConfigurationColumns() []column {
	return []column{
		col("MESHENABLED", func(c *v1.BGPConfiguration) string { return text(c.Spec.NodeToNodeMeshEnabled) }),
		col("ASNUMBER", func(c *v1.BGPConfiguration) string { return text(c.Spec.ASNumber) }),
		wide("LISTENPORT", func(c *v1.BGPConfiguration) string { return strconv.Itoa(int(c.Spec.ListenPort)) }),
		wide("RESTARTTIME", func(c *v1.BGPConfiguration) string { return seconds(c.Spec.NodeMeshMaxRestartTime) }),
		wide("CLUSTERROUTES", func(c *v1.BGPConfiguration) string { return string(c.Spec.ClusterRoutes) }),
	}
}

func agentConfigurationColumns() []column {
	return []column{
		col("WIREGUARD", func(c *v1.AgentConfiguration) string { return text(c.Spec.WireGuardEnabled) }),
		col("VXLANVNI", func(c *v1.AgentConfiguration) string { return text(c.Spec.VXLANVNI) }),
		col("VXLANPORT", func(c *v1.AgentConfiguration) string { return text(c.Spec.VXLANPort) }),
		wide("WIREGUARDPORT", func(c *v1.AgentConfiguration) string { return text(c.Spec.WireGuardListeningPort) }),
		wide("POLICYCHANGE", func(c *v1.AgentConfiguration) string { return text(c.Spec.PolicyChange) }),
		wide("CHECKSUMOFFLOAD", func(c *v1.AgentConfiguration) string { return text(c.Spec.VXLANChecksumOffload) }),
	}
}

func bgpPeerColumns() []column {
	return []column{
		col("PEERIP", func(p *v1.BGPPeer) string { return p.Spec.PeerIP }),
		col("NODE", func(p *v1.BGPPeer) string {
			switch {
			case p.Spec.NodeSelector != "":
				return p.Spec.NodeSelector
			case p.Spec.Node != "":
				return p.Spec.Node
			}
			return "(global)"
		}),
		col("ASN", func(p *v1.BGPPeer) string { return strconv.FormatUint(uint64(p.Spec.ASNumber), 10) }),
		wide("KEEPALIVE", func(p *v1.BGPPeer) string { return seconds(p.Spec.KeepaliveTime) }),
		wide("RESTARTTIME", func(p *v1.BGPPeer) string { return seconds(p.Spec.MaxRestartTime) }),
		wide("ACCEPTS", func(p *v1.BGPPeer) string { return strings.Join(p.Spec.AcceptCIDRs, ",") }),
	}
}

func nodeColumns() []column {
	bgp := func(f func(*v1.NodeBGP) string) func(*v1.Node) string {
		return func(n *v1.Node) string {
			if n.Spec.BGP == nil {
				return ""
			}
			return f(n.Spec.BGP)
		}
	}
	return []column{
		wide("ASN", bgp(func(b *v1.NodeBGP) string {
			if b.ASNumber == nil {
				return "(cluster)"
			}
			return text(b.ASNumber)
		})),
		wide("IPV4", bgp(func(b *v1.NodeBGP) string { return b.IPv4Address })),
		wide("IPV6", bgp(func(b *v1.NodeBGP) string { return b.IPv6Address })),
		wide("TUNNELS", nodeTunnels),
		wide("LABELS", func(n *v1.Node) string { return labels(n.Labels) }),
	}
}

// nodeTunnels names the addresses of a node's tunnel devices, as it publishes them.
func nodeTunnels(n *v1.Node) string {
	var all []string
	add := func(tunnel string, addrs ...string) {
		for _, a := range addrs {
			if a != "" {
				all = append(all, tunnel+"="+a)
			}
		}
	}
	if n.Spec.BGP != nil {
		add("ipip", n.Spec.BGP.IPv4IPIPTunnelAddr)
	}
	add("vxlan", n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr)
	if w := n.Spec.WireGuard; w != nil {
		add("wireguard", w.InterfaceIPv4Address, w.InterfaceIPv6Address)
	}
	return strings.Join(all, ",")
}

func endpointColumns() []column {
	return []column{
		col("WORKLOAD", func(w *v1.WorkloadEndpoint) string { return w.Spec.Pod }),
		col("NODE", func(w *v1.WorkloadEndpoint) string { return w.Spec.Node }),
		col("NETWORKS", func(w *v1.WorkloadEndpoint) string { return strings.Join(w.Spec.IPNetworks, ",") }),
		col("INTERFACE", func(w *v1.WorkloadEndpoint) string { return w.Spec.InterfaceName }),
		wide("CONTAINER", func(w *v1.WorkloadEndpoint) string { return w.Spec.ContainerID }),
		wide("LABELS", func(w *v1.WorkloadEndpoint) string { return labels(w.Labels) }),
	}
}

func blockColumns() []column {
	return []column{
		col("CIDR", func(b *v1.IPAMBlock) string { return b.Spec.CIDR }),
		col("NODE", func(b *v1.IPAMBlock) string { return b.Spec.Node }),
		col("STATE", func(b *v1.IPAMBlock) string { return string(b.Spec.State) }),
		wide("POOL", func(b *v1.IPAMBlock) string { return b.Spec.Pool }),
		wide("HELD", func(b *v1.IPAMBlock) string { return strconv.Itoa(len(b.Spec.Allocations)) }),
		wide("RELEASED", func(b *v1.IPAMBlock) string { return strconv.Itoa(len(b.Spec.Released)) }),
	}
}

func statusColumns() []column {
	return []column{
		col("READY", func(s *v1.NodeStatus) string {
			return strconv.FormatBool(meta.IsStatusConditionTrue(s.Status.Conditions, v1.ConditionReady))
		}),
		col("PODS", func(s *v1.NodeStatus) string { return strconv.Itoa(s.Status.Pods) }),
		col("ISSUES", func(s *v1.NodeStatus) string { return strconv.Itoa(len(s.Status.Issues)) }),
		col("UPDATED", func(s *v1.NodeStatus) string { return s.Status.UpdatedAt.UTC().Format(time.RFC3339) }),
		wide("VERSION", func(s *v1.NodeStatus) string { return s.Status.Agent.Version }),
		wide("ROUTES", func(s *v1.NodeStatus) string {
			return fmt.Sprintf("%d/%d", s.Status.Routes.Applied, s.Status.Routes.Wanted)
		}),
		wide("NOT IN ORDER", func(s *v1.NodeStatus) string { return notInOrder(s.Status.Conditions) }),
	}
}

func traceColumns() []column {
	return []column{
		col("SOURCE", func(t *v1.PacketTrace) string { return t.Spec.Source.String() }),
		col("DESTINATION", func(t *v1.PacketTrace) string { return t.Spec.Destination.String() }),
		col("PROTOCOL", func(t *v1.PacketTrace) string { return string(t.Spec.Protocol) }),
		wide("NODES", func(t *v1.PacketTrace) string { return strings.Join(t.Status.Nodes, ",") }),
	}
}

// text writes a value that may be left out.
func text[T any](v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(*v)
}

func seconds(d *metav1.Duration) string {
	if d == nil {
		return ""
	}
	return d.Duration.String()
}

func labels(m map[string]string) string {
	all := make([]string, 0, len(m))
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}
