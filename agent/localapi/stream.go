package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// lines is the content type of a stream: one JSON value a line.
const lines = "application/jsonl"

// errorLine begins the line that ends a stream which failed: its JSON is a problem's.
const errorLine = `{"error":`

// handlePackets adds the streams to the API, if the source tells of packets.
func handlePackets(mux *http.ServeMux, source Source) {
	packets, ok := source.(PacketSource)
	if !ok {
		for _, path := range []string{FlowsPath, TracePath} {
			mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
				write(w, http.StatusNotImplemented, problem{"this agent does not tell of packets"})
			})
		}
		return
	}
	mux.HandleFunc("GET "+FlowsPath, func(w http.ResponseWriter, r *http.Request) {
		stream(w, r, parseFlowQuery, packets.Flows)
	})
	mux.HandleFunc("GET "+TracePath, func(w http.ResponseWriter, r *http.Request) {
		stream(w, r, parseTraceQuery, packets.Trace)
	})
}

// stream answers with the values that run tells, each at once. An error before the
// first one is an answer of its own, a later one the last line.
func stream[Q, T any](w http.ResponseWriter, r *http.Request, parse func(url.Values) (Q, error), run func(context.Context, Q, func(T) error) error) {
	q, err := parse(r.URL.Query())
	if err != nil {
		write(w, http.StatusBadRequest, problem{err.Error()})
		return
	}
	begun := false
	send := func(value any) error {
		b, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("write as JSON: %w", err)
		}
		if !begun {
			begun = true
			w.Header().Set("Content-Type", lines)
			w.WriteHeader(http.StatusOK)
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	err = run(r.Context(), q, func(value T) error { return send(value) })
	switch {
	case err != nil && begun:
		_ = send(problem{err.Error()}) // a client that is gone needs no answer
	case err != nil:
		write(w, http.StatusInternalServerError, problem{err.Error()})
	case !begun:
		w.Header().Set("Content-Type", lines)
		w.WriteHeader(http.StatusOK)
	}
}

// Flows calls f with each flow that the agent tells. It returns when there are no
// more, when f returns an error (with that) or when ctx is done (with nil).
// ErrNotRunning means that there is no agent.
func (c *Client) Flows(ctx context.Context, q FlowQuery, f func(Flow) error) error {
	if err := follow(ctx, c, FlowsPath, q.values(), f); err != nil {
		return fmt.Errorf("read the agent's flows: %w", err)
	}
	return nil
}

// Trace has the agent trace packets, and calls f with each step, first with
// StepReady. It returns when f returns an error (with that) or when ctx is done (with
// nil). ErrNotRunning means that there is no agent.
func (c *Client) Trace(ctx context.Context, q TraceQuery, f func(TraceHop) error) error {
	if err := follow(ctx, c, TracePath, q.values(), f); err != nil {
		return fmt.Errorf("have the agent trace packets: %w", err)
	}
	return nil
}

// follow decodes a stream and calls f with each value.
func follow[T any](ctx context.Context, c *Client, path string, query url.Values, f func(T) error) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	resp, err := c.ask(ctx, path)
	if err != nil {
		return unlessDone(ctx, err)
	}
	defer resp.Body.Close()
	for in := json.NewDecoder(resp.Body); ; {
		var line json.RawMessage
		err := in.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return unlessDone(ctx, fmt.Errorf("the agent at %s ended within an answer: it has stopped", c.socket))
		case err != nil:
			return unlessDone(ctx, c.explain(ctx, err))
		}
		if bytes.HasPrefix(line, []byte(errorLine)) {
			return unlessDone(ctx, c.refusal(line, http.StatusText(http.StatusInternalServerError)))
		}
		var value T
		if err := json.Unmarshal(line, &value); err != nil {
			return fmt.Errorf("the agent at %s sent what is not understood: %w", c.socket, err)
		}
		if err := f(value); err != nil {
			return err
		}
	}
}

// unlessDone returns nil when ctx is done: the caller had enough.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
