package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/cni/protocol"
)

// stuckAfter is how long a pass may take before the agent counts as not alive.
const stuckAfter = time.Minute

func (a *Agent) serveCNI(ctx context.Context) error {
	if a.cfg.CNISocket == "" {
		return nil
	}
	l, err := protocol.Listen(a.cfg.CNISocket)
	if err != nil {
		return err
	}
	return protocol.Serve(ctx, l, a.CNI)
}

func (a *Agent) serveAPI(ctx context.Context) error {
	if a.cfg.APISocket == "" {
		return nil
	}
	l, err := localapi.Listen(a.cfg.APISocket)
	if err != nil {
		return err
	}
	return serveHTTP(ctx, l, localapi.Handler(a))
}

// serveHealth answers /livez, /readyz and /metrics. BGP is neither liveness nor
// readiness: a router that is down is no reason to restart an agent.
func (a *Agent) serveHealth(ctx context.Context) error {
	if a.cfg.Health == "" {
		return nil
	}
	l, err := net.Listen("tcp", a.cfg.Health)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), metrics{a})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /livez", probe(a.alive))
	mux.HandleFunc("GET /readyz", probe(a.canAdd))
	return serveHTTP(ctx, l, mux)
}

// alive returns an error if the loop hangs.
func (a *Agent) alive() error {
	if since := a.loop.passing.Load(); since != 0 {
		if d := time.Since(time.Unix(0, since)); d > stuckAfter {
			return fmt.Errorf("a pass takes %s already", d.Round(time.Second))
		}
	}
	return nil
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// serveHTTP serves until ctx is done.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
