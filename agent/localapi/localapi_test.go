package localapi

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// source answers with fixed values.
type source struct {
	status *v1.NodeStatus
	routes []Route
	points []Endpoint
	err    error
	wait   bool
}

func (s source) Status(ctx context.Context) (*v1.NodeStatus, error) {
	if s.wait {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.status, s.err
}

func (s source) Routes(context.Context) ([]Route, error) { return s.routes, s.err }

func (s source) Endpoints(context.Context) ([]Endpoint, error) { return s.points, s.err }

// serve listens on a socket of the test's own.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "deep", "agent.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return path
}

func TestStatus(t *testing.T) {
	want := &v1.NodeStatus{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Status: v1.NodeStatusStatus{
			UpdatedAt: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)),
			Pods:      3,
			BGP: v1.BGPStatus{ASNumber: 64512, Peers: []v1.BGPPeerStatus{
				{Address: "192.0.2.1", State: "Established", Flaps: 2},
				{Address: "2001:db8::1", State: "Idle", LastError: "no route to host"},
			}},
		},
	}
	got, err := NewClient(serve(t, Handler(source{status: want}))).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("status (-want +got):\n%s", d)
	}
}

func TestRoutes(t *testing.T) {
	for name, want := range map[string][]Route{
		"none": {},
		"one":  {{Dst: "10.244.0.0/26", Origin: "block", Type: "blackhole", InKernel: true}},
		"both families": {
			{Dst: "10.244.0.1/32", Origin: "pod", From: "ns/p", Type: "unicast", NextHops: []string{"dev cairn0"}, InKernel: true},
			{Dst: "fd00::/122", Origin: "bgp", From: "2001:db8::1", NextHops: []string{"via 2001:db8::1 dev eth0", "via 2001:db8::2 dev eth0"}, Reason: "file exists"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewClient(serve(t, Handler(source{routes: want}))).Routes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("routes (-want +got):\n%s", d)
			}
		})
	}
}

func TestEndpoints(t *testing.T) {
	for name, want := range map[string][]Endpoint{
		"none": {},
		"both families": {
			{Kind: "HostEndpoint", Name: "eth0", Node: "n1", Links: []string{"eth0", "eth1"}, Ingress: []EndpointPolicy{}, Egress: []EndpointPolicy{}, InForce: true},
			{
				Kind: "WorkloadEndpoint", Namespace: "a", Name: "p-eth0", Pod: "p", Node: "n1", Links: []string{"cairn0"},
				Addresses: []netip.Addr{netip.MustParseAddr("10.244.0.1"), netip.MustParseAddr("fd00::1")}, Labels: map[string]string{"app": "p"},
				Ingress: []EndpointPolicy{{Tier: "default", Policy: "NetworkPolicy a/p", State: PolicyFailing, Reason: "no memory"}}, Reason: "no memory",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewClient(serve(t, Handler(source{points: want}))).Endpoints(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Errorf("endpoints (-want +got):\n%s", d)
			}
		})
	}
}

func TestNoRoutesIsAnEmptyList(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(source{}).ServeHTTP(w, httptest.NewRequest("GET", RoutesPath, nil))
	if got := w.Body.String(); got != "[]\n" {
		t.Errorf("got %q", got)
	}
}

func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	text := func(code int, body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			io.WriteString(w, body)
		})
	}
	for name, tt := range map[string]struct {
		socket string
		is     error
		want   string
	}{
		"no socket":         {filepath.Join(dir, "none.sock"), ErrNotRunning, "read the agent's status: agent is not running: there is no socket SOCKET"},
		"nobody listens":    {dead, ErrNotRunning, "read the agent's status: agent is not running: nothing listens on SOCKET"},
		"agent's error":     {serve(t, Handler(source{err: errors.New("still starting")})), nil, "read the agent's status: the agent at SOCKET answered: still starting"},
		"no such path":      {serve(t, http.NotFoundHandler()), nil, "read the agent's status: the agent at SOCKET answered 404 Not Found"},
		"not JSON":          {serve(t, text(200, "hello")), nil, "read the agent's status: the agent at SOCKET sent what is not understood: invalid character 'h' looking for beginning of value"},
		"time out":          {serve(t, Handler(source{wait: true})), context.DeadlineExceeded, "read the agent's status: the agent at SOCKET does not answer: context deadline exceeded"},
		"a folder, no sock": {dir, ErrNotRunning, "read the agent's status: agent is not running: nothing listens on SOCKET"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if tt.is == context.DeadlineExceeded {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
			}
			_, err := NewClient(tt.socket).Status(ctx)
			if err == nil {
				t.Fatal("no error")
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is not %v", err, tt.is)
			}
			if d := cmp.Diff(strings.ReplaceAll(tt.want, "SOCKET", tt.socket), err.Error()); d != "" {
				t.Errorf("error (-want +got):\n%s", d)
			}
		})
	}
}

func TestHandlerRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		method, path string
		code         int
		want         string
	}{
		"unknown path": {"GET", "/v2/status", 404, `{"error":"there is nothing at /v2/status"}`},
		"write":        {"POST", StatusPath, 405, `{"error":"/v1/status takes GET only, not POST"}`},
		"failure":      {"GET", RoutesPath, 500, `{"error":"boom"}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			Handler(source{err: errors.New("boom")}).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if w.Code != tt.code || strings.TrimSpace(w.Body.String()) != tt.want {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Body, tt.code, tt.want)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("content type %q", got)
			}
		})
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	first, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	first.SetUnlinkOnClose(false)
	if _, err := Listen(path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside a live one: %v", err)
	}
	first.Close() // leaves the socket, as a crash does
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	l.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closed, the socket is still there: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "it is there and no socket") {
		t.Errorf("over a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file became %q", b)
	}
}
