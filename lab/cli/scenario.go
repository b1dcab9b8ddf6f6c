package cli

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"cairn.network/cairn/lab/scenario"
)

func (s *settings) scenario() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "scenario FILE...",
		Short: "Run scripts, each on a lab of its own",
		Long: `Run scripts in the txtar format of rogpeppe/go-internal/testscript, each on a lab of its
own. Besides that language's commands there are:

  lab ARGUMENTS                            run cairn-lab on the script's lab
  on HOST|NAMESPACE/POD COMMAND            the same as lab exec
  ctl, pod, check, agent, router, etcd …   the same as lab ctl and so on
  within TIME COMMAND                      repeat one of these until it succeeds
  address VARIABLE NAMESPACE/POD [FAMILY]  set the variable to the pod's address
  stream start NAME POD POD [FAMILY]       begin a ping and a TCP connection between pods
  stream stop NAME [MAX]                   end it; fails if anything was lost but MAX pings
  transfer HOST|NAMESPACE/POD POD [FAMILY] send some megabytes by TCP and have them back
  traffic TIME FILE                        repeat what the file says until all of it is so: lines
                                           FROM TO WHAT... [ipv4|ipv6] pass|none`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			bin, err := s.binaries()
			if err != nil {
				return err
			}
			p := scenario.Params(scenario.Options{Root: s.root, Bin: bin, Keep: keep})
			p.Files = args
			t := &script{out: cmd.OutOrStdout()}
			t.Run("", func(t testscript.T) { testscript.RunT(t, p) })
			if t.failed.Load() {
				return errors.New("scenario: failed")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the lab of a script that fails up")
	return cmd
}

// script is testscript's view of a test, outside of go test.
type script struct {
	out    io.Writer
	failed atomic.Bool
}

// Run runs f to its end, as a part of the test.
func (s *script) Run(name string, f func(testscript.T)) {
	part := &script{out: s.out}
	done := make(chan struct{})
	go func() { // FailNow ends the goroutine that f runs in
		defer close(done)
		f(part)
	}()
	<-done
	if part.failed.Load() {
		s.failed.Store(true)
	}
	if name != "" {
		verdict := "ok"
		if part.failed.Load() {
			verdict = "FAILED"
		}
		fmt.Fprintf(s.out, "%s %s\n", verdict, name)
	}
}

func (s *script) Skip(args ...any)  { s.Log(args...); runtime.Goexit() }
func (s *script) Fatal(args ...any) { s.Log(args...); s.FailNow() }
func (s *script) FailNow()          { s.failed.Store(true); runtime.Goexit() }
func (s *script) Log(args ...any)   { fmt.Fprintln(s.out, args...) }
func (s *script) Parallel()         {} // one after the other
func (s *script) Verbose() bool     { return true }
func (s *script) Failed() bool      { return s.failed.Load() }
