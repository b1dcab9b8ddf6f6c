package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/topology"
)

// upFlags say what to bring up.
type upFlags struct {
	file     string
	named    string
	timeout  time.Duration
	noAgents bool
}

func (f *upFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "topology file; - for standard input")
	cmd.Flags().StringVarP(&f.named, "topology", "t", topology.Plain, "a topology that comes with the lab: "+strings.Join(topology.Names(), ", "))
	cmd.MarkFlagsMutuallyExclusive("file", "topology")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "give up after this time")
}

func (s *settings) up() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring a lab up",
		Long: `Bring a lab up: the topology's nodes, routers and subnets as network namespaces, etcd,
the routers' BGP speakers and the nodes' agents. It returns when every agent is ready
and every BGP session, if there is any, Established. If it fails, what there is stays
for a look. cairn-lab topologies shows those that --topology takes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := s.bringUp(cmd, f, progress(cmd.OutOrStdout()))
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.noAgents, "no-agents", false, "leave the agents to be started by agent start")
	return cmd
}

// bringUp brings up the lab that the flags describe.
func (s *settings) bringUp(cmd *cobra.Command, f upFlags, progress func(string)) (*lab.Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("up: it takes root to make network namespaces")
	}
	t, err := f.topology(cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	if s.name != "" {
		t.Name = s.name
	}
	bin, err := s.binaries()
	if err != nil {
		return nil, err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("took longer than %s", f.timeout))
	defer cancel()
	l, err := lab.Up(ctx, t, lab.Options{Root: s.root, Bin: bin, Progress: progress, NoAgents: f.noAgents})
	switch {
	case errors.Is(err, lab.ErrUp):
		return nil, fmt.Errorf("%w; cairn-lab down --name %s removes it", err, t.Name)
	case err != nil && l != nil:
		return nil, fmt.Errorf("%w\nwhat is there stays: cairn-lab logs NODE shows more, cairn-lab down --name %s removes it", err, t.Name)
	case err != nil:
		return nil, err
	}
	progress(fmt.Sprintf("lab %s is up", t.Name))
	return l, nil
}

func (f *upFlags) topology(in io.Reader) (*topology.Topology, error) {
	var b []byte
	var err error
	switch f.file {
	case "":
		b, err = topology.Named(f.named)
		if err != nil {
			return nil, err
		}
	case "-":
		b, err = io.ReadAll(in)
	default:
		b, err = os.ReadFile(f.file)
	}
	if err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	return topology.Parse(b)
}

func (s *settings) down() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove a lab: its processes, namespaces and files",
		Long: `Remove a lab: its processes, namespaces and files, whatever state they are in. It is no
error if there is nothing to remove.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{s.name}
			if s.name == "" {
				var err error
				if names, err = lab.Names(s.root); err != nil {
					return err
				}
				if len(names) > 1 && !all {
					return fmt.Errorf("there are several labs (%v): --name one, or --all", names)
				}
			}
			if len(names) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "there is no lab")
			}
			for _, name := range names {
				if err := lab.Down(cmd.Context(), s.root, name); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "lab %s is down\n", name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove every lab")
	return cmd
}

