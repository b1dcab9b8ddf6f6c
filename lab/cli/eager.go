package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/probe"
)

func (s *settings) podEager() *cobra.Command {
	var namespace, expect, output string
	cmd := &cobra.Command{
		Use:   "eager NAME",
		Short: "End what a pod tried from before it had an address, and show what became of it",
		Long: `End the process that a pod was given by pod add --eager, and show what became of its tries:
how many there were of each sort, and when the first and the last of these began, as time
since the plug-in's ADD returned (so that most are before it).

With --expect it fails unless, for each destination: none, nothing came back and something
was sent; unrefused, some were answered and none was refused; pass, all that were sent were
answered. What could not be sent before there was an address does not count.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			p, err := l.Pod(namespace, args[0])
			if err != nil {
				return err
			}
			all, err := l.Eager(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			if err := print(cmd.OutOrStdout(), output, eagerTable{p.Attached, all}); err != nil || expect == "" {
				return err
			}
			for _, e := range all {
				if err := e.Meets(probe.Expectation(expect)); err != nil {
					return fmt.Errorf("pod %s, %s: %w", p, e.To, err)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&namespace, "namespace", "default", "the pod's namespace")
	cmd.Flags().StringVar(&expect, "expect", "", "fail unless this is so: none, unrefused or pass")
	outputFlag(cmd, &output)
	return cmd
}

// eagerTable is what an eager client found, as it is shown.
type eagerTable struct {
	Attached time.Time   `json:"attached"` // when ADD returned
	Tried    []lab.Eager `json:"tried"`
}

// Write prints each destination and, below it, what became of the tries.
func (t eagerTable) Write(w io.Writer) error {
	since := func(at time.Time) string { return at.Sub(t.Attached).Round(time.Microsecond).String() }
	for _, e := range t.Tried {
		fmt.Fprintf(w, "%s: %s\n", e.To, e.Tally)
		for _, of := range []struct {
			what  string
			count probe.Count
		}{{"answered", e.Answered}, {"refused", e.Refused}, {"without an answer", e.Silent}, {"not sent", e.Unsent}, {"before anything could be sent", e.Early}} {
			if of.count.Number == 0 {
				continue
			}
			if _, err := fmt.Fprintf(w, "  %s: %d, the first %s after ADD, the last %s\n", of.what, of.count.Number, since(of.count.First), since(of.count.Last)); err != nil {
				return err
			}
		}
	}
	return nil
}
