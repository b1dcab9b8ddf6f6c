package ctl

import (
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
)

// policyColumnsOf returns the columns of the kinds that network policy is made of;
// nil of other kinds.
func policyColumnsOf(kind string) []column {
	switch kind {
	case "NetworkPolicy":
		return ruleColumns(func(p *v1.NetworkPolicy) *v1.NetworkPolicySpec { return &p.Spec })
	case "GlobalNetworkPolicy":
		return ruleColumns(func(p *v1.GlobalNetworkPolicy) *v1.NetworkPolicySpec { return &p.Spec.NetworkPolicySpec })
	case "StagedNetworkPolicy":
		return append([]column{col("ACTION", func(p *v1.StagedNetworkPolicy) string { return string(p.Spec.StagedAction) })},
			ruleColumns(func(p *v1.StagedNetworkPolicy) *v1.NetworkPolicySpec { return &p.Spec.NetworkPolicySpec })...)
	case "StagedGlobalNetworkPolicy":
		return append([]column{col("ACTION", func(p *v1.StagedGlobalNetworkPolicy) string { return string(p.Spec.StagedAction) })},
			ruleColumns(func(p *v1.StagedGlobalNetworkPolicy) *v1.NetworkPolicySpec { return &p.Spec.NetworkPolicySpec })...)
	case "Tier":
		return []column{
			col("ORDER", func(t *v1.Tier) string { return order(t.Spec.Order) }),
			col("DEFAULTACTION", func(t *v1.Tier) string { return string(t.Spec.DefaultAction) }),
		}
	case "NetworkSet":
		return setColumns(func(n *v1.NetworkSet) []string { return n.Spec.Nets })
	case "GlobalNetworkSet":
		return setColumns(func(n *v1.GlobalNetworkSet) []string { return n.Spec.Nets })
	case "HostEndpoint":
		return hostEndpointColumns()
	}
	return stockColumnsOf(kind)
}

// ruleColumns are the columns of policies of Cairn's kinds.
func ruleColumns[T v1.Object](spec func(T) *v1.NetworkPolicySpec) []column {
	return []column{
		col("TIER", func(p T) string { return spec(p).Tier }),
		col("ORDER", func(p T) string { return order(spec(p).Order) }),
		wide("SELECTOR", func(p T) string { return spec(p).Selector }),
		wide("TYPES", func(p T) string { return list(spec(p).Types) }),
		wide("RULES", func(p T) string { return fmt.Sprintf("%d+%d", len(spec(p).Ingress), len(spec(p).Egress)) }),
	}
}

func setColumns[T v1.Object](nets func(T) []string) []column {
	return []column{
		col("NETS", func(n T) string { return strconv.Itoa(len(nets(n))) }),
		wide("RANGES", func(n T) string { return strings.Join(nets(n), ",") }),
		wide("LABELS", func(n T) string { return labels(n.GetLabels()) }),
	}
}

func hostEndpointColumns() []column {
	return []column{
		col("NODE", func(h *v1.HostEndpoint) string { return h.Spec.Node }),
		col("INTERFACE", func(h *v1.HostEndpoint) string { return h.Spec.InterfaceName }),
		col("IPS", func(h *v1.HostEndpoint) string { return strings.Join(h.Spec.ExpectedIPs, ",") }),
		wide("LABELS", func(h *v1.HostEndpoint) string { return labels(h.Labels) }),
	}
}

// stockColumnsOf returns the columns of Kubernetes' own kinds; nil of other kinds.
func stockColumnsOf(kind string) []column {
	switch kind {
	case "KubernetesNetworkPolicy":
		return []column{
			col("POD-SELECTOR", func(p *v1.KubernetesNetworkPolicy) string {
				if s := metav1.FormatLabelSelector(&p.Spec.PodSelector); s != "<none>" {
					return s
				}
				return "(all)"
			}),
			wide("TYPES", func(p *v1.KubernetesNetworkPolicy) string { return list(p.Spec.PolicyTypes) }),
			wide("RULES", func(p *v1.KubernetesNetworkPolicy) string {
				return fmt.Sprintf("%d+%d", len(p.Spec.Ingress), len(p.Spec.Egress))
			}),
		}
	case "ClusterNetworkPolicy":
		return []column{
			col("TIER", func(p *v1.ClusterNetworkPolicy) string { return string(p.Spec.Tier) }),
			col("PRIORITY", func(p *v1.ClusterNetworkPolicy) string { return strconv.Itoa(int(p.Spec.Priority)) }),
			wide("RULES", func(p *v1.ClusterNetworkPolicy) string {
				return fmt.Sprintf("%d+%d", len(p.Spec.Ingress), len(p.Spec.Egress))
			}),
		}
	case "Namespace":
		return []column{wide("LABELS", func(n *v1.Namespace) string { return labels(n.Labels) })}
	case "ServiceAccount":
		return []column{wide("LABELS", func(a *v1.ServiceAccount) string { return labels(a.Labels) })}
	case "EndpointSlice":
		return []column{
			col("SERVICE", func(s *v1.EndpointSlice) string { return s.Service() }),
			col("ADDRESSTYPE", func(s *v1.EndpointSlice) string { return string(s.AddressType) }),
			col("ENDPOINTS", func(s *v1.EndpointSlice) string { return strconv.Itoa(len(s.Endpoints)) }),
		}
	}
	return nil
}

// order writes a place among others.
func order(o *float64) string {
	if o == nil {
		return "(last)"
	}
	return strconv.FormatFloat(*o, 'f', -1, 64)
}

func list[T ~string](values []T) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return strings.Join(all, ",")
}
