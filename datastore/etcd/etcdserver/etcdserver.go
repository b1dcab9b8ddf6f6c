// Package etcdserver runs an etcd server inside this process, as a lab and tests
// need one. Nothing that runs in production imports it.
//
// A server keeps what it acknowledged through a crash, and compacts its history
// by itself. Stopping breaks off its clients' streams rather than waiting for
// them, so that it takes no time and looks to clients like a crash.
package etcdserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
)

// Config says how to run a member. Only Dir and ClientURL are needed for a
// cluster of one.
type Config struct {
	// Dir keeps the data. A server started on the Dir of an earlier one goes on
	// with its data.
	Dir string
	// ClientURL is where to serve clients: http or https with address and port, or
	// unix://path or unixs://path.
	ClientURL string
	// CertFile and KeyFile are the server's certificate and key. With CAFile,
	// clients need a certificate signed by it.
	CertFile, KeyFile, CAFile string

	// Name is this member's. Default default.
	Name string
	// Members holds the URLs at which the members of a cluster of several reach
	// each other, by name.
	Members map[string]string

	// Tick is the time between heartbeats; a leader is missed after ten of them.
	// Default 100 ms.
	Tick time.Duration
	// Volatile skips waiting for the disk: faster, and data is lost when the
	// machine (not the process) crashes.
	Volatile bool
	// PasswordCost is the bcrypt cost of users' passwords, 4 to 31. Default 10.
	PasswordCost uint
	// Log gets warnings and errors, one JSON object a line. Default: nobody.
	Log io.Writer
}

// Server is a running member.
type Server struct {
	etcd *embed.Etcd

	mu    sync.Mutex
	grpcs []*grpc.Server
}

// Start starts a member and waits until it serves clients, which in a cluster
// needs a majority of the others.
func Start(ctx context.Context, c Config) (*Server, error) {
	s := &Server{}
	conf, err := s.config(c)
	if err != nil {
		return nil, fmt.Errorf("etcd server: %w", err)
	}
	if s.etcd, err = embed.StartEtcd(conf); err != nil {
		return nil, fmt.Errorf("start etcd server: %w", err)
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		return s, nil
	case err = <-s.etcd.Err():
		err = cmp.Or(err, errors.New("it ended at once"))
	case <-ctx.Done():
		err = fmt.Errorf("it can't serve yet: %w", context.Cause(ctx))
	}
	// Not Stop: a server that isn't ready does not end by that.
	s.Kill()
	return nil, fmt.Errorf("start etcd server: %w", err)
}

// Stop ends the server; a leader hands over to another member first. Its data
// stays in Dir.
func (s *Server) Stop() {
	s.breakOff()
	s.etcd.Close()
}

// Kill ends the server without a word to the other members.
func (s *Server) Kill() {
	s.breakOff()
	s.etcd.Server.HardStop()
	s.etcd.Close()
}

// breakOff ends all that clients have under way.
func (s *Server) breakOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grpcs {
		g.Stop()
	}
}

// Err returns the channel on which the server tells why it failed; it is closed
// when the server has stopped.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Leader says whether this member is the cluster's leader.
func (s *Server) Leader() bool { return s.etcd.Server.Leader() == s.etcd.Server.MemberID() }

func (s *Server) config(c Config) (*embed.Config, error) {
	if c.Dir == "" {
		return nil, errors.New("no data folder given")
	}
	conf := embed.NewConfig()
	conf.Name = cmp.Or(c.Name, conf.Name)
	conf.Dir = c.Dir
	client, err := parse(c.ClientURL)
	if err != nil {
		return nil, err
	}
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	conf.ClientTLSInfo = transport.TLSInfo{
		CertFile: c.CertFile, KeyFile: c.KeyFile, TrustedCAFile: c.CAFile, ClientCertAuth: c.CAFile != "",
	}
	// A cluster of one has nobody to talk to.
	conf.ListenPeerUrls = nil
	conf.InitialCluster = conf.InitialClusterFromName(conf.Name)
	if len(c.Members) > 0 {
		peer, err := parse(c.Members[conf.Name])
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", conf.Name, err)
		}
		conf.ListenPeerUrls, conf.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		var members []string
		for name, u := range c.Members {
			members = append(members, name+"="+u)
		}
		conf.InitialCluster = strings.Join(members, ",")
	}
	if c.Tick > 0 {
		conf.TickMs = uint(c.Tick.Milliseconds())
		conf.ElectionMs = 10 * conf.TickMs
	}
	conf.AutoCompactionMode, conf.AutoCompactionRetention = embed.CompactorModePeriodic, "5m"
	conf.UnsafeNoFsync = c.Volatile
	conf.BcryptCost = cmp.Or(c.PasswordCost, conf.BcryptCost)
	conf.EnableGRPCGateway = false
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger(c.Log))
	conf.ServiceRegister = func(g *grpc.Server) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.grpcs = append(s.grpcs, g)
	}
	return conf, nil
}

func parse(text string) (url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return url.URL{}, err
	}
	if u.Host == "" && u.Path == "" {
		return url.URL{}, fmt.Errorf("URL %q: want one like http://127.0.0.1:2379 or unix:///run/etcd.sock", text)
	}
	return *u, nil
}

func logger(w io.Writer) *zap.Logger {
	if w == nil {
		return zap.NewNop()
	}
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(w), zap.WarnLevel))
}
