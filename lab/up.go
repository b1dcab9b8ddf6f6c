package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/router"
	"cairn.network/cairn/lab/topology"
)

// Files of a router's folder.
const (
	routerFile = "router.json"
	birdFile   = "bird.conf"
)

// Options says how to bring a lab up.
type Options struct {
	Root string // folder of all labs, see DefaultRoot
	Bin  string // folder of the programs cairn, cairn-cni and cairn-lab
	// Progress is told each step as it begins.
	Progress func(step string)
	// NoAgents leaves the agents to be started later.
	NoAgents bool
}

// Up brings a lab up and returns when every agent is ready and every BGP session,
// if there is any, Established. After an error the lab stays as it is, for a look; Down removes it.
func Up(ctx context.Context, t *topology.Topology, o Options) (*Lab, error) {
	l := &Lab{Topology: t, dir: filepath.Join(o.Root, t.Name), bin: o.Bin}
	for _, name := range []string{"cairn", "cairn-cni", "cairn-lab"} {
		if _, err := os.Stat(l.program(name)); err != nil {
			return nil, fmt.Errorf("up: %w", err)
		}
	}
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return nil, fmt.Errorf("up: %w", err)
	}
	if err := os.Mkdir(l.dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %s", ErrUp, t.Name)
	} else if err != nil {
		return nil, fmt.Errorf("up: %w", err)
	}
	unlock, err := lock(ctx, l.dir, true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, step := range l.steps(o) {
		o.Progress(step.name)
		if err := step.do(ctx); err != nil {
			return l, err
		}
	}
	return l, nil
}

// step is a part of bringing a lab up.
type step struct {
	name string
	do   func(context.Context) error
}

func (l *Lab) steps(o Options) []step {
	t := l.Topology
	steps := []step{
		{fmt.Sprintf("making namespaces: nodes %d, racks %d, routers %d", len(t.Nodes), len(t.Segments)-1, len(t.Routers)), l.build},
		{"starting etcd", func(ctx context.Context) error {
			if err := l.start(topology.Etcd); err != nil {
				return err
			}
			return l.WaitEtcd(ctx)
		}},
		{"filling the datastore", l.fill},
	}
	var speakers, nodes []string
	for _, r := range t.Routers {
		if r.Speaker != topology.SpeakerNone {
			speakers = append(speakers, r.Name)
		}
	}
	for _, n := range t.Nodes {
		nodes = append(nodes, n.Name)
	}
	if len(speakers) > 0 {
		steps = append(steps, step{"starting BGP on " + strings.Join(speakers, ", "), func(context.Context) error { return l.startAll(speakers) }})
	}
	if o.NoAgents {
		return steps
	}
	steps = append(steps,
		step{"starting the agents of " + strings.Join(nodes, ", "), func(ctx context.Context) error {
			if err := l.startAll(nodes); err != nil {
				return err
			}
			return l.WaitAgents(ctx, nodes...)
		}},
	)
	if t.HasSessions() {
		steps = append(steps, step{"waiting until every BGP session is Established", func(ctx context.Context) error { return l.WaitBGP(ctx, nodes...) }})
	}
	return steps
}

func (l *Lab) startAll(hosts []string) error {
	for _, h := range hosts {
		if err := l.start(h); err != nil {
			return err
		}
	}
	return nil
}

// build makes the files and namespaces.
func (l *Lab) build(context.Context) error {
	if err := l.save(); err != nil {
		return err
	}
	dirs := []string{l.netnsDir(), l.podsDir()}
	for _, h := range l.Topology.Hosts() {
		dirs = append(dirs, l.hostDir(h))
	}
	for _, n := range l.Topology.Nodes {
		dirs = append(dirs, l.hostFile(n.Name, runDir), l.hostFile(n.Name, stateDir), l.hostFile(n.Name, cniDir))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make folders: %w", err)
		}
	}
	for _, n := range l.Topology.Nodes {
		if err := l.writeNetwork(n.Name); err != nil {
			return err
		}
	}
	for _, r := range l.Topology.Routers {
		if err := l.writeRouter(r); err != nil {
			return err
		}
	}
	return fabric.Build(l.Topology, l.netnsDir())
}

// writeRouter writes the configuration of a router's speaker.
func (l *Lab) writeRouter(r topology.Router) error {
	c := router.Config{AS: r.ASNumber, NodeAS: l.Topology.ASNumber, Announce: r.Announce}
	for _, p := range r.Ports {
		for _, a := range p.Addrs {
			c.Listen = append(c.Listen, a.Addr())
		}
		for _, n := range l.Topology.Nodes {
			if n.Segment == p.Segment {
				c.Sessions = append(c.Sessions, sessions(n, p)...)
			}
		}
	}
	var b []byte
	var err error
	name := routerFile
	switch r.Speaker {
	case topology.SpeakerCairn:
		b, err = c.JSON()
	case topology.SpeakerBIRD:
		name = birdFile
		b, err = c.BIRD()
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("configure router %s: %w", r.Name, err)
	}
	if err := os.WriteFile(l.hostFile(r.Name, name), b, 0o600); err != nil {
		return fmt.Errorf("configure router %s: %w", r.Name, err)
	}
	return nil
}

// sessions pairs a node's addresses with those of the router's port.
func sessions(n topology.Host, p topology.Port) []router.Session {
	var ss []router.Session
	for _, a := range n.Addrs {
		for _, b := range p.Addrs {
			if a.Addr().Is4() == b.Addr().Is4() {
				ss = append(ss, router.Session{Node: n.Name, Addr: a.Addr(), Local: b.Addr()})
			}
		}
	}
	return ss
}

// fill writes the topology's resources into the datastore.
func (l *Lab) fill(ctx context.Context) error {
	objects, err := l.Topology.Objects()
	if err != nil {
		return err
	}
	path := filepath.Join(l.dir, "objects.yaml")
	if err := os.WriteFile(path, objects, 0o600); err != nil {
		return fmt.Errorf("fill the datastore: %w", err)
	}
	cmd, err := l.Ctl(ctx, "", "apply", "-f", path)
	if err != nil {
		return err
	}
	if out, err := l.output(cmd); err != nil {
		return fmt.Errorf("fill the datastore: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// addrs returns the addresses without prefix lengths.
func addrs(ps []netip.Prefix) []netip.Addr {
	as := make([]netip.Addr, len(ps))
	for i, p := range ps {
		as[i] = p.Addr()
	}
	return as
}
