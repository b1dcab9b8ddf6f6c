package etcd

import (
	"context"
	"errors"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// login is a user of etcd. It gets a token when etcd asks for one, and another
// when that has expired. It does what etcd's own client does, except that it
// never waits for a connection, which would hide why there is none.
type login struct {
	username, password string

	refreshing sync.Mutex // held while a token is asked for
	mu         sync.Mutex
	token      string
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (l *login) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if token := l.current(); token != "" {
		return map[string]string{rpctypes.TokenFieldNameGRPC: token}, nil
	}
	return nil, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (l *login) RequireTransportSecurity() bool { return false }

func (l *login) current() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}

// intercept repeats a call that failed for want of a valid token: etcd refused
// to do it, so it can't happen twice.
func (l *login) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	used := l.current()
	err := invoke(ctx, method, req, reply, conn, opts...)
	if !wantsToken(rpctypes.Error(err)) || method == etcdserverpb.Auth_Authenticate_FullMethodName {
		return err
	}
	if err := l.refresh(ctx, conn, used); err != nil {
		return err
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

// refresh replaces the token that was of no use; of many calls at once one does.
func (l *login) refresh(ctx context.Context, conn *grpc.ClientConn, used string) error {
	l.refreshing.Lock()
	defer l.refreshing.Unlock()
	if l.current() != used {
		return nil
	}
	got, err := etcdserverpb.NewAuthClient(conn).Authenticate(ctx,
		&etcdserverpb.AuthenticateRequest{Name: l.username, Password: l.password})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = got.Token
	return nil
}

// wantsToken says whether etcd did not take the token, or got none.
func wantsToken(err error) bool {
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) ||
		errors.Is(err, rpctypes.ErrAuthOldRevision)
}
