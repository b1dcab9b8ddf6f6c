package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/topology"
)

// Ctl returns the command cairn ctl with these arguments, to be run with Run: on
// a node, or, with an empty name, on the datastore's host.
func (l *Lab) Ctl(ctx context.Context, node string, args ...string) (*Command, error) {
	if node == "" {
		node = topology.Etcd
	}
	return l.Command(ctx, node, append([]string{l.program("cairn"), "ctl"}, args...)...)
}

// Command is a program to be run in a namespace of the lab.
type Command struct {
	*exec.Cmd
	netns string
}

// Command returns a command to be run on a host, or in a pod given as
// namespace/name.
func (l *Lab) Command(ctx context.Context, where string, argv ...string) (*Command, error) {
	path, err := l.Where(where)
	if err != nil {
		return nil, err
	}
	program, err := l.lookup(argv[0])
	if err != nil {
		return nil, fmt.Errorf("run in %s: %w", where, err)
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Env = append(l.environ(where), l.Mark())
	// One that runs for long must not outlive us: Down would have to kill it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return &Command{Cmd: cmd, netns: path}, nil
}

// Run runs the command and waits for its end.
func (c *Command) Run() error { return netns.Do(c.netns, c.Cmd.Run) }

func (l *Lab) output(c *Command) ([]byte, error) {
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return []byte(out.String()), err
}
