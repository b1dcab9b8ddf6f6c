package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	v1 "cairn.network/cairn/api/v1"
)

// maxAnswer bounds what a Client reads of one answer, in bytes. A node with a
// million routes stays below it.
const maxAnswer = 512 << 20

// ErrNotRunning says that no agent listens on the socket.
var ErrNotRunning = errors.New("agent is not running")

// Client asks the agent of this node.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the agent that listens on the socket of this
// path. It connects with each request, so it outlives the agent's restarts.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Status returns what the agent says of itself as of now. ErrNotRunning means
// that there is no agent.
func (c *Client) Status(ctx context.Context) (*v1.NodeStatus, error) {
	s := new(v1.NodeStatus)
	if err := c.get(ctx, StatusPath, s); err != nil {
		return nil, fmt.Errorf("read the agent's status: %w", err)
	}
	return s, nil
}

// Routes returns every route that is wanted, learned or in the kernel as
// Cairn's, in the order of destinations. ErrNotRunning means that there is no
// agent.
func (c *Client) Routes(ctx context.Context) ([]Route, error) {
	var rs []Route
	if err := c.get(ctx, RoutesPath, &rs); err != nil {
		return nil, fmt.Errorf("read the agent's routes: %w", err)
	}
	return rs, nil
}

// get decodes the answer to one request. Fields it doesn't know are passed
// over: the agent may be newer.
func (c *Client) get(ctx context.Context, path string, into any) error {
	resp, err := c.ask(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.explain(ctx, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the agent at %s sent what is not understood: %w", c.socket, err)
	}
	return nil
}

// ask sends one request and returns the answer, whose body the caller reads and
// closes. What is no success is an error.
func (c *Client) ask(ctx context.Context, path string) (*http.Response, error) {
	// The host is never looked up: the dialler goes to the socket.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return nil, c.refusal(body, resp.Status)
}

// refusal returns the error that an answer is; status says it where there are no words.
func (c *Client) refusal(body []byte, status string) error {
	var p problem
	if json.Unmarshal(body, &p) != nil || p.Error == "" {
		return fmt.Errorf("the agent at %s answered %s", c.socket, status)
	}
	return fmt.Errorf("the agent at %s answered: %s", c.socket, strings.TrimSpace(p.Error))
}

// explain names the socket and the cause in words of the person who asks.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s", ErrNotRunning, c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nothing listens on %s", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission for the agent's socket %s: %w", c.socket, fs.ErrPermission)
	case ctx.Err() != nil:
		return fmt.Errorf("the agent at %s does not answer: %w", c.socket, ctx.Err())
	}
	return fmt.Errorf("ask the agent at %s: %w", c.socket, err)
}
