package cni

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/kernel"
)

// wantError checks the code of a failure and what is in its message.
func wantError(t *testing.T, err error, code uint, parts ...string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		t.Fatalf("error = %v (%T), want a CNI error of code %d", err, err, code)
	}
	if e.Code != code {
		t.Errorf("code = %d (%s), want %d", e.Code, e.Msg, code)
	}
	for _, part := range parts {
		if !strings.Contains(e.Msg, part) {
			t.Errorf("message = %q, want %q in it", e.Msg, part)
		}
	}
	if strings.ContainsRune(e.Msg, '\n') {
		t.Errorf("message %q is not one line", e.Msg)
	}
}

// nothingLeft checks that no link, no address and no note is left.
func (b *bench) nothingLeft(t *testing.T) {
	t.Helper()
	if got := b.links(); len(got) > 0 {
		t.Errorf("links left: %v", got)
	}
	if got := b.agent.held(); len(got) > 0 {
		t.Errorf("addresses left: %v", got)
	}
	if got := b.notes(t); len(got) > 0 {
		t.Errorf("notes left: %v", got)
	}
}

func TestAdd(t *testing.T) {
	const routes4, routes6 = `{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}`, `{"dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee"}`
	const ip4, ip6 = `"address": "10.9.0.1/32", "gateway": "169.254.1.1", "interface": 1`, `"address": "fd00:9::1/128", "gateway": "fe80::ecee:eeff:feee:eeee", "interface": 1`
	links := func(mtu string) string {
		return `"interfaces": [{"name": "LINK", "mac": "ee:ee:ee:ee:ee:ee"` + mtu + `}, {"name": "eth0", "mac": "02:00:00:00:00:01"` + mtu + `, "sandbox": "NETNS"}]`
	}
	for name, row := range map[string]struct {
		conf map[string]any
		want string
	}{
		"1.1.0":        {nil, `{"cniVersion": "1.1.0", ` + links(`, "mtu": 1450`) + `, "ips": [{` + ip4 + `}, {` + ip6 + `}], "routes": [` + routes4 + `, ` + routes6 + `]}`},
		"1.0.0":        {map[string]any{"cniVersion": "1.0.0"}, `{"cniVersion": "1.0.0", ` + links(`, "mtu": 1450`) + `, "ips": [{` + ip4 + `}, {` + ip6 + `}], "routes": [` + routes4 + `, ` + routes6 + `]}`},
		"0.4.0":        {map[string]any{"cniVersion": "0.4.0"}, `{"cniVersion": "0.4.0", ` + links("") + `, "ips": [{"version": "4", ` + ip4 + `}, {"version": "6", ` + ip6 + `}], "routes": [` + routes4 + `, ` + routes6 + `], "dns": {}}`},
		"0.3.1":        {map[string]any{"cniVersion": "0.3.1"}, `{"cniVersion": "0.3.1", ` + links("") + `, "ips": [{"version": "4", ` + ip4 + `}, {"version": "6", ` + ip6 + `}], "routes": [` + routes4 + `, ` + routes6 + `], "dns": {}}`},
		"IPv4 alone":   {map[string]any{"ipam": map[string]any{"assign_ipv4": "true"}}, `{"cniVersion": "1.1.0", ` + links(`, "mtu": 1450`) + `, "ips": [{` + ip4 + `}], "routes": [` + routes4 + `]}`},
		"IPv6 alone":   {map[string]any{"ipam": map[string]any{"assign_ipv4": "false"}}, `{"cniVersion": "1.1.0", ` + links(`, "mtu": 1450`) + `, "ips": [{` + ip6 + `}], "routes": [` + routes6 + `]}`},
		"own MTU, DNS": {map[string]any{"mtu": 1300, "dns": map[string]any{"domain": "a"}}, `{"cniVersion": "1.1.0", ` + links(`, "mtu": 1300`) + `, "ips": [{` + ip4 + `}, {` + ip6 + `}], "routes": [` + routes4 + `, ` + routes6 + `], "dns": {"domain": "a"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.agent.start(t)
			for k, v := range row.conf {
				b.conf[k] = v
			}
			args := b.args(t, "c1", "web")
			if err := b.plugin.Funcs(t.Context()).Add(args); err != nil {
				t.Fatal(err)
			}
			link := kernel.PodLink("default", "web", "eth0")
			var want, got any
			text := strings.NewReplacer("LINK", link, "NETNS", args.Netns).Replace(row.want)
			if err := json.Unmarshal([]byte(text), &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b.out.Bytes(), &got); err != nil {
				t.Fatalf("result %q: %v", b.out, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{link: "c1"}, b.links()); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"ADD", "READY"}, b.agent.verbs()); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAddAsks shows what the agent is told.
func TestAddAsks(t *testing.T) {
	b := newBench(t)
	b.agent.start(t)
	b.conf["ipam"] = map[string]any{"assign_ipv6": true, "ipv4_pools": []string{"blue"}, "ipv6_pools": []string{"fd00::/48"}}
	b.conf["args"] = map[string]any{"cni": map[string]any{
		"labels": []map[string]string{{"key": "app", "value": "web"}}, "serviceAccount": "web",
		"ports": []map[string]any{{"name": "http", "protocol": "TCP", "port": 8080}},
	}}
	args := b.args(t, "c1", "web")
	if err := b.plugin.Funcs(t.Context()).Add(args); err != nil {
		t.Fatal(err)
	}
	want := protocol.Request{
		Verb: "ADD", ContainerID: "c1", Interface: "eth0", Netns: args.Netns, Namespace: "default", Pod: "web", Network: "net",
		Labels: map[string]string{"app": "web"}, IPv4: true, IPv6: true, Pools: []string{"blue", "fd00::/48"},
		ServiceAccount: "web", Ports: []protocol.Port{{Name: "http", Protocol: "TCP", Port: 8080}},
	}
	if diff := cmp.Diff(want, b.agent.asked[0]); diff != "" {
		t.Errorf("ADD (-want +got):\n%s", diff)
	}
	want.Verb, want.Labels, want.IPv4, want.IPv6, want.Pools = "READY", nil, false, false, nil
	want.ServiceAccount, want.Ports = "", nil
	if diff := cmp.Diff(want, b.agent.asked[1]); diff != "" {
		t.Errorf("READY (-want +got):\n%s", diff)
	}
}

func TestAddAgain(t *testing.T) {
	b := newBench(t)
	b.agent.start(t)
	args := b.args(t, "c1", "web")
	if err := b.plugin.Funcs(t.Context()).Add(args); err != nil {
		t.Fatal(err)
	}
	first := b.out.String()
	b.out.Reset()
	if err := b.plugin.Funcs(t.Context()).Add(args); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, b.out.String()); diff != "" {
		t.Errorf("the second ADD's result differs (-first +second):\n%s", diff)
	}
}

// TestAddFails lets each step fail: the code is right, and nothing is left.
func TestAddFails(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(*testing.T, *bench)
		code  uint
		part  string
	}{
		"no address free":   {func(t *testing.T, b *bench) { b.agent.failOn("ADD", protocol.CodeExhausted) }, 11, "add pod default/web (container c1): get addresses: because"},
		"bad pool":          {func(t *testing.T, b *bench) { b.agent.failOn("ADD", protocol.CodeInvalid) }, 7, "because"},
		"not ready":         {func(t *testing.T, b *bench) { b.agent.failOn("ADD", protocol.CodeUnavailable) }, 11, "because"},
		"agent's fault":     {func(t *testing.T, b *bench) { b.agent.failOn("ADD", protocol.CodeInternal) }, 999, "because"},
		"link":              {func(t *testing.T, b *bench) { b.kernel.Fail("attach", "c1", syscall.EPERM) }, 999, "make the link: attach " + kernel.PodLink("default", "web", "eth0") + ": operation not permitted"},
		"routes in time":    {func(t *testing.T, b *bench) { b.agent.failOn("READY", protocol.CodeTimeout) }, 11, "wait for the routes: because"},
		"routes":            {func(t *testing.T, b *bench) { b.agent.failOn("READY", protocol.CodeInternal) }, 999, "wait for the routes: because"},
		"agent forgot":      {func(t *testing.T, b *bench) { b.agent.failOn("READY", protocol.CodeUnknown) }, 3, "wait for the routes: because"},
		"result":            {func(t *testing.T, b *bench) { b.plugin.out = brokenPipe{} }, 999, "print the result: broken pipe"},
		"not the first":     {func(t *testing.T, b *bench) { b.conf["prevResult"] = map[string]any{"cniVersion": "1.1.0"} }, 7, "must be the first plug-in of the list"},
		"unknown key":       {func(t *testing.T, b *bench) { b.conf["mut"] = 1400 }, 7, "mut: unknown key"},
		"agent lost at ADD": {func(t *testing.T, b *bench) { b.hang(t, "ADD") }, 11, "get addresses: wait for the agent's answer to ADD: context deadline exceeded"},
		"agent hangs":       {func(t *testing.T, b *bench) { b.hang(t, "READY") }, 11, "wait for the routes: wait for the agent's answer to READY: context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.agent.start(t)
			b.conf["timeout"], b.conf["connect_timeout"] = "300ms", "50ms"
			row.spoil(t, b)
			err := b.plugin.Funcs(t.Context()).Add(b.args(t, "c1", "web"))
			wantError(t, err, row.code, row.part)
			b.nothingLeft(t)
			if b.out.Len() > 0 {
				t.Errorf("a result of a failure: %s", b.out)
			}
		})
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// hang lets the agent take a verb and not answer it before the test ends.
func (b *bench) hang(t *testing.T, verb string) {
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	b.agent.behave(func(_ context.Context, req protocol.Request) *protocol.Response {
		if req.Verb != verb {
			return nil
		}
		<-end
		return refuse(protocol.CodeTimeout, "too late")
	})
}

func TestAddWithoutAgent(t *testing.T) {
	b := newBench(t)
	b.conf["connect_timeout"] = "20ms"
	err := b.plugin.Funcs(t.Context()).Add(b.args(t, "c1", "web"))
	wantError(t, err, 11, "add pod default/web (container c1): get addresses: no agent listens at "+b.agent.socket+": no such file or directory")
	var e *types.Error
	if errors.As(err, &e); !strings.Contains(e.Details, "Look at its log") {
		t.Errorf("details = %q", e.Details)
	}
	b.nothingLeft(t)
}

// TestAddWaitsForAgent starts the agent only after the plug-in has begun to ask.
func TestAddWaitsForAgent(t *testing.T) {
	b := newBench(t)
	result := make(chan error)
	args := b.args(t, "c1", "web")
	go func() { result <- b.plugin.Funcs(t.Context()).Add(args) }()
	b.agent.start(t)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestAgentRestarts stops the agent while it carries out a verb, and starts it
// again: the ADD goes on where it was.
func TestAgentRestarts(t *testing.T) {
	for _, verb := range []string{"ADD", "READY"} {
		t.Run(verb, func(t *testing.T) {
			b := newBench(t)
			reached, once := make(chan struct{}), sync.Once{}
			b.agent.behave(func(ctx context.Context, req protocol.Request) *protocol.Response {
				first := false
				if req.Verb == verb {
					once.Do(func() { first = true })
				}
				if !first {
					return nil
				}
				close(reached)
				<-ctx.Done()
				return refuse(protocol.CodeTimeout, "cut short")
			})
			stop := b.agent.start(t)
			result := make(chan error)
			args := b.args(t, "c1", "web")
			go func() { result <- b.plugin.Funcs(t.Context()).Add(args) }()
			<-reached
			stop()
			b.agent.start(t)
			if err := <-result; err != nil {
				t.Fatal(err)
			}
			if got := b.agent.held(); len(got) != 1 {
				t.Errorf("addresses given: %v", got)
			}
		})
	}
}

// TestAgentGoesAway lets the agent die after it gave addresses, for good: the ADD
// fails, its link is gone, and the agent's successor finds a note.
func TestAgentGoesAway(t *testing.T) {
	b := newBench(t)
	b.conf["timeout"] = "200ms"
	reached := make(chan struct{})
	b.agent.behave(func(ctx context.Context, req protocol.Request) *protocol.Response {
		if req.Verb != "READY" {
			return nil
		}
		close(reached)
		<-ctx.Done()
		return refuse(protocol.CodeTimeout, "cut short")
	})
	stop := b.agent.start(t)
	result := make(chan error)
	args := b.args(t, "c1", "web")
	go func() { result <- b.plugin.Funcs(t.Context()).Add(args) }()
	<-reached
	stop()
	wantError(t, <-result, 11, "wait for the routes: no agent listens")
	if got := b.links(); len(got) > 0 {
		t.Errorf("links left: %v", got)
	}
	if diff := cmp.Diff([]string{"c1-eth0.json"}, b.notes(t)); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

// TestUndoFails keeps the address of a link that can't be removed.
func TestUndoFails(t *testing.T) {
	b := newBench(t)
	b.agent.start(t)
	b.agent.failOn("READY", protocol.CodeInternal)
	b.kernel.Fail("detach", "c1", syscall.EBUSY)
	err := b.plugin.Funcs(t.Context()).Add(b.args(t, "c1", "web"))
	wantError(t, err, 999, "wait for the routes: because (and undoing it failed: remove the link: ", "device or resource busy")
	if len(b.agent.held()) != 1 || len(b.links()) != 1 {
		t.Errorf("the link %v should be there, and its address %v held", b.links(), b.agent.held())
	}
}

// TestAddInterrupted ends the context, as a signal does, in the middle of an ADD.
func TestAddInterrupted(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.agent.behave(func(reqCtx context.Context, req protocol.Request) *protocol.Response {
		if req.Verb == "READY" {
			cancel()
			<-reqCtx.Done()
		}
		return nil
	})
	b.agent.start(t)
	wantError(t, b.plugin.Funcs(ctx).Add(b.args(t, "c1", "web")), 11, "canceled")
	b.nothingLeft(t)
}

func TestBadNetns(t *testing.T) {
	for name, row := range map[string]struct{ path, part string }{
		"missing":        {"/nowhere/netns", "network namespace of the pod: stat /nowhere/netns: no such file or directory"},
		"the host's own": {"/proc/thread-self/ns/net", "/proc/thread-self/ns/net is the host's own"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.agent.start(t)
			args := b.args(t, "c1", "web")
			args.Netns = row.path
			wantError(t, b.plugin.Funcs(t.Context()).Add(args), 8, row.part)
			if asked := b.agent.verbs(); len(asked) > 0 {
				t.Errorf("the agent was asked %v", asked)
			}
			b.nothingLeft(t)
		})
	}
}
