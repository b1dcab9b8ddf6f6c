package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/topology"
)

func (s *settings) exec() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec HOST|NAMESPACE/POD -- COMMAND [ARGUMENTS]",
		Short: "Run a command on a node or router, or in a pod",
		Long: `Run a command in the network namespace of a node, a router, etcd's host, the fabric (the
bridges between them), or a pod. Terminal, signals and exit code are the command's own.`,
		Example: `  cairn-lab exec n1 -- bash
  cairn-lab exec tor -- tcpdump -ni any
  cairn-lab exec default/n1-a -- ping 10.244.0.1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 || args[1] == "--" && len(args) < 3 {
				return errors.New("exec: name a host or pod, and a command after --")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			argv := args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			return l.Exec(args[0], argv...)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the host is the command's
	return cmd
}

func (s *settings) ctl() *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "ctl [--node NODE] ARGUMENTS",
		Short: "Run cairn ctl in the lab",
		Long: `Run cairn ctl against the lab's datastore. With --node it runs on that node and reaches
its agent too, which node status and route need.`,
		Example: `  cairn-lab ctl get ippools
  cairn-lab ctl node status --all
  cairn-lab ctl --node n1 route`,
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			where := node
			if node == "" {
				where = topology.Etcd
			} else if _, ok := l.Topology.Node(node); !ok {
				return fmt.Errorf("ctl: node %s: %w", node, lab.ErrUnknown)
			}
			return l.Exec(where, append([]string{"cairn", "ctl"}, args...)...)
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "run on this node")
	cmd.Flags().SetInterspersed(false) // what follows is for cairn ctl
	return cmd
}

func (s *settings) logs() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs HOST",
		Short: "Show the log of a node's agent, a router's speaker or etcd",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			path, err := l.Log(args[0])
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return copyLog(ctx, cmd.OutOrStdout(), path, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is logged from now on")
	return cmd
}

func copyLog(ctx context.Context, w io.Writer, path string, follow bool) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("logs: the host's daemon was never started")
	}
	if err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	defer f.Close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(w, f); err != nil {
			return fmt.Errorf("logs: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *settings) agent() *cobra.Command {
	cmd := &cobra.Command{Use: "agent", Short: "Stop, kill or start the agent of a node", RunE: help}
	node := func(l *lab.Lab, args []string) (string, error) {
		if _, ok := l.Topology.Node(args[0]); !ok {
			return "", fmt.Errorf("node %s: %w", args[0], lab.ErrUnknown)
		}
		return args[0], nil
	}
	ready := func(ctx context.Context, l *lab.Lab, node string) error { return l.WaitAgents(ctx, node) }
	s.addDaemon(cmd, "NODE", cobra.ExactArgs(1), "agent", node, ready)
	return cmd
}

// node has what is done to a node itself.
func (s *settings) node() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Change a node", RunE: help}
	cmd.AddCommand(&cobra.Command{
		Use:   "address NODE ADDRESS...",
		Short: "Give a node other addresses, in the subnets of its rack",
		Long: `Give a node other addresses, in the subnets of its rack. A family of which none is given
keeps its own. The node's agent is told of them when it is started next.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			var to []netip.Addr
			for _, text := range args[1:] {
				a, err := netip.ParseAddr(text)
				if err != nil {
					return fmt.Errorf("node address: %w", err)
				}
				to = append(to, a)
			}
			return l.Readdress(cmd.Context(), args[0], to...)
		},
	})
	return cmd
}

func (s *settings) router() *cobra.Command {
	cmd := &cobra.Command{Use: "router", Short: "Stop, kill or start the BGP speaker of a router", RunE: help}
	host := func(l *lab.Lab, args []string) (string, error) {
		r, ok := l.Topology.Router(args[0])
		if !ok {
			return "", fmt.Errorf("router %s: %w", args[0], lab.ErrUnknown)
		}
		if r.Speaker == topology.SpeakerNone {
			return "", fmt.Errorf("router %s has no speaker", args[0])
		}
		return args[0], nil
	}
	ready := func(context.Context, *lab.Lab, string) error { return nil } // the nodes will tell
	s.addDaemon(cmd, "ROUTER", cobra.ExactArgs(1), "speaker", host, ready)
	return cmd
}

func (s *settings) etcd() *cobra.Command {
	cmd := &cobra.Command{Use: "etcd", Short: "Stop, kill or start the datastore, or write to it past all checks", RunE: help}
	host := func(*lab.Lab, []string) (string, error) { return topology.Etcd, nil }
	ready := func(ctx context.Context, l *lab.Lab, _ string) error { return l.WaitEtcd(ctx) }
	s.addDaemon(cmd, "", cobra.NoArgs, "datastore", host, ready)
	cmd.AddCommand(&cobra.Command{
		Use:   "write FILE",
		Short: "Write resources into the datastore as they are, which nobody checks",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
			return l.Write(cmd.Context(), text)
		},
	})
	return cmd
}

func help(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0])
	}
	return cmd.Help()
}

// addDaemon adds what can be done to a daemon: stop, kill and start.
func (s *settings) addDaemon(parent *cobra.Command, use string, args cobra.PositionalArgs, what string,
	host func(*lab.Lab, []string) (string, error), ready func(context.Context, *lab.Lab, string) error) {
	add := func(verb, short string, do func(ctx context.Context, l *lab.Lab, host string) error) *cobra.Command {
		cmd := &cobra.Command{
			Use: verb + " " + use, Short: short, Args: args,
			RunE: func(cmd *cobra.Command, args []string) error {
				l, err := s.open()
				if err != nil {
					return err
				}
				h, err := host(l, args)
				if err != nil {
					return err
				}
				return do(cmd.Context(), l, h)
			},
		}
		parent.AddCommand(cmd)
		return cmd
	}
	add("stop", "Ask the "+what+" to end (SIGTERM), and wait until it has", func(ctx context.Context, l *lab.Lab, h string) error { return l.Stop(ctx, h) })
	add("kill", "End the "+what+" at once (SIGKILL)", func(ctx context.Context, l *lab.Lab, h string) error { return l.Kill(ctx, h) })
	var wait time.Duration
	start := add("start", "Start the "+what+", and wait until it is ready", func(ctx context.Context, l *lab.Lab, h string) error {
		if err := l.Start(ctx, h); err != nil || wait == 0 {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("not ready after %s", wait))
		defer cancel()
		return ready(ctx, l, h)
	})
	start.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait until it is ready; 0: not at all")
}
