package protocol

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Sentinels of Client.Call, for errors.Is. Every verb may be asked again, so
// both may be tried again.
var (
	// ErrAbsent says that nobody took the connection: the request was not seen.
	ErrAbsent = errors.New("no agent listens")
	// ErrLost says that the connection broke before the answer: the request was
	// carried out, or partly, or not at all.
	ErrLost = errors.New("the agent closed the connection without an answer")
)

// Client asks the agent.
type Client struct {
	Socket string // path of the agent's unix socket
}

// Call asks once and returns the answer. A failure that the agent reports comes
// back as an *Error. The time left in ctx travels with the request, so that the
// agent can answer before the caller gives up; it sees when ctx is done.
func (c *Client) Call(ctx context.Context, req Request) (Response, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return Response{}, c.dialError(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	if t, ok := ctx.Deadline(); ok {
		req.TimeoutMillis = max(1, time.Until(t).Milliseconds())
	}
	line, err := json.Marshal(req)
	if err != nil {
		return Response{}, fmt.Errorf("encode %s request: %w", req.Verb, err)
	}
	if len(line) > maxLine {
		return Response{}, fmt.Errorf("send %s request: %w", req.Verb, errTooLong)
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return Response{}, c.lostError(ctx, req.Verb, err)
	}
	answer, err := readLine(bufio.NewReader(conn))
	if err != nil {
		return Response{}, c.lostError(ctx, req.Verb, err)
	}
	var resp Response
	if err := json.Unmarshal(answer, &resp); err != nil {
		return Response{}, fmt.Errorf("decode the agent's answer to %s: %w", req.Verb, err)
	}
	if resp.Error != nil {
		return Response{}, resp.Error
	}
	return resp, nil
}

// dialError says why the connection was not made. EAGAIN is a full backlog: the
// kernel refuses a connection to a unix socket at once rather than let it wait.
func (c *Client) dialError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("connect to the agent at %s: %w", c.Socket, ctx.Err())
	}
	for _, absent := range []error{syscall.ENOENT, syscall.ECONNREFUSED, syscall.EAGAIN} {
		if errors.Is(err, absent) {
			return fmt.Errorf("%w at %s: %w", ErrAbsent, c.Socket, absent)
		}
	}
	return fmt.Errorf("connect to the agent: %w", err)
}

// lostError says why there is no answer.
func (c *Client) lostError(ctx context.Context, verb string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("wait for the agent's answer to %s: %w", verb, ctx.Err())
	}
	for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, lost) {
			return fmt.Errorf("%s: %w", verb, ErrLost)
		}
	}
	return fmt.Errorf("ask the agent for %s: %w", verb, err)
}
