package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/process"
	"cairn.network/cairn/lab/topology"
)

// Files of a host's folder.
const (
	runDir   = "run"        // the agent's sockets
	stateDir = "state"      // what the agent keeps on disk; etcd's data
	pidFile  = "daemon.pid" // the daemon's process
	logFile  = "daemon.log"
)

// Commands of cairn-lab that it runs as daemons. All but the pod server are no use by hand.
const (
	CommandEtcd        = "etcd-server"
	CommandRouter      = "router-server"
	CommandPodServer   = "pod-server"
	CommandEagerClient = "eager-client"
)

// healthAddress is where each agent answers for its health, inside its node.
const healthAddress = "127.0.0.1:9099"

// Endpoint returns the URL at which the datastore answers, inside the lab.
func (l *Lab) Endpoint() string { return "http://" + l.etcdAddr().String() }

func (l *Lab) etcdAddr() netip.AddrPort {
	return netip.AddrPortFrom(l.Topology.Etcd.Addrs[0].Addr(), topology.EtcdPort)
}

// Log returns the path of a host's daemon's log.
func (l *Lab) Log(host string) (string, error) {
	if _, err := l.Netns(host); err != nil {
		return "", err
	}
	return l.hostFile(host, logFile), nil
}

// environ is the environment of everything that the lab runs: the caller's,
// without settings of Cairn that were meant for others.
func (l *Lab) environ(host string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CAIRN_") || strings.HasPrefix(v, "PATH=")
	})
	env = append(env,
		"PATH="+l.bin+":"+os.Getenv("PATH"),
		"CAIRN_LAB_ROOT="+filepath.Dir(l.dir), "CAIRN_LAB_NAME="+l.Name(), // for a cairn-lab inside
		"CAIRN_ETCD_ENDPOINTS="+l.Endpoint())
	if _, isNode := l.Topology.Node(host); isNode {
		env = append(env, "CAIRN_RUN_DIR="+l.hostFile(host, runDir))
	}
	return env
}

// spec returns how to start a host's daemon; false if it has none.
func (l *Lab) spec(host string) (process.Spec, bool, error) {
	path, err := l.Netns(host)
	if err != nil {
		return process.Spec{}, false, err
	}
	s := process.Spec{Path: l.program("cairn-lab"), Env: l.environ(host), Mark: l.dir, Netns: path, Log: l.hostFile(host, logFile)}
	if node, ok := l.Topology.Node(host); ok {
		s.Path, s.Args = l.program("cairn"), l.agentArgs(node)
		for k, v := range l.Topology.Agent.Env {
			s.Env = append(s.Env, k+"="+v)
		}
		return s, true, nil
	}
	if r, ok := l.Topology.Router(host); ok {
		switch r.Speaker {
		case topology.SpeakerCairn:
			s.Args = []string{CommandRouter, "--config", l.hostFile(host, routerFile)}
		case topology.SpeakerBIRD:
			// -f: stay in the foreground; -s: its control socket.
			s.Path, s.Args = "/usr/sbin/bird", []string{"-f", "-c", l.hostFile(host, birdFile), "-s", l.hostFile(host, "bird.ctl")}
		default:
			return s, false, nil
		}
		return s, true, nil
	}
	if host == topology.Etcd {
		s.Args = []string{CommandEtcd, "--data-dir", l.hostFile(host, stateDir), "--listen", l.Endpoint()}
		return s, true, nil
	}
	return s, false, nil
}

func (l *Lab) agentArgs(node topology.Host) []string {
	args := []string{
		"agent", "--node-name", node.Name,
		"--etcd-endpoints", l.Endpoint(),
		"--run-dir", l.hostFile(node.Name, runDir),
		"--state-dir", l.hostFile(node.Name, stateDir),
		"--health-address", healthAddress,
	}
	for _, a := range node.Addrs {
		flag := "--ipv4-address"
		if a.Addr().Is6() {
			flag = "--ipv6-address"
		}
		args = append(args, flag, a.String())
	}
	return append(args, l.Topology.Agent.Args...)
}

// Start starts a host's daemon if it doesn't run; a router without a speaker has
// none. It does not wait for it to be ready.
func (l *Lab) Start(ctx context.Context, host string) error {
	unlock, err := lock(ctx, l.dir, false)
	if err != nil {
		return err
	}
	defer unlock()
	return l.start(host)
}

func (l *Lab) start(host string) error {
	spec, ok, err := l.spec(host)
	if err != nil || !ok {
		return err
	}
	if p, err := l.daemon(host); err != nil || p.Alive() {
		return err
	}
	p, err := process.Start(spec)
	if err != nil {
		return err
	}
	return p.Save(l.hostFile(host, pidFile))
}

