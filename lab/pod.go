package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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

	"k8s.io/apimachinery/pkg/util/validation"

	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/process"
)

// Pod is a namespace with a server in it (probe.Serve), attached to a node by
// the CNI plug-in.
type Pod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Node      string            `json:"node"`
	Labels    map[string]string `json:"labels,omitempty"`
	// ServiceAccount is the name of its service account; empty: none.
	ServiceAccount string `json:"serviceAccount,omitempty"`
	// Ports are those that it has names for; its server answers on them too.
	Ports []Port `json:"ports,omitempty"`
	// Eager is what a process in it tries to reach from before it is attached, as
	// PROTOCOL:ADDRESS:PORT.
	Eager       []string `json:"eager,omitempty"`
	Pools       []string `json:"pools,omitempty"` // names of those to take its addresses from; empty: any
	ContainerID string   `json:"containerID"`
	Netns       string   `json:"netns"` // path of the file that holds the namespace
	// Addrs are its addresses, IPv4 first; none while the pod is being attached.
	Addrs []netip.Addr `json:"addrs,omitempty"`
	// Attached is when the plug-in's ADD returned.
	Attached time.Time `json:"attached,omitzero"`
}

func (p Pod) String() string { return p.Namespace + "/" + p.Name }

func (l *Lab) podsDir() string { return filepath.Join(l.dir, "pods") }

// podFile returns the path of one of a pod's files. A dot can't be in the name
// of a Kubernetes namespace, nor in a host's name.
func (l *Lab) podFile(namespace, name, ext string) string {
	return filepath.Join(l.podsDir(), namespace+"."+name+ext)
}

// Pod returns the pod of that name.
func (l *Lab) Pod(namespace, name string) (Pod, error) {
	b, err := os.ReadFile(l.podFile(namespace, name, ".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Pod{}, fmt.Errorf("pod %s/%s: %w", namespace, name, ErrUnknown)
	}
	if err != nil {
		return Pod{}, fmt.Errorf("read pod: %w", err)
	}
	var p Pod
	if err := json.Unmarshal(b, &p); err != nil {
		return Pod{}, fmt.Errorf("read pod %s/%s: %w", namespace, name, err)
	}
	return p, nil
}

// Pods returns all pods, by namespace and name.
func (l *Lab) Pods() ([]Pod, error) {
	paths, err := filepath.Glob(filepath.Join(l.podsDir(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var pods []Pod
	for _, path := range paths {
		namespace, name, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), ".json"), ".")
		p, err := l.Pod(namespace, name)
		if errors.Is(err, ErrUnknown) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(a.String(), b.String()) })
	return pods, nil
}

// AddPod makes a pod (Namespace, Name, Node, and Labels, ServiceAccount, Ports, Pools and
// Eager if wanted, are given), attaches it by the CNI plug-in, starts its server, and
// returns it complete. On failure nothing is left.
func (l *Lab) AddPod(ctx context.Context, p Pod) (Pod, error) {
	for what, name := range map[string]string{"namespace": p.Namespace, "name": p.Name} {
		if msgs := validation.IsDNS1123Label(name); len(msgs) > 0 {
			return p, fmt.Errorf("add pod: %s %q: %s", what, name, msgs[0])
		}
	}
	for _, text := range p.Eager {
		if _, err := parseEager(text); err != nil {
			return p, fmt.Errorf("add pod %s: %w", p, err)
		}
	}
	if _, ok := l.Topology.Node(p.Node); !ok {
		return p, fmt.Errorf("add pod %s: node %s: %w", p, p.Node, ErrUnknown)
	}
	unlock, err := lock(ctx, l.dir, false)
	if err != nil {
		return p, err
	}
	defer unlock()
	p.ContainerID = newContainerID()
	p.Netns = filepath.Join(l.netnsDir(), p.Namespace+"."+p.Name)
	if err := l.savePod(p, true); errors.Is(err, fs.ErrExist) {
		return p, fmt.Errorf("pod %s exists already", p)
	} else if err != nil {
		return p, err
	}
	if err := l.bringUpPod(ctx, &p); err != nil {
		return p, errors.Join(fmt.Errorf("add pod %s: %w", p, err), l.removePod(context.WithoutCancel(ctx), p))
	}
	return p, nil
}

func (l *Lab) bringUpPod(ctx context.Context, p *Pod) error {
	if err := netns.New(p.Netns, fabric.Prepare); err != nil {
		return err
	}
	if err := l.startEager(ctx, *p); err != nil {
		return err
	}
	var err error
	if p.Addrs, err = l.attach(ctx, *p); err != nil {
		return err
	}
	p.Attached = time.Now()
	server, err := process.Start(process.Spec{
		Path: l.program("cairn-lab"), Args: []string{CommandPodServer, "--ports", p.serverPorts()}, Env: l.environ(p.String()),
		Mark: l.dir, Netns: p.Netns, Log: l.podFile(p.Namespace, p.Name, ".log"),
	})
	if err != nil {
		return err
	}
	if err := server.Save(l.podFile(p.Namespace, p.Name, ".pid")); err != nil {
		return err
	}
	return l.savePod(*p, false)
}

// RemovePod detaches a pod by the CNI plug-in and ends it. Whatever fails, the
// rest is done.
func (l *Lab) RemovePod(ctx context.Context, namespace, name string) error {
	unlock, err := lock(ctx, l.dir, false)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := l.Pod(namespace, name)
	if err != nil {
		return err
	}
	if err := l.removePod(ctx, p); err != nil {
		return fmt.Errorf("remove pod %s: %w", p, err)
	}
	return nil
}

// removePod does it in the order of a container runtime: first the processes,
// then the network, then the namespace.
func (l *Lab) removePod(ctx context.Context, p Pod) error {
	server, err := process.Load(l.podFile(p.Namespace, p.Name, ".pid"))
	errs := []error{err, server.Stop(ctx, time.Second), l.killEager(ctx, p), l.detach(ctx, p), netns.Delete(p.Netns)}
	for _, ext := range []string{".pid", ".log", ".eager.pid", ".eager.log", ".eager", ".json"} { // the record last: it is what a second try needs
		if err := os.Remove(l.podFile(p.Namespace, p.Name, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// savePod writes a pod's record. A new one must be the first of its name.
func (l *Lab) savePod(p Pod, isNew bool) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("save pod %s: %w", p, err)
	}
	// Never half a file: a reader may come at any time.
	path := l.podFile(p.Namespace, p.Name, ".json")
	tmp := path + "." + p.ContainerID
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("save pod %s: %w", p, err)
	}
	if !isNew {
		if err := os.Rename(tmp, path); err != nil {
			return fmt.Errorf("save pod %s: %w", p, err)
		}
		return nil
	}
	if err := errors.Join(os.Link(tmp, path), os.Remove(tmp)); err != nil {
		return fmt.Errorf("save pod %s: %w", p, err)
	}
	return nil
}

// newContainerID returns an ID as container runtimes give them.
func newContainerID() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
