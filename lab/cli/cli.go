// Package cli is the command line of cairn-lab.
//
// It guarantees that each command does one thing of package lab, says what it
// does while it takes time, and exits with the code of the program that it ran,
// if it ran one. A probe's says whether it was answered.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"cairn.network/cairn/lab"
)

// settings are what every command has.
type settings struct {
	root string // folder of all labs
	name string // empty: the only lab
	bin  string // folder of the programs
}

const example = `  cairn-lab up                                      # the demo's cluster
  cairn-lab up --topology vxlan                     # another; topologies lists them, -f FILE takes yours
  cairn-lab pod add web --node n1 --labels app=web
  cairn-lab check                                   # every pod and node to every pod
  cairn-lab ctl get nodes
  cairn-lab exec n1 -- ip route show proto 202
  cairn-lab exec default/web -- ip addr
  cairn-lab down`

// Run runs the command line and returns the exit code.
func Run(ctx context.Context, args []string, out, errs io.Writer) int {
	cmd := New()
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errs)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ran, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(ran.ExitCode(), 1)
	}
	if code, ok := errors.AsType[exit](err); ok {
		return int(code)
	}
	fmt.Fprintf(errs, "Error: %v\n", err)
	if _, ok := errors.AsType[misuse](err); ok {
		return 2
	}
	return 1
}

// New returns the tree of commands.
func New() *cobra.Command {
	s := &settings{}
	cmd := &cobra.Command{
		Use:   "cairn-lab",
		Short: "A cluster of nodes in network namespaces on this machine",
		Long: `cairn-lab runs whole Cairn clusters on this machine: each node, router and pod is a
network namespace, each agent, speaker and datastore a real process in one. Nothing
is made outside these namespaces, and down removes all of it. It needs root.`,
		Example:       example,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&s.root, "root", cmp.Or(os.Getenv("CAIRN_LAB_ROOT"), lab.DefaultRoot), "folder that holds a folder for each lab; also $CAIRN_LAB_ROOT")
	flags.StringVarP(&s.name, "name", "n", os.Getenv("CAIRN_LAB_NAME"), "the lab's name; also $CAIRN_LAB_NAME (if not given: the only lab; for up: as the topology says)")
	flags.StringVar(&s.bin, "bin", "", "folder of cairn and cairn-cni (default: that of cairn-lab)")
	cmd.AddCommand(
		s.up(), s.down(), s.status(), s.demo(), topologies(),
		s.exec(), s.ctl(), s.logs(), s.check(), s.pod(), probeCommand(),
		s.agent(), s.node(), s.router(), s.etcd(), s.scenario(), s.bench(),
		etcdServer(), routerServer(), podServer(), eagerClient(),
	)
	return cmd
}

// open returns the lab that the flags name.
func (s *settings) open() (*lab.Lab, error) {
	l, err := lab.Open(s.root, s.name)
	if errors.Is(err, lab.ErrNotUp) {
		return nil, fmt.Errorf("%w; cairn-lab up brings it up", err)
	}
	return l, err
}

// binaries returns the folder of the programs.
func (s *settings) binaries() (string, error) {
	if s.bin != "" {
		return filepath.Abs(s.bin)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the folder of the programs: %w", err)
	}
	return filepath.Dir(self), nil
}

// progress returns what prints each step with the time since the start.
func progress(w io.Writer) func(string) {
	start := time.Now()
	return func(step string) {
		fmt.Fprintf(w, "%5.1fs  %s\n", time.Since(start).Seconds(), step)
	}
}
