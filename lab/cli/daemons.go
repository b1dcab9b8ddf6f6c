package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/bgp/gobgp"
	"cairn.network/cairn/datastore/etcd/etcdserver"
	"cairn.network/cairn/kernel/linux"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/probe"
	"cairn.network/cairn/lab/router"
)

// daemon returns a hidden command that runs until it is told to end.
func daemon(use, short string, run func(context.Context) error) *cobra.Command {
	return untilTold(&cobra.Command{
		Use: use, Short: short, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context()) },
	})
}

// untilTold has a command's context end when the process is told to.
func untilTold(cmd *cobra.Command) *cobra.Command {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
		defer stop()
		cmd.SetContext(ctx)
		return run(cmd, args)
	}
	return cmd
}

func etcdServer() *cobra.Command {
	// A lab ends with its machine, so it need not wait for the disk.
	c := etcdserver.Config{Volatile: true, Log: os.Stderr}
	cmd := daemon(lab.CommandEtcd, "Run etcd", func(ctx context.Context) error {
		server, err := etcdserver.Start(ctx, c)
		if err != nil {
			return err
		}
		defer server.Stop()
		select {
		case <-ctx.Done():
			return nil
		case err := <-server.Err():
			return fmt.Errorf("run etcd: %w", err)
		}
	})
	cmd.Flags().StringVar(&c.Dir, "data-dir", "", "folder of the data")
	cmd.Flags().StringVar(&c.ClientURL, "listen", "", "URL to serve clients at")
	cmd.Flags().StringVar(&c.CertFile, "cert-file", "", "the server's certificate, for https")
	cmd.Flags().StringVar(&c.KeyFile, "key-file", "", "the certificate's key")
	cmd.Flags().StringVar(&c.CAFile, "client-ca-file", "", "authority of the clients' certificates")
	return cmd
}

func routerServer() *cobra.Command {
	var path string
	cmd := daemon(lab.CommandRouter, "Run a router's BGP speaker", func(ctx context.Context) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read router configuration: %w", err)
		}
		c, err := router.Parse(b)
		if err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		return router.Run(ctx, c, router.Drivers{Speaker: gobgp.New(log), Routes: linux.NewRoutes(), Host: linux.NewWatcher()}, log)
	})
	cmd.Flags().StringVar(&path, "config", "", "file of the configuration")
	return cmd
}

func podServer() *cobra.Command {
	var ports string
	cmd := daemon(lab.CommandPodServer, "Answer by TCP, UDP, SCTP and ICMP with the client's address", func(ctx context.Context) error {
		services, err := probe.ParseServices(ports)
		if err != nil {
			return fmt.Errorf("ports: %w", err)
		}
		return probe.Serve(ctx, append(services, probe.Service{Protocol: probe.ICMP})...)
	})
	cmd.Flags().StringVar(&ports, "ports", strconv.Itoa(probe.Port), "ports to answer on, as 8080,53/udp; without a protocol by TCP, UDP and SCTP")
	return cmd
}

func eagerClient() *cobra.Command {
	var results string
	cmd := &cobra.Command{
		Use: lab.CommandEagerClient + " PROTOCOL:ADDRESS:PORT...", Short: "Try to reach these from before there is an address",
		Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return lab.RunEager(cmd.Context(), results, args...)
		},
	}
	cmd.Flags().StringVar(&results, "results", "", "file to write what became of it to")
	return untilTold(cmd)
}
