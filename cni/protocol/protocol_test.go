package protocol

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// serve runs Serve with the handler until the test ends, and returns the socket.
func serve(t *testing.T, h Handler) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "cni.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return socket
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCall(t *testing.T) {
	full := Request{
		Verb: VerbAdd, ContainerID: "c1", Interface: "eth0", Netns: "/proc/1/ns/net", Namespace: "ns", Pod: "p",
		Labels: map[string]string{"a": "b\n\"c\""}, IPv4: true, IPv6: true, Pools: []string{"blue", "10.0.0.0/8"}, Network: "net",
		ServiceAccount: "web", Ports: []Port{{Name: "http", Protocol: "TCP", Port: 8080}, {Name: "dns", Protocol: "UDP", Port: 53}},
		Valid: []Sandbox{{ContainerID: "c2", Interface: "eth0"}},
	}
	both := Response{IPv4: netip.MustParseAddr("10.0.0.1"), IPv6: netip.MustParseAddr("fd00::1"), HostLink: "cairn0123456789", MTU: 1450}
	for name, row := range map[string]struct {
		req  Request
		resp Response
		code Code // of the *Error wanted
	}{
		"empty request, empty answer": {Request{}, Response{}, ""},
		"every field":                 {full, both, ""},
		"IPv6 alone":                  {Request{Verb: VerbAdd}, Response{IPv6: both.IPv6}, ""},
		"failure":                     {Request{Verb: VerbAdd}, Response{Error: &Error{Code: CodeExhausted, Message: "no pool"}}, CodeExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			var got Request
			socket := serve(t, func(_ context.Context, r Request) Response { got = r; return row.resp })
			resp, err := (&Client{Socket: socket}).Call(within(t, time.Minute), row.req)
			if diff := cmp.Diff(row.req, got, cmpopts.IgnoreFields(Request{}, "TimeoutMillis")); diff != "" {
				t.Errorf("request arrived changed (-sent +got):\n%s", diff)
			}
			if row.code != "" {
				var e *Error
				if !errors.As(err, &e) || e.Code != row.code || e.Message != row.resp.Error.Message {
					t.Fatalf("error = %v, want %s", err, row.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.resp, resp, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("answer arrived changed (-sent +got):\n%s", diff)
			}
		})
	}
}

func TestCallManyAtOnce(t *testing.T) {
	const n = 300
	arrived := make(chan struct{}, n)
	release := make(chan struct{})
	socket := serve(t, func(_ context.Context, r Request) Response {
		arrived <- struct{}{}
		<-release
		return Response{HostLink: r.ContainerID}
	})
	var failed atomic.Int32
	var wg sync.WaitGroup
	ctx := within(t, time.Minute)
	for i := range n {
		id := strings.Repeat("x", i)
		wg.Go(func() {
			resp, err := (&Client{Socket: socket}).Call(ctx, Request{ContainerID: id})
			if err != nil || resp.HostLink != id {
				failed.Add(1)
			}
		})
	}
	for range n { // all are in their handler at the same time
		<-arrived
	}
	close(release)
	wg.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d of %d calls failed or got another's answer", failed.Load(), n)
	}
}

func TestCallErrors(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := Listen(stale)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := os.Stat(stale); err != nil {
		t.Fatalf("the socket file should outlive its listener: %v", err)
	}
	for name, row := range map[string]struct {
		socket string
		want   error
	}{
		"no socket":                {filepath.Join(dir, "none.sock"), syscall.ENOENT},
		"socket nobody listens to": {stale, syscall.ECONNREFUSED},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&Client{Socket: row.socket}).Call(t.Context(), Request{Verb: VerbStatus})
			if !errors.Is(err, ErrAbsent) || !errors.Is(err, row.want) {
				t.Errorf("error = %v, want ErrAbsent and %v", err, row.want)
			}
		})
	}
	t.Run("too long a request", func(t *testing.T) {
		socket := serve(t, func(context.Context, Request) Response { return Response{} })
		_, err := (&Client{Socket: socket}).Call(t.Context(), Request{Pod: strings.Repeat("x", maxLine)})
		if !errors.Is(err, errTooLong) {
			t.Errorf("error = %v, want errTooLong", err)
		}
	})
}

