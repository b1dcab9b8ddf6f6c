package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/etcd"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/topology"
)

// Store opens the datastore from this process, which is outside of the lab's
// namespaces: a socket in a folder leads into etcd's. hangUp closes it all.
func (l *Lab) Store() (s datastore.Store, hangUp func(), err error) {
	inside, err := l.Netns(topology.Etcd)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "cairn-lab-")
	if err != nil {
		return nil, nil, err
	}
	socket := filepath.Join(dir, "etcd.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	go lead(listener, inside, strings.TrimPrefix(l.Endpoint(), "http://"))
	client, err := etcd.Open(etcd.Config{Endpoints: []string{"unix://" + socket}})
	if err != nil {
		return nil, nil, errors.Join(err, listener.Close(), os.RemoveAll(dir))
	}
	return client, func() {
		client.Close()
		listener.Close()
		_ = os.RemoveAll(dir) // a folder in /tmp that stays harms nobody
	}, nil
}

// Write puts resources (YAML or JSON) into the datastore, whatever was there before and
// checked by nobody: what a program might do that passes by the doors.
func (l *Lab) Write(ctx context.Context, text []byte) error {
	objects, err := v1.Decode(text)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	store, hangUp, err := l.Store()
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer hangUp()
	for _, o := range objects {
		if err := Put(ctx, store, o); err != nil {
			return fmt.Errorf("write %s: %w", datastore.KeyOf(o), err)
		}
	}
	return nil
}

// Put makes an object what o says, whether or not there is one, and whatever it is. It
// is for one writer of the object.
func Put(ctx context.Context, s datastore.Store, o v1.Object) error {
	old, err := s.Get(ctx, datastore.KeyOf(o))
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		_, err = s.Create(ctx, o)
	case err == nil:
		o.SetUID(old.GetUID())
		o.SetResourceVersion(old.GetResourceVersion())
		_, err = s.Update(ctx, o)
	}
	return err
}

// lead joins each connection to l with one to addr inside the namespace held at
// path, until l is closed.
func lead(l net.Listener, path, addr string) {
	for {
		here, err := l.Accept()
		if err != nil {
			return
		}
		var there net.Conn
		err = netns.Do(path, func() (err error) {
			there, err = net.Dial("tcp", addr)
			return err
		})
		if err != nil {
			here.Close()
			continue
		}
		for _, c := range [][2]net.Conn{{here, there}, {there, here}} {
			go func() {
				_, _ = io.Copy(c[0], c[1]) // ends when either side hangs up
				c[0].Close()
				c[1].Close()
			}()
		}
	}
}
