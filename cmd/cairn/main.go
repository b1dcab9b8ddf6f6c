// Command cairn is Cairn's one program: the node's agent and the command line.
//
// Exit codes: 0 done, 1 it failed, 2 it was called or configured wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"cairn.network/cairn/config"
	"cairn.network/cairn/ctl"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/etcd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "cairn: %v\n", err)
	if _, usage := errors.AsType[*config.UsageError](err); usage {
		os.Exit(2)
	}
	os.Exit(1)
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "cairn",
		Short:         "A routed network for Kubernetes",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.AddCommand(agentCommand(), ctl.New(ctl.Options{Open: openStore}), ctl.Version())
	config.Bind(cmd, config.Sources{Environ: os.Environ(), File: config.DefaultFile})
	return cmd
}

// openStore picks the datastore's driver.
func openStore(c config.Datastore) (datastore.Store, error) {
	e := c.Etcd
	return etcd.Open(etcd.Config{
		Endpoints: e.Endpoints, CAFile: e.CAFile, CertFile: e.CertFile, KeyFile: e.KeyFile,
		Username: e.Username, Password: e.Password, PasswordFile: e.PasswordFile,
		Prefix: e.Prefix, DialTimeout: e.DialTimeout,
	})
}
