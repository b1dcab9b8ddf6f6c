package protocol

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Bounds of a connection.
const (
	// maxLine is the length of the longest request or answer, in bytes. A GC of a
	// thousand containers takes 100 KiB.
	maxLine = 16 << 20
	// requestTime is how long a client may take to send its request, and to take
	// its answer.
	requestTime = 5 * time.Second
	// acceptPause is how long to wait when the process has no file descriptor
	// left for a connection.
	acceptPause = 50 * time.Millisecond
)

// Handler answers a request. ctx ends when the client hangs up, a little before
// the client's time is over, and when Serve is to end.
type Handler func(ctx context.Context, req Request) Response

// Listen returns a listener on a unix socket that only root can connect to. A
// socket left at the path by an earlier process is replaced in one step, so a
// client finds either the old or the new one, never none.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	made := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the path may be a successor's by then
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(made)
		return nil, fmt.Errorf("place the socket: %w", err)
	}
	return l, nil
}

// Serve answers the connections of a listener, each in its own goroutine, until
// ctx is done; then it closes the listener, waits for the handlers, and returns
// nil. It does not ask who connects: the socket's permissions say who may.
func Serve(ctx context.Context, l net.Listener, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			conns.Go(func() { serveConn(ctx, conn, h) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		default:
			return fmt.Errorf("accept a connection of the plug-in: %w", err)
		}
	}
}

// serveConn reads one request and writes one answer. A client that can't be
// heard or told has gone; it will ask again.
func serveConn(ctx context.Context, conn net.Conn, h Handler) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(requestTime))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	in := bufio.NewReader(conn)
	line, err := readLine(in)
	if err != nil {
		return
	}
	var req Request
	if err := json.Unmarshal(line, &req); err != nil {
		answer(conn, Response{Error: &Error{Code: CodeInvalid, Message: "decode request: " + err.Error()}})
		return
	}

	reqCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if req.TimeoutMillis > 0 {
		var end context.CancelFunc
		reqCtx, end = context.WithTimeout(reqCtx, answerTime(req.TimeoutMillis))
		defer end()
	}
	// Only a hang-up ends this read: a client sends nothing after its request.
	_ = conn.SetReadDeadline(time.Time{})
	go func() {
		_, _ = in.ReadByte()
		cancel()
	}()
	resp := h(reqCtx, req)
	if resp.Error != nil && ctx.Err() != nil {
		return // it failed because Serve ends: the client asks the successor
	}
	answer(conn, resp)
}

// answerTime leaves a tenth of the client's time, at most 200 ms, for the
// answer's way back.
func answerTime(millis int64) time.Duration {
	const longest = 24 * time.Hour
	if millis > longest.Milliseconds() {
		return longest
	}
	d := time.Duration(millis) * time.Millisecond
	return d - min(d/10, 200*time.Millisecond)
}

// answer writes the response; a client that has gone doesn't matter.
func answer(conn net.Conn, resp Response) {
	line, err := json.Marshal(resp)
	if err != nil { // no field of Response can fail
		line, _ = json.Marshal(Response{Error: &Error{Code: CodeInternal, Message: err.Error()}})
	}
	_ = conn.SetWriteDeadline(time.Now().Add(requestTime))
	_, _ = conn.Write(append(line, '\n'))
}

// errTooLong is returned for a line longer than maxLine.
var errTooLong = fmt.Errorf("message longer than %d bytes", maxLine)

// readLine returns a line without its end. A line that the sender did not end
// is no line: io.ErrUnexpectedEOF.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, errTooLong
		}
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}
