package ctl

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cairn.network/cairn/agent/localapi"
)

func (e *env) route() *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:     "route [ADDRESS|PREFIX]",
		Aliases: []string{"routes"},
		Short:   "Show this node's routes: why each is there, and whether the kernel has it",
		Long: `Show every route of Cairn's on this node: wanted, learned or in the kernel.

ORIGIN says why a route is wanted: pod (a pod on this node), block (a block of
addresses that this node owns; what no pod has is dropped here), node (another
node's block, computed from the datastore), bgp (learned from a peer). FROM names
the pod, pool, node or peer. KERNEL says whether the kernel has just this route,
or why not. A route that is there but not wanted may stay for a while: "the way
before" says that its destination waits for another way, and for what.

With an ADDRESS, show the routes that hold for it, the longest match first: the
first that the kernel has is taken. With a PREFIX, show the routes inside it.`,
		Example: `  cairn ctl route
  cairn ctl route 10.244.1.7
  cairn ctl route 10.244.0.0/16 -o wide`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return misuse("%s takes one address or prefix, not %d", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return e.showRoutes(cmd, f, strings.Join(args, "")) },
	}
	addFormat(cmd, &f)
	return cmd
}

func (e *env) showRoutes(cmd *cobra.Command, f format, about string) error {
	keep, err := routeFilter(about)
	if err != nil {
		return err
	}
	ctx, cancel := e.agentContext(cmd)
	defer cancel()
	routes, err := e.agent().Routes(ctx)
	if err != nil {
		return err
	}
	routes = keep(routes)
	if f.machine() {
		return f.write(e.Out, routes)
	}
	if len(routes) == 0 && about != "" {
		return fmt.Errorf("no route of Cairn's on this node concerns %s", about)
	}
	t := &table{head: []string{"DESTINATION", "ORIGIN", "FROM", "NEXT HOPS", "KERNEL"}}
	if f.wide() {
		t.head = []string{"DESTINATION", "TYPE", "ORIGIN", "FROM", "NEXT HOPS", "KERNEL", "REASON"}
	}
	for _, r := range routes {
		hops, kernel := strings.Join(r.NextHops, ", "), "yes"
		if r.Type == "blackhole" {
			hops = "blackhole"
		}
		if !r.InKernel {
			kernel = "no"
		}
		if f.wide() {
			t.add(r.Dst, r.Type, r.Origin, r.From, hops, kernel, r.Reason)
			continue
		}
		if r.Reason != "" {
			kernel += ": " + r.Reason
		}
		t.add(r.Dst, r.Origin, r.From, hops, kernel)
	}
	return t.plain(e.Out)
}

// routeFilter returns what chooses and orders the routes to show.
func routeFilter(about string) (func([]localapi.Route) []localapi.Route, error) {
	if about == "" {
		return func(rs []localapi.Route) []localapi.Route { return rs }, nil
	}
	if a, err := netip.ParseAddr(about); err == nil {
		a = a.Unmap().WithZone("")
		return func(rs []localapi.Route) []localapi.Route {
			rs = chosen(rs, func(p netip.Prefix) bool { return p.Contains(a) })
			slices.SortStableFunc(rs, func(x, y localapi.Route) int { return cmp.Compare(bits(y), bits(x)) })
			return rs
		}, nil
	}
	if p, err := netip.ParsePrefix(about); err == nil {
		p = p.Masked()
		return func(rs []localapi.Route) []localapi.Route {
			return chosen(rs, func(q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) })
		}, nil
	}
	return nil, misuse("%q is neither an address nor a prefix", about)
}

func chosen(rs []localapi.Route, keep func(netip.Prefix) bool) []localapi.Route {
	kept := []localapi.Route{} // written as [] rather than null
	for _, r := range rs {
		if p, err := netip.ParsePrefix(r.Dst); err == nil && keep(p) {
			kept = append(kept, r)
		}
	}
	return kept
}

// bits returns the length of a destination that parses.
func bits(r localapi.Route) int { return netip.MustParsePrefix(r.Dst).Bits() }
