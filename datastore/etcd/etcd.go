// Package etcd keeps Cairn's resources in an etcd v3 cluster.
//
// An object is JSON under <prefix>/resources/<plural>/[<namespace>/]<name>; its
// revision is the key's mod_revision. Each write is one transaction. Keys that no
// object can have are passed over.
//
// It guarantees that no call hangs: while no member can be reached a call ends
// at once with the reason that connecting failed for last (TLS included), and
// otherwise within Config.RequestTimeout. Writes are not repeated by themselves,
// so that none happens twice. Losses of the connection, members without a leader
// and members that went silent are noticed and made good by Watch.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// A silent server is noticed after keepaliveTime plus keepaliveTimeout. gRPC
// takes no less than 10 s, and etcd's servers no less than 5 s.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
)

// maxReconnect is the longest pause between attempts to connect to a member.
const maxReconnect = 2 * time.Second

// pageSize is how many objects one answer of a list holds at most.
const pageSize = 500

// Store is a datastore.Store in etcd.
type Store struct {
	settings
	client *clientv3.Client
	kv     clientv3.KV
	watch  etcdserverpb.WatchClient
}

// Open checks the configuration and returns the store. It does not wait for
// etcd: Check does.
func Open(cfg Config) (*Store, error) {
	s, err := cfg.parse()
	if err != nil {
		return nil, fmt.Errorf("etcd configuration: %w", err)
	}
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay, reconnect.MaxDelay = 100*time.Millisecond, maxReconnect
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: s.dialTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	}
	if s.username != "" {
		l := &login{username: s.username, password: s.password}
		options = append(options, grpc.WithPerRPCCredentials(l), grpc.WithChainUnaryInterceptor(l.intercept))
	}
	// The client gets neither user nor time-out: with them it would wait for etcd
	// here, and hide the reason why there is no answer.
	client, err := clientv3.New(clientv3.Config{
		Endpoints: s.endpoints, TLS: s.tls, DialOptions: options, Logger: zap.NewNop(),
		DialKeepAliveTime: keepaliveTime, DialKeepAliveTimeout: keepaliveTimeout,
		MaxUnaryRetries: uint(len(s.endpoints)),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	return &Store{
		settings: s, client: client,
		// Without the client's call options calls don't wait for a connection
		// longer than it takes to know that there is none.
		kv:    clientv3.NewKVFromKVClient(clientv3.RetryKVClient(client), nil),
		watch: etcdserverpb.NewWatchClient(client.ActiveConnection()),
	}, nil
}

// Close ends all that runs on the store.
func (s *Store) Close() error {
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

// Check returns why the store can't be used, if it can't: ErrUnavailable or
// ErrDenied with the reason.
func (s *Store) Check(ctx context.Context) error {
	_, err := s.head(ctx, s.prefix+"/resources/")
	return s.explain(ctx, err)
}

// Get implements datastore.Store.
func (s *Store) Get(ctx context.Context, key datastore.Key) (v1.Object, error) {
	o, err := s.get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, s.explain(ctx, err))
	}
	return o, nil
}

func (s *Store) get(ctx context.Context, key datastore.Key) (v1.Object, error) {
	if err := key.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	got, err := s.kv.Get(ctx, s.path(key))
	if err != nil {
		return nil, err
	}
	if len(got.Kvs) == 0 {
		return nil, datastore.ErrNotFound
	}
	return decode(key, got.Kvs[0])
}

// List implements datastore.Store.
func (s *Store) List(ctx context.Context, kind string) ([]v1.Object, error) {
	l, err := s.list(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, s.explain(ctx, err))
	}
	var broken []error
	for key, err := range l.broken {
		broken = append(broken, fmt.Errorf("%s: %w", key, err))
	}
	return l.objects, errors.Join(broken...)
}

// Create implements datastore.Store.
func (s *Store) Create(ctx context.Context, o v1.Object) (v1.Object, error) {
	key := datastore.KeyOf(o)
	made, err := s.create(ctx, key, o)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", key, s.explain(ctx, err))
	}
	return made, nil
}

func (s *Store) create(ctx context.Context, key datastore.Key, o v1.Object) (v1.Object, error) {
	if err := key.Check(); err != nil {
		return nil, err
	}
	return s.put(ctx, key, 0, datastore.Stamp(o, time.Now()))
}

// Update implements datastore.Store.
func (s *Store) Update(ctx context.Context, o v1.Object) (v1.Object, error) {
	key := datastore.KeyOf(o)
	put, err := s.update(ctx, key, o)
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", key, s.explain(ctx, err))
	}
	return put, nil
}

func (s *Store) update(ctx context.Context, key datastore.Key, o v1.Object) (v1.Object, error) {
	revision, err := parseRevision(o.GetResourceVersion())
	if err != nil {
		return nil, err
	}
	// What is stored now decides about generation, uid and whether to write.
	old, err := s.get(ctx, key)
	if err != nil {
		return nil, err
	}
	if old.GetResourceVersion() != o.GetResourceVersion() {
		return nil, datastore.ErrConflict
	}
	next, changed, err := datastore.Amend(old, o)
	if err != nil {
		return nil, err
	}
	if !changed {
		return old, nil
	}
	return s.put(ctx, key, revision, next)
}