func (s *settings) status() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the hosts, their daemons and the pods",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			st, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			return print(cmd.OutOrStdout(), output, st)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// check has a flag of its own for how long to try, so that it can follow a
// change at once.
func (s *settings) check() *cobra.Command {
	var output string
	var timeout time.Duration
	var encap bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Ask every pod from every pod and node, and every node from every pod",
		Long: `Ask every pod from every pod and node, and every node from every pod, by ping, TCP and
UDP, by IPv4 and IPv6, until each has answered, and see that the server saw the client's
own address (its node's, where the pool's natOutgoing says so). Prints the matrix; fails
if one question stays without a good answer.

With --expect-encap it also captures, in the fabric and on the routers, what passes
between pods on different nodes, and prints how packets travel: plain, in IPIP, VXLAN or
WireGuard. It fails if that is not what the pools, the AgentConfigurations and the nodes'
addresses ask for, or if anything was seen to travel otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			if !encap {
				return check(cmd, l, timeout, output)
			}
			return errors.Join(check(cmd, l, timeout, output), checkEncap(cmd, l, timeout, output))
		},
	}
	outputFlag(cmd, &output)
	cmd.Flags().BoolVar(&encap, "expect-encap", false, "also see on the wire that packets travel as the pools say")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to ask again those that do not answer")
	return cmd
}

func check(cmd *cobra.Command, l *lab.Lab, timeout time.Duration, output string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	m, err := l.Check(ctx)
	if err != nil {
		return err
	}
	if err := print(cmd.OutOrStdout(), output, m); err != nil {
		return err
	}
	if failed := m.Failed(); len(failed) > 0 {
		return fmt.Errorf("check: %d of %d questions had no good answer", len(failed), len(m.Results))
	}
	return nil
}

func checkEncap(cmd *cobra.Command, l *lab.Lab, timeout time.Duration, output string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	r, err := l.CheckEncap(ctx)
	if err != nil {
		return err
	}
	if output != "json" {
		fmt.Fprintln(cmd.OutOrStdout())
	}
	if err := print(cmd.OutOrStdout(), output, r); err != nil {
		return err
	}
	if failed := r.Failed(); len(failed) > 0 {
		return fmt.Errorf("check: %d of %d ways of packets are not as they should be", len(failed), len(r.Rows))
	}
	return nil
}

// podsPerNode is how many pods the demo gives each node.
const podsPerNode = 2

func (s *settings) demo() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Bring a lab up with two pods on each node, prove that it works, say what to try next",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			progress := progress(out)
			l, err := s.bringUp(cmd, f, progress)
			if err != nil {
				return err
			}
			progress(fmt.Sprintf("adding %d pods to each node", podsPerNode))
			if err := addPods(cmd.Context(), l); err != nil {
				return err
			}
			progress("asking every pod from every pod and node")
			fmt.Fprintln(out)
			if err := check(cmd, l, 30*time.Second, ""); err != nil {
				return err
			}
			if len(l.Topology.Nodes) > 1 {
				progress("watching on the wire how packets travel")
				if err := checkEncap(cmd, l, 30*time.Second, ""); err != nil {
					return err
				}
			}
			fmt.Fprintf(out, "\nThe BGP sessions, as every agent reports them (cairn ctl node status --all):\n\n")
			if err := waitReported(cmd.Context(), l); err != nil {
				return err
			}
			status, err := l.Ctl(cmd.Context(), "", "node", "status", "--all")
			if err != nil {
				return err
			}
			status.Stdout, status.Stderr = out, cmd.ErrOrStderr()
			if err := status.Run(); err != nil {
				return err
			}
			fmt.Fprintln(out)
			progress("done; the lab keeps running")
			return next(out, l)
		},
	}
	f.add(cmd)
	return cmd
}

// waitReported bounds the wait for what the agents write to the datastore.
func waitReported(ctx context.Context, l *lab.Lab) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("took longer than 30s"))
	defer cancel()
	return l.WaitReported(ctx)
}

// addPods gives each node its pods: n1-a, n1-b and so on.
func addPods(ctx context.Context, l *lab.Lab) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range l.Topology.Nodes {
		for i := range podsPerNode {
			group.Go(func() error {
				name := fmt.Sprintf("%s-%c", n.Name, 'a'+i)
				_, err := l.AddPod(ctx, lab.Pod{Namespace: "default", Name: name, Node: n.Name, Labels: map[string]string{"app": "demo"}})
				return err
			})
		}
	}
	return group.Wait()
}

// next says what to try next, with names and addresses that are there.
func next(w io.Writer, l *lab.Lab) error {
	pods, err := l.Pods()
	if err != nil {
		return err
	}
	self := self() + " -n " + l.Name() // there may be other labs
	router, node := l.Topology.Routers[0].Name, l.Topology.Nodes[0].Name
	first, last := pods[0], pods[len(pods)-1]
	_, err = fmt.Fprintf(w, `
Try next:
  the routes in a node's kernel, by Cairn's protocol number
    %[1]s exec %[2]s -- ip route show proto 202
  a ping between racks as the router sees it: by the pods' own addresses, plain or in a tunnel, never translated
    %[1]s exec %[3]s -- ping -q -c 10 -i 0.2 %[4]s & %[1]s exec %[5]s -- timeout 2 tcpdump -ni any "icmp or proto 4 or udp port 4789 or 51820"
  why each route is there, or is not
    %[1]s ctl --node %[2]s route

%[1]s --help shows more; %[1]s down removes it all.
`, self, node, first, last.Addrs[0], router)
	return err
}

// self returns how to call this program from here.
func self() string {
	wd, err := os.Getwd()
	if err != nil {
		return os.Args[0]
	}
	if short, err := filepath.Rel(wd, os.Args[0]); err == nil && filepath.IsAbs(os.Args[0]) && !strings.HasPrefix(short, "..") {
		return short
	}
	return os.Args[0]
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "table or json")
}

// print prints a value as JSON, or as its tables.
func print(w io.Writer, output string, v interface{ Write(io.Writer) error }) error {
	switch output {
	case "", "table":
		return v.Write(w)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	return fmt.Errorf("--output %q: want table or json", output)
}
