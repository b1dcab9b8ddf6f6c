package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.network/cairn/lab/probe"
	"cairn.network/cairn/lab/process"
)

// Eager is what became of the exchanges that a pod tried from before it had an address.
type Eager struct {
	To string `json:"to"` // as given to AddPod
	probe.Tally
}

// eagerPatience bounds how long an eager client takes to end: its last exchange, and
// writing what came of it.
const eagerPatience = 10 * time.Second

// parseEager reads PROTOCOL:ADDRESS:PORT, or icmp:ADDRESS.
func parseEager(text string) (probe.Exchange, error) {
	proto, where, _ := strings.Cut(text, ":")
	e, err := probe.ParseExchange(proto, where)
	if err != nil {
		return e, fmt.Errorf("eager %q: %w", text, err)
	}
	return e, nil
}

// startEager starts a pod's eager client, if it shall have one, and returns when it
// has begun to try.
func (l *Lab) startEager(ctx context.Context, p Pod) error {
	if len(p.Eager) == 0 {
		return nil
	}
	results := l.podFile(p.Namespace, p.Name, ".eager")
	args := append([]string{CommandEagerClient, "--results", results}, p.Eager...)
	client, err := process.Start(process.Spec{
		Path: l.program("cairn-lab"), Args: args, Env: l.environ(p.String()),
		Mark: l.dir, Netns: p.Netns, Log: l.podFile(p.Namespace, p.Name, ".eager.log"),
	})
	if err != nil {
		return err
	}
	if err := client.Save(l.podFile(p.Namespace, p.Name, ".eager.pid")); err != nil {
		return err
	}
	return until(ctx, "wait for the eager client", func(context.Context) error {
		_, err := os.Stat(results)
		if err != nil && !client.Alive() {
			return &finalError{errors.New(lastLines(l.podFile(p.Namespace, p.Name, ".eager.log"), 3))}
		}
		return err
	})
}

// killEager ends a pod's eager client, whose results nobody wants any more.
func (l *Lab) killEager(ctx context.Context, p Pod) error {
	client, err := process.Load(l.podFile(p.Namespace, p.Name, ".eager.pid"))
	if err != nil {
		return err
	}
	return client.Kill(ctx)
}

// Eager ends a pod's eager client, and returns what became of its exchanges. It may be
// asked again.
func (l *Lab) Eager(ctx context.Context, namespace, name string) ([]Eager, error) {
	p, err := l.Pod(namespace, name)
	if err != nil {
		return nil, err
	}
	if len(p.Eager) == 0 {
		return nil, fmt.Errorf("pod %s was not added with something to try", p)
	}
	client, err := process.Load(l.podFile(namespace, name, ".eager.pid"))
	if err != nil {
		return nil, err
	}
	if err := client.Stop(ctx, eagerPatience); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(l.podFile(namespace, name, ".eager"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return nil, fmt.Errorf("the eager client of pod %s has ended: %s", p, lastLines(l.podFile(namespace, name, ".eager.log"), 3))
	}
	if err != nil {
		return nil, fmt.Errorf("read eager results: %w", err)
	}
	var all []Eager
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("read eager results of pod %s: %w", p, err)
	}
	return all, nil
}

// RunEager tries all these at once from the calling process's namespace, from before it
// has an address, until ctx is done, and writes what became of them to the file. Once
// it tries, the file is there, and empty.
func RunEager(ctx context.Context, results string, to ...string) error {
	all := make([]Eager, len(to))
	var group errgroup.Group
	for i, text := range to {
		e, err := parseEager(text)
		if err != nil {
			return err
		}
		group.Go(func() error {
			all[i] = Eager{To: text, Tally: e.Eager(ctx)}
			return nil
		})
	}
	if err := os.WriteFile(results, nil, 0o600); err != nil {
		return fmt.Errorf("write eager results: %w", err)
	}
	_ = group.Wait() // none fails
	b, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("write eager results: %w", err)
	}
	if err := os.WriteFile(results, b, 0o600); err != nil {
		return fmt.Errorf("write eager results: %w", err)
	}
	return nil
}
