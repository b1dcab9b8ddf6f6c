package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	v1 "cairn.network/cairn/api/v1"
)

// WaitReported returns when the status that every agent keeps in the datastore,
// a little behind, says the same as the agents themselves do: ready, every
// session Established, and its pods.
func (l *Lab) WaitReported(ctx context.Context) error {
	pods, err := l.Pods()
	if err != nil {
		return err
	}
	want := map[string]int{}
	for _, n := range l.Topology.Nodes {
		want[n.Name] = 0
	}
	for _, p := range pods {
		want[p.Node]++
	}
	return until(ctx, "wait for the nodes' status", func(ctx context.Context) error {
		reported, err := l.reported(ctx)
		if err != nil {
			return err
		}
		for node, pods := range want {
			s, ok := reported[node]
			if !ok {
				return fmt.Errorf("node %s has not reported yet", node)
			}
			if err := l.established(&s); err != nil {
				return fmt.Errorf("node %s reports: %w", node, err)
			}
			if err := condition(&s, v1.ConditionReady); err != nil {
				return fmt.Errorf("node %s reports: %w", node, err)
			}
			if s.Status.Pods != pods {
				return fmt.Errorf("node %s reports %d pods, not %d", node, s.Status.Pods, pods)
			}
		}
		return nil
	})
}

// reported returns what the datastore has of the nodes' status, by node.
func (l *Lab) reported(ctx context.Context) (map[string]v1.NodeStatus, error) {
	objects, err := l.objects(ctx, "nodestatuses")
	if err != nil {
		return nil, err
	}
	byNode := map[string]v1.NodeStatus{}
	for _, o := range objects {
		s := o.(*v1.NodeStatus)
		byNode[s.Name] = *s
	}
	return byNode, nil
}

// objects returns what the datastore has of these kinds.
func (l *Lab) objects(ctx context.Context, kinds ...string) ([]v1.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	cmd, err := l.Ctl(ctx, "", "get", strings.Join(kinds, ","), "-o", "json")
	if err != nil {
		return nil, err
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	objects, err := v1.Decode([]byte(out.String()))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", strings.Join(kinds, ", "), err)
	}
	return objects, nil
}

// answerTime is how long the datastore has to answer.
const answerTime = 5 * time.Second
