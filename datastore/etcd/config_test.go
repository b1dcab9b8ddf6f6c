package etcd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn.network/cairn/datastore/etcd"
	"cairn.network/cairn/datastore/etcd/etcdtest"
)

func TestConfig(t *testing.T) {
	ca := etcdtest.NewCA(t)
	cert, certKey := ca.Client(t, "a")
	_, otherKey := ca.Client(t, "b")
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	junk, empty, password := file("junk", "no PEM"), file("empty", "\n"), file("password", "secret\n")
	http, https := []string{"http://127.0.0.1:2379"}, []string{"https://127.0.0.1:2379"}

	for _, row := range []struct {
		name string
		conf etcd.Config
		says string // "" is no error
	}{
		{"http", etcd.Config{Endpoints: http}, ""},
		{"https", etcd.Config{Endpoints: https}, ""},
		{"trailing slash", etcd.Config{Endpoints: []string{"http://127.0.0.1:2379/"}}, ""},
		{"IPv6", etcd.Config{Endpoints: []string{"http://[::1]:2379"}}, ""},
		{"socket", etcd.Config{Endpoints: []string{"unix:///run/etcd.sock"}}, ""},
		{"socket with TLS", etcd.Config{Endpoints: []string{"unixs:///run/etcd.sock"}, CAFile: ca.File}, ""},
		{"several", etcd.Config{Endpoints: []string{"https://192.0.2.1:2379", "https://192.0.2.2:2379"}}, ""},
		{"certificates", etcd.Config{Endpoints: https, CAFile: ca.File, CertFile: cert, KeyFile: certKey}, ""},
		{"user", etcd.Config{Endpoints: http, Username: "u", Password: "p"}, ""},
		{"password file", etcd.Config{Endpoints: http, Username: "u", PasswordFile: password}, ""},

		{"no endpoints", etcd.Config{}, "no endpoints given"},
		{"no scheme", etcd.Config{Endpoints: []string{"etcd:2379"}}, `endpoint "etcd:2379": want a URL with http, https, unix or unixs`},
		{"bare address", etcd.Config{Endpoints: []string{"127.0.0.1:2379"}}, `endpoint "127.0.0.1:2379": `},
		{"other scheme", etcd.Config{Endpoints: []string{"ftp://h:1"}}, `endpoint "ftp://h:1": want a URL`},
		{"no port", etcd.Config{Endpoints: []string{"http://h"}}, "want a host and a port"},
		{"no host", etcd.Config{Endpoints: []string{"http://:2379"}}, "want a host and a port"},
		{"path", etcd.Config{Endpoints: []string{"http://h:1/v3"}}, "want nothing but scheme, host and port"},
		{"user in URL", etcd.Config{Endpoints: []string{"http://u:p@h:1"}}, "want nothing but scheme, host and port"},
		{"relative socket", etcd.Config{Endpoints: []string{"unix://etcd.sock"}}, "want an absolute path"},
		{"mixed", etcd.Config{Endpoints: []string{"http://h:1", "https://h:2"}}, "one with TLS and one without"},
		{"prefix", etcd.Config{Endpoints: http, Prefix: "cairn"}, `prefix "cairn": want one like /cairn`},
		{"root prefix", etcd.Config{Endpoints: http, Prefix: "/"}, `prefix "/": want one like /cairn`},
		{"negative time", etcd.Config{Endpoints: http, DialTimeout: -1}, "negative time-out"},
		{"certificates without TLS", etcd.Config{Endpoints: http, CAFile: ca.File}, "does not use TLS"},
		{"CA missing", etcd.Config{Endpoints: https, CAFile: "/nowhere/ca"}, "CA certificates: open /nowhere/ca: no such file or directory"},
		{"CA junk", etcd.Config{Endpoints: https, CAFile: junk}, "junk holds no certificate"},
		{"key missing", etcd.Config{Endpoints: https, CertFile: cert}, "is given without a key file"},
		{"certificate missing", etcd.Config{Endpoints: https, KeyFile: certKey}, "is given without a certificate file"},
		{"certificate not there", etcd.Config{Endpoints: https, CertFile: "/nowhere/cert", KeyFile: certKey}, "open /nowhere/cert: no such file or directory"},
		{"certificate junk", etcd.Config{Endpoints: https, CertFile: junk, KeyFile: certKey}, "failed to find any PEM data"},
		{"another's key", etcd.Config{Endpoints: https, CertFile: cert, KeyFile: otherKey}, "private key does not match public key"},
		{"user without password", etcd.Config{Endpoints: http, Username: "u"}, `user "u" is given without a password`},
		{"password without user", etcd.Config{Endpoints: http, Password: "p"}, "a password is given without a user name"},
		{"two passwords", etcd.Config{Endpoints: http, Username: "u", Password: "p", PasswordFile: password}, "both a password and a password file"},
		{"password file missing", etcd.Config{Endpoints: http, Username: "u", PasswordFile: "/nowhere/pw"}, "password: open /nowhere/pw: no such file or directory"},
		{"password file empty", etcd.Config{Endpoints: http, Username: "u", PasswordFile: empty}, "is empty"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, err := etcd.Open(row.conf)
			switch {
			case row.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.says == "":
				s.Close()
			case err == nil:
				t.Errorf("accepted, want it to say %q", row.says)
			case !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "\n"):
				t.Errorf("%v\nwant one line with %q", err, row.says)
			}
		})
	}
}
