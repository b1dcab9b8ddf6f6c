package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Defaults of a Config.
const (
	DefaultPrefix         = "/cairn"
	DefaultDialTimeout    = 3 * time.Second
	DefaultRequestTimeout = 8 * time.Second
)

// Config says where the etcd cluster is and how to get in.
type Config struct {
	// Endpoints are the members' client URLs: http://host:port, https://host:port,
	// unix:///path or unixs:///path, all with TLS or all without.
	Endpoints []string
	// CAFile holds the certificates (PEM) that the servers' must be signed by.
	// Default: the system's. It is read once.
	CAFile string
	// CertFile and KeyFile (PEM) are the client's certificate and its key. They
	// are read for each connection, so they may be renewed at any time.
	CertFile, KeyFile string
	// Username and one of Password and PasswordFile are the etcd user. The file is
	// read for each login, so its content may change at any time.
	Username, Password, PasswordFile string
	// Prefix begins every key. Default /cairn.
	Prefix string
	// DialTimeout bounds the time to connect to a member. Default 3 s.
	DialTimeout time.Duration
	// RequestTimeout bounds the time that etcd may take to answer. Default 8 s,
	// longer than etcd itself waits for a lost leader (7 s).
	RequestTimeout time.Duration
}

// settings is a Config that was found valid.
type settings struct {
	endpoints                []string
	tls                      *tls.Config // nil without TLS
	username                 string
	password                 func() (string, error)
	prefix                   string
	dialTimeout, callTimeout time.Duration
}

// parse checks the configuration and reads the files that it names.
func (c Config) parse() (settings, error) {
	s := settings{
		endpoints: slices.Clone(c.Endpoints), username: c.Username,
		prefix: c.Prefix, dialTimeout: c.DialTimeout, callTimeout: c.RequestTimeout,
	}
	if s.prefix == "" {
		s.prefix = DefaultPrefix
	}
	if s.prefix = strings.TrimRight(s.prefix, "/"); !strings.HasPrefix(s.prefix, "/") || strings.Contains(s.prefix, "//") {
		return s, fmt.Errorf("prefix %q: want one like %s", c.Prefix, DefaultPrefix)
	}
	if s.dialTimeout == 0 {
		s.dialTimeout = DefaultDialTimeout
	}
	if s.callTimeout == 0 {
		s.callTimeout = DefaultRequestTimeout
	}
	if s.dialTimeout < 0 || s.callTimeout < 0 {
		return s, errors.New("negative time-out")
	}
	secure, err := checkEndpoints(c.Endpoints)
	if err != nil {
		return s, err
	}
	if s.tls, err = c.tlsConfig(secure); err != nil {
		return s, err
	}
	s.password = c.password
	_, err = c.password()
	return s, err
}

// checkEndpoints returns whether the endpoints speak TLS.
func checkEndpoints(endpoints []string) (secure bool, err error) {
	if len(endpoints) == 0 {
		return false, errors.New("no endpoints given")
	}
	for i, endpoint := range endpoints {
		u, err := url.Parse(endpoint)
		if err != nil {
			return false, fmt.Errorf("endpoint %q: %w", endpoint, errors.Unwrap(err))
		}
		is := false
		switch u.Scheme {
		case "http", "https":
			if _, port, err := net.SplitHostPort(u.Host); err != nil || u.Hostname() == "" || port == "" {
				return false, fmt.Errorf("endpoint %q: want a host and a port, such as %s://192.0.2.1:2379", endpoint, u.Scheme)
			}
			if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
				return false, fmt.Errorf("endpoint %q: want nothing but scheme, host and port", endpoint)
			}
			is = u.Scheme == "https"
		case "unix", "unixs":
			if !strings.HasPrefix(u.Path, "/") || u.Host != "" {
				return false, fmt.Errorf("endpoint %q: want an absolute path, such as %s:///run/etcd.sock", endpoint, u.Scheme)
			}
			is = u.Scheme == "unixs"
		default:
			return false, fmt.Errorf("endpoint %q: want a URL with http, https, unix or unixs", endpoint)
		}
		if i > 0 && is != secure {
			return false, fmt.Errorf("endpoints %q and %q: one with TLS and one without", endpoints[0], endpoint)
		}
		secure = is
	}
	return secure, nil
}

func (c Config) tlsConfig(secure bool) (*tls.Config, error) {
	if !secure {
		if c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" {
			return nil, fmt.Errorf("certificate files are given, but endpoint %q does not use TLS", c.Endpoints[0])
		}
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA certificates: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA certificates: %s holds no certificate", c.CAFile)
		}
	}
	switch {
	case c.CertFile == "" && c.KeyFile == "":
		return t, nil
	case c.KeyFile == "":
		return nil, fmt.Errorf("certificate file %s is given without a key file", c.CertFile)
	case c.CertFile == "":
		return nil, fmt.Errorf("key file %s is given without a certificate file", c.KeyFile)
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s with key %s: %w", c.CertFile, c.KeyFile, err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return t, nil
}

func (c Config) password() (string, error) {
	switch {
	case c.Password != "" && c.PasswordFile != "":
		return "", errors.New("both a password and a password file are given")
	case c.Username == "" && (c.Password != "" || c.PasswordFile != ""):
		return "", errors.New("a password is given without a user name")
	case c.PasswordFile != "":
		data, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("password: %w", err)
		}
		password := strings.TrimRight(string(data), "\r\n")
		if password == "" {
			return "", fmt.Errorf("password: %s is empty", c.PasswordFile)
		}
		return password, nil
	case c.Username != "" && c.Password == "":
		return "", fmt.Errorf("user %q is given without a password", c.Username)
	}
	return c.Password, nil
}
