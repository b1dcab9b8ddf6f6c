package etcd

import (
	"context"
	"errors"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// login is a user of etcd. It gets a token before the first call, and another
// when that is no longer valid. It does what etcd's own client does, except that
// it never waits for a connection, which would hide why there is none.
type login struct {
	username string
	password func() (string, error)

	refreshing sync.Mutex // held while a token is asked for
	mu         sync.Mutex
	token      token
}

// token is what etcd gave for user and password: no text from an etcd that has
// no users.
type token struct {
	text  string
	given bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (l *login) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if t := l.current(); t.text != "" {
		return map[string]string{rpctypes.TokenFieldNameGRPC: t.text}, nil
	}
	return nil, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (l *login) RequireTransportSecurity() bool { return false }

func (l *login) current() token {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}

// intercept gives calls a token, and repeats one that failed for want of a valid
// one: etcd refused to do it, so it can't happen twice.
func (l *login) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method == etcdserverpb.Auth_Authenticate_FullMethodName {
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	used := l.current()
	if !used.given {
		// Without a token etcd may take the name in the client's certificate for the
		// user's, and that one's rights.
		if err := l.refresh(ctx, conn, used); err != nil {
			return err
		}
		used = l.current()
	}
	err := invoke(ctx, method, req, reply, conn, opts...)
	if !wantsToken(used, rpctypes.Error(err)) {
		return err
	}
	if err := l.refresh(ctx, conn, used); err != nil {
		return err
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

// refresh replaces the token that was of no use; of many calls at once one does.
func (l *login) refresh(ctx context.Context, conn *grpc.ClientConn, used token) error {
	l.refreshing.Lock()
	defer l.refreshing.Unlock()
	if l.current() != used {
		return nil
	}
	password, err := l.password()
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	got, err := etcdserverpb.NewAuthClient(conn).Authenticate(ctx,
		&etcdserverpb.AuthenticateRequest{Name: l.username, Password: password})
	if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = token{text: got.GetToken(), given: true}
	return nil
}

// wantsToken says whether etcd refused a call because it did not take the token,
// or because it got none and has users by now.
func wantsToken(used token, err error) bool {
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) ||
		errors.Is(err, rpctypes.ErrAuthOldRevision) ||
		used.text == "" && errors.Is(err, rpctypes.ErrPermissionDenied)
}
