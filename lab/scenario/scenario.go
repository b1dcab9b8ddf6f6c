// Package scenario runs scripts on a lab: txtar files in the language of
// rogpeppe/go-internal/testscript, with commands of its own.
//
//	lab ARGUMENTS                            run cairn-lab, on the script's own lab
//	on HOST|NAMESPACE/POD COMMAND            the same as lab exec; cairn-lab probe is one to try what gets through
//	ctl, pod, check, agent, router, etcd …   the same as lab ctl and so on
//	within TIME COMMAND                      repeat one of these until it succeeds; fails after TIME
//	address VARIABLE NAMESPACE/POD [FAMILY]  set the variable to the pod's address
//	stream start NAME POD POD [FAMILY]       begin a ping and a TCP connection, a hundred messages a second
//	stream stop NAME [MAX]                   end it, print what happened; fails if the connection broke or anything was
//	                                         lost, but for MAX pings
//	transfer HOST|NAMESPACE/POD POD [FAMILY] send some megabytes by TCP and have them back whole
//	traffic TIME FILE                        try what each line of the file says, again and again until all of it is so at once;
//	                                         fails after TIME. A line is FROM TO WHAT... [ipv4|ipv6] pass|none, as in
//	                                         "default/a shop/web tcp:80 icmp none". TO is a pod, a node or an address; WHAT is
//	                                         icmp, icmp:TYPE, or tcp, udp or sctp with a port
//
// With ! before it, a command must fail. stdout, stderr and grep look at what the
// last one wrote. The programs of Cairn are in the PATH, so that exec can run
// cairn-lab in the background.
//
// It guarantees that each script has a lab of its own name, and that none is left
// when a script has ended, however it ended.
package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/probe"
)

// Options says where scripts run.
type Options struct {
	Root string // folder of their labs
	Bin  string // folder of the programs
	// Keep leaves a script's lab up if the script fails.
	Keep bool
	// Pace is the time between two packets of a stream; 0: probe.StreamPace.
	Pace time.Duration
}

// script is what a running script has.
type script struct {
	Options
	name    string
	streams map[string]*probe.Stream
}

type scriptKey struct{}

// Params returns how to run scripts with testscript; which ones is left to the
// caller.
func Params(o Options) testscript.Params {
	cmds := map[string]func(*testscript.TestScript, bool, []string){
		"lab":    of(func(s *script, args []string) []string { return args }),
		"on":     of(on),
		"within": within, "address": address,
		"stream": stream, "transfer": transfer, "traffic": traffic,
	}
	for _, name := range []string{"ctl", "pod", "check", "agent", "node", "router", "etcd", "logs"} {
		cmds[name] = of(func(s *script, args []string) []string { return append([]string{name}, args...) })
	}
	return testscript.Params{
		Setup: func(e *testscript.Env) error { return setup(o, e) },
		Cmds:  cmds, RequireUniqueNames: true,
	}
}

// setup gives a script its lab's name, and removes that lab in the end.
func setup(o Options, e *testscript.Env) error {
	base := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")
	s := &script{Options: o, name: fmt.Sprintf("%.30s-%d", base, os.Getpid()), streams: map[string]*probe.Stream{}}
	e.Values[scriptKey{}] = s
	e.Setenv("PATH", o.Bin+":"+os.Getenv("PATH"))
	e.Setenv("CAIRN_LAB_ROOT", o.Root)
	e.Setenv("CAIRN_LAB_NAME", s.name)
	e.Setenv("LABDIR", filepath.Join(o.Root, s.name))
	e.Defer(func() {
		for _, st := range s.streams {
			st.Stop()
		}
		failed, ok := e.T().(interface{ Failed() bool })
		if ok && failed.Failed() {
			e.T().Log(s.describe())
			if s.Keep {
				e.T().Log(fmt.Sprintf("lab %s stays for a look", s.name))
				return
			}
		}
		if err := lab.Down(context.Background(), o.Root, s.name); err != nil {
			e.T().Fatal(err)
		}
	})
	return nil
}