// put writes the object if its key's revision is the given one; 0 means that
// there is no such key.
func (s *Store) put(ctx context.Context, key datastore.Key, revision int64, o v1.Object) (v1.Object, error) {
	data, err := datastore.Encode(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	path := s.path(key)
	done, err := s.kv.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(path), "=", revision)).
		Then(clientv3.OpPut(path, string(data))).
		Else(clientv3.OpGet(path, clientv3.WithKeysOnly())).
		Commit()
	switch {
	case err != nil && tooLarge(err):
		return nil, fmt.Errorf("its %d bytes are more than etcd takes", len(data))
	case err != nil:
		return nil, err
	case done.Succeeded:
		return datastore.Decode(key, formatRevision(done.Header.Revision), data)
	case revision == 0:
		return nil, datastore.ErrExists
	case done.Responses[0].GetResponseRange().Count == 0:
		return nil, datastore.ErrNotFound
	}
	return nil, datastore.ErrConflict
}

// Delete implements datastore.Store.
func (s *Store) Delete(ctx context.Context, key datastore.Key, revision string) error {
	if err := s.delete(ctx, key, revision); err != nil {
		return fmt.Errorf("delete %s: %w", key, s.explain(ctx, err))
	}
	return nil
}

func (s *Store) delete(ctx context.Context, key datastore.Key, revision string) error {
	if err := key.Check(); err != nil {
		return err
	}
	path := s.path(key)
	condition := clientv3.Compare(clientv3.ModRevision(path), ">", 0)
	if revision != "" {
		r, err := parseRevision(revision)
		if err != nil {
			return err
		}
		condition = clientv3.Compare(clientv3.ModRevision(path), "=", r)
	}
	ctx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	done, err := s.kv.Txn(ctx).
		If(condition).
		Then(clientv3.OpDelete(path)).
		Else(clientv3.OpGet(path, clientv3.WithKeysOnly())).
		Commit()
	switch {
	case err != nil:
		return err
	case done.Succeeded:
		return nil
	case done.Responses[0].GetResponseRange().Count == 0:
		return datastore.ErrNotFound
	}
	return datastore.ErrConflict
}

// listing is all objects of a kind at one revision of one cluster.
type listing struct {
	position
	objects []v1.Object
	broken  map[datastore.Key]error
}

// position is a point in the history of a cluster.
type position struct {
	cluster  uint64
	revision int64
}

func at(h *etcdserverpb.ResponseHeader) position { return position{h.ClusterId, h.Revision} }

// list reads all objects of a kind. It begins again if etcd forgets the revision
// that it reads, which can't happen often.
func (s *Store) list(ctx context.Context, kind string) (listing, error) {
	for {
		l, err := s.listOnce(ctx, kind)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return l, err
		}
	}
}

// listOnce reads page by page at the revision of the first page, the next one while one
// is decoded.
func (s *Store) listOnce(ctx context.Context, kind string) (listing, error) {
	l := listing{objects: []v1.Object{}, broken: map[datastore.Key]error{}}
	if err := datastore.CheckKind(kind); err != nil {
		return l, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	folder := s.folder(kind)
	end := clientv3.GetPrefixRangeEnd(folder)
	page, err := s.page(ctx, folder, end, 0)
	if err != nil {
		return l, err
	}
	l.position = at(page.Header)
	for {
		var next chan *clientv3.GetResponse
		var failed error // set before next is closed
		if page.More {
			next = make(chan *clientv3.GetResponse, 1)
			from := string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
			go func() {
				defer close(next)
				var got *clientv3.GetResponse
				if got, failed = s.page(ctx, from, end, l.revision); failed == nil {
					next <- got
				}
			}()
		}
		for _, kv := range page.Kvs {
			key, ok := keyOf(kind, folder, kv)
			if !ok {
				continue
			}
			if o, err := decode(key, kv); err != nil {
				l.broken[key] = err
			} else {
				l.objects = append(l.objects, o)
			}
		}
		if next == nil {
			datastore.SortByKey(l.objects)
			return l, nil
		}
		var ok bool
		if page, ok = <-next; !ok {
			return l, failed
		}
	}
}

func (s *Store) page(ctx context.Context, from, end string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	return s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
}

// head returns where the cluster's history is now, as the majority knows it.
func (s *Store) head(ctx context.Context, path string) (position, error) {
	ctx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	got, err := s.kv.Get(ctx, path, clientv3.WithCountOnly())
	if err != nil {
		return position{}, err
	}
	return at(got.Header), nil
}

// folder returns what the paths of all objects of a known kind begin with.
func (s *Store) folder(kind string) string {
	k, _ := v1.KindByName(kind)
	return s.prefix + "/resources/" + k.Plural + "/"
}

func (s *Store) path(key datastore.Key) string {
	if key.Namespace == "" {
		return s.folder(key.Kind) + key.Name
	}
	return s.folder(key.Kind) + key.Namespace + "/" + key.Name
}

// keyOf is the inverse of path for a kind and its folder; false if no object has
// that path.
func keyOf(kind, folder string, kv *mvccpb.KeyValue) (datastore.Key, bool) {
	key := datastore.Key{Kind: kind, Name: strings.TrimPrefix(string(kv.Key), folder)}
	if namespace, name, ok := strings.Cut(key.Name, "/"); ok {
		key.Namespace, key.Name = namespace, name
	}
	return key, key.Check() == nil
}

func decode(key datastore.Key, kv *mvccpb.KeyValue) (v1.Object, error) {
	return datastore.Decode(key, formatRevision(kv.ModRevision), kv.Value)
}

func formatRevision(r int64) string { return strconv.FormatInt(r, 10) }

func parseRevision(text string) (int64, error) {
	r, err := strconv.ParseInt(text, 10, 64)
	if err != nil || r <= 0 {
		return 0, fmt.Errorf("resourceVersion %q is not one of this store's", text)
	}
	return r, nil
}
