package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"cairn.network/cairn/lab/topology"
)

// topologies is the command that shows what up --topology takes.
func topologies() *cobra.Command {
	return &cobra.Command{
		Use:   "topologies [NAME]",
		Short: "List the topologies that come with the lab, or print one's file",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				b, err := topology.Named(args[0])
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(b)
				return err
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "NAME\tWHAT")
			for _, name := range topology.Names() {
				b, err := topology.Named(name)
				if err != nil {
					return err
				}
				fmt.Fprintf(tw, "%s\t%s\n", name, topology.Summary(b))
			}
			return tw.Flush()
		},
	}
}
