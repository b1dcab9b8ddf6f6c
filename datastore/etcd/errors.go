package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cairn.network/cairn/datastore"
)

// explain turns an error of the client into one of the datastore's, in one line
// that names the cause. What isn't the client's it returns as it is. ctx is the
// caller's.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", datastore.ErrUnavailable, ctx.Err())
	}
	code, text, ok := cause(err)
	if !ok {
		return err
	}
	where := "etcd " + strings.Join(s.endpoints, ", ")
	switch code {
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%w: %s: %s", datastore.ErrDenied, where, text)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w: %s: no answer in %s", datastore.ErrUnavailable, where, s.callTimeout)
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.Unimplemented, codes.NotFound:
		return fmt.Errorf("%s: %s", where, text)
	}
	return fmt.Errorf("%w: %s: %s%s", datastore.ErrUnavailable, where, text, s.hint(text))
}

// hint says what may be behind a connection that ended while it was set up. A
// server that refuses a certificate says so, but since TLS 1.3 its word can get
// lost: it comes when the client takes the handshake for done.
func (s *Store) hint(text string) string {
	if strings.HasPrefix(text, "error reading from server") {
		return "" // it had been set up
	}
	if s.tls == nil && strings.Contains(text, "server preface") {
		return " (it may want https)"
	}
	for _, end := range []string{"EOF", "broken pipe", "connection reset by peer"} {
		if s.tls != nil && strings.HasSuffix(text, end) {
			return " (it may refuse the client certificate, or not want https)"
		}
	}
	return ""
}

// cause returns the code and the text of an error of the client. Some of etcd's
// own codes do not say what they mean.
func cause(err error) (codes.Code, string, bool) {
	var server rpctypes.EtcdError
	var grpcStatus interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &server):
		code, text := server.Code(), server.Error()
		if errors.Is(server, rpctypes.ErrAuthFailed) || errors.Is(server, rpctypes.ErrUserEmpty) {
			code = codes.Unauthenticated
		}
		return code, text, true
	case errors.As(err, &grpcStatus):
		st := grpcStatus.GRPCStatus()
		return st.Code(), plain(st.Message()), true
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded, err.Error(), true
	case errors.Is(err, context.Canceled):
		return codes.Canceled, "the store was closed", true
	}
	return 0, "", false
}

// plain takes from gRPC's text what gRPC wrapped around the cause.
func plain(text string) string {
	const desc = `connection error: desc = `
	if i := strings.LastIndex(text, desc); i >= 0 {
		if inner, err := strconv.Unquote(text[i+len(desc):]); err == nil {
			text = inner
		}
	}
	for _, wrap := range []string{"transport: ", "Error while dialing: ", "authentication handshake failed: "} {
		text = strings.TrimPrefix(text, wrap)
	}
	return strings.Join(strings.Fields(text), " ")
}

// tooLarge says whether the server, or the client on its behalf, found a
// request too large.
func tooLarge(err error) bool {
	if errors.Is(err, rpctypes.ErrRequestTooLarge) {
		return true
	}
	st, ok := status.FromError(err)
	return ok && st.Code() == codes.ResourceExhausted && strings.Contains(st.Message(), "larger than max")
}
