// Command cairn-cni is Cairn's CNI plug-in. Container runtimes call it for each
// pod; what they say and hear is the CNI specification's.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/containernetworking/cni/pkg/skel"

	"cairn.network/cairn/cni"
	"cairn.network/cairn/kernel/linux"
	"cairn.network/cairn/version"
)

func main() {
	// A runtime that gives up sends a signal: what was begun is undone.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // a result that nobody takes is a failure to undo
	plugin := cni.New(linux.NewAttacher(), os.Stdout)
	skel.PluginMainFuncs(plugin.Funcs(ctx), cni.Versions(), "CNI plugin cairn-cni "+version.Current().Version)
}
