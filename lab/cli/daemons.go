package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

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
	return &cobra.Command{
		Use: use, Short: short, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			return run(ctx)
		},
	}
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
	return daemon(lab.CommandPodServer, "Answer by TCP and UDP with the client's address", probe.Serve)
}
