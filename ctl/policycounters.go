package ctl

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"cairn.network/cairn/agent/localapi"
)

func (e *env) policyCounters() *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:   "counters [POLICY]",
		Short: "Show how many packets each rule has matched on this node",
		Long: `Show how many packets and bytes each rule of the policies in force on this node has
matched. Of a connection that is allowed only the first packet is counted, for the
others pass because of it; what is denied is counted packet by packet.

A rule's count begins anew when its policy is changed, and a tier's default action's
when the policies of a pod are others. RULE is the number of the rule, from 1; default
is the tier's default action.

POLICY is NAME or NAMESPACE/NAME, and shows that policy's rules only.`,
		Example: `  cairn ctl policy counters
  cairn ctl policy counters default/web -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return misuse("%s takes one policy, not %d", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return e.showCounters(cmd, f, strings.Join(args, "")) },
	}
	addFormat(cmd, &f)
	return cmd
}

func (e *env) showCounters(cmd *cobra.Command, f format, about string) error {
	ctx, cancel := e.agentContext(cmd)
	defer cancel()
	all, err := e.agent().Counters(ctx)
	if err != nil {
		return err
	}
	shown := []localapi.Counter{} // written as [] rather than null
	for _, c := range all {
		if about == "" || c.Name != "" && (about == c.Name || about == c.Namespace+"/"+c.Name) {
			shown = append(shown, c)
		}
	}
	if f.machine() {
		return f.write(e.Out, shown)
	}
	if len(shown) == 0 && about != "" {
		return fmt.Errorf("no policy %s is in force on this node", about)
	}
	rules := &table{head: []string{"TIER", "POLICY", "DIRECTION", "RULE", "ACTION", "PACKETS", "BYTES"}}
	others := &table{head: []string{"DROPPED BECAUSE", "PACKETS", "BYTES"}}
	for _, c := range shown {
		packets, bytes := strconv.FormatUint(c.Packets, 10), strconv.FormatUint(c.Bytes, 10)
		if c.Reason != "" {
			others.add(c.Reason, packets, bytes)
			continue
		}
		rule := "default"
		if c.Rule > 0 {
			rule = strconv.Itoa(c.Rule)
		}
		rules.add(c.Tier, counterPolicy(c), c.Direction, rule, c.Action, packets, bytes)
	}
	if err := rules.plain(e.Out); err != nil || len(others.rows) == 0 {
		return err
	}
	fmt.Fprintln(e.Out)
	return others.plain(e.Out)
}

// counterPolicy names the policy that a counter is of.
func counterPolicy(c localapi.Counter) string {
	name := c.Name
	if c.Namespace != "" {
		name = c.Namespace + "/" + name
	}
	return strings.TrimSpace(c.Kind + " " + name)
}
