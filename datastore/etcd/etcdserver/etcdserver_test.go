package etcdserver_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.network/cairn/datastore/etcd"
	"cairn.network/cairn/datastore/etcd/etcdserver"
	"cairn.network/cairn/datastore/storetest"
)

// As a lab runs it: on a socket, for one member, with data that lasts.
func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "etcd") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := etcdserver.Config{Dir: filepath.Join(dir, "data"), ClientURL: "unix://" + filepath.Join(dir, "s")}
	s, err := etcd.Open(etcd.Config{Endpoints: []string{conf.ClientURL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })

	for round, end := range []func(*etcdserver.Server){(*etcdserver.Server).Kill, (*etcdserver.Server).Stop, (*etcdserver.Server).Stop} {
		server, err := etcdserver.Start(t.Context(), conf)
		if err != nil {
			t.Fatal(err)
		}
		if !server.Leader() {
			t.Error("the only member does not lead")
		}
		storetest.Poll(t, "the store answers", func() bool { return s.Check(t.Context()) == nil })
		pools, err := s.List(t.Context(), "IPPool")
		if err != nil || len(pools) != round {
			t.Errorf("in round %d there are %d pools, %v", round, len(pools), err)
		}
		storetest.Create(t, s, storetest.Pool(string(rune('a'+round)), "10.0.0.0/16"))
		end(server)
	}
}

func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := "http://127.1.2.3:32379"
	for _, row := range []struct {
		name string
		conf etcdserver.Config
		says string
	}{
		{"no folder", etcdserver.Config{ClientURL: free}, "no data folder"},
		{"no URL", etcdserver.Config{Dir: t.TempDir()}, `URL ""`},
		{"not a folder", etcdserver.Config{Dir: file, ClientURL: free}, "not a directory"},
		{"port in use", etcdserver.Config{Dir: t.TempDir(), ClientURL: "http://" + taken.Addr().String()}, "address already in use"},
		{"not a member", etcdserver.Config{Dir: t.TempDir(), ClientURL: free, Name: "x", Members: map[string]string{"y": "http://127.1.2.3:32380"}}, `member "x"`},
		{"https without certificate", etcdserver.Config{Dir: t.TempDir(), ClientURL: "https://127.1.2.3:32379"}, "TLS key/cert"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, err := etcdserver.Start(t.Context(), row.conf)
			if err == nil {
				s.Kill()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), row.says) {
				t.Errorf("%v\nwant it to say %q", err, row.says)
			}
		})
	}
	t.Run("no majority", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := etcdserver.Start(ctx, etcdserver.Config{
			Dir: t.TempDir(), ClientURL: free, Name: "a",
			Members: map[string]string{"a": "http://127.1.2.3:32380", "b": "http://127.1.2.3:32381"},
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want it to end with its context", err)
		}
	})
}
