package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/config"
	"cairn.network/cairn/policy"
)

func (e *env) endpoint() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "endpoint",
		Aliases: []string{"endpoints"},
		Short:   "Show pods and host endpoints, and the policies that are in force for them",
	}
	cmd.AddCommand(e.endpointShow(), e.endpointList())
	return cmd
}

// stateUnknown is the state of a policy of which only the datastore tells.
const stateUnknown = "not known"

// shownEndpoint is an endpoint as its agent tells of it or, Computed, as it follows from
// resources.
type shownEndpoint struct {
	localapi.Endpoint
	Computed bool `json:"computed"`
}

// name returns what people call it.
func (s shownEndpoint) name() string {
	switch {
	case s.Kind == policy.KindHost:
		return "hep/" + s.Name
	case s.Pod != "":
		return s.Namespace + "/" + s.Pod
	}
	return s.Namespace + "/" + s.Name
}

// is says whether a name means it: its own or that of its pod.
func (s shownEndpoint) is(namespace, name string) bool {
	return s.Namespace == namespace && (s.Name == name || s.Kind == policy.KindPod && s.Pod == name)
}

func (e *env) endpointShow() *cobra.Command {
	var f format
	var s scope
	var from source
	cmd := &cobra.Command{
		Use:   "show POD|hep/NAME",
		Short: "Show an endpoint and the policies that concern it, in order",
		Long: `Show a pod (NAMESPACE/NAME; NAME alone is one of the namespace of -n) or a host
endpoint (hep/NAME): where it is, and the policies that concern it, in the order in
which they are asked.

Of endpoints of this node the agent says whether each policy is in force, pending or
failing, and why. Of others it shows what follows from the datastore, or with -f
from files; what is in force their own node's agent says.`,
		Example: `  cairn ctl endpoint show shop/web
  cairn ctl endpoint show hep/n1-eth0 -o json
  cairn ctl endpoint show shop/web -f cluster.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misuse("%s takes one pod or host endpoint", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := e.findEndpoint(cmd, &from, args[0], s.namespace)
			if err != nil {
				return err
			}
			if f.machine() {
				return f.write(e.Out, found)
			}
			var b bytes.Buffer
			if err := found.write(&b); err != nil {
				return err
			}
			_, err = e.Out.Write(b.Bytes())
			return err
		},
	}
	addFormat(cmd, &f)
	s.addFlag(cmd)
	from.addFlags(cmd)
	return cmd
}

func (e *env) endpointList() *cobra.Command {
	var f format
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the endpoints of this node, or of all",
		Long: `List the pods and host endpoints of this node as its agent tells of them, or with
--all those of every node as they follow from the datastore.`,
		Example: `  cairn ctl endpoint list
  cairn ctl endpoint list --all -o wide`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := e.listEndpoints(cmd, all)
			if err != nil {
				return err
			}
			return e.showEndpoints(list, f)
		},
	}
	addFormat(cmd, &f)
	cmd.Flags().BoolVar(&all, "all", false, "of every node, from the datastore")
	config.CallOnly(cmd.Flags(), "all")
	return cmd
}

// listEndpoints returns the endpoints of this node, or of all.
func (e *env) listEndpoints(cmd *cobra.Command, all bool) ([]shownEndpoint, error) {
	if !all {
		return e.ownEndpoints(cmd)
	}
	c, err := e.cluster(cmd.Context(), &source{})
	if err != nil {
		return nil, err
	}
	return c.computed(), nil
}

// ownEndpoints asks the agent of this node.
func (e *env) ownEndpoints(cmd *cobra.Command) ([]shownEndpoint, error) {
	ctx, cancel := e.agentContext(cmd)
	defer cancel()
	own, err := e.agent().Endpoints(ctx)
	list := make([]shownEndpoint, len(own))
	for i, one := range own {
		list[i].Endpoint = one
	}
	return list, err
}

// findEndpoint returns an endpoint as the agent tells of it or, of another node, as it
// follows from resources.
func (e *env) findEndpoint(cmd *cobra.Command, from *source, text, namespace string) (*shownEndpoint, error) {
	name := text
	if host, ok := strings.CutPrefix(text, hostPrefixes[1]); ok {
		namespace, name = "", host
	} else if ns, pod, both := strings.Cut(text, "/"); both {
		namespace, name = ns, pod
	}
	if name == "" || strings.Contains(name, "/") {
		return nil, misuse("%q is no pod or host endpoint; write NAMESPACE/POD or hep/NAME", text)
	}
	var silent error
	if len(from.files) == 0 {
		own, err := e.ownEndpoints(cmd)
		if found, err := pick(own, namespace, name); found != nil || err != nil {
			return found, err
		}
		silent = err
	}
	found, err := e.computedEndpoint(cmd.Context(), from, namespace, name)
	if err != nil && silent != nil {
		return nil, errors.Join(silent, err)
	}
	if err == nil && silent != nil {
		fmt.Fprintf(e.Err, "warning: %v\n", silent)
	}
	return found, err
}

func (e *env) computedEndpoint(ctx context.Context, from *source, namespace, name string) (*shownEndpoint, error) {
	c, err := e.cluster(ctx, from)
	if err != nil {
		return nil, err
	}
	found, err := pick(c.computed(), namespace, name)
	switch {
	case err != nil || found != nil:
		return found, err
	case namespace == "":
		return nil, fmt.Errorf("HostEndpoint %s: not found", name)
	}
	return nil, fmt.Errorf("pod %s/%s: not found%s", namespace, name, c.likely(namespace, name))
}

// pick returns the endpoint of this name; nil if there is none.
func pick(list []shownEndpoint, namespace, name string) (*shownEndpoint, error) {
	var found []shownEndpoint
	for _, one := range list {
		if one.Namespace == namespace && one.Name == name {
			return &one, nil
		}
		if one.is(namespace, name) {
			found = append(found, one)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return &found[0], nil
	}
	var names []string
	for _, one := range found {
		names = append(names, one.Name)
	}
	return nil, fmt.Errorf("pod %s/%s: it has %d interfaces; name one: %s", namespace, name, len(found), strings.Join(names, ", "))
}

// computed returns every pod and host endpoint as it follows from resources.
func (c *cluster) computed() []shownEndpoint {
	pods := map[policy.ID]string{}
	for _, w := range c.pods {
		pods[policy.ID{Kind: policy.KindPod, Namespace: w.Namespace, Name: w.Name}] = podName(w)
	}
	list := []shownEndpoint{}
	for _, p := range c.world.Endpoints {
		if p.Kind != policy.KindPod && p.Kind != policy.KindHost {
			continue
		}
		one := shownEndpoint{Computed: true, Endpoint: localapi.Endpoint{
			Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Pod: pods[p.ID], Node: p.Node, Addresses: p.Addrs, Labels: p.Labels,
			Ingress: c.concerning(p, policy.Ingress), Egress: c.concerning(p, policy.Egress),
			Reason: "computed from resources; the agent of node " + p.Node + " says what is in force",
		}}
		if p.Link != "" {
			one.Links = []string{p.Link}
		}
		list = append(list, one)
	}
	return list
}

// concerning returns the policies that concern an endpoint, in order.
func (c *cluster) concerning(p *policy.Endpoint, d policy.Direction) []localapi.EndpointPolicy {
	list := []localapi.EndpointPolicy{}
	for _, ph := range []policy.Phase{policy.Untracked, policy.PreDNAT, policy.Normal, policy.Forward} {
		for _, t := range c.world.Concerning(p, d, ph) {
			for _, one := range t.Policies {
				row := localapi.EndpointPolicy{Tier: t.Tier.Name, Policy: one.ID.String(), State: stateUnknown}
				switch {
				case ph == policy.Untracked || ph == policy.PreDNAT:
					row.Phase = ph.String()
				case one.ApplyOnForward:
					row.Phase = "forward too"
				}
				if one.Fault != "" {
					row.State, row.Reason = localapi.PolicyFailing, "it can't be enforced as written, so it denies: "+one.Fault
				}
				if !slices.Contains(list, row) {
					list = append(list, row)
				}
			}
		}
	}
	return list
}

func (e *env) showEndpoints(list []shownEndpoint, f format) error {
	if f.machine() {
		return f.write(e.Out, list)
	}
	if len(list) == 0 {
		fmt.Fprintln(e.Err, "No endpoints found.")
		return nil
	}
	t := &table{head: []string{"ENDPOINT", "NODE", "ADDRESSES", "LINKS", "POLICIES IN", "POLICIES OUT", "IN FORCE"}}
	if f.wide() {
		t.head = append(t.head, "LABELS")
	}
	for _, one := range list {
		row := []string{one.name(), one.Node, addrsText(one.Addresses), strings.Join(one.Links, ","), fmt.Sprint(len(one.Ingress)), fmt.Sprint(len(one.Egress)), one.inForce()}
		if f.wide() {
			row = append(row, labels(one.Labels))
		}
		t.add(row...)
	}
	return t.plain(e.Out)
}

func (s shownEndpoint) inForce() string {
	switch {
	case s.Computed:
		return stateUnknown
	case s.InForce:
		return "yes"
	}
	return "no: " + s.Reason
}

func addrsText(addrs []netip.Addr) string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ",")
}

// write writes it for people.
func (s shownEndpoint) write(w io.Writer) error {
	fmt.Fprintf(w, "%s (%s %s)\n", s.name(), s.Kind, s.Name)
	inForce := s.inForce()
	if s.Computed {
		inForce = stateUnknown + ": " + s.Reason
	}
	for _, line := range [][2]string{
		{"node", s.Node}, {"links", strings.Join(s.Links, ", ")}, {"addresses", strings.ReplaceAll(addrsText(s.Addresses), ",", ", ")},
		{"labels", labels(s.Labels)}, {"in force", inForce},
	} {
		if line[1] != "" {
			fmt.Fprintf(w, "  %-10s %s\n", line[0], line[1])
		}
	}
	for _, way := range []struct {
		name string
		list []localapi.EndpointPolicy
	}{{"Ingress", s.Ingress}, {"Egress", s.Egress}} {
		if len(way.list) == 0 {
			fmt.Fprintf(w, "\n%s: no policy concerns it, so all is allowed\n", way.name)
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", way.name)
		if err := writePolicies(w, way.list); err != nil {
			return err
		}
	}
	return nil
}

func writePolicies(w io.Writer, list []localapi.EndpointPolicy) error {
	phases := slices.ContainsFunc(list, func(p localapi.EndpointPolicy) bool { return p.Phase != "" })
	t := &table{head: []string{"TIER", "POLICY", "STATE"}}
	if phases {
		t.head = []string{"TIER", "POLICY", "PHASE", "STATE"}
	}
	for _, p := range list {
		state := p.State
		if p.Reason != "" {
			state += ": " + p.Reason
		}
		row := []string{p.Tier, p.Policy, state}
		if phases {
			row = []string{p.Tier, p.Policy, p.Phase, state}
		}
		t.add(row...)
	}
	var b bytes.Buffer
	if err := t.plain(&b); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		fmt.Fprint(w, "  "+line)
	}
	return nil
}
