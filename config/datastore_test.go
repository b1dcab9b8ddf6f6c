package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

func TestDatastore(t *testing.T) {
	dir := t.TempDir()
	pem := filepath.Join(dir, "x.pem")
	if err := os.WriteFile(pem, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	def := Datastore{Type: "etcd", Etcd: Etcd{Endpoints: []string{"http://127.0.0.1:2379"}, Prefix: "/cairn", DialTimeout: 3 * time.Second}}
	with := func(change func(*Datastore)) Datastore { d := def; change(&d); return d }
	for name, tt := range map[string]struct {
		args, env string
		want      Datastore
		err       string
	}{
		"default": {want: def},
		"both families": {
			args: "--etcd-endpoints=http://192.0.2.1:2379,http://[2001:db8::1]:2379",
			want: with(func(d *Datastore) { d.Etcd.Endpoints = []string{"http://192.0.2.1:2379", "http://[2001:db8::1]:2379"} }),
		},
		"socket": {
			args: "--etcd-endpoints=unix:///run/etcd.sock",
			want: with(func(d *Datastore) { d.Etcd.Endpoints = []string{"unix:///run/etcd.sock"} }),
		},
		"socket without a path": {args: "--etcd-endpoints=unixs://run", err: `--etcd-endpoints: "unixs://run": an absolute path is wanted, such as unixs:///run/etcd.sock`},
		"no URL":                {args: "--etcd-endpoints=e:1", err: `--etcd-endpoints: "e:1": a URL is wanted, such as http://192.0.2.1:2379`},
		"TLS": {
			args: "--etcd-endpoints=https://e:2379/ --etcd-ca-file=PEM --etcd-cert-file=PEM --etcd-key-file=PEM",
			want: with(func(d *Datastore) {
				d.Etcd.Endpoints = []string{"https://e:2379/"}
				d.Etcd.CAFile, d.Etcd.CertFile, d.Etcd.KeyFile = pem, pem, pem
			}),
		},
		"user with a file":     {args: "--etcd-username=u --etcd-password-file=PEM", want: with(func(d *Datastore) { d.Etcd.Username = "u"; d.Etcd.PasswordFile = pem })},
		"user with a variable": {args: "--etcd-username=u", env: "CAIRN_ETCD_PASSWORD=p", want: with(func(d *Datastore) { d.Etcd.Username = "u"; d.Etcd.Password = "p" })},
		"smallest time":        {args: "--etcd-dial-timeout=1ns", want: with(func(d *Datastore) { d.Etcd.DialTimeout = 1 })},
		"no time":              {args: "--etcd-dial-timeout=0", err: "--etcd-dial-timeout: 0s is not more than 0"},
		"kubernetes":           {env: "CAIRN_DATASTORE_TYPE=kubernetes", err: "environment CAIRN_DATASTORE_TYPE: kubernetes is not built in yet: use etcd"},
		"another type":         {args: "--datastore-type=consul", err: `--datastore-type: there is no type "consul": use etcd`},
		"no endpoint":          {args: "--etcd-endpoints=", err: "--etcd-endpoints: at least one endpoint is wanted"},
		"no port":              {args: "--etcd-endpoints=http://e", err: `--etcd-endpoints: "http://e": host:port is wanted`},
		"no host":              {args: "--etcd-endpoints=http://:2379", err: `--etcd-endpoints: "http://:2379": host:port is wanted`},
		"port 65535":           {args: "--etcd-endpoints=http://e:65535", want: with(func(d *Datastore) { d.Etcd.Endpoints = []string{"http://e:65535"} })},
		"port 65536":           {args: "--etcd-endpoints=http://e:65536", err: `--etcd-endpoints: "http://e:65536": "65536" is no port`},
		"port 0":               {args: "--etcd-endpoints=http://e:0", err: `--etcd-endpoints: "http://e:0": "0" is no port`},
		"other scheme":         {args: "--etcd-endpoints=ftp://e:1", err: `--etcd-endpoints: "ftp://e:1": the scheme is ftp, not http, https, unix or unixs`},
		"path":                 {args: "--etcd-endpoints=http://e:1/x", err: `--etcd-endpoints: "http://e:1/x": only scheme://host:port is wanted`},
		"certificates in the clear": {
			args: "--etcd-endpoints=https://a:1,http://b:2 --etcd-ca-file=PEM",
			err:  `--etcd-endpoints: "http://b:2" would be spoken to in the clear although certificates are given: want https or unixs`,
		},
		"certificate alone":       {args: "--etcd-endpoints=https://a:1 --etcd-cert-file=PEM", err: "--etcd-cert-file: a certificate and its key (--etcd-key-file) are wanted together"},
		"file that is not there":  {args: "--etcd-endpoints=https://a:1 --etcd-ca-file=/nonexistent", err: "--etcd-ca-file: open /nonexistent: no such file or directory"},
		"user alone":              {args: "--etcd-username=u", err: `--etcd-username: a password is wanted for "u": --etcd-password-file or CAIRN_ETCD_PASSWORD`},
		"password alone":          {env: "CAIRN_ETCD_PASSWORD=p", err: "--etcd-username: a user is wanted for the password"},
		"password twice":          {args: "--etcd-username=u --etcd-password-file=PEM", env: "CAIRN_ETCD_PASSWORD=p", err: "--etcd-password-file: the password is given twice, by file and by CAIRN_ETCD_PASSWORD"},
		"prefix without a slash":  {args: "--etcd-prefix=cairn", err: `--etcd-prefix: "cairn" must start with a slash and not end with one`},
		"prefix with a slash too": {args: "--etcd-prefix=/cairn/", err: `--etcd-prefix: "/cairn/" must start with a slash and not end with one`},
	} {
		t.Run(name, func(t *testing.T) {
			var d Datastore
			fs := pflag.NewFlagSet("", pflag.ContinueOnError)
			d.AddFlags(fs)
			if err := fs.Parse(strings.Fields(strings.ReplaceAll(tt.args, "PEM", pem))); err != nil {
				t.Fatal(err)
			}
			if err := Load(fs, Sources{Environ: strings.Fields(tt.env)}); err != nil {
				t.Fatal(err)
			}
			err := d.Validate()
			if tt.err != "" {
				var usage *UsageError
				if !errors.As(err, &usage) || err.Error() != tt.err {
					t.Fatalf("got %v\nwant %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, d, cmpopts.IgnoreUnexported(Datastore{})); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPasswordIsNoFlag(t *testing.T) {
	var d Datastore
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	d.AddFlags(fs)
	err := fs.Parse([]string{"--etcd-password=p"})
	if err == nil || !strings.HasSuffix(err.Error(), "a secret is not taken from the command line") {
		t.Errorf("on the command line: %v", err)
	}
	path := filepath.Join(t.TempDir(), "cairn.yaml")
	if err := os.WriteFile(path, []byte("etcd-password: p"), 0o600); err != nil {
		t.Fatal(err)
	}
	fs = pflag.NewFlagSet("", pflag.ContinueOnError)
	d.AddFlags(fs)
	err = Load(fs, Sources{File: path})
	if want := path + ": etcd-password: a secret is not taken from this file: use etcd-password-file or the environment"; err == nil || err.Error() != want {
		t.Errorf("in the file: %v, want %s", err, want)
	}
}