// daemon returns the process of a host's daemon, which may have ended.
func (l *Lab) daemon(host string) (process.Process, error) {
	if _, err := l.Netns(host); err != nil {
		return process.Process{}, err
	}
	return process.Load(l.hostFile(host, pidFile))
}

// Stop asks a host's daemon to end and waits until it has.
func (l *Lab) Stop(ctx context.Context, host string) error {
	p, err := l.daemon(host)
	if err != nil {
		return err
	}
	return p.Stop(ctx, 10*time.Second)
}

// Kill ends a host's daemon at once (SIGKILL).
func (l *Lab) Kill(ctx context.Context, host string) error {
	p, err := l.daemon(host)
	if err != nil {
		return err
	}
	return p.Kill(ctx)
}

// Running says whether a host's daemon runs.
func (l *Lab) Running(host string) bool {
	p, err := l.daemon(host)
	return err == nil && p.Alive()
}

// alive returns an error that holds the end of the log if the host's daemon has
// ended: there is nothing to wait for then.
func (l *Lab) alive(host string) error {
	if l.Running(host) {
		return nil
	}
	return &finalError{fmt.Errorf("%s has ended: %s", host, lastLines(l.hostFile(host, logFile), 3))}
}

// lastLines returns the last lines of a file, on one.
func lastLines(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// WaitEtcd returns when the datastore answers.
func (l *Lab) WaitEtcd(ctx context.Context) error {
	path, err := l.Netns(topology.Etcd)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialIn(path)}}
	return until(ctx, "wait for etcd", func(ctx context.Context) error {
		if err := l.alive(topology.Etcd); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.Endpoint()+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("etcd answers %s", resp.Status)
		}
		return nil
	})
}

// dialIn returns a dialler for addresses (not names) in the namespace held at
// path.
func dialIn(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = netns.Do(path, func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return c, err
	}
}

// AgentStatus asks a node's agent for its status.
func (l *Lab) AgentStatus(ctx context.Context, node string) (*v1.NodeStatus, error) {
	return localapi.NewClient(filepath.Join(l.hostFile(node, runDir), filepath.Base(localapi.DefaultSocket))).Status(ctx)
}

// WaitAgents returns when the agents of these nodes are ready.
func (l *Lab) WaitAgents(ctx context.Context, nodes ...string) error {
	for _, node := range nodes {
		err := until(ctx, "wait for the agent of "+node, func(ctx context.Context) error {
			if err := l.alive(node); err != nil {
				return err
			}
			s, err := l.AgentStatus(ctx, node)
			if err != nil {
				return err
			}
			return condition(s, v1.ConditionReady)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// WaitBGP returns when every session of these nodes is Established: those with
// the routers of their rack, and those with the other nodes if there is a mesh.
func (l *Lab) WaitBGP(ctx context.Context, nodes ...string) error {
	for _, node := range nodes {
		err := until(ctx, "wait for BGP on "+node, func(ctx context.Context) error {
			if err := l.alive(node); err != nil {
				return err
			}
			s, err := l.AgentStatus(ctx, node)
			if err != nil {
				return err
			}
			return l.established(s)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) established(s *v1.NodeStatus) error {
	mesh := map[string]bool{}
	for _, p := range s.Status.BGP.Peers {
		if p.State != "Established" {
			return fmt.Errorf("the session with %s (%s) is %s: %s", p.Name, p.Address, p.State, p.LastError)
		}
		if p.Type == v1.PeerTypeMesh {
			mesh[p.Name] = true
		}
	}
	if want := len(l.Topology.Nodes) - 1; len(mesh) < want && l.Topology.HasMesh() {
		return fmt.Errorf("sessions with %d of %d other nodes", len(mesh), want)
	}
	return condition(s, v1.ConditionBGP)
}

// condition returns an error if the condition is not true.
func condition(s *v1.NodeStatus, name string) error {
	for _, c := range s.Status.Conditions {
		if c.Type == name {
			if c.Status == "True" {
				return nil
			}
			return fmt.Errorf("not %s: %s", name, c.Message)
		}
	}
	return fmt.Errorf("not %s: no such condition yet", name)
}

// pidText returns the daemon's process ID, or why there is none.
func (l *Lab) pidText(host string) string {
	p, err := l.daemon(host)
	switch {
	case err != nil:
		return err.Error()
	case p.PID == 0:
		return "never started"
	case !p.Alive():
		return "stopped"
	}
	return strconv.Itoa(p.PID)
}
