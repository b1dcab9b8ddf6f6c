// Command cairn-lab runs Cairn clusters on one machine, in network namespaces.
package main

import (
	"context"
	"os"

	"cairn.network/cairn/lab/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
