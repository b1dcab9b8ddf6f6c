package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn.network/cairn/lab"
)

// TestKillDuringChange kills an agent at all sorts of moments after a pool's mode
// was changed, and starts it again: packets must travel as the pool says in the end.
func TestKillDuringChange(t *testing.T) {
	l := up(t, `
racks:
- {name: r1, subnets: [10.101.1.0/24, "fd00:101:1::/64"], nodes: [n1]}
- {name: r2, subnets: [10.101.2.0/24, "fd00:101:2::/64"], nodes: [n2]}
`)
	for _, node := range []string{"n1", "n2"} {
		if _, err := l.AddPod(t.Context(), lab.Pod{Namespace: "default", Name: node, Node: node}); err != nil {
			t.Fatal(err)
		}
	}
	modes := []string{"CrossSubnet", "Never", "Always"}
	for i, after := range []time.Duration{0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144} {
		after *= time.Millisecond
		mode, node := modes[i%len(modes)], []string{"n1", "n2"}[i/len(modes)%2]
		t.Run(fmt.Sprintf("%s, %s killed after %s", mode, node, after), func(t *testing.T) {
			setMode(t, l, mode)
			time.Sleep(after) // the moment is what is tested
			if err := l.Kill(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			if err := l.Start(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			settled(t, l)
		})
	}
}

// setMode sets the VXLAN mode of the default pools.
func setMode(t *testing.T, l *lab.Lab, mode string) {
	t.Helper()
	cmd, err := l.Ctl(t.Context(), "", "apply", "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`
{apiVersion: cairn.network/v1, kind: IPPool, metadata: {name: default-ipv4}, spec: {cidr: 10.244.0.0/16, vxlanMode: %[1]s}}
---
{apiVersion: cairn.network/v1, kind: IPPool, metadata: {name: default-ipv6}, spec: {cidr: "fd00:10:244::/48", vxlanMode: %[1]s}}
`, mode))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
}

// settled fails unless everyone soon reaches everyone, and packets travel as the
// pools say.
func settled(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err := l.Check(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.CheckEncap(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if len(m.Failed()) > 0 {
		_ = m.Write(&text) // to memory
	}
	if len(r.Failed()) > 0 {
		_ = r.Write(&text)
	}
	if text.Len() > 0 {
		t.Fatal(text.String())
	}
}
