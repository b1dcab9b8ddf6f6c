// Package lab runs whole clusters on one machine: each host of a topology is a
// network namespace, each daemon a real process in one.
//
// It guarantees that all of a lab is in namespaces, processes and files that it
// made itself and finds again whatever happened in between: the files in one
// folder, the namespaces held there, the processes marked with that folder's
// name. So Down leaves nothing, also after every process was killed, and labs of
// different names live side by side.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/topology"
)

// DefaultRoot is the folder that holds a folder for each lab.
const DefaultRoot = "/run/cairn-lab"

// Sentinels of this package, for errors.Is.
var (
	// ErrNotUp says that there is no lab of that name, or none at all.
	ErrNotUp = errors.New("lab is not up")
	// ErrUp says that there is a lab of that name already.
	ErrUp = errors.New("lab is up already")
	// ErrUnknown says that the lab has no such host or pod.
	ErrUnknown = errors.New("unknown")
)

// Lab is a cluster on this machine.
type Lab struct {
	Topology *topology.Topology
	dir      string // everything of this lab; also the mark of its processes
	bin      string // folder of the binaries
}

// record is what is kept of a lab.
type record struct {
	Bin      string             `json:"bin"`
	Topology *topology.Topology `json:"topology"`
}

// Open returns the lab of that name, which may be half up only. An empty name
// means the only lab there is.
func Open(root, name string) (*Lab, error) {
	if name == "" {
		var err error
		if name, err = only(root); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(root, name)
	b, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotUp, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open lab %s: %w", name, err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("open lab %s: %w", name, err)
	}
	return &Lab{Topology: r.Topology, dir: dir, bin: r.Bin}, nil
}

// Names returns the names of all labs in the folder.
func Names(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// only returns the name of the only lab.
func only(root string) (string, error) {
	names, err := Names(root)
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", ErrNotUp
	case len(names) > 1:
		return "", fmt.Errorf("there are several labs, name one: %s", strings.Join(names, ", "))
	}
	return names[0], nil
}

// Name returns the lab's name.
func (l *Lab) Name() string { return filepath.Base(l.dir) }

// Host paths. The folder of a host holds what its daemon needs: run, state, log.

func (l *Lab) netnsDir() string { return filepath.Join(l.dir, "netns") }

// Netns returns the path of the file that holds a host's namespace.
func (l *Lab) Netns(host string) (string, error) {
	if !slices.Contains(l.Topology.Hosts(), host) {
		return "", fmt.Errorf("host %s: %w; there are %s", host, ErrUnknown, strings.Join(l.Topology.Hosts(), ", "))
	}
	return fabric.Path(l.netnsDir(), host), nil
}

func (l *Lab) hostDir(host string) string { return filepath.Join(l.dir, "hosts", host) }
func (l *Lab) hostFile(host, name string) string {
	return filepath.Join(l.hostDir(host), name)
}

// program returns the path of one of Cairn's programs.
func (l *Lab) program(name string) string { return filepath.Join(l.bin, name) }

// save writes the lab's record.
func (l *Lab) save() error {
	b, err := json.Marshal(record{Bin: l.bin, Topology: l.Topology})
	if err != nil {
		return fmt.Errorf("save lab: %w", err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "lab.json"), b, 0o600); err != nil {
		return fmt.Errorf("save lab: %w", err)
	}
	return nil
}

// Readdress gives a node other addresses, at once and for the next start of its
// agent: one at most of a family, in its rack's subnets; families not named keep
// theirs.
func (l *Lab) Readdress(ctx context.Context, node string, to ...netip.Addr) error {
	unlock, err := lock(ctx, l.dir, true)
	if err != nil {
		return err
	}
	defer unlock()
	i := slices.IndexFunc(l.Topology.Nodes, func(n topology.Host) bool { return n.Name == node })
	if i < 0 {
		return fmt.Errorf("node %s: %w", node, ErrUnknown)
	}
	n := &l.Topology.Nodes[i]
	for _, a := range to {
		j := slices.IndexFunc(n.Addrs, func(p netip.Prefix) bool { return p.Masked().Contains(a) })
		if j < 0 {
			return fmt.Errorf("node %s: %s is in none of its rack's subnets", node, a)
		}
		n.Addrs[j] = netip.PrefixFrom(a, n.Addrs[j].Bits())
	}
	if err := fabric.Readdress(l.netnsDir(), *n); err != nil {
		return err
	}
	return l.save()
}

// lock keeps others from bringing the lab in the folder up or down meanwhile
// (shared), or from doing anything to it (exclusive). The lock ends with the
// process. It is ErrNotUp if there is no such folder.
func lock(ctx context.Context, dir string, exclusive bool) (unlock func(), err error) {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for {
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", ErrNotUp, filepath.Base(dir))
		}
		if err != nil {
			return nil, fmt.Errorf("lock lab: %w", err)
		}
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			if same(f, dir) {
				return func() { f.Close() }, nil
			}
			err = unix.EWOULDBLOCK // removed by who had it before us
		}
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock lab: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lab %s: another command is at work on it: %w", filepath.Base(dir), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// same says whether the open file is still what the path names.
func same(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// until calls f again and again until it returns nil, and gives up with f's last
// error when ctx is done.
func until(ctx context.Context, what string, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if fatal := (*finalError)(nil); errors.As(err, &fatal) {
			return fmt.Errorf("%s: %w", what, fatal.err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// finalError is an error that trying again can't help.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }
