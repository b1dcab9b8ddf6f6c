package bench

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/etcd"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/topology"
)

// store opens the datastore of the run's lab.
func (b *bench) store() (datastore.Store, func(), error) { return open(b.lab) }

// open opens a lab's datastore from this process, which is outside of the
// lab's namespaces: a socket in a folder leads into etcd's. A client program in
// there would take the processors away, at its start and end, from what is
// measured. hangUp closes it all.
func open(l *lab.Lab) (s datastore.Store, hangUp func(), err error) {
	inside, err := l.Netns(topology.Etcd)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "cairn-bench-")
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
