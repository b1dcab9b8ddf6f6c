package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"cairn.network/cairn/version"
)

// Version returns the command that says which build this program is.
func Version() *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Say which build of Cairn this is",
		Example: "  cairn version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.machine() {
				return f.write(cmd.OutOrStdout(), version.Current())
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "cairn", version.Current())
			return err
		},
	}
	addFormat(cmd, &f)
	return cmd
}

// versions is what runs where.
type versions struct {
	Client    version.Build `json:"client"`
	Agent     string        `json:"agent,omitempty"`
	AgentErr  string        `json:"agentError,omitempty"`
	Datastore datastoreSeen `json:"datastore"`
}

type datastoreSeen struct {
	Type      string `json:"type"`
	Reachable bool   `json:"reachable"`
	Error     string `json:"error,omitempty"`
}

func (e *env) version() *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program and of this node's agent, and try the datastore",
		Long: `Show the versions of this program and of this node's agent, and whether the
datastore answers. Where one of them can't be had it says why; that is no failure.`,
		Example: `  cairn ctl version
  cairn ctl version -o yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.showVersions(cmd, f) },
	}
	addFormat(cmd, &f)
	return cmd
}

func (e *env) showVersions(cmd *cobra.Command, f format) error {
	v := versions{Client: version.Current(), Datastore: datastoreSeen{Type: e.store.Type}}
	ctx, cancel := e.agentContext(cmd)
	defer cancel()
	if s, err := e.agent().Status(ctx); err != nil {
		v.AgentErr = err.Error()
	} else {
		v.Agent = s.Status.Agent.Version
	}
	store, err := e.open()
	if err == nil {
		_, err = store.List(cmd.Context(), "BGPConfiguration")
	}
	if v.Datastore.Reachable = err == nil; err != nil {
		v.Datastore.Error = err.Error()
	}
	if f.machine() {
		return f.write(e.Out, v)
	}
	agent, answer := v.Agent, v.Datastore.Type+" answers"
	if v.AgentErr != "" {
		agent = v.AgentErr
	}
	if err != nil {
		answer = v.Datastore.Error
	}
	_, err = fmt.Fprintf(e.Out, "Client:     %s\nAgent:      %s\nDatastore:  %s\n", v.Client, agent, answer)
	return err
}
