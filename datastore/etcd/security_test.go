package etcd_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/etcd"
	"cairn.network/cairn/datastore/etcd/etcdtest"
	"cairn.network/cairn/datastore/storetest"
)

// With certificates on both sides and a user, everything works as without.
func TestStoreWithTLSAndUser(t *testing.T) {
	t.Parallel()
	suite(t, etcdtest.Start(t, etcdtest.Options{CA: etcdtest.NewCA(t), ClientCert: true, User: "cairn", Password: "secret"}))
}

// Whatever is wrong is said in one line, at once, by Check, Get and Watch.
func TestRefusedAccess(t *testing.T) {
	t.Parallel()
	ca, foreign := etcdtest.NewCA(t), etcdtest.NewCA(t)
	secure := etcdtest.Start(t, etcdtest.Options{CA: ca, ClientCert: true})
	plain := etcdtest.Start(t, etcdtest.Options{User: "cairn", Password: "secret"})
	port := func(c *etcdtest.Cluster) string { return c.Endpoints()[0][strings.LastIndex(c.Endpoints()[0], ":"):] }

	for _, row := range []struct {
		name    string
		cluster *etcdtest.Cluster
		change  func(*etcd.Config)
		err     error
		says    []string // the error contains one of these
	}{
		{"fine", secure, func(*etcd.Config) {}, nil, nil},
		{"fine with user", plain, func(*etcd.Config) {}, nil, nil},
		{"unknown authority", secure, func(c *etcd.Config) { c.CAFile = foreign.File },
			datastore.ErrUnavailable, []string{"x509: certificate signed by unknown authority"}},
		{"system's authorities", secure, func(c *etcd.Config) { c.CAFile = "" },
			datastore.ErrUnavailable, []string{"x509: certificate signed by unknown authority"}},
		{"certificate for another address", secure, func(c *etcd.Config) { c.Endpoints = []string{newProxyTo(t, secure, "https")} },
			datastore.ErrUnavailable, []string{"x509: certificate is valid for"}},
		{"no client certificate", secure, func(c *etcd.Config) { c.CertFile, c.KeyFile = "", "" },
			datastore.ErrUnavailable, []string{"tls: certificate required", "it may refuse the client certificate"}},
		{"foreign client certificate", secure, func(c *etcd.Config) { c.CertFile, c.KeyFile = foreign.Client(t, "x") },
			datastore.ErrUnavailable, []string{"tls: unknown certificate authority", "tls: bad certificate", "it may refuse the client certificate"}},
		{"expired client certificate", secure, func(c *etcd.Config) { c.CertFile, c.KeyFile = ca.Expired(t, "x") },
			datastore.ErrUnavailable, []string{"tls: expired certificate", "it may refuse the client certificate"}},
		{"http to a TLS port", secure, func(c *etcd.Config) {
			*c = etcd.Config{Endpoints: []string{strings.Replace(c.Endpoints[0], "https", "http", 1)}}
		}, datastore.ErrUnavailable, []string{"it may want https"}},
		{"https to a plain port", plain, func(c *etcd.Config) {
			c.Endpoints = []string{strings.Replace(c.Endpoints[0], "http", "https", 1)}
		}, datastore.ErrUnavailable, []string{"first record does not look like a TLS handshake", "not want https"}},
		{"wrong password", plain, func(c *etcd.Config) { c.Password = "wrong" },
			datastore.ErrDenied, []string{"authentication failed, invalid user ID or password"}},
		{"unknown user", plain, func(c *etcd.Config) { c.Username = "nobody" },
			datastore.ErrDenied, []string{"authentication failed, invalid user ID or password"}},
		{"no user", plain, func(c *etcd.Config) { c.Username, c.Password = "", "" },
			datastore.ErrDenied, []string{"user name is empty"}},
		{"another prefix", plain, func(c *etcd.Config) { c.Prefix = "/other" },
			datastore.ErrDenied, []string{"permission denied"}},
		{"nobody there", plain, func(c *etcd.Config) { c.Endpoints = []string{"http://127.255.255.254" + port(plain)} },
			datastore.ErrUnavailable, []string{"connection refused"}},
		{"no such socket", plain, func(c *etcd.Config) { c.Endpoints = []string{"unix:///nowhere/etcd.sock"} },
			datastore.ErrUnavailable, []string{"no such file or directory"}},
		{"no such host", plain, func(c *etcd.Config) { c.Endpoints = []string{"http://nowhere.invalid:2379"} },
			datastore.ErrUnavailable, []string{"nowhere.invalid"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			conf := row.cluster.Config()
			row.change(&conf)
			s := row.cluster.OpenWith(conf)
			start := time.Now()
			check := s.Check(t.Context())
			if took := time.Since(start); took > etcd.DefaultRequestTimeout {
				t.Errorf("check took %s", took)
			}
			_, get := s.Get(t.Context(), key("a"))
			if row.err == nil {
				if check != nil || !errors.Is(get, datastore.ErrNotFound) {
					t.Errorf("check %v, get %v", check, get)
				}
				return
			}
			told := storetest.Follow(t, s, "IPPool").Until("Down was told", down).Down
			for call, err := range map[string]error{"check": check, "get": get, "watch": told} {
				found := false
				for _, text := range row.says {
					found = found || err != nil && strings.Contains(err.Error(), text)
				}
				if !errors.Is(err, row.err) || !found || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v\nwant %v in one line with one of %q", call, err, row.err, row.says)
				}
			}
			t.Log(get)
		})
	}
}

