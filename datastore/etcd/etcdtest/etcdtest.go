// Package etcdtest runs real etcd clusters for tests, on loopback addresses, and
// does to them what happens to clusters: members stop, crash and come back,
// leaders go, history is compacted, users and certificates are wrong.
package etcdtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/errgroup"

	"cairn.network/cairn/datastore/etcd"
	"cairn.network/cairn/datastore/etcd/etcdserver"
)

// patience is how long a test waits for a cluster to do what it must.
const patience = time.Minute

// Options say what cluster a test wants. The zero value is one member without
// TLS and users.
type Options struct {
	Members    int    // default 1
	CA         *CA    // the servers' certificates come from it
	ClientCert bool   // clients need a certificate from CA
	User       string // the only one besides root who may read and write /cairn
	Password   string
}

// Cluster is an etcd cluster. Its members are numbered from 0.
type Cluster struct {
	t       testing.TB
	options Options
	configs []etcdserver.Config
	servers []*etcdserver.Server // nil while stopped
}

// rootPassword is that of etcd's user root in clusters with users.
const rootPassword = "root's password"

// Start starts a cluster, which ends with the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	n := max(o.Members, 1)
	c := &Cluster{t: t, options: o, configs: make([]etcdserver.Config, n), servers: make([]*etcdserver.Server, n)}
	members := map[string]string{}
	if n > 1 {
		for i := range n {
			members[fmt.Sprint("m", i)] = "http://" + freeAddress(t)
		}
	}
	for i := range n {
		address := freeAddress(t)
		conf := etcdserver.Config{
			Dir: filepath.Join(t.TempDir(), "etcd"), ClientURL: "http://" + address,
			Name: fmt.Sprint("m", i), Volatile: true, Tick: 50 * time.Millisecond, PasswordCost: uint(bcrypt.MinCost),
		}
		if n > 1 {
			conf.Members = members
		}
		if o.CA != nil {
			conf.ClientURL = "https://" + address
			conf.CertFile, conf.KeyFile = o.CA.Server(t, address)
			if o.ClientCert {
				conf.CAFile = o.CA.File
			}
		}
		c.configs[i] = conf
	}
	t.Cleanup(func() { c.Kill() })
	c.Start()
	if o.User != "" {
		c.enableUsers()
	}
	return c
}

// freeAddress returns a loopback address and port that nobody else will take:
// port numbers are taken at random by other programs, but on 127.0.0.1.
func freeAddress(t testing.TB) string {
	t.Helper()
	ip := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254))
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (c *Cluster) all() []int {
	all := make([]int, len(c.configs))
	for i := range all {
		all[i] = i
	}
	return all
}

// Start starts members that were stopped, all of them if none is named, and
// waits until they serve.
func (c *Cluster) Start(members ...int) {
	c.t.Helper()
	if len(members) == 0 {
		members = c.all()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	g := errgroup.Group{}
	for _, i := range members {
		g.Go(func() (err error) {
			c.servers[i], err = etcdserver.Start(ctx, c.configs[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		c.t.Fatal(err)
	}
}

// Stop stops members, all of them if none is named. Clients see their
// connections break; a leader hands over.
func (c *Cluster) Stop(members ...int) { c.end((*etcdserver.Server).Stop, members) }

// Kill is Stop, except that members end without a word to the others.
func (c *Cluster) Kill(members ...int) { c.end((*etcdserver.Server).Kill, members) }

func (c *Cluster) end(how func(*etcdserver.Server), members []int) {
	if len(members) == 0 {
		members = c.all()
	}
	var wg sync.WaitGroup
	for _, i := range members {
		wg.Go(func() {
			if c.servers[i] != nil {
				how(c.servers[i])
				c.servers[i] = nil
			}
		})
	}
	wg.Wait()
}

// Leader returns the number of the leader, once there is one.
func (c *Cluster) Leader() int {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		for i, s := range c.servers {
			if s != nil && s.Leader() {
				return i
			}
		}
		select {
		case <-tick.C:
		case <-late:
			c.t.Fatal("the cluster finds no leader")
		}
	}
}

// Endpoints returns the members' URLs.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, conf := range c.configs {
		out = append(out, conf.ClientURL)
	}
	return out
}

// Config returns the configuration with which a client gets in.
func (c *Cluster) Config() etcd.Config {
	conf := etcd.Config{Endpoints: c.Endpoints(), Username: c.options.User, Password: c.options.Password}
	if ca := c.options.CA; ca != nil {
		conf.CAFile = ca.File
		if c.options.ClientCert {
			conf.CertFile, conf.KeyFile = ca.Client(c.t, "client")
		}
	}
	return conf
}

// Open returns a store in the cluster, which the end of the test closes.
func (c *Cluster) Open() *etcd.Store { return c.OpenWith(c.Config()) }

// OpenWith is Open with another configuration.
func (c *Cluster) OpenWith(conf etcd.Config) *etcd.Store {
	c.t.Helper()
	s, err := etcd.Open(conf)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return s
}

// Client returns etcd's own client, as root where there are users.
func (c *Cluster) Client() *clientv3.Client {
	c.t.Helper()
	conf := clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()}
	if ca := c.options.CA; ca != nil {
		conf.TLS = ca.clientTLS(c.t)
	}
	if c.options.User != "" {
		conf.Username, conf.Password = "root", rootPassword
	}
	client, err := clientv3.New(conf)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

// Compact forgets all history before now.
func (c *Cluster) Compact() {
	c.t.Helper()
	client := c.Client()
	head, err := client.Get(c.t.Context(), "head", clientv3.WithCountOnly())
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := client.Compact(c.t.Context(), head.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !strings.Contains(err.Error(), "compacted") {
		c.t.Fatal(err)
	}
}

func (c *Cluster) enableUsers() {
	c.t.Helper()
	// Without this client's user: there are none yet.
	plain := *c
	plain.options.User = ""
	client, ctx := plain.Client(), c.t.Context()
	end := clientv3.GetPrefixRangeEnd(etcd.DefaultPrefix + "/")
	for _, step := range []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", rootPassword); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.RoleAdd(ctx, "cairn"); return err },
		func() error {
			_, err := client.RoleGrantPermission(ctx, "cairn", etcd.DefaultPrefix+"/", end, clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := client.UserAdd(ctx, c.options.User, c.options.Password); return err },
		func() error { _, err := client.UserGrantRole(ctx, c.options.User, "cairn"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			c.t.Fatal(err)
		}
	}
}
