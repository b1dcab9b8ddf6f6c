package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab/probe"
)

// exit is the error of a command that has said all that there is to say.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// misuse is the error of a command that was called in a way that makes no sense, where
// that must not be taken for a failure of what it tests.
type misuse struct{ error }

// probeFlags say how an exchange is made, and what is expected of it.
type probeFlags struct {
	sourcePort uint16
	kind, code int16 // of ICMP; -1: an echo request
	timeout    time.Duration
	expect     string
}

func (f *probeFlags) add(cmd *cobra.Command, timeout time.Duration) {
	cmd.Flags().Uint16Var(&f.sourcePort, "source-port", 0, "port to come from (tcp, udp, sctp; default: any)")
	cmd.Flags().Int16Var(&f.kind, "icmp-type", -1, "type of ICMP or ICMPv6 to ask with (default: echo request)")
	cmd.Flags().Int16Var(&f.code, "icmp-code", 0, "code of ICMP or ICMPv6")
	cmd.Flags().DurationVar(&f.timeout, "timeout", timeout, "how long to wait for each answer")
	cmd.Flags().StringVar(&f.expect, "expect", string(probe.ExpectPass), "what must happen: pass (every one is answered) or none (nothing comes back)")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse{err} })
}

// exchange returns the exchange that arguments and flags describe.
func (f *probeFlags) exchange(args []string) (probe.Exchange, error) {
	if len(args) != 2 {
		return probe.Exchange{}, errors.New("want a protocol, and an address with a port (of icmp without)")
	}
	e, err := probe.ParseExchange(args[0], args[1])
	if err != nil {
		return e, err
	}
	isICMP := e.Protocol == probe.ICMP
	switch types := probe.ICMPTypes(e.Addr.Addr()); {
	case f.expect != string(probe.ExpectPass) && f.expect != string(probe.ExpectNone):
		return e, fmt.Errorf("--expect %q: want %s or %s", f.expect, probe.ExpectPass, probe.ExpectNone)
	case f.timeout <= 0:
		return e, fmt.Errorf("--timeout %s: must be more than 0", f.timeout)
	case isICMP && f.sourcePort != 0:
		return e, errors.New("--source-port: icmp has no ports")
	case !isICMP && (f.kind >= 0 || f.code != 0):
		return e, fmt.Errorf("--icmp-type and --icmp-code: not of %s", e.Protocol)
	case f.code < 0 || f.code > 255:
		return e, fmt.Errorf("--icmp-code %d: must be 0 to 255", f.code)
	case f.kind >= 0 && (f.kind > 255 || !slices.Contains(types, uint8(f.kind))):
		return e, fmt.Errorf("--icmp-type %d: nobody answers it; there are %v", f.kind, types)
	case f.kind >= 0:
		e.Type = uint8(f.kind)
	}
	e.SourcePort, e.Code = f.sourcePort, uint8(f.code)
	return e, nil
}

func probeCommand() *cobra.Command {
	var f probeFlags
	count, interval := 0, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "probe tcp|udp|sctp ADDRESS:PORT | probe icmp ADDRESS",
		Short: "Try from here whether a pod, or another probe server, answers",
		Long: `Try, from the namespace that it runs in, whether a server answers: a TCP connection and its
greeting, a UDP datagram, an INIT of SCTP, or an ICMP request. Each try is a flow of its own.
It prints a line for each: who answered and which address that one saw, "no answer", "refused"
(by TCP's reset, SCTP's abort or ICMP's port unreachable, of which kernels send few a second),
or why nothing could be sent.

It exits with 0 if all is as expected (every try answered, or with --expect none nothing came
back, a refusal neither), with 1 if not, with 2 if it was called in a way that makes no sense.

Each pod has a server, on port 8080 and on those that the pod has names for. Elsewhere
cairn-lab pod-server --ports 8080,53/udp is one.`,
		Example: `  cairn-lab exec default/a -- cairn-lab probe tcp 10.244.1.5:8080
  cairn-lab exec tor -- cairn-lab probe icmp fd00:10:244::5 --count 3 --expect none`,
		Args: cobra.ArbitraryArgs, // exchange looks at them
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := f.exchange(args)
			if err == nil && count < 1 {
				err = fmt.Errorf("--count %d: must be 1 or more", count)
			}
			if err != nil {
				return misuse{fmt.Errorf("probe: %w", err)}
			}
			return f.tries(cmd, e, count, interval)
		},
	}
	f.add(cmd, time.Second)
	cmd.Flags().IntVar(&count, "count", 1, "how many times to try")
	cmd.Flags().DurationVar(&interval, "interval", 200*time.Millisecond, "time between the end of a try and the next")
	cmd.AddCommand(probeStream())
	return cmd
}

// tries tries so many times, one after the other.
func (f *probeFlags) tries(cmd *cobra.Command, e probe.Exchange, count int, interval time.Duration) error {
	met := true
	for i := range count {
		if i > 0 {
			select {
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			case <-time.After(interval):
			}
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
		a, err := e.Try(ctx)
		cancel()
		fmt.Fprintln(cmd.OutOrStdout(), outcome(a, err))
		want := err == nil
		if f.expect == string(probe.ExpectNone) {
			want = errors.Is(err, probe.ErrNoAnswer)
		}
		met = met && want
	}
	if !met {
		return exit(1)
	}
	return nil
}

// outcome returns the line about a try.
func outcome(a probe.Answer, err error) string {
	for _, sort := range []error{probe.ErrRefused, probe.ErrNoAnswer} {
		if errors.Is(err, sort) {
			return sort.Error()
		}
	}
	if err != nil {
		return "not sent: " + err.Error()
	}
	return a.String()
}

func probeStream() *cobra.Command {
	var f probeFlags
	rate, limit := 0, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "stream tcp|udp|sctp ADDRESS:PORT | stream icmp ADDRESS",
		Short: "Try at a steady rate until told to end (SIGINT), and sum up",
		Long: `Try again and again at a steady rate, each time as a flow of its own and whether or not
those before were answered, until it gets SIGINT or SIGTERM. Then it prints how many were
answered, refused and not answered, the longest time between two answers, and the slowest
answer. It exits as probe does: with 0 if every single one was as expected.

The time-out is less than what TCP takes to send its first packet again, so that one packet
dropped is one try not answered.`,
		Example: `  cairn-lab exec default/a -- cairn-lab probe stream udp 10.244.1.5:8080 --expect none --for 5s`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := f.exchange(args)
			switch {
			case err != nil:
			case rate < 1 || rate > 10_000:
				err = fmt.Errorf("--rate %d: must be 1 to 10000", rate)
			case f.sourcePort != 0:
				err = errors.New("--source-port: tries that overlap can't share a port")
			}
			if err != nil {
				return misuse{fmt.Errorf("probe stream: %w", err)}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			if limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
			}
			t := e.Steady(ctx, time.Second/time.Duration(rate), f.timeout)
			fmt.Fprintln(cmd.OutOrStdout(), t)
			if t.Meets(probe.Expectation(f.expect)) != nil {
				return exit(1)
			}
			return nil
		},
	}
	f.add(cmd, probe.RowTimeout)
	cmd.Flags().IntVar(&rate, "rate", 500, "tries a second")
	cmd.Flags().DurationVar(&limit, "for", 0, "end after this time (default: when told to)")
	return cmd
}
