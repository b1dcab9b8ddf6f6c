package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cairn.network/cairn/datastore"
)

// Pauses between attempts to watch: none before the first, then from firstRetry
// doubling up to maxRetry, halved by chance so that clients spread out. A watch
// that lived for steadyAfter begins anew.
const (
	firstRetry  = 50 * time.Millisecond
	maxRetry    = 2 * time.Second
	steadyAfter = 5 * time.Second
)

// watcher is a running Watch. It speaks etcd's watch protocol itself, because
// the client's watcher hides outages and goes on for ever without a word.
type watcher struct {
	store *Store
	kind  string
	tell  func(datastore.Event)

	at   position // everything up to here was told; zero: nothing
	down bool     // Down was told
}

// Watch implements datastore.Store.
func (s *Store) Watch(ctx context.Context, kind string, f func(datastore.Event)) error {
	if err := datastore.CheckKind(kind); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	w := &watcher{store: s, kind: kind, tell: f}
	for failures := 0; ; failures++ {
		if failures > 0 && !pause(ctx, failures) {
			return nil
		}
		watching, err := w.run(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case s.client.Ctx().Err() != nil:
			return fmt.Errorf("watch %s: the store was closed", kind)
		case watching > steadyAfter:
			failures = -1
		}
		if errors.Is(err, rpctypes.ErrCompacted) {
			w.at = position{}
			continue
		}
		// A watch that ran and broke off says nothing yet: another member may take
		// over at once. One that can't begin does.
		if watching == 0 && !w.down {
			w.down = true
			f(datastore.Event{Down: s.explain(ctx, err)})
		}
	}
}

func pause(ctx context.Context, failures int) bool {
	d := min(firstRetry<<min(failures-1, 10), maxRetry)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// run lists or resumes, and then watches until that breaks off. It returns for
// how long it was watching.
func (w *watcher) run(ctx context.Context) (watching time.Duration, err error) {
	// A member that lost the others says so, instead of waiting for them.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	if err := w.begin(ctx); err != nil {
		return 0, err
	}
	stream, err := w.store.watch.Watch(ctx)
	if err != nil {
		return 0, rpctypes.Error(err)
	}
	folder := w.store.folder(w.kind)
	if err := stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
		CreateRequest: &etcdserverpb.WatchCreateRequest{
			Key: []byte(folder), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(folder)),
			StartRevision: w.at.revision + 1, ProgressNotify: true,
		},
	}}); err != nil && !errors.Is(err, io.EOF) { // EOF: Recv says why
		return 0, rpctypes.Error(err)
	}
	var since time.Time
	for {
		response, err := stream.Recv()
		if err != nil {
			err = rpctypes.Error(err)
		} else {
			err = refusal(response)
		}
		if err == nil && since.IsZero() {
			since = time.Now()
			w.up()
		}
		if err != nil {
			if since.IsZero() {
				return 0, err
			}
			return max(time.Since(since), 1), err
		}
		w.receive(response)
	}
}

// refusal returns why the server ended the watch, nil if it did not.
func refusal(r *etcdserverpb.WatchResponse) error {
	switch {
	case r.CompactRevision != 0:
		return rpctypes.ErrCompacted
	case !r.Canceled:
		return nil
	case r.CancelReason == "":
		return status.Error(codes.Unavailable, "the watch was cancelled")
	}
	// The server gives some reasons as the text of a gRPC status.
	reason := r.CancelReason
	if i := strings.LastIndex(reason, "desc = "); i >= 0 {
		reason = reason[i+len("desc = "):]
	}
	return rpctypes.Error(status.Error(codes.Unavailable, reason))
}

// begin makes sure that at is a point in the history of the cluster that is
// there now, if need be by telling all objects.
func (w *watcher) begin(ctx context.Context) error {
	if w.at.revision > 0 {
		// Among other things this gets a new token if the old one expired.
		head, err := w.store.head(ctx, w.store.folder(w.kind))
		if err != nil {
			return err
		}
		// Another cluster, or one restored from a backup, would never tell what
		// happened to what is known here.
		if head.cluster == w.at.cluster && head.revision >= w.at.revision {
			return nil
		}
	}
	l, err := w.store.list(ctx, w.kind)
	if err != nil {
		return err
	}
	if len(l.broken) == 0 {
		l.broken = nil
	}
	w.at, w.down = l.position, false
	w.tell(datastore.Event{All: l.objects, Broken: l.broken})
	return nil
}

// up ends an outage after which the history went on.
func (w *watcher) up() {
	if w.down {
		w.down = false
		w.tell(datastore.Event{Up: true})
	}
}

// receive tells what a response says.
func (w *watcher) receive(r *etcdserverpb.WatchResponse) {
	folder := w.store.folder(w.kind)
	for _, e := range r.Events {
		key, ok := keyOf(w.kind, folder, e.Kv)
		switch {
		case !ok:
		case e.Type == mvccpb.Event_DELETE:
			w.tell(datastore.Event{Deleted: key})
		default:
			if o, err := decode(key, e.Kv); err != nil {
				w.tell(datastore.Event{Broken: map[datastore.Key]error{key: err}})
			} else {
				w.tell(datastore.Event{Set: o})
			}
		}
	}
	switch n := len(r.Events); {
	case n > 0:
		w.at.revision = r.Events[n-1].Kv.ModRevision
	case !r.Created:
		// Progress: nothing up to here is still to come.
		w.at.revision = max(w.at.revision, r.Header.Revision)
	}
}
