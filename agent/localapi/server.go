package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	v1 "cairn.network/cairn/api/v1"
)

// Source is where the answers come from. Its methods are called from any
// goroutine and must not wait for the datastore.
type Source interface {
	// Status returns the agent's NodeStatus as of now.
	Status(ctx context.Context) (*v1.NodeStatus, error)
	// Routes returns every route that is wanted, learned or in the kernel as
	// Cairn's, in the order of destinations.
	Routes(ctx context.Context) ([]Route, error)
	// Endpoints returns the node's pods and host endpoints, by kind and name, and what
	// is in force for each.
	Endpoints(ctx context.Context) ([]Endpoint, error)
}

// Handler returns the API's server side. A source that is a PacketSource tells of
// packets, too.
func Handler(source Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+StatusPath, func(w http.ResponseWriter, r *http.Request) {
		s, err := source.Status(r.Context())
		answer(w, s, err)
	})
	mux.HandleFunc("GET "+RoutesPath, func(w http.ResponseWriter, r *http.Request) {
		rs, err := source.Routes(r.Context())
		if rs == nil {
			rs = []Route{}
		}
		answer(w, rs, err)
	})
	handleEndpoints(mux, source)
	handlePackets(mux, source)
	handleCounters(mux, source)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		paths := []string{StatusPath, RoutesPath, EndpointsPath, FlowsPath, TracePath, CountersPath}
		if p := r.URL.Path; slices.Contains(paths, p) {
			w.Header().Set("Allow", http.MethodGet)
			write(w, http.StatusMethodNotAllowed, problem{fmt.Sprintf("%s takes GET only, not %s", p, r.Method)})
			return
		}
		write(w, http.StatusNotFound, problem{fmt.Sprintf("there is nothing at %s", r.URL.Path)})
	})
	return mux
}

func answer(w http.ResponseWriter, value any, err error) {
	if err != nil {
		write(w, http.StatusInternalServerError, problem{err.Error()})
		return
	}
	write(w, http.StatusOK, value)
}

func write(w http.ResponseWriter, code int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer can't be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(body, '\n')) // a client that is gone needs no answer
}

// Listen opens the socket at the path, for root only, with the folder around it.
// What an agent that died left there is replaced; the socket of one that lives
// is an error. Closing the listener removes the socket.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return nil, fmt.Errorf("listen on %s: another process listens there: %w", path, syscall.EADDRINUSE)
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := removeSocket(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, errors.Unwrap(err))
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// removeSocket removes a socket that nobody listens on, and nothing else: a
// mistyped path must not cost a file.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("it is there and no socket")
	}
	return os.Remove(path)
}
