package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn.network/cairn/agent"
	"cairn.network/cairn/bgp/gobgp"
	"cairn.network/cairn/config"
	"cairn.network/cairn/kernel/linux"
	"cairn.network/cairn/version"
)

// agentFlags are the agent's settings as given; parse makes them valid ones.
type agentFlags struct {
	node, ipv4, ipv6  string
	runDir, stateDir  string
	health            string
	logLevel, logForm string
	reserve, mtu      int
	coolDown, resync  time.Duration
	cleanup           bool
	store             config.Datastore
}

func agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the node's agent: routes, BGP, addresses for pods",
		Long: `Run the node's agent. It watches the datastore, programs routes and tunnels,
speaks BGP and answers the CNI plug-in. Stopping it leaves routes, tunnels and
pods as they are.`,
		Example: `  cairn agent --node-name n1 --ipv4-address 192.0.2.11/24 --etcd-endpoints https://192.0.2.1:2379
  cairn agent --cleanup        # remove Cairn's routes from this node`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	host, _ := os.Hostname() // empty: --node-name is asked for
	fs := cmd.Flags()
	fs.StringVar(&f.node, "node-name", strings.ToLower(host), "name of this node's Node resource")
	fs.StringVar(&f.ipv4, "ipv4-address", "", "this node's IPv4 address with its subnet's prefix length; empty: as the Node has it")
	fs.StringVar(&f.ipv6, "ipv6-address", "", "the same for IPv6")
	fs.StringVar(&f.runDir, "run-dir", "/run/cairn", "folder of the sockets agent.sock and cni.sock")
	fs.StringVar(&f.stateDir, "state-dir", "/var/lib/cairn", "folder of what must outlive a restart: the journal of addresses, spooled DELs")
	fs.StringVar(&f.health, "health-address", "127.0.0.1:9099", "TCP address for /livez, /readyz and /metrics; empty: none")
	fs.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&f.logForm, "log-format", "text", "text or json")
	fs.IntVar(&f.reserve, "ipam-reserve", 16, "free addresses of each family to hold for new pods")
	fs.DurationVar(&f.coolDown, "ipam-cool-down", 30*time.Second, "how long a freed address rests before it is used again")
	fs.IntVar(&f.mtu, "mtu", 0, "MTU of pods, in bytes; 0: that of the node's links less what tunnels add")
	fs.DurationVar(&f.resync, "resync", time.Minute, "time between full reads of the kernel")
	fs.BoolVar(&f.cleanup, "cleanup", false, "remove Cairn's routes, tunnel devices and rules from this node and exit")
	config.CallOnly(fs, "cleanup")
	f.store.AddFlags(fs)
	return cmd
}

func (f *agentFlags) run(ctx context.Context) error {
	if f.cleanup {
		n, err := agent.Cleanup(ctx, hostTables())
		fmt.Println("removed " + n.String())
		return err
	}
	cfg, err := f.parse()
	if err != nil {
		return &config.UsageError{Err: err}
	}
	if err := linux.CheckCapabilities(); err != nil {
		return err
	}
	store, err := openStore(f.store)
	if err != nil {
		return err
	}
	a, err := agent.New(cfg, agent.Drivers{
		Store: store, Kernel: hostTables(), Host: linux.NewWatcher(),
		Conntrack: linux.NewConntrack(), Pods: linux.NewAttacher(), Speaker: gobgp.New(cfg.Log),
		Packets: agent.Packets{
			Log: linux.NewPacketLog(), Counters: linux.NewCounters(), Tracer: linux.NewTracer(), Lookup: linux.NewLookup(), Prober: linux.NewProber(),
		},
	})
	if err != nil {
		return err
	}
	cfg.Log.Info("agent starts", "version", version.Current().Version, "node", cfg.Node)
	return a.Run(ctx)
}

// hostTables returns the tables of this host's kernel.
func hostTables() agent.Kernel {
	sets, elements, chains := linux.NewRules()
	return agent.Kernel{
		Sets: sets, Elements: elements, Chains: chains,
		Tunnels: linux.NewTunnels(), Sysctls: linux.NewSysctls(), Addrs: linux.NewAddrs(), Neighbours: linux.NewNeighbours(),
		Forwarding: linux.NewForwarding(), Encryption: linux.NewEncryption(), Routes: linux.NewRoutes(),
	}
}

// parse checks every setting and says of the first bad one what is wrong.
func (f *agentFlags) parse() (agent.Config, error) {
	cfg := agent.Config{
		Node: f.node, Version: version.Current().Version, Health: f.health, Reserve: f.reserve, CoolDown: f.coolDown, Resync: f.resync, MTU: f.mtu,
		Journal:   filepath.Join(f.stateDir, "addresses.journal"),
		Spool:     filepath.Join(f.stateDir, "cni", "spool"),
		CNISocket: filepath.Join(f.runDir, "cni.sock"), APISocket: filepath.Join(f.runDir, "agent.sock"),
	}
	var err error
	if cfg.IPv4, err = parseAddress("ipv4-address", f.ipv4, true); err != nil {
		return cfg, err
	}
	if cfg.IPv6, err = parseAddress("ipv6-address", f.ipv6, false); err != nil {
		return cfg, err
	}
	if cfg.Log, err = f.logger(); err != nil {
		return cfg, err
	}
	switch {
	case f.node == "":
		return cfg, fmt.Errorf("--node-name: must be given")
	case f.reserve < 1 || f.reserve > 1024:
		return cfg, fmt.Errorf("--ipam-reserve: %d is not in 1…1024", f.reserve)
	case f.coolDown < time.Second:
		return cfg, fmt.Errorf("--ipam-cool-down: %s is less than 1s", f.coolDown)
	case f.resync < time.Second:
		return cfg, fmt.Errorf("--resync: %s is less than 1s", f.resync)
	case f.mtu != 0 && (f.mtu < 1280 || f.mtu > 65535):
		return cfg, fmt.Errorf("--mtu: %d is neither 0 nor in 1280…65535", f.mtu)
	}
	return cfg, f.store.Validate()
}

func parseAddress(flag, text string, want4 bool) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("--%s: %q is not an address with a prefix length, such as 192.0.2.11/24", flag, text)
	case p.Addr().Is4() != want4:
		return p, fmt.Errorf("--%s: %s is of the other family", flag, text)
	case !p.Addr().IsGlobalUnicast():
		return p, fmt.Errorf("--%s: %s is no unicast address that others can reach", flag, text)
	}
	return p, nil
}

func (f *agentFlags) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", f.logLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.logForm {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	return nil, fmt.Errorf("--log-format: %q is neither text nor json", f.logForm)
}