func newProxyTo(t *testing.T, c *etcdtest.Cluster, scheme string) string {
	return strings.Replace(newProxy(t, c.Endpoints()[0]).url(), "http", scheme, 1)
}

// The right that was missing is given: the watch goes on by itself.
func TestRightsGrantedLater(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{User: "cairn", Password: "secret"})
	conf := c.Config()
	conf.Username, conf.Password = "late", "late's password"
	s := c.OpenWith(conf)
	f := storetest.Follow(t, s, "IPPool")
	if v := f.Until("Down was told", down); !errors.Is(v.Down, datastore.ErrDenied) {
		t.Errorf("Down is %v, want ErrDenied", v.Down)
	}
	root := c.Client()
	if _, err := root.UserAdd(t.Context(), "late", "late's password"); err != nil {
		t.Fatal(err)
	}
	if _, err := root.UserGrantRole(t.Context(), "late", "cairn"); err != nil {
		t.Fatal(err)
	}
	f.Until("all was told", listed)
	storetest.Create(t, s, pool("a"))
	f.Until("a was told", has("a"))
}

// Tokens do not survive a restart of etcd: the store gets another by itself.
func TestTokenLost(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{User: "cairn", Password: "secret"})
	s := c.Open()
	storetest.Create(t, s, pool("a"))
	f := storetest.Follow(t, s, "IPPool")
	f.Until("all was told", listed)
	c.Stop()
	f.Until("Down was told", down)
	c.Start()
	v := f.Until("Up was told", up)
	create(t, s, "b")
	if v = f.Until("b was told", has("b")); v.Alls != 1 {
		t.Errorf("all was told %d times", v.Alls)
	}
}

// The password changes, in etcd first and then in the file.
func TestPasswordChanged(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{User: "cairn", Password: "old"})
	conf := c.Config()
	conf.Password, conf.PasswordFile = "", filepath.Join(t.TempDir(), "password")
	install := func(password string) {
		t.Helper()
		if err := os.WriteFile(conf.PasswordFile, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install("old")
	s := c.OpenWith(conf)
	storetest.Create(t, s, pool("a"))
	if _, err := c.Client().UserChangePassword(t.Context(), "cairn", "new"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), key("a")); !errors.Is(err, datastore.ErrDenied) {
		t.Errorf("with the old password: %v, want ErrDenied", err)
	}
	f := storetest.Follow(t, s, "IPPool")
	f.Until("Down was told", down)
	install("new")
	f.Until("all was told", listed)
	if err := os.Remove(conf.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), key("a")); err != nil {
		t.Errorf("with a token, the file is not needed: %v", err)
	}
}

