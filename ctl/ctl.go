// Package ctl is the command line that people use: resources in the datastore,
// and what the agent of this node or of every node says of itself.
//
// It guarantees that nothing is written before everything given was found
// valid, that every refusal names the object, the field and the reason, and that
// each listing can be had as table, JSON and YAML. Which datastore it is, the
// exit code, and how settings are read are left to main.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
)

// Options is what the commands work with.
type Options struct {
	// Open returns the datastore that the settings name; they are valid. It does
	// not wait for it, so that an error is one of the settings.
	Open func(config.Datastore) (datastore.Store, error)
	// In, Out and Err are the standard streams unless given.
	In       io.Reader
	Out, Err io.Writer
	// Now is the clock; time.Now unless given.
	Now func() time.Time
}

// env is what every command needs.
type env struct {
	Options
	store  config.Datastore
	runDir string
}

// socketName is the agent's socket in its folder of sockets.
var socketName = filepath.Base(localapi.DefaultSocket)

// New returns the command line's tree. Settings are read by config.Bind.
func New(o Options) *cobra.Command {
	e := &env{Options: withStreams(o)}
	cmd := &cobra.Command{Use: "ctl", Short: "Read and change the cluster, see what nodes do", Long: `Read and change the cluster's resources, and see what its nodes do.

Resources (get, create, apply, replace, delete, ipam, policy, node status --all)
are in the datastore: these commands work from anywhere, trace among them. What
one node does (node status, route, endpoint, flows, policy counters) comes from the
agent of the node on which the command runs, through its socket.

Exit codes: 0 done, 1 it failed, 2 it was called or configured wrongly.`}
	flags := cmd.PersistentFlags()
	e.store.AddFlags(flags)
	flags.StringVar(&e.runDir, "run-dir", filepath.Dir(localapi.DefaultSocket), "folder of the agent's socket "+socketName)
	cmd.AddCommand(
		e.get(), e.create(), e.apply(), e.replace(), e.delete(),
		e.node(), e.route(), e.ipam(), e.endpoint(), e.policy(), e.flows(), e.trace(), e.version(),
	)
	cmd.SetIn(e.In)
	cmd.SetOut(e.Out)
	cmd.SetErr(e.Err)
	return cmd
}

func withStreams(o Options) Options {
	if o.In == nil {
		o.In = os.Stdin
	}
	if o.Out == nil {
		o.Out = os.Stdout
	}
	if o.Err == nil {
		o.Err = os.Stderr
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// misuse is a mistake in how the command was called.
func misuse(format string, args ...any) error {
	return &config.UsageError{Err: fmt.Errorf(format, args...)}
}

// open connects to the datastore.
func (e *env) open() (datastore.Store, error) {
	if err := e.store.Validate(); err != nil {
		return nil, err
	}
	s, err := e.Open(e.store)
	if err != nil {
		return nil, &config.UsageError{Err: err}
	}
	return s, nil
}

// list returns every object of a kind that can be read, and warns of others.
func (e *env) list(ctx context.Context, store datastore.Store, kind string) ([]v1.Object, error) {
	objects, err := store.List(ctx, kind)
	if errors.Is(err, datastore.ErrBroken) {
		fmt.Fprintf(e.Err, "warning: %v\n", err)
		return objects, nil
	}
	return objects, err
}

// listAs returns the objects of a kind as their type.
func listAs[T v1.Object](ctx context.Context, e *env, store datastore.Store, kind string) ([]T, error) {
	objects, err := e.list(ctx, store, kind)
	if err != nil {
		return nil, err
	}
	all := make([]T, 0, len(objects))
	for _, o := range objects {
		if t, ok := o.(T); ok {
			all = append(all, t)
		}
	}
	return all, nil
}

// agent returns the client of this node's agent.
func (e *env) agent() *localapi.Client {
	return localapi.NewClient(filepath.Join(e.runDir, socketName))
}

// agentPatience bounds how long the agent may take to answer.
const agentPatience = 5 * time.Second

func (e *env) agentContext(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), agentPatience)
}

// notFound says that one of the objects that were asked for is not there.
func notFound(key datastore.Key) error { return fmt.Errorf("%s: %w", key, datastore.ErrNotFound) }

// isNotFound says whether err is about an object that is not there.
func isNotFound(err error) bool { return errors.Is(err, datastore.ErrNotFound) }
