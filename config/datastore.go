package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Types of datastores.
const (
	DatastoreEtcd       = "etcd"
	DatastoreKubernetes = "kubernetes"
)

// Datastore says where Cairn's resources are kept. AddFlags gives it its
// defaults, Load its values; after Validate it needs no further checks.
type Datastore struct {
	// Type is one of the Datastore texts.
	Type string
	// Etcd holds for the type etcd.
	Etcd Etcd

	flags *pflag.FlagSet // to say where a bad value came from
}

// Etcd says how etcd is reached.
type Etcd struct {
	Endpoints []string // URLs: http, https, unix or unixs
	// CAFile, CertFile and KeyFile are paths of PEM files: whom to believe that it
	// is etcd, and who we are.
	CAFile   string
	CertFile string
	KeyFile  string
	// Username and one of Password and PasswordFile; or none of them.
	Username     string
	Password     string
	PasswordFile string
	Prefix       string        // of all keys; starts with a slash
	DialTimeout  time.Duration // how long connecting to an endpoint may take
}

const (
	typeFlag         = "datastore-type"
	endpointsFlag    = "etcd-endpoints"
	caFlag           = "etcd-ca-file"
	certFlag         = "etcd-cert-file"
	keyFlag          = "etcd-key-file"
	usernameFlag     = "etcd-username"
	passwordFlag     = "etcd-password"
	passwordFileFlag = "etcd-password-file"
	prefixFlag       = "etcd-prefix"
	dialTimeoutFlag  = "etcd-dial-timeout"
)

// AddFlags adds the datastore's flags. The password has none that works: it is
// read from a file or from CAIRN_ETCD_PASSWORD.
func (d *Datastore) AddFlags(flags *pflag.FlagSet) {
	d.flags = flags
	e := &d.Etcd
	flags.StringVar(&d.Type, typeFlag, DatastoreEtcd, "where resources are kept: etcd")
	flags.StringSliceVar(&e.Endpoints, endpointsFlag, []string{"http://127.0.0.1:2379"}, "etcd's client URLs")
	flags.StringVar(&e.CAFile, caFlag, "", "PEM file with the authorities that sign etcd's certificates (default the system's)")
	flags.StringVar(&e.CertFile, certFlag, "", "PEM file with our certificate for etcd")
	flags.StringVar(&e.KeyFile, keyFlag, "", "PEM file with our certificate's key")
	flags.StringVar(&e.Username, usernameFlag, "", "etcd user")
	flags.StringVar(&e.PasswordFile, passwordFileFlag, "", "file with the etcd user's password (or "+Variable(passwordFlag)+")")
	flags.StringVar(&e.Prefix, prefixFlag, "/cairn", "prefix of all keys in etcd")
	flags.DurationVar(&e.DialTimeout, dialTimeoutFlag, 3*time.Second, "how long connecting to etcd may take")
	flags.Var(&secret{&e.Password}, passwordFlag, "")
	flags.Lookup(passwordFlag).Hidden = true
}

// Validate returns what is wrong with the settings, with where each bad value
// came from. It looks at files, but not at the network. Errors are UsageErrors.
func (d *Datastore) Validate() error {
	var errs []error
	bad := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", d.origin(flag), fmt.Errorf(format, args...)))
	}
	switch d.Type {
	case DatastoreEtcd:
		d.Etcd.validate(bad)
	case DatastoreKubernetes:
		bad(typeFlag, "kubernetes is not built in yet: use etcd")
	default:
		bad(typeFlag, "there is no type %q: use etcd", d.Type)
	}
	if err := errors.Join(errs...); err != nil {
		return &UsageError{err}
	}
	return nil
}

func (d *Datastore) origin(flag string) string {
	if d.flags == nil {
		return "--" + flag
	}
	return Origin(d.flags, flag)
}

func (e *Etcd) validate(bad func(flag, format string, args ...any)) {
	if len(e.Endpoints) == 0 {
		bad(endpointsFlag, "at least one endpoint is wanted")
	}
	for _, ep := range e.Endpoints {
		secure, err := endpoint(ep)
		if err != nil {
			bad(endpointsFlag, "%q: %w", ep, err)
		} else if !secure && (e.CAFile != "" || e.CertFile != "") {
			bad(endpointsFlag, "%q would be spoken to in the clear although certificates are given: want https or unixs", ep)
		}
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		bad(certFlag, "a certificate and its key (--%s) are wanted together", keyFlag)
	}
	for _, f := range []struct{ flag, path string }{
		{caFlag, e.CAFile}, {certFlag, e.CertFile}, {keyFlag, e.KeyFile}, {passwordFileFlag, e.PasswordFile},
	} {
		if f.path == "" {
			continue
		}
		if file, err := os.Open(f.path); err != nil {
			bad(f.flag, "%w", err)
		} else {
			file.Close()
		}
	}
	e.validateUser(bad)
	if !strings.HasPrefix(e.Prefix, "/") || strings.HasSuffix(e.Prefix, "/") {
		bad(prefixFlag, "%q must start with a slash and not end with one", e.Prefix)
	}
	if e.DialTimeout <= 0 {
		bad(dialTimeoutFlag, "%s is not more than 0", e.DialTimeout)
	}
}

func (e *Etcd) validateUser(bad func(flag, format string, args ...any)) {
	password := e.Password != "" || e.PasswordFile != ""
	switch {
	case e.Password != "" && e.PasswordFile != "":
		bad(passwordFileFlag, "the password is given twice, by file and by %s", Variable(passwordFlag))
	case e.Username != "" && !password:
		bad(usernameFlag, "a password is wanted for %q: --%s or %s", e.Username, passwordFileFlag, Variable(passwordFlag))
	case e.Username == "" && password:
		bad(usernameFlag, "a user is wanted for the password")
	}
}

// endpoint checks one of etcd's addresses and says whether TLS is spoken to it.
func endpoint(text string) (secure bool, err error) {
	u, err := url.Parse(text)
	if err != nil || !strings.Contains(text, "://") {
		return false, errors.New("a URL is wanted, such as http://192.0.2.1:2379")
	}
	switch u.Scheme {
	case "unix", "unixs":
		if !strings.HasPrefix(u.Path, "/") || u.Host != "" {
			return false, fmt.Errorf("an absolute path is wanted, such as %s:///run/etcd.sock", u.Scheme)
		}
		return u.Scheme == "unixs", nil
	case "http", "https":
	default:
		return false, fmt.Errorf("the scheme is %s, not http, https, unix or unixs", u.Scheme)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return false, errors.New("only scheme://host:port is wanted")
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || host == "" {
		return false, errors.New("host:port is wanted")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false, fmt.Errorf("%q is no port", port)
	}
	return u.Scheme == "https", nil
}