// describe returns what there is of the lab, and the ends of its logs.
func (s *script) describe() string {
	l, err := lab.Open(s.Root, s.name)
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var text strings.Builder
	if st, err := l.Status(ctx); err == nil {
		err = st.Write(&text)
		if err != nil {
			fmt.Fprintln(&text, err)
		}
	}
	for _, host := range l.Topology.Hosts() {
		path, err := l.Log(host)
		if err != nil {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has no daemon
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Fprintf(&text, "\nlog of %s (its end):\n%s\n", host, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	return text.String()
}

// of returns a command that runs cairn-lab with arguments made of its own.
func of(argv func(*script, []string) []string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		s := ts.Value(scriptKey{}).(*script)
		conclude(ts, neg, ts.Exec(filepath.Join(s.Bin, "cairn-lab"), argv(s, args)...))
	}
}

func on(_ *script, args []string) []string {
	if len(args) == 0 {
		return []string{"exec"} // which says what is missing
	}
	return append([]string{"exec", args[0], "--"}, args[1:]...)
}

// conclude ends the script if the command did not do what the script wants.
func conclude(ts *testscript.TestScript, neg bool, err error) {
	switch {
	case err != nil && !neg:
		ts.Fatalf("unexpected failure: %v", err)
	case err == nil && neg:
		ts.Fatalf("unexpected success")
	}
}

// within repeats a command until it succeeds (with !: until it fails).
func within(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: within TIME COMMAND")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	s := ts.Value(scriptKey{}).(*script)
	argv := args[1:]
	switch argv[0] {
	case "lab":
		argv = argv[1:]
	case "on":
		argv = on(s, argv[1:])
	}
	start := time.Now()
	for {
		err := ts.Exec(filepath.Join(s.Bin, "cairn-lab"), argv...)
		took := time.Since(start)
		if (err == nil) != neg && took <= limit {
			ts.Logf("after %s", took.Round(time.Millisecond))
			return
		}
		if took > limit {
			ts.Fatalf("not within %s: %v", limit, err)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

func stream(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(scriptKey{}).(*script)
	switch {
	case len(args) >= 4 && args[0] == "start":
		conclude(ts, neg, s.startStream(args[1], args[2], args[3], family(args[4:])))
	case (len(args) == 2 || len(args) == 3) && args[0] == "stop":
		most := 0
		if len(args) == 3 {
			var err error
			most, err = strconv.Atoi(args[2])
			ts.Check(err)
		}
		st := s.streams[args[1]]
		if st == nil {
			ts.Fatalf("there is no stream %s", args[1])
		}
		delete(s.streams, args[1])
		ping, tcp := st.Stop()
		fmt.Fprintf(ts.Stdout(), "%s: ping: %s\n%s: tcp: %s\n", args[1], ping, args[1], tcp)
		var err error
		if ping.Lost > most || tcp.Lost > 0 || ping.Error != "" || tcp.Error != "" {
			err = errors.New("something was lost")
		}
		if err != nil && !neg {
			ts.Fatalf("ping: %s; tcp: %s", ping, tcp)
		}
		conclude(ts, neg, err)
	default:
		ts.Fatalf("usage: stream start NAME POD POD [ipv4|ipv6], stream stop NAME [MAX]")
	}
}

// transferSize is what transfer sends, in bytes: enough for every packet but the
// last to be of full size.
const transferSize = 4 << 20

func transfer(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: transfer HOST|NAMESPACE/POD NAMESPACE/POD [ipv4|ipv6]")
	}
	s := ts.Value(scriptKey{}).(*script)
	l, err := lab.Open(s.Root, s.name)
	ts.Check(err)
	path, err := l.Where(args[0])
	ts.Check(err)
	dst, err := s.address(args[1], family(args[2:]))
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conclude(ts, neg, probe.Transfer(ctx, path, dst, transferSize))
}

// address sets a variable to a pod's address.
func address(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: address VARIABLE NAMESPACE/POD [ipv4|ipv6]")
	}
	s := ts.Value(scriptKey{}).(*script)
	a, err := s.address(args[1], family(args[2:]))
	ts.Check(err)
	ts.Setenv(args[0], a.String())
}

// family returns the family that an optional argument names; IPv4 without it.
func family(args []string) string { return append(args, "ipv4")[0] }

func (s *script) address(pod, family string) (netip.Addr, error) {
	l, err := lab.Open(s.Root, s.name)
	if err != nil {
		return netip.Addr{}, err
	}
	namespace, name, _ := strings.Cut(pod, "/")
	p, err := l.Pod(namespace, name)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range p.Addrs {
		if a.Is4() == (family == "ipv4") {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("pod %s has no %s address", pod, family)
}

func (s *script) startStream(name, from, to, family string) error {
	if s.streams[name] != nil {
		return fmt.Errorf("stream %s runs already", name)
	}
	l, err := lab.Open(s.Root, s.name)
	if err != nil {
		return err
	}
	path, err := l.Where(from)
	if err != nil {
		return err
	}
	dst, err := s.address(to, family)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	st, err := probe.StartStream(ctx, path, dst, cmp.Or(s.Pace, probe.StreamPace))
	if err != nil {
		return err
	}
	s.streams[name] = st
	return nil
}
