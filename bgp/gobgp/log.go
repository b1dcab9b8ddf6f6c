package gobgp

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// quiet passes GoBGP's records on at a level that suits us: it warns of what is
// a peer's everyday life, and that is in Sessions. Its errors become warnings,
// the rest is for debugging.
type quiet struct {
	slog.Handler
	silent *atomic.Bool // drops all
}

func newLogger(log *slog.Logger, silent *atomic.Bool) *slog.Logger {
	return slog.New(quiet{log.Handler(), silent}).With("component", "gobgp")
}

func level(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled is slog.Handler's.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return !q.silent.Load() && q.Handler.Enabled(ctx, level(l))
}

// Handle is slog.Handler's.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = level(r.Level)
	return q.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (q quiet) WithAttrs(as []slog.Attr) slog.Handler {
	return quiet{q.Handler.WithAttrs(as), q.silent}
}

// WithGroup is slog.Handler's.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name), q.silent} }