// The client's certificate expires and is replaced: new connections use it.
func TestCertificateRenewed(t *testing.T) {
	t.Parallel()
	ca := etcdtest.NewCA(t)
	c := etcdtest.Start(t, etcdtest.Options{CA: ca, ClientCert: true})
	conf := c.Config()
	goodCert, goodKey := conf.CertFile, conf.KeyFile
	conf.CertFile, conf.KeyFile = filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
	install := func(cert, key string) {
		t.Helper()
		for from, to := range map[string]string{cert: conf.CertFile, key: conf.KeyFile} {
			data, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	install(ca.Expired(t, "client"))
	s := c.OpenWith(conf)
	f := storetest.Follow(t, s, "IPPool")
	f.Until("Down was told", down)
	install(goodCert, goodKey)
	f.Until("all was told", listed)
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := c.Open()
	for name, size := range map[string]int{"over the server's limit": 1600 << 10, "over the client's limit": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			o := pool("large")
			o.Annotations = map[string]string{"filler": strings.Repeat("x", size)}
			_, err := s.Create(t.Context(), o)
			if err == nil || errors.Is(err, datastore.ErrUnavailable) || !strings.Contains(err.Error(), "bytes are more than etcd takes") {
				t.Errorf("create: %v", err)
			}
			t.Log(err)
		})
	}
}

// What others wrote under the prefix stops nothing.
func TestBrokenObjects(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s, raw := c.Open(), c.Client()
	put := func(path, value string) {
		t.Helper()
		if _, err := raw.Put(t.Context(), "/cairn/resources/"+path, value); err != nil {
			t.Fatal(err)
		}
	}
	put("ippools/broken", "{")
	put("ippools/no/such/key", "{}")
	put("workloadendpoints/no-namespace", "{}")
	storetest.Create(t, s, pool("good"))
	f := storetest.Follow(t, s, "IPPool")
	v := f.Until("all was told", listed)
	if len(v.Objects) != 1 || len(v.Broken) != 1 || !errors.Is(v.Broken[key("broken")], datastore.ErrBroken) {
		t.Errorf("told %v and broken %v", v.Objects, v.Broken)
	}
	put("ippools/good", "[]")
	put("ippools/no/such/key", "{}")
	f.Until("good broke", func(v storetest.View) bool { return len(v.Broken) == 2 && len(v.Objects) == 0 })
	if got, err := s.List(t.Context(), "IPPool"); len(got) != 0 || !errors.Is(err, datastore.ErrBroken) ||
		!strings.Contains(err.Error(), "IPPool good") || !strings.Contains(err.Error(), "IPPool broken") {
		t.Errorf("list: %v, %v", got, err)
	}
	if got, err := s.List(t.Context(), "WorkloadEndpoint"); len(got) != 0 || err != nil {
		t.Errorf("list: %v, %v", got, err)
	}
	for _, name := range []string{"good", "broken"} {
		if err := s.Delete(t.Context(), key(name), ""); err != nil {
			t.Error(err)
		}
	}
	f.Until("both are gone", func(v storetest.View) bool { return len(v.Broken) == 0 })
}

func TestKeyLayout(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	conf := c.Config()
	conf.Prefix = "/two/parts/"
	s, raw := c.OpenWith(conf), c.Client()
	made := storetest.Create(t, s, storetest.Endpoint("red", "web"))
	storetest.Create(t, s, pool("blue"))
	for path, want := range map[string]string{
		"/two/parts/resources/workloadendpoints/red/web": fmt.Sprintf(`"uid":"%s"`, made.UID),
		"/two/parts/resources/ippools/blue":              `"kind":"IPPool"`,
	} {
		got, err := raw.Get(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Kvs) != 1 || !strings.Contains(string(got.Kvs[0].Value), want) || strings.Contains(string(got.Kvs[0].Value), "resourceVersion") {
			t.Errorf("%s holds %v", path, got.Kvs)
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s, err := etcd.Open(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	watching := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(t.Context(), "IPPool", func(datastore.Event) {
			select {
			case watching <- struct{}{}:
			default:
			}
		})
	}()
	<-watching
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("a watch of a closed store ended without an error")
	}
	if _, err := s.Get(t.Context(), key("a")); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("get: %v, want ErrUnavailable", err)
	}
}