// TestCallLost lets a peer close the connection at each step.
func TestCallLost(t *testing.T) {
	for name, step := range map[string]func(net.Conn){
		"before the request": func(net.Conn) {},
		"after the request":  func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) },
		"in the answer": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, `{"mtu":1`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := Listen(socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					step(c)
					c.Close()
				}
			}()
			_, err = (&Client{Socket: socket}).Call(within(t, time.Minute), Request{Verb: VerbAdd})
			if !errors.Is(err, ErrLost) {
				t.Errorf("error = %v, want ErrLost", err)
			}
		})
	}
}

func TestCallEndsWithContext(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	socket := serve(t, func(ctx context.Context, _ Request) Response {
		close(begun)
		<-ctx.Done()
		close(ended)
		return Response{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := (&Client{Socket: socket}).Call(ctx, Request{Verb: VerbReady})
		result <- err
	}()
	<-begun
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want Canceled", err)
	}
	<-ended // the handler learned of it
}

// TestDeadlineTravels shows that the handler's time ends before the caller's,
// and its answer still arrives.
func TestDeadlineTravels(t *testing.T) {
	socket := serve(t, func(ctx context.Context, _ Request) Response {
		<-ctx.Done()
		return Response{Error: &Error{Code: CodeTimeout, Message: "route not in the kernel"}}
	})
	_, err := (&Client{Socket: socket}).Call(within(t, time.Second), Request{Verb: VerbReady})
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeTimeout {
		t.Errorf("error = %v, want the handler's", err)
	}
}

func TestAnswerTime(t *testing.T) {
	for name, row := range map[string]struct {
		millis int64
		want   time.Duration
	}{
		"one millisecond": {1, 900 * time.Microsecond},
		"a second":        {1000, 900 * time.Millisecond},
		"border":          {2000, 1800 * time.Millisecond},
		"border + 1":      {2010, 1810 * time.Millisecond},
		"no end of time":  {1 << 62, 24 * time.Hour},
	} {
		if got := answerTime(row.millis); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

// TestServeEnds shows that a handler that is cut short tells the client nothing,
// and one that succeeds is heard.
func TestServeEnds(t *testing.T) {
	for name, row := range map[string]struct {
		resp Response
		want error
	}{
		"success": {Response{MTU: 1}, nil},
		"failure": {Response{Error: &Error{Code: CodeTimeout, Message: "cut short"}}, ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := Listen(socket)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				done <- Serve(ctx, l, func(ctx context.Context, _ Request) Response {
					cancel()
					<-ctx.Done()
					return row.resp
				})
			}()
			if _, err := (&Client{Socket: socket}).Call(within(t, time.Minute), Request{}); !errors.Is(err, row.want) {
				t.Errorf("error = %v, want %v", err, row.want)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestServeRefusesNonsense(t *testing.T) {
	socket := serve(t, func(context.Context, Request) Response {
		t.Error("handler called")
		return Response{}
	})
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "{]\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(got), `"code":"Invalid"`) {
		t.Errorf("answer = %q, %v", got, err)
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "cni.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v; want 0600", st.Mode(), err)
	}
	second, err := Listen(path) // a successor takes over
	if err != nil {
		t.Fatal(err)
	}
	first.Close() // and the first must not take the path with it
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- Serve(ctx, second, func(context.Context, Request) Response { return Response{MTU: 2} })
	}()
	resp, err := (&Client{Socket: path}).Call(within(t, time.Minute), Request{Verb: VerbStatus})
	if err != nil || resp.MTU != 2 {
		t.Errorf("answer = %+v, %v", resp, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve after cancel: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
		t.Errorf("left in the folder: %v", left)
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(t.Context(), l, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error = %v, want ErrClosed", err)
	}
}

// FuzzConn feeds a connection anything: it is answered or dropped.
func FuzzConn(f *testing.F) {
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"verb":"ADD","valid":[{}],"timeoutMillis":-1}` + "\n"))
	f.Add([]byte(`{"verb":1}` + "\n"))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			serveConn(t.Context(), server, func(context.Context, Request) Response { return Response{} })
		}()
		line, _, whole := bytes.Cut(in, []byte("\n"))
		if _, err := client.Write(in[:min(len(in), len(line)+1)]); err != nil {
			t.Fatal(err)
		}
		if whole {
			if got, err := io.ReadAll(client); err != nil || len(got) == 0 {
				t.Errorf("answer to %q: %q, %v", in, got, err)
			}
		}
		client.Close()
		<-done
	})
}
