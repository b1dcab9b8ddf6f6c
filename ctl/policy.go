package ctl

import "github.com/spf13/cobra"

func (e *env) policy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Explain policies: who may talk to whom, and why",
		Long: `Explain policies: what becomes of packets, which policy and rule decide, and what
a change would do.

These commands compute it from resources, in the datastore or in files, and send no
packet; only counters are what this node's kernel has counted. What an agent has in its
kernel already is what 'endpoint show' tells.`,
	}
	cmd.AddCommand(e.policyExplain(), e.policyMatrix(), e.policySimulate(), e.policyCounters())
	return cmd
}
