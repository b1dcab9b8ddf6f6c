package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
)

var update = flag.Bool("update", false, "write what comes out into the scripts' golden parts")

// now is the time in every script.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// storeKey is where a script's environment holds its datastore.
type storeKey struct{}

// TestScripts runs testdata/*.txt, each with a copy of testdata/shop.yaml. Besides testscript's own commands there are
//
//	cairn ARGS… [< FILE]   the program, as main runs it; its exit code is noted
//	code N                 the last exit code
//	seed FILE…             puts objects into the datastore as agents do: unchecked
//	agent STATUS ROUTES [ENDPOINTS [FLOWS COUNTERS]]
//	                       starts an agent that answers with these JSON files
//	down REASON            makes the datastore unavailable
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Values[storeKey{}] = datastore.NewMemory()
			shop, err := os.ReadFile(filepath.Join("testdata", "shop.yaml"))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "shop.yaml"), shop, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cairn": runCairn,
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				if got := ts.Getenv("code"); got != args[0] {
					ts.Fatalf("exit code %s, want %s", got, args[0])
				}
			},
			"seed":  seed,
			"agent": startAgent,
			"down": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value(storeKey{}).(*datastore.Memory).SetDown(errors.New(strings.Join(args, " ")))
			},
		},
	})
}

func runCairn(ts *testscript.TestScript, neg bool, args []string) {
	o := Options{
		Open: func(config.Datastore) (datastore.Store, error) {
			return ts.Value(storeKey{}).(*datastore.Memory), nil
		},
		In: strings.NewReader(""), Out: ts.Stdout(), Err: ts.Stderr(),
		Now: func() time.Time { return now },
	}
	if n := len(args); n > 1 && args[n-2] == "<" {
		o.In = strings.NewReader(ts.ReadFile(args[n-1]))
		args = args[:n-2]
	}
	root := &cobra.Command{Use: "cairn", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(New(o), Version())
	var environ []string
	for _, name := range []string{"CAIRN_CONFIG", "CAIRN_OUTPUT", "CAIRN_ETCD_ENDPOINTS", "CAIRN_ETCD_DIAL_TIMEOUT"} {
		environ = append(environ, name+"="+ts.Getenv(name))
	}
	config.Bind(root, config.Sources{Environ: environ, File: ts.MkAbs("cairn.yaml")})
	root.SetOut(o.Out)
	root.SetErr(o.Err)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	code := 0
	if err != nil {
		// Paths are written as seen from the script's folder.
		fmt.Fprintf(ts.Stderr(), "cairn: %s\n", strings.ReplaceAll(err.Error(), ts.Getenv("WORK")+"/", ""))
		code = 1
		if _, usage := errors.AsType[*config.UsageError](err); usage {
			code = 2
		}
	}
	ts.Setenv("code", fmt.Sprint(code))
	if neg != (err != nil) {
		ts.Fatalf("exit code %d", code)
	}
}

func seed(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args {
		objects, err := v1.Decode([]byte(ts.ReadFile(file)))
		ts.Check(err)
		for _, o := range objects {
			_, err := ts.Value(storeKey{}).(*datastore.Memory).Create(context.Background(), o)
			ts.Check(err)
		}
	}
}

// fixed is an agent that always says the same.
type fixed struct {
	status v1.NodeStatus
	routes []localapi.Route
	points []localapi.Endpoint
	flows  []localapi.Flow
	counts []localapi.Counter
}

func (f *fixed) Status(context.Context) (*v1.NodeStatus, error)         { return &f.status, nil }
func (f *fixed) Routes(context.Context) ([]localapi.Route, error)       { return f.routes, nil }
func (f *fixed) Endpoints(context.Context) ([]localapi.Endpoint, error) { return f.points, nil }

// Flows tells of what there is, and of that only.
func (f *fixed) Flows(_ context.Context, q localapi.FlowQuery, tell func(localapi.Flow) error) error {
	for _, flow := range f.flows {
		if q.Matches(flow) {
			if err := tell(flow); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fixed) Trace(context.Context, localapi.TraceQuery, func(localapi.TraceHop) error) error {
	return nil
}

func (f *fixed) Counters(context.Context) ([]localapi.Counter, error) { return f.counts, nil }

func startAgent(ts *testscript.TestScript, _ bool, args []string) {
	var f fixed
	for i, into := range []any{&f.status, &f.routes, &f.points, &f.flows, &f.counts} {
		if i < len(args) {
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[i])), into))
		}
	}
	l, err := localapi.Listen(ts.MkAbs(filepath.Join("run", "agent.sock")))
	ts.Check(err)
	srv := &http.Server{Handler: localapi.Handler(&f)}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	ts.Defer(func() { srv.Close(); <-done })
	ts.Check(os.WriteFile(ts.MkAbs("cairn.yaml"), []byte("run-dir: "+ts.MkAbs("run")+"\n"), 0o600))
}
