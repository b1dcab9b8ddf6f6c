package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cairn.network/cairn/lab/bench"
)

// bench is the command that measures.
func (s *settings) bench() *cobra.Command {
	o := bench.Options{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Bring a lab up, measure it, print a table beside yardsticks, take it down",
		Long: `Bring a lab of four nodes up, measure it, and print the medians beside what was
measured in the same run for comparison: the reference CNI plug-ins, two BIRDs, routes
written by hand. Then take the lab down.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			bin, err := s.binaries()
			if err != nil {
				return err
			}
			for _, name := range o.Only {
				if !slices.Contains(bench.Parts(), name) {
					return fmt.Errorf("--only: there is no %q; there are %s", name, strings.Join(bench.Parts(), ", "))
				}
			}
			o.Root, o.Bin, o.Progress = s.root, bin, progress(cmd.ErrOrStderr())
			if _, err := os.Stat(filepath.Join(o.Peers, "ptp")); o.Peers != "" && err != nil {
				return err
			}
			rows, err := bench.Run(cmd.Context(), o)
			return errors.Join(bench.Write(cmd.OutOrStdout(), rows), err)
		},
	}
	cmd.Flags().StringVar(&o.Peers, "peers", "", "folder with the CNI plug-ins ptp and host-local, for comparison")
	cmd.Flags().StringSliceVar(&o.Only, "only", nil, "measure only these: "+strings.Join(bench.Parts(), ", "))
	cmd.Flags().IntVar(&o.Rounds, "rounds", 20, "samples of each figure")
	return cmd
}
