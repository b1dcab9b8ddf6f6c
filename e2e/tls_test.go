package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/topology"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func pemFile(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pemFile(t, dir, name+".pem", "CERTIFICATE", der)}
}

// sign returns the files of a certificate for an address, and of its key.
func (a *authority) sign(t *testing.T, dir, name string, ip net.IP, until time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{ip},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-2 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, dir, name+".pem", "CERTIFICATE", der), pemFile(t, dir, name+"-key.pem", "EC PRIVATE KEY", b)
}

// TestEtcdCertificates has agents and ctl meet an etcd whose certificate they
// can't trust, or that does not trust theirs. Each says which it is; ctl ends, an
// agent with what it needs goes on trying.
func TestEtcdCertificates(t *testing.T) {
	t.Parallel()
	l := up(t, small)
	dir := t.TempDir()
	good, other := newAuthority(t, dir, "good"), newAuthority(t, dir, "other")
	soon := time.Now().Add(time.Hour)
	addr := l.Topology.Etcd.Addrs[0].Addr()
	cert, key := good.sign(t, dir, "server", addr.AsSlice(), soon)
	expired, expiredKey := good.sign(t, dir, "expired", addr.AsSlice(), time.Now().Add(-time.Hour))
	elsewhere, elsewhereKey := good.sign(t, dir, "elsewhere", net.IPv4(192, 0, 2, 1), soon)
	client, clientKey := good.sign(t, dir, "client", addr.AsSlice(), soon)
	stranger, strangerKey := other.sign(t, dir, "stranger", addr.AsSlice(), soon)

	trust := []string{"--etcd-ca-file", good.file}
	identify := func(cert, key string) []string {
		return append([]string{"--etcd-cert-file", cert, "--etcd-key-file", key}, trust...)
	}
	servers := []struct {
		name      string
		cert, key string
		clients   bool // asks clients for a certificate
		flags     []string
		want      string // in the error; empty: it works
	}{
		{"works", cert, key, false, trust, ""},
		{"signed by nobody we know", cert, key, false, []string{"--etcd-ca-file", other.file}, "certificate"},
		{"expired", expired, expiredKey, false, trust, "expired"},
		{"of another address", elsewhere, elsewhereKey, false, trust, "192.0.2.1"},
		{"our certificate works", cert, key, true, identify(client, clientKey), ""},
		{"wants a certificate", cert, key, true, trust, "certificate"},
		{"does not know ours", cert, key, true, identify(stranger, strangerKey), "certificate"},
		{"no such file", cert, key, false, []string{"--etcd-ca-file", dir + "/none"}, "none"},
		{"not a certificate", cert, key, false, []string{"--etcd-ca-file", key}, "server-key.pem"},
	}
	for i, tt := range servers {
		t.Run(tt.name, func(t *testing.T) {
			url := fmt.Sprintf("https://%s:%d", addr, 12379+i)
			args := []string{"cairn-lab", lab.CommandEtcd, "--data-dir", t.TempDir(), "--listen", url, "--cert-file", tt.cert, "--key-file", tt.key}
			if tt.clients {
				args = append(args, "--client-ca-file", good.file)
			}
			ctx, stop := context.WithCancel(t.Context())
			server, err := l.Command(ctx, topology.Etcd, args...)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Run() }()
			defer func() { stop(); <-ended }()
			settings := append([]string{"--etcd-endpoints", url, "--etcd-dial-timeout", "2s"}, tt.flags...)
			eventually(t, 15*time.Second, func() error {
				out, err := run1(l, t, append([]string{"cairn", "ctl", "get", "ippools"}, settings...)...)
				return expect(out, err, tt.want)
			})
			if tt.want == "" {
				return
			}
			agent := append([]string{
				"cairn", "agent", "--node-name", "n9", "--ipv4-address", "10.101.1.19/24",
				"--run-dir", t.TempDir(), "--state-dir", t.TempDir(), "--health-address", "",
			}, settings...)
			says(t, l, tt.want, agent...)
		})
	}
}

// run1 runs a command on n1 and returns what it says.
func run1(l *lab.Lab, t *testing.T, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd, err := l.Command(ctx, "n1", argv...)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// says starts a daemon on n1, waits until it has written the text, and ends it.
func says(t *testing.T, l *lab.Lab, text string, argv ...string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	daemon, err := l.Command(ctx, "n1", argv...)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon.Stdout, daemon.Stderr = log, log
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run() }()
	defer func() { stop(); <-ended }()
	eventually(t, 10*time.Second, func() error {
		b, err := os.ReadFile(log.Name())
		if err == nil && !strings.Contains(string(b), text) {
			err = fmt.Errorf("%s says %q, want %q in it", argv[1], b, text)
		}
		return err
	})
}

// expect says how a command's end differs from one line with the wanted text, or
// from success if that is empty.
func expect(out string, err error, want string) error {
	switch {
	case want == "" && err != nil:
		return fmt.Errorf("%w: %s", err, out)
	case want == "":
		return nil
	case err == nil:
		return fmt.Errorf("no error, but %q", out)
	}
	lines := strings.Split(out, "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, want) {
		return fmt.Errorf("ended with %q, want %q in it", last, want)
	}
	return nil
}
